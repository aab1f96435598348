"""Test names: the type of an object, the key of its result, and the round trip of any key."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kling_relay.security.keyring import Keyring
from kling_relay.tasks.s3_source import MAX_KEY_BYTES, Role, Source

from tests.support.image_files import jpeg
from tests.support.s3_inbox import Queue, drop, empty, result, task_of
from tests.support.stack_in_memory import Cloud, World

pytestmark = pytest.mark.slow

TABLE_IN_MEMORY = True
RING = Keyring({"k1": "a", "k2": "b"})
ODD = " +%&=?#@:;,$!'()[]{}<>|\\^~`\"*\n\t\r\x7fäßñ漢字😀\u0301\u202e%20%2B%00.."


def odd_keys(count: int, seed: int) -> list[str]:
    dice = random.Random(seed)
    plain = ["inbox/a b.jpg", "inbox/a+b.jpg", "inbox/a%20b.jpg", "inbox/a%2Bb.JPG", "inbox//double.jpg", "inbox/.jpg"]
    plain += [
        "inbox/a\nb.png",
        "inbox/ .jpeg",
        "inbox/../up.jpg",
        "inbox/ünï/😀.PNG",
        "inbox/a.jpg.jpg",
        "inbox/s3://x.jpg",
    ]
    plain += ["inbox/http://h/x.jpg", "inbox/data:x.jpg", "inbox/settings.jpg", "inbox/x.task.json.jpg"]
    plain += ["inbox/" + "x" * (MAX_KEY_BYTES - 10) + ".jpg", "inbox/" + "漢" * 338 + ".jpg"]
    while len(plain) < count:
        letters = [dice.choice(ODD + string.ascii_letters) for _ in range(dice.randint(1, 40))]
        key = f"inbox/{''.join(letters)}{len(plain)}.{dice.choice(['jpg', 'JPEG', 'png', 'Jpg'])}"
        plain.append(key)
    assert all(len(key.encode()) <= MAX_KEY_BYTES for key in plain)
    return plain


@pytest.mark.parametrize("part", range(3))
def test_300_nasty_keys_make_a_round_trip(cloud: Cloud, part: int) -> None:
    world = World(cloud, default_model_image2video="kling-v1-6")
    empty(world)
    world.services.admissions.stop(world.clock.now, "the provider is no part of this")
    queue = Queue(world)
    keys = odd_keys(300, seed=7)[part::3]
    dropped = {}
    for key in keys:
        try:
            dropped[key] = drop(world, key, jpeg())
        except Exception:  # an HTTP client or moto that cannot even send it: no business of ours
            continue
    assert len(dropped) >= len(keys) - 8, sorted(set(keys) - set(dropped))
    queue.put(*dropped.values())
    queue.run(random.Random(1))
    assert queue.dead == []
    for key, one in dropped.items():
        task = task_of(world, one)
        told = result(world, key)
        assert told["source"]["key"] == key and told["task_id"] == task.id
        assert told["task_status"] == "submitted" and task.request["image"] == {
            "s3": f"inputs/inbox/{task.id}/image.jpg"
        }
    assert len(world.tasks()) == len(dropped)


keys = st.text(st.characters(blacklist_categories=["Cs"]), max_size=1000).map(
    lambda text: "inbox/" + text.encode()[: MAX_KEY_BYTES - 6].decode(errors="ignore")
)
versions = st.text("abcDEF0123._-", min_size=1, max_size=32)
sources = st.builds(Source, st.just("b"), keys, versions, st.integers(0, 10_000))


@given(sources, st.booleans())
def test_a_result_has_a_key_that_s3_takes_and_no_input(source: Source, superseded: bool) -> None:
    key = source.result_key(superseded=superseded)
    assert len(key.encode()) <= MAX_KEY_BYTES and key.startswith("results/") and key.endswith(".json")


@given(sources, sources)
def test_other_sources_have_other_ids_and_places(one: Source, other: Source) -> None:
    assert (one == other) == (one.task_id(RING) == other.task_id(RING))
    if one.line == other.line == 0:
        assert (one.key == other.key) == (one.result_key() == other.result_key())


@given(sources)
def test_a_source_is_whole(source: Source) -> None:
    assert source.folder + source.name == source.key and Source(**source.as_dict()) == source
    assert len(source.task_id(RING)) == 32 == len(source.tag)


def test_an_id_is_this_stacks_alone_and_outlives_a_new_secret() -> None:
    source = Source("b", "inbox/a.jpg", "v")
    assert source.task_id(RING) == source.task_id(Keyring({"k1": "a"})) != source.task_id(Keyring({"k1": "b"}))


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *[(name, Role.IMAGE) for name in ("a.jpg", "a.JPG", "a.Jpeg", "a.png", ".png", "a.task.jpg", "a.json.jpg")],
        *[(name, Role.MANIFEST) for name in ("a.task.json", ".task.json", "settings.task.json")],
        *[(name, Role.LINES) for name in ("a.tasks.jsonl", ".tasks.jsonl")],
        *[(name, Role.SIDECAR) for name in ("a.json", "a.tasks.json", "Settings.json", ".json")],
        ("settings.json", Role.SETTINGS),
        *[
            (name, Role.UNKNOWN)
            for name in ("", "a", "a.gif", "a.jsonl", "a.TASK.JSON", "a.jpg ", "jpg", "a.task.jsonl")
        ],
    ],
)
def test_what_a_name_says(name: str, role: Role) -> None:
    assert Source("b", f"inbox/f/{name}", "v").role is role


def test_an_image_has_a_sidecar_that_is_no_folders_settings() -> None:
    assert Source("b", "inbox/f/a.b.jpg", "v").sidecar == "inbox/f/a.b.json"
    assert Source("b", "inbox/f/settings.jpg", "v").sidecar is None
