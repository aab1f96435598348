"""Test all routes × two tenants × all kinds of objects: no tenant sees data of another, nor that it exists.

The routes come from the function itself; a route without a row here fails.
"""

import json
from typing import Any

import pytest
from kling_relay.kinds.fields import KINDS

from tests.support.stack_in_memory import BODY, World, load, template
from tests.unit.api.test_create import b64, png
from tests.unit.api.test_delete import objects
from tests.unit.api.test_uploads import upload

pytestmark = pytest.mark.slow

TABLE_IN_MEMORY = True
OWNER, STRANGER = "acme", "umbrella"
MISSING = {"task": "f" * 32, "external": "no-such-order", "upload": f"s3://inputs/uploads/{OWNER}/{'0' * 32}.png"}
# Route -> what of a foreign object can be named there, and in which place.
NAMES_OBJECTS: dict[tuple[str, str], list[str]] = {
    ("POST", "/videos/<kind>"): ["image", "image_tail", "static_mask", "dynamic_masks", "image_list"],
    ("GET", "/videos/<kind>"): ["external_task_id"],
    ("GET", "/videos/<kind>/<reference>"): ["task", "external"],
    ("DELETE", "/videos/<kind>/<reference>"): ["task", "external"],
    ("POST", "/uploads"): [],
    ("GET", "/account/costs"): [],
}


def routes() -> list[tuple[str, str]]:
    """(method, path as written) of every route of task_api: each below the prefix that the resolver strips, too."""
    app = load("task_api").api._app
    known = [*app._static_routes, *app._dynamic_routes]
    return sorted({(route.method, prefix + route.path) for route in known for prefix in ("", *app._strip_prefixes)})


def bare(path: str) -> str:
    """A route's path without its prefix."""
    return path.removeprefix("/kling").removeprefix("/v1")


ROUTES = routes()


def test_every_route_has_a_row_and_stands_in_the_template() -> None:
    assert {(method, bare(path)) for method, path in ROUTES} == set(NAMES_OBJECTS)
    assert len(ROUTES) == 2 * len(NAMES_OBJECTS) + 2, "each under both prefixes, the costs with and without /v1"
    events = template()["Resources"]["TaskApiFunction"]["Properties"]["Events"].values()
    written = {(event["Properties"]["Method"], event["Properties"]["Path"]) for event in events}
    assert written == {(method, path.replace("<", "{").replace(">", "}")) for method, path in ROUTES}


@pytest.fixture
def owned(world: World) -> dict[str, str]:
    """One of everything that a tenant can have: tasks of both kinds, ended and waiting, inline images, an upload."""
    reference = upload(world, tenant=OWNER)
    body = {**BODY, "image": reference, "external_task_id": "order-1", "prompt": "canary-theirs"}
    task = world.until_closed(world.create(body, tenant=OWNER).id)
    listed = {"prompt": "canary-theirs", "image_list": [{"image": b64(png())}]}
    world.http("POST", "/v1/videos/multi-image2video", listed, authorization=world.key(OWNER))
    world.provider.submit_faults = ["no_room"]
    world.create({**BODY, "prompt": "canary-theirs", "external_task_id": "order-2"}, tenant=OWNER)
    world.key(STRANGER)  # made now, so that what is there can be compared before and after the stranger's requests
    return {"task": task.id, "external": "order-1", "upload": reference}


PAINTED = {**BODY, "model_name": "kling-v1"}  # takes an end frame and masks


def body_with(place: str, reference: str) -> tuple[str, dict[str, Any]]:
    """A request that names `reference` at `place`, and its kind."""
    points = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
    if place == "image_list":
        return "multi-image2video", {"prompt": "p", "image_list": [{"image": reference}]}
    if place == "dynamic_masks":
        return "image2video", {**PAINTED, "dynamic_masks": [{"mask": reference, "trajectories": points}]}
    return "image2video", {**PAINTED, place: reference}


def ask(
    world: World, method: str, path: str, place: str, named: dict[str, str], kind: str
) -> tuple[int, dict[str, Any]]:
    """The stranger's request to a route that names the object `named` at `place`."""
    body = None
    if (method, bare(path)) == ("POST", "/videos/<kind>"):
        kind, body = body_with(place, named["upload"])
    path = path.replace("<kind>", kind).replace("<reference>", named.get(place, ""))
    if place == "external_task_id":
        path += f"?external_task_id={named['external']}"
    return world.http(method, path, body, authorization=world.key(STRANGER))


CASES = [(method, path, place) for method, path in ROUTES for place in NAMES_OBJECTS.get((method, bare(path)), [])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "path", "place"), CASES)
def test_foreign_is_like_missing(
    world: World, owned: dict[str, str], method: str, path: str, place: str, kind: str
) -> None:
    before = everything(world)
    foreign = ask(world, method, path, place, owned, kind)
    assert foreign == ask(world, method, path, place, MISSING, kind)
    assert foreign[0] in (400, 404) and "data" not in foreign[1]
    assert everything(world) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_byte_of_it_is_in_any_answer(world: World, owned: dict[str, str], method: str, path: str, kind: str) -> None:
    theirs = {pk.partition("#")[2] for pk in everything(world)["rows"] if pk.startswith("task#")}
    paths = [path.replace("<kind>", kind).replace("<reference>", one) for one in theirs]
    text = json.dumps([world.http(method, one, BODY, authorization=world.key(STRANGER)) for one in paths])
    names = [*theirs, *owned.values(), "canary-theirs", "order-2", f"/{OWNER}/"]
    assert [name for name in names if name in text] == []


def everything(world: World) -> dict[str, Any]:
    """All rows but the keys, and the names of all objects."""
    rows = world.dynamodb.scan(TableName=world.table.rows.name, ConsistentRead=True)["Items"]
    kept = {row["pk"]["S"]: row for row in rows if not row["pk"]["S"].startswith("key#")}
    return {"rows": kept, "objects": sorted(objects(world, ""))}
