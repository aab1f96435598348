"""Test the conclusions from an answer to the paid POST, or to a query.

Beliefs about the official host come from captures, the envelopes of relays from their documents. A relay's state behind
an error is unknown, so the outcome is in doubt.
"""

from typing import Any

import pytest
from kling_relay.provider.outcomes import (
    Accepted,
    Exists,
    Misconfigured,
    NotFound,
    Outcome,
    QueryFailed,
    Refused,
    Throttled,
    Unknown,
    classify_query,
    classify_submit,
)
from kling_relay.provider.profiles import profile

OURS = "0123456789abcdef0123456789abcdef"
TASK = {"task_id": "842250903629086785", "task_status": "submitted"}
OFFICIAL, RELAY = "kling", "cometapi"


def outcome(status: int, payload: Any, name: str = OFFICIAL) -> Outcome:
    return classify_submit(status, payload, profile(name), OURS)


@pytest.mark.parametrize("name", [OFFICIAL, RELAY])
@pytest.mark.parametrize(
    ("status", "payload"),
    [
        (429, {"code": 1303, "message": "parallel task over resource pack limit", "data": TASK}),
        (200, {"code": 1302, "message": "too fast", "data": TASK}),
        (200, {"code": 1102, "message": "no balance", "data": TASK}),
        (400, {"code": 0, "message": "SUCCEED", "data": TASK}),
        (422, {"code": "success", "data": TASK}),
        (400, {"task_id": "x", "task_status": "submitted"}),
        (404, {"code": 1203, "message": "?", "data": TASK}),
        (200, {"code": 1201, "message": "?", "data": TASK}),
        (403, {"code": 0, "data": TASK}),
        (308, {"data": TASK}),
        (503, {"code": 5001, "message": "maintenance", "data": TASK}),
        (401, {"code": 1002, "data": {"code": 0, "data": TASK}}),
        (400, {"code": 1201, "message": "?", "data": [{"id": "842250903629086785"}]}),
        (400, {"error": {"message": "?", "task": TASK}}),
        (400, [{"error": {"message": "?"}}, {"task_id": "842250903629086785"}]),
        (429, [{"data": TASK}]),
        (400, {"error": {"message": "?", "taskId": "842250903629086785"}}),
        (400, {"message": 'upstream: {"code":1303,"data":{"task_id":"842250903629086785"}}'}),
        (400, {"error": {"message": "task_id=task_7f3 was made, and its answer is lost"}}),
        (200, {"id": "req_1", "error": {"message": "upstream timed out", "type": "api_error"}}),
    ],
)
def test_an_error_that_names_a_task_is_in_doubt(status: int, payload: Any, name: str) -> None:
    assert isinstance(outcome(status, payload, name), Unknown)


@pytest.mark.parametrize("given", [0, True, None, "", "0", "null", "None", "undefined", [], {}])
def test_what_a_program_writes_for_no_id_names_none(given: Any) -> None:
    assert isinstance(outcome(429, {"code": 1303, "message": "full", "data": {"task_id": given}}), Throttled)
    assert isinstance(outcome(200, {"code": 0, "data": {"task_id": given}}), Unknown)


@pytest.mark.parametrize(
    "words",
    ["task_id is required", "external_task_id: order-1 is too long", "task_id: must be a text", "no task_ids 12"],
)
def test_words_about_ids_name_no_task(words: str) -> None:
    assert isinstance(outcome(400, {"code": 1201, "message": words}), Refused)


def test_an_error_that_is_null_is_none() -> None:
    assert isinstance(outcome(200, {"id": "task_1", "status": "queued", "error": None}), Accepted)


@pytest.mark.parametrize("code", [1102, 1201, 1301, 1302, 1303])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_with_a_code_proves_nothing(status: int, code: int) -> None:
    for name in (OFFICIAL, RELAY):
        assert isinstance(outcome(status, {"code": code, "message": "?"}, name), Unknown)


def test_maintenance_of_the_official_host_is_a_refusal_and_a_relays_is_doubt() -> None:
    said = {"code": 5001, "message": "Service temporarily unavailable", "request_id": "r"}
    official = outcome(503, said)
    assert isinstance(official, Throttled) and official.maintenance
    assert isinstance(outcome(503, said, RELAY), Unknown)
    assert isinstance(outcome(500, said), Unknown) and isinstance(outcome(503, None), Unknown)
    assert isinstance(outcome(503, {"code": 5002, "message": "?"}), Unknown)


@pytest.mark.parametrize(
    ("message", "name", "kind"),
    [
        (f"External_task_id {OURS} already exists", "kling", Exists),
        (f"External_task_id {OURS} already exists", "kling-aksk", Exists),
        (f"External_task_id {OURS} already exists", RELAY, Unknown),  # its word may be another account's
        ("External_task_id another already exists", "kling", Refused),
        (f"external_task_id: {OURS} is too long", "kling", Unknown),  # ours, and no word of a task: a look tells
        ("prompt is too long", "kling", Refused),
    ],
)
def test_a_duplicate_of_our_reference_proves_that_one_was_accepted(message: str, name: str, kind: type) -> None:
    assert isinstance(outcome(400, {"code": 1201, "message": message}, name), kind)


def test_another_code_with_our_reference_proves_nothing() -> None:
    assert not isinstance(outcome(400, {"code": 1200, "message": f"External_task_id {OURS} already exists"}), Exists)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_an_address_that_has_moved_took_nothing(status: int) -> None:
    for payload in (None, {}, {"code": 1303, "message": "?"}):
        assert isinstance(outcome(status, payload), Misconfigured)


@pytest.mark.parametrize("status", [300, 303, 304])
def test_other_redirects_are_doubt(status: int) -> None:
    assert isinstance(outcome(status, None), Unknown)


def test_an_unknown_id_of_the_official_host() -> None:
    answer = {"code": 1201, "message": f"Task not found by id/external id: {OURS}", "request_id": "r"}
    assert classify_query(400, answer) == NotFound()
    assert isinstance(classify_query(400, {"code": 1201, "message": "pageNum: too large"}), QueryFailed)
