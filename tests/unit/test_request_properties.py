"""Any body is taken with its meaning unchanged, or refused; and a refusal repeats nothing private."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.errors import KlingError
from kling_relay.request import KINDS, parse

from tests.unit.bodies import VALID

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=40)
NAMES = st.text(max_size=8)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
TRAPS = [10**4000, -(10**20), 1e308, "5\n", "x" * 3000, [[]] * 9, {"": {}}, "data:,", "http://", "\0"]
ODD = JSON | st.sampled_from(TRAPS)
FIELDS = sorted({field for schema in KINDS.values() for field in schema.__struct_fields__} | {"model"})


def only_refused(kind: str, raw: bytes) -> None:
    try:
        request = parse(kind, raw)
    except KlingError as error:
        assert 400 <= error.http < 500
        assert len(error.message) < 600
        error.message.encode()
    else:
        json.dumps(request.body).encode()


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(list(KINDS)), st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body(kind: str, raw: bytes) -> None:
    only_refused(kind, raw)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(list(KINDS)), st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=4), st.data())
def test_a_valid_body_with_changes(kind: str, changes: dict[str, Any], data: st.DataObject) -> None:
    body = json.loads(json.dumps(VALID[kind]))
    deep = data.draw(st.sampled_from(["image_list", "multi_prompt", "element_list"]))
    if deep in body:
        item = body[deep][0]
        item[data.draw(st.sampled_from([*item, "else"]))] = data.draw(ODD)
    only_refused(kind, json.dumps({**body, **changes}).encode())


CANARY = "Zebra-walks-into-a-bar"
SECRETS = [CANARY, [CANARY], {CANARY: CANARY}, CANARY * 200, f"https://a b/?sig={CANARY}", f"data:,{CANARY}"]
PLACES = [name for name in FIELDS if name not in ("mode", "duration", "sound", "aspect_ratio", "shot_type")]


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(list(KINDS)),
    st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=3),
    st.sampled_from(SECRETS),
    st.sampled_from(PLACES),
)
def test_nothing_of_a_prompt_or_an_image_is_repeated(kind: str, changes: Any, secret: Any, where: str) -> None:
    body = {**VALID[kind], **changes, where: secret}
    try:
        parse(kind, json.dumps(body).encode())
    except KlingError as error:
        assert "Zebra" not in error.message
