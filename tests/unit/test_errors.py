"""Test Kling's codes and the envelope."""

import json

import pytest
from kling_relay.errors import KlingError, _table, bad_parameter, envelope

OFFICIAL = {
    401: [1000, 1001, 1002, 1003, 1004],
    429: [1100, 1101, 1102, 1302, 1303, 1304],
    403: [1103],
    400: [1200, 1201, 1300, 1301],
    404: [1202, 1203],
    500: [5000],
    503: [5001],
    504: [5002],
}


def test_the_table_is_the_official_one() -> None:
    assert {code: row["http"] for code, row in _table().items()} == {
        code: http for http, codes in OFFICIAL.items() for code in codes
    }
    assert not any("resource pack exhausted" in row["message"] for row in _table().values())


@pytest.mark.parametrize("code", sorted(_table()))
def test_an_error_has_a_status_and_words(code: int) -> None:
    error = KlingError(code)
    assert (error.http, error.message) == (_table()[code]["http"], _table()[code]["message"])
    assert error.message
    assert KlingError(code, "mine").message == "mine"


def test_exceptions_to_the_table() -> None:
    error = KlingError(1201, "too large", http=413, retry_after=5)
    assert (error.code, error.http, error.retry_after, str(error)) == (1201, 413, 5, "1201 too large")
    assert KlingError(4711).http == 500
    assert KlingError(4711).message


def test_a_bad_parameter_names_its_field() -> None:
    error = bad_parameter("mode", "one of a, b")
    assert (error.code, error.http, error.message) == (1201, 400, "mode: one of a, b")


@pytest.mark.parametrize("data", [[], {}, {"task_id": "1"}, [{}]])
def test_the_envelope(data: object) -> None:
    body = envelope("r", data=data)
    assert json.loads(json.dumps(body)) == {"code": 0, "message": "SUCCEED", "request_id": "r", "data": data}
    assert envelope("r", code=1203, message="gone") == {"code": 1203, "message": "gone", "request_id": "r"}
