"""Test that a copy's name follows its video: for lists in any order, with and without ids, none is lost or doubled.

Document: Kling gives each video an `id`. Captures: relays answer with a bare URL, and hosts sign URLs in the query.
Guess: lists change their order, ids repeat, or appear and disappear between two answers.
"""

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kling_relay.provider import responses
from kling_relay.tasks.output_names import named, names

CDN = "https://cdn.example"


def out(file_id: str, path: str, query: str = "") -> dict[str, Any]:
    return {"id": file_id, "url": f"{CDN}/{path}{query}", "duration": "5"}


def of(*outputs: dict[str, Any], before: tuple[dict[str, Any], ...] | list[dict[str, Any]] = ()) -> list[str]:
    given = named(list(outputs), before)
    assert [{**one, "name": ""} for one in given] == [{**one, "name": ""} for one in outputs]
    assert names(given) == [one["name"] for one in given]
    return names(given)


def test_a_name_is_pinned_since_copies_in_buckets_bear_it() -> None:
    assert names([out("822953089593376815", "a.mp4")]) == ["d4c1c38428be213b"]
    assert names([out("0", "a.mp4", "?sign=1")]) == ["7038c58414524759"]


def test_a_name_does_not_know_its_place() -> None:
    a, b = out("id-a", "a"), out("id-b", "b")
    assert of(a, b) == of(b, a)[::-1] and len(set(of(a, b))) == 2
    assert of(a) == of(a, b)[:1]


def test_ids_win_over_addresses() -> None:
    """Each answer may name another host of the provider's network."""
    assert of(out("id-a", "a"), out("id-b", "b")) == of(out("id-a", "b"), out("id-b", "elsewhere"))


@pytest.mark.parametrize("numbers", [("0", "1"), ("1", "2"), ("10", "11")])
def test_a_number_is_a_place_and_no_id(numbers: tuple[str, str]) -> None:
    first = of(out(numbers[0], "a", "?sign=1"), out(numbers[1], "b", "?sign=1"))
    assert first == of(out(numbers[0], "b", "?sign=2"), out(numbers[1], "a", "#x"))[::-1]
    assert len(set(first)) == 2


def test_videos_without_ids_go_by_address_through_the_whole_reader() -> None:
    def answer(*urls: str) -> list[dict[str, Any]]:
        data = {"task_id": "7", "task_status": "succeed", "task_result": {"videos": [{"url": url} for url in urls]}}
        found = responses.read({"code": 0, "data": data})
        assert found is not None
        return list(found.videos)

    first = named(answer(f"{CDN}/a?1", f"{CDN}/b?1"), [])
    assert names(first) == names(named(answer(f"{CDN}/b?2", f"{CDN}/a?2"), first))[::-1]


def test_one_video_without_an_id_makes_all_go_by_address() -> None:
    a, b = out("id-a", "a"), out("1", "b")
    assert of(a, b) == of(out("0", "a"), out("1", "b"))


def test_ids_that_repeat_tell_nothing() -> None:
    """A relay may give each video the id of its task."""
    a, b = out("id-t", "a", "?1"), out("id-t", "b", "?1")
    first = of(a, b)
    assert len(set(first)) == 2
    again = of(out("id-t", "b", "?2"), out("id-t", "a", "?2"), before=named([a, b], []))
    assert again == first[::-1]


def test_videos_that_only_their_query_tells_apart_are_never_taken_for_each_other() -> None:
    before = named([out("0", "get", "?file=a&sign=1"), out("1", "get", "?file=b&sign=1")], [])
    assert len(set(names(before))) == 2
    again = of(out("0", "get", "?file=b&sign=2"), out("1", "get", "?file=a&sign=2"), before=before)
    assert len({*again, *names(before)}) == 4  # copied once more
    assert (
        of(out("0", "get", "?file=b&sign=1"), out("1", "get", "?file=a&sign=1"), before=before) == names(before)[::-1]
    )
    assert of(out("0", "get", "?file=a&sign=3"), before=before)[0] not in names(before)


def test_one_video_that_is_listed_twice_is_one() -> None:
    a = out("id-a", "a")
    assert len(set(of(a, a))) == 1


@pytest.mark.parametrize("turn", [False, True])
def test_ids_that_go_leave_the_names(turn: bool) -> None:
    before = named([out("id-a", "a", "?1"), out("id-b", "b", "?1")], [])
    later = [out("0", "b", "?2"), out("1", "a", "?2")] if turn else [out("0", "a", "?2"), out("1", "b", "?2")]
    kept = named(later, before)
    assert names(kept) == (names(before)[::-1] if turn else names(before))
    back = named([out("id-b", "b"), out("id-a", "a")], kept)  # and come again
    assert names(back) == names(before)[::-1]


def test_ids_that_come_leave_the_names() -> None:
    before = named([out("0", "a", "?1"), out("1", "b", "?1")], [])
    assert of(out("id-b", "b", "?2"), out("id-a", "a", "?2"), before=before) == names(before)[::-1]


def test_an_id_is_not_overruled_by_an_address() -> None:
    before = named([out("id-a", "a")], [])
    assert of(out("id-b", "a"), before=before) != names(before)
    assert of(out("id-a", "elsewhere"), out("1", "a"), before=before)[1] not in names(before)


def test_rows_of_an_older_version_bear_no_names() -> None:
    old = [out("id-a", "a"), out("id-b", "b")]
    assert names(old) == of(*old)
    assert of(out("1", "b"), out("0", "a"), before=old) == names(old)[::-1]


@pytest.mark.parametrize(
    "odd", [out("../../x", "a"), out("", ""), out("\ud800", "a"), {"id": "0", "url": "http://[", "duration": ""}]
)
def test_no_text_of_a_provider_gets_into_a_key(odd: dict[str, Any]) -> None:
    assert re.fullmatch("[0-9a-f]{16}", *of(odd))
    assert of(odd, before=[odd]) == of(odd)


VIDEOS = [("id-a", "a"), ("id-b", "b"), ("id-c", "c")]
MODES = ("ids", "none", "some", "same")


def listed(order: tuple[int, ...], mode: str, answer: int) -> list[dict[str, Any]]:
    """The three videos as one answer lists them. `mode`: whether they have their ids."""
    outputs = []
    for place, number in enumerate(order):
        file_id, path = VIDEOS[number]
        has_id = mode == "ids" or (mode == "some" and number != 1)
        given_id = "id-t" if mode == "same" else file_id if has_id else str(place)
        outputs.append(out(given_id, path, f"?sign={answer}"))
    return outputs


@given(
    st.lists(
        st.tuples(st.sampled_from(list(itertools.permutations(range(3)))), st.sampled_from(MODES)),
        min_size=1,
        max_size=5,
    )
)
def test_a_bucket_never_mixes_two_videos(answers: list[tuple[tuple[int, ...], str]]) -> None:
    """Answers in any order and form: what lies under a name is one video for good, and each list has all of them."""
    stored: dict[str, int] = {}
    before: list[dict[str, Any]] = []
    for number, (order, mode) in enumerate(answers):
        before = named(listed(order, mode, number), before)
        assert len({*names(before)}) == 3
        for name, video in zip(names(before), order, strict=True):
            assert stored.setdefault(name, video) == video
    if not any(mode == "same" for _, mode in answers):
        assert len(stored) == 3  # nothing was copied twice
