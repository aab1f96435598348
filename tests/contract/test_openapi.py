"""Test docs/openapi.yaml against the template's routes, the schemas of request.py and the error codes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator
from kling_relay.api import request
from kling_relay.errors import _table

from local.stack.deploy_template import load_template
from scripts import build_openapi

Document = dict[str, Any]

DOCUMENT: Document = yaml.safe_load(build_openapi.SOURCE.read_text())
METHODS = ("get", "post", "delete")
OPERATIONS = {
    (method, path): item[method] for path, item in DOCUMENT["paths"].items() for method in METHODS & item.keys()
}
BODIES = {
    path.rpartition("/")[2]: operation["requestBody"]["content"]["application/json"]
    for (method, path), operation in OPERATIONS.items()
    if method == "post" and path.startswith("/v1/videos/")
}
KINDS = ("image2video", "multi-image2video", "text2video", "omni-video")

# The documentation does not describe itself.
OWN_ROUTES = {("GET", "/docs"), ("GET", "/docs/{file}")}
# The same pattern, as Python writes it and as JSON Schema (ECMA 262) does.
PATTERNS = {r"^(?i:https?)://[^\s/][^\s]*\Z": r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/][^\s]*$"}
SAYS_NOTHING = {"title", "description", "default", "examples"}  # what a schema tells people, not validators


def walk(node: Any, place: str = "#") -> Iterator[tuple[str, Any]]:
    """Every node of the document with its place."""
    yield place, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from walk(child, f"{place}/{key}")


def resolved(ref: str, root: Document) -> Any:
    node: Any = root
    for step in ref.removeprefix("#/").split("/"):
        node = node[step]
    return node


def meaning(schema: Any, root: Document) -> Any:
    """What a schema demands, in one form: references followed, words for people and null (which is "absent") gone."""
    if "$ref" in schema:
        return meaning({**resolved(schema["$ref"], root), **{k: v for k, v in schema.items() if k != "$ref"}}, root)
    if "anyOf" in schema:
        options = [meaning(option, root) for option in schema["anyOf"] if option != {"type": "null"}]
        return options[0] if len(options) == 1 else {"anyOf": sorted(options, key=json.dumps)}
    if "enum" in schema:
        return {"enum": sorted(schema["enum"])}
    kept = {key: value for key, value in schema.items() if key not in SAYS_NOTHING}
    if "pattern" in kept:
        kept["pattern"] = PATTERNS.get(kept["pattern"], kept["pattern"])
    if "items" in kept:
        kept["items"] = meaning(kept["items"], root)
    if kept.get("type") == "object":
        kept["properties"] = {name: meaning(field, root) for name, field in kept["properties"].items()}
        kept["required"] = sorted(kept.get("required", []))
    return kept


def test_it_is_the_source_of_what_is_served() -> None:
    assert build_openapi.SERVED.read_text() == build_openapi.as_json(), "run `make openapi`"


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert set(DOCUMENT) == {"openapi", "info", "servers", "security", "tags", "paths", "components"}
    assert {"title", "version", "description"} <= set(DOCUMENT["info"])
    for name, schema in DOCUMENT["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert re.fullmatch(r"[A-Za-z0-9]+", name)
    for place, node in walk(DOCUMENT):
        if isinstance(node, dict) and "$ref" in node:
            assert resolved(node["$ref"], DOCUMENT), place
            assert "/schema" in place or set(node) == {"$ref"}, place  # only schemas may say more beside a reference
        if place.endswith("/pattern"):
            re.compile(node)


def test_operations_are_whole() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert all(name in schemes for need in DOCUMENT["security"] for name in need)
    for (method, path), operation in OPERATIONS.items():
        assert operation["summary"] and operation["description"] and set(operation["tags"]) <= tags
        given = [*DOCUMENT["paths"][path].get("parameters", []), *operation.get("parameters", [])]
        given = [resolved(one["$ref"], DOCUMENT) if "$ref" in one else one for one in given]
        assert {one["name"] for one in given if one["in"] == "path"} == set(re.findall(r"{(\w+)}", path)), path
        assert all(one["description"] and one["schema"] for one in given)
        assert ("requestBody" in operation) == (method == "post")


def test_every_answer_comes_in_the_envelope_and_errors_are_complete() -> None:
    for (method, path), operation in OPERATIONS.items():
        assert "200" in operation["responses"]
        for status, answer in operation["responses"].items():
            answer = resolved(answer["$ref"], DOCUMENT) if "$ref" in answer else answer
            assert answer["description"]
            schema = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert (schema == "ErrorAnswer") == (status != "200"), (method, path, status)
        expected = {"200", "404", "429", "500"} | (set() if path.startswith("/hooks/") else {"401", "403", "503"})
        assert expected <= set(operation["responses"]), (method, path)
        if method == "post":
            assert "413" in operation["responses"], path


def test_every_example_is_what_its_schema_says() -> None:
    checked = 0
    for place, node in walk(DOCUMENT):
        if not isinstance(node, dict) or "schema" not in node:
            continue
        validator = Draft202012Validator({**node["schema"], "components": DOCUMENT["components"]})
        values = [one["value"] for one in node.get("examples", {}).values()]
        for value in [*values, *([node["example"]] if "example" in node else [])]:
            assert not list(validator.iter_errors(value)), place
            checked += 1
    for place, schema in walk(DOCUMENT["components"]["schemas"]):
        if isinstance(schema, dict) and isinstance(schema.get("examples"), list):
            validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
            assert all(validator.is_valid(value) for value in schema["examples"]), place
            checked += 1
    assert checked > 30


# ------------------------------------------------------------------------------------------------------------- routes


def described_routes() -> set[tuple[str, str]]:
    """Every operation under every server that it has, as the template writes paths."""
    routes = set()
    for method, path in OPERATIONS:
        general = re.sub(rf"^/v1/videos/({'|'.join(KINDS)})$", "/v1/videos/{kind}", path)
        for server in DOCUMENT["paths"][path].get("servers", DOCUMENT["servers"]):
            routes.add((method.upper(), server["url"].removeprefix("https://your-api.example") + general))
    return routes


def test_what_is_routed_is_described_and_the_other_way_round() -> None:
    routed = set()
    for resource in load_template()["Resources"].values():
        for event in resource.get("Properties", {}).get("Events", {}).values():
            if event["Type"] == "Api":
                routed.add((event["Properties"]["Method"], event["Properties"]["Path"]))
    assert described_routes() == routed - OWN_ROUTES


def test_every_kind_is_created_and_listed() -> None:
    assert tuple(BODIES) == KINDS
    assert {path for method, path in OPERATIONS if method == "get" and re.fullmatch("/v1/videos/[^/]+", path)} == {
        f"/v1/videos/{kind}" for kind in KINDS
    }
    assert DOCUMENT["components"]["parameters"]["Kind"]["schema"]["enum"] == list(KINDS)
    page = {name: DOCUMENT["components"]["parameters"][name]["schema"] for name in ("PageNum", "PageSize")}
    assert page["PageNum"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1}
    assert page["PageSize"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 30}


# ----------------------------------------------------------------------------------------------------------- requests


def test_kinds_are_those_of_the_code() -> None:
    assert set(KINDS) == set(request.KINDS)


@pytest.mark.parametrize("kind", request.KINDS)
def test_fields_limits_and_choices_are_those_of_the_code(kind: str) -> None:
    (code,), parts = msgspec.json.schema_components([request.KINDS[kind]], ref_template="#/{name}")
    assert meaning(BODIES[kind]["schema"], DOCUMENT) == meaning(code, parts)


def test_a_difference_is_found() -> None:
    root = {"A": {"type": "object", "properties": {"x": {"type": "string", "maxLength": 3}}, "required": ["x"]}}
    same = {"type": "object", "required": ["x"], "properties": {"x": {"$ref": "#/Text", "description": "x"}}}
    text = {"Text": {"type": "string", "maxLength": 3, "examples": ["a"]}}
    assert meaning({"$ref": "#/A"}, root) == meaning(same, text)
    for other in ({"type": "string"}, {"type": "string", "maxLength": 4}, {"enum": ["a"]}, {"type": "integer"}):
        assert meaning({"$ref": "#/A"}, root) != meaning(same, {"Text": other})
    assert meaning({"$ref": "#/A"}, root) != meaning({**same, "required": []}, text)


EXAMPLES = [
    pytest.param(kind, example["value"], id=f"{kind}-{name}")
    for kind, body in BODIES.items()
    for name, example in body["examples"].items()
    if kind in request.KINDS
]


@pytest.mark.parametrize(("kind", "body"), EXAMPLES)
def test_examples_are_accepted_as_they_stand(kind: str, body: Document) -> None:
    accepted = request.parse(kind, json.dumps(body).encode())
    own = {"callback_url": accepted.callback_url, "external_task_id": accepted.external_task_id}
    assert accepted.body | {name: value for name, value in own.items() if value} == body


# ------------------------------------------------------------------------------------------------------------- errors


def test_every_code_is_in_the_table_with_its_status() -> None:
    table = re.findall(r"^\| (\d{3}) \| (\d{4}) \| .+ \| .+ \|$", DOCUMENT["info"]["description"], re.MULTILINE)
    assert {(int(status), int(code)) for status, code in table} == {
        (row["http"], code) for code, row in _table().items()
    }
    assert len(table) == len(_table())
    assert DOCUMENT["components"]["schemas"]["ErrorAnswer"]["properties"]["code"]["enum"] == sorted(_table())


def test_every_code_is_named_with_the_answer_that_it_comes_in() -> None:
    for status, name in {"400": "BadRequest", "401": "Unauthorised", "403": "Forbidden", "429": "TooMany"}.items():
        text = DOCUMENT["components"]["responses"][name]["description"]
        said = [
            range(int(first), int(last or first) + 1) for first, last in re.findall(r"(\d{4})(?: to (\d{4}))?", text)
        ]
        codes = {code for one in said for code in one}
        assert codes == {code for code, row in _table().items() if str(row["http"]) == status}
