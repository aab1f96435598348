"""Test the parsing of every answer that was captured in public, and of any JSON."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.provider import responses
from kling_relay.provider.responses import ProviderTask
from kling_relay.transfer import ssrf_rules

CAPTURES = json.loads((Path(__file__).parents[2] / "fixtures" / "provider_answers.json").read_text())
KLING = "https://v16-kling-fdl.klingai.com/bs2/x/x.mp4?cacheKey=c&x-kcdn-pid=112781&ksSecret=s&ksTime=694fa816"


def usable(found: ProviderTask | None) -> bool:
    """What the relay takes for the end of a render."""
    return found is not None and found.status == "succeed" and bool(found.videos)


@pytest.mark.parametrize("name", CAPTURES)
def test_captured_answers(name: str) -> None:
    capture = CAPTURES[name]
    found = responses.read(capture["answer"])
    if capture["expected"] is None:
        assert found is None
        assert responses.error_code(capture["answer"]) == capture.get("code", 0)
    else:
        assert found is not None
        shown = {name: getattr(found, name) for name in capture["expected"]}
        assert json.loads(json.dumps(shown)) == capture["expected"]


def official(**data: object) -> dict[str, object]:
    return {"code": 0, "message": "SUCCEED", "data": {"task_id": "7", "task_status": "succeed", **data}}


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *((word, "submitted") for word in ("submitted", "QUEUED", "pending", "NOT_START")),
        *((word, "processing") for word in ("processing", "running", "IN_PROGRESS")),
        *((word, "succeed") for word in ("succeed", "Succeeded", "SUCCESS", "completed")),
        *((word, "failed") for word in ("failed", "FAILURE", "fail")),
        *(
            (word, None)
            for word in ("UNKNOWN", "", "succeed ", "succeeds", "done", "审核中", "0", 1, True, None, {}, ["succeed"])
        ),
    ],
)
def test_status_words(word: object, status: str | None) -> None:
    found = responses.read(official(task_status=word))
    assert found is not None
    assert found.status == status


@pytest.mark.parametrize(
    "result",
    [
        None,
        {},
        [],
        "https://a.b/c.mp4",
        {"videos": None},
        {"videos": []},
        {"videos": {}},
        {"videos": [None, 1, "x", [], {}]},
        {"videos": [{"id": "1"}, {"url": None}, {"url": ""}, {"url": 5}, {"url": {"url": "https://a.b/c"}}]},
        {"videos": [{"url": "ftp://a.b/c"}, {"url": "file:///etc/passwd"}, {"url": "//a.b/c"}, {"url": "HTTP"}]},
        {"videos": [{"url": "https://a.b/\ud800"}, {"url": "https://a.b/\n"}, {"url": "https://a.b/" + "x" * 9000}]},
        {"images": [{"url": "https://a.b/c.png"}]},
    ],
)
def test_success_without_a_url_is_not_usable(result: object) -> None:
    found = responses.read(official(task_result=result))
    assert found is not None
    assert found.status == "succeed"
    assert not usable(found)


@pytest.mark.parametrize(
    "data",
    [
        {"task_result": {"videos": KLING}},  # a relay that flattens a list of one: a guess, and no worse than a loss
        {"task_result": {"videos": {"url": KLING}}},
        {"task_result": {"videos": [KLING]}},
        {"task_result": [{"videos": [{"url": KLING}]}]},
        {"task_result": {"videos": []}, "url": [KLING]},
        {"task_result": {"videos": [{"url": ""}]}, "result_url": KLING},
        {"url": "", "video_url": KLING},
        {"url": "pending", "result_url": KLING},
        {"metadata": {"url": KLING}},
        {"fail_reason": KLING},  # new-api's model/task.go, older rows
        {"fail_reason": KLING, "data": None},
        {"fail_reason": "", "data": [{"code": 0, "data": [{"task_result": {"videos": [{"url": KLING}]}}]}]},
        {"url": f" {KLING} "},
    ],
)
def test_an_address_is_found_wherever_it_stands(data: dict[str, object]) -> None:
    for answer in ({"code": "success", "data": {"task_id": "7", "status": "SUCCESS", **data}}, official(**data)):
        found = responses.read(answer)
        assert found is not None and usable(found)
        assert found.videos == ({"id": "0", "url": KLING, "duration": ""},)


def test_a_failure_with_an_address_in_its_reason_is_a_failure() -> None:
    found = responses.read({"code": "success", "data": {"task_id": "7", "status": "FAILURE", "fail_reason": KLING}})
    assert found is not None and found.status == "failed" and found.message == KLING


def test_a_task_in_a_list_of_one_is_read_and_one_of_two_is_not() -> None:
    task = {"task_id": "7", "task_status": "succeed", "url": KLING}
    found = responses.read({"code": 0, "data": [task]})
    assert found is not None and usable(found) and found.upstream_id == "7"
    assert responses.read({"code": 0, "data": [task, task]}) is None


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("HTTPS://A.B/c.mp4", "HTTPS://A.B/c.mp4"),
        (
            "https://a.b/my cat/影.mp4?x=%20&Signature=a+b/==",
            "https://a.b/my%20cat/%E5%BD%B1.mp4?x=%20&Signature=a+b/==",
        ),
        ('https://a.b/"<c>|{d}.mp4', "https://a.b/%22%3Cc%3E%7C%7Bd%7D.mp4"),
        ("https://a.b?x y", "https://a.b?x%20y"),
    ],
)
def test_an_unescaped_address_is_escaped(given: str, url: str) -> None:
    videos = [{"url": given, "watermark_url": given}]
    found = responses.read(official(task_result={"videos": videos}))
    assert found is not None and usable(found)
    assert (found.videos[0]["url"], found.videos[0]["watermark_url"]) == (url, url)
    assert ssrf_rules.parse(url).host == "a.b"


def test_a_video_has_texts_only() -> None:
    videos = [{"id": 5, "url": KLING, "duration": 5.1, "watermark_url": KLING + "&w"}, {"url": KLING}]
    found = responses.read(official(task_result={"videos": videos}))
    assert found is not None
    assert found.videos == (
        {"id": "5", "url": KLING, "duration": "5.1", "watermark_url": KLING + "&w"},
        {"id": "1", "url": KLING, "duration": ""},
    )


def test_a_video_at_the_new_generation() -> None:
    outputs = [{"type": "image", "url": "https://a.b/i"}, {"type": "video", "id": "9", "url": KLING, "duration": 5}]
    found = responses.read(
        {"code": 0, "data": {"id": "9", "status": "succeeded", "external_id": "r", "outputs": outputs}}
    )
    assert found is not None
    assert usable(found)
    assert (found.upstream_id, found.reference) == ("9", "r")
    assert found.videos == ({"id": "9", "url": KLING, "duration": "5"},)


@pytest.mark.parametrize(
    ("units", "balance", "expected"),
    [
        ("1.5", {"quota": "0", "list_price": "0.21"}, ("1.5", None)),
        ("1.5", {"quota": "0.21"}, ("1.5", "0.21")),
        ("0", {"quota": "0.21", "list_price": "0.21"}, (None, "0.21")),
        ("0.00", {"quota": 0.21}, (None, "0.21")),
        (None, {"quota": "0.21"}, (None, "0.21")),
        ("0", {"quota": "0.000"}, ("0", None)),
        ("0", {"quota": ""}, ("0", None)),
        ("0", {"quota": "much"}, (None, "much")),
        ("free", {"quota": "0.21"}, ("free", "0.21")),
        ("0", {"quota": {}}, ("0", None)),
        ("0", {}, ("0", None)),
        ("0", "0.21", ("0", None)),
        (0, None, ("0", None)),
    ],
)
def test_no_units_are_read_beside_a_charge_in_cash(units: object, balance: object, expected: object) -> None:
    found = responses.read(official(final_unit_deduction=units, final_balance_deduction=balance))
    assert found is not None
    assert (found.units, found.cash) == expected


@pytest.mark.parametrize("given_id", [None, "", {}, [], ["7"], {"id": 1}, True])
def test_no_id_is_no_snapshot(given_id: object) -> None:
    assert responses.read(official(task_id=given_id)) is None


def test_what_is_kept_is_bounded_and_can_be_stored() -> None:
    long = "\ud83d" + "x" * 100_000
    videos = [{"id": long, "url": KLING, "duration": long}] * 1000
    found = responses.read(
        official(
            task_id=long,
            task_status=long,
            task_status_msg=long,
            final_unit_deduction=long,
            final_balance_deduction={"quota": long},
            task_info={"external_task_id": long},
            task_result={"videos": videos},
        )
    )
    assert found is not None
    assert len(json.dumps([getattr(found, name) for name in ProviderTask.__slots__]).encode()) < 20_000
    assert all(isinstance(text.encode(), bytes) for text in (found.upstream_id, found.message, found.word))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({}, 0),
        ({"code": 0}, 0),
        ({"code": "0"}, 0),
        ({"code": "SUCCESS"}, 0),
        ({"code": 1303}, 1303),
        ({"code": "1303"}, 1303),
        ({"code": "task_not_exist"}, "task_not_exist"),
        ({"code": None}, "unreadable"),
        ({"code": True}, "unreadable"),
        ({"code": 0.0}, "unreadable"),
        ({"code": [0]}, "unreadable"),
        ({"code": "9" * 5000}, "unreadable"),
        ({"code": 10**4000}, "unreadable"),
        ({"code": "the prompt, repeated"}, "unreadable"),
        ({"code": "half\ud800"}, "unreadable"),
    ],
)
def test_codes(answer: dict[str, object], code: object) -> None:
    assert responses.error_code(answer) == code


@pytest.mark.parametrize("said", ["a cat, looking up", "x" * 65, "sk-secret key", "\ud800"])
def test_a_status_that_is_no_word_is_not_repeated(said: str) -> None:
    """It is logged, and nobody knows what a provider may put there."""
    found = responses.read(official(task_status=said))
    assert found is not None
    assert (found.status, found.word) == (None, "unreadable")


NAMES = st.sampled_from(
    [
        "code",
        "data",
        "task_id",
        "id",
        "task_status",
        "status",
        "task_info",
        "external_task_id",
        "task_result",
        "videos",
        "url",
        "duration",
        "outputs",
        "type",
        "message",
        "error",
        "created_at",
        "final_unit_deduction",
        "final_balance_deduction",
        "quota",
        "fail_reason",
    ]
)
WORDS = st.sampled_from(["success", "succeed", "failed", KLING, 0])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | WORDS
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5))


@settings(deadline=None, max_examples=300)
@given(JSON)
@pytest.mark.slow
def test_any_json_is_read(answer: object) -> None:
    found = responses.read(answer)
    if isinstance(answer, dict):
        assert isinstance(responses.error_code(answer), int | str)
    if found is not None:
        assert found.upstream_id
        if found.status == "succeed":  # never without one of the four words
            assert found.word.lower() in ("succeed", "succeeded", "success", "completed")
        assert all(isinstance(text, str) for video in found.videos for text in video.values())


@settings(deadline=None, max_examples=300)
@given(st.text().filter(lambda word: word.lower() not in responses._STATUS_WORDS))
def test_an_unknown_word_is_never_an_end(word: str) -> None:
    found = responses.read(official(task_status=word, task_result={"videos": [{"url": KLING}]}))
    assert found is not None
    assert found.status is None


@settings(deadline=None, max_examples=300)
@given(JSON)
@pytest.mark.slow
def test_any_json_is_read_as_a_list_or_as_none(answer: object) -> None:
    page = responses.read_list(answer)
    entries = answer.get("data") if isinstance(answer, dict) else None
    if page is None:
        assert not isinstance(entries, list) or responses.error_code(answer) != 0
    else:
        assert isinstance(entries, list) and len(page[0]) + page[1] == len(entries)
        tasks = [responses.read(entry) for entry in entries]
        assert [one.upstream_id for one in page[0]] == [one.upstream_id for one in tasks if one is not None]


@pytest.mark.parametrize("data", [None, {}, "", 0, {"list": []}, "absent"])
def test_no_list_is_not_an_empty_one(data: object) -> None:
    assert responses.read_list({"code": 0, **({} if data == "absent" else {"data": data})}) is None
    assert responses.read_list({"code": 0, "data": []}) == ([], 0)
    assert responses.read_list({"code": 1201, "data": []}) is None
