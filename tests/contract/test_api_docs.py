"""Test the function of the documentation pages: its files, the requests it refuses, and the headers for browsers."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts import build_openapi
from tests.support import stack_in_memory

FOLDER = build_openapi.SERVED.parent
BASE = "https://relay.example/live"
VIEWER = ("swagger-ui-bundle.js", "swagger-ui.css", "page.js", "page.css")
SIX_MB = 6 * 1024 * 1024


@pytest.fixture(scope="module")
def app() -> Any:
    return stack_in_memory.load("api_docs")


@pytest.fixture(autouse=True)
def _base_url(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "get_services", lambda: SimpleNamespace(base_url=BASE))


def get(app: Any, file: str | None = None, *, path: str = "/docs", v: str | None = None) -> dict[str, Any]:
    event = json.loads((build_openapi.REPOSITORY / "events/api_docs.json").read_text())
    event |= {"path": path, "pathParameters": file and {"file": file}, "queryStringParameters": v and {"v": v}}
    context = SimpleNamespace(
        function_name="api_docs", memory_limit_in_mb=512, invoked_function_arn="x", aws_request_id="request-1"
    )
    answer: dict[str, Any] = app.handler(event, context)
    assert len(json.dumps(answer).encode()) < SIX_MB
    assert not answer.get("isBase64Encoded")
    return answer


def links(page: str) -> list[str]:
    return re.findall(r'(?:href|src|data-description)="(?!data:)([^"]*)"', page)


@pytest.mark.parametrize(("path", "here"), [("/docs", "docs/"), ("/docs/", "")])
def test_the_page_links_to_files_that_are_there(app: Any, path: str, here: str) -> None:
    answer = get(app, path=path)
    assert answer["statusCode"] == 200 and "{" not in answer["body"]
    found = set()
    for link in links(answer["body"]):
        assert link.startswith(here), "relative: the stage's name may stand in front of it"
        name, _, version = link.removeprefix(here).partition("?v=")
        found.add(name)
        got = get(app, name, v=version)
        assert got["statusCode"] == 200
        assert got["headers"]["Cache-Control"] == ("public, max-age=31536000, immutable" if version else "no-cache")
    assert found == {*VIEWER, "openapi.json"}


def test_another_version_is_not_kept(app: Any) -> None:
    for version in (None, "0123456789ab"):
        assert get(app, "page.js", v=version)["headers"]["Cache-Control"] == "no-cache"
    assert get(app)["headers"]["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (None, "text/html"),
        ("page.css", "text/css"),
        ("swagger-ui.css", "text/css"),
        ("page.js", "text/javascript"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("openapi.json", "application/json"),
        ("LICENSE.txt", "text/plain"),
        ("nothing.js", "application/json"),
    ],
)
def test_what_browsers_are_told(app: Any, file: str | None, kind: str) -> None:
    headers = get(app, file)["headers"]
    assert headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"] and "http" not in headers["Content-Security-Policy"]


def test_nothing_on_the_page_needs_more_than_that(app: Any) -> None:
    page = get(app)["body"]
    assert not re.search(r"<style|style=|\son\w+=|<script(?! src=)", page)


def test_the_description_names_this_api(app: Any) -> None:
    body = get(app, "openapi.json")["body"]
    assert "your-api.example" not in body
    document = json.loads(body)
    assert [server["url"] for server in document["servers"]] == [f"{BASE}/kling", BASE]
    text = build_openapi.as_json().replace("https://your-api.example", BASE)
    assert document == json.loads(text)


@pytest.mark.parametrize(
    "file",
    [
        "nothing.js",
        "app.py",
        "README.md",
        "../app.py",
        "..%2Fapp.py",
        "viewer/swagger-ui.css",
        "/etc/passwd",
        ".",
        "a\0b",
    ],
)
def test_other_names_are_not_found(app: Any, file: str) -> None:
    answer = get(app, file)
    assert answer["statusCode"] == 404
    assert json.loads(answer["body"]) == {
        "code": 1202,
        "message": "method or path not found",
        "request_id": "7f1c0f5e-0000-4000-8000-000000000003",
    }


def test_the_viewer_is_shipped_whole_and_small() -> None:
    files = {path.name: path for path in (FOLDER / "viewer").iterdir()}
    assert {"LICENSE.txt", "NOTICE.txt", "swagger-ui-bundle.js.LICENSE.txt"} < set(files)
    assert sum(path.stat().st_size for path in files.values()) < 2_000_000
    assert all("sourceMappingURL" not in path.read_text("utf-8") for path in files.values())
    style = files["swagger-ui.css"].read_text("utf-8")
    assert not re.search(r"@import|url\((?![\"']?data:)", style)


def test_the_note_names_the_version_that_is_shipped() -> None:
    (noted,) = re.findall(r"`swagger-ui-dist` ([\d.]+),", (FOLDER / "README.md").read_text())
    assert f'"{noted}"' in Path(FOLDER / "viewer/swagger-ui-bundle.js").read_text("utf-8")
