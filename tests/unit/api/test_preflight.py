"""Test the check of image URLs before payment, over real sockets: provable faults are refused, all else passes.

Public names lead to servers on loopback, as in tests of fetch: every rule of the real fetch runs.
"""

# ruff: noqa: F811  (fixtures come from tests of fetch by their names)
import json
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from kling_relay.api import create, preflight, request
from kling_relay.clock import Clock
from kling_relay.errors import KlingError
from kling_relay.media import images
from kling_relay.provider.models import shipped
from kling_relay.transfer import fetch, pinned_connection

from tests.support.image_files import jpeg, png, segment, text
from tests.support.loopback_servers import respond
from tests.support.timed_servers import Deadlines
from tests.unit.transfer.fetch.conftest import authority, world  # noqa: F401
from tests.unit.transfer.fetch.internet import PUBLIC, World, silence

pytestmark = pytest.mark.enable_socket

URL = "https://cdn.example.com"
POINTS = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
FILES: dict[str, bytes] = {
    "/good.png": png(400, 400),
    "/good.jpg": jpeg(640, 400),
    "/large.png": png(400, 400, padding=300_000),
    "/other.png": png(500, 400),
    "/small.png": png(299, 400),
    "/wide.jpg": jpeg(1600, 400),
    "/image.gif": b"GIF89a" + bytes(200_000),
    "/page.html": b"<!doctype html><p>no image",
    "/cut.png": png()[:20],
    "/cut.jpg": jpeg()[:25],
    "/no-end.png": png()[:-1],
    "/no-end.jpg": jpeg()[:-1],
    "/late.jpg": jpeg(100, 100, before=segment(0xE1, bytes(65_000)) * 2),
    "/empty.png": b"",
}


@pytest.fixture
def seen(world: World) -> list[tuple[str, str | None]]:
    """A host with FILES that knows ranges; what it was asked for."""
    asked: list[tuple[str, str | None]] = []

    def serve(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        asked.append((path, headers.get("range")))
        body = FILES[path.partition("?")[0]]
        if path.endswith("?plain"):
            return respond(connection, body)
        part = body[:65536]
        return respond(connection, part, status=206, Content_Range=f"bytes 0-{len(part) - 1}/{len(body)}")

    world.stand(serve)
    return asked


def parse(kind: str = "image2video", **fields: Any) -> request.Request:
    return request.parse(kind, json.dumps(fields).encode())


def refusal(kind: str = "image2video", **fields: Any) -> str:
    with pytest.raises(KlingError) as caught:
        preflight.check(parse(kind, **fields))
    assert (caught.value.code, caught.value.http) == (1201, 400)
    assert "example.com" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("plain", ["", "?plain"])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("small.png", "both sides must have at least 300 px (got 299x400)"),
        ("wide.jpg", "the ratio of the sides must be between 1:2.5 and 2.5:1 (got 1600x400)"),
        ("image.gif", "must be a JPEG or PNG image (got GIF)"),
        ("page.html", "must be a JPEG or PNG image (got another format)"),
        ("cut.png", "must be a JPEG or PNG image (got another format)"),
        ("cut.jpg", "must be a complete JPEG image (got one that ends before its size)"),
        ("no-end.png", "must be a complete PNG image (got one without its end)"),
        ("no-end.jpg", "must be a complete JPEG image (got one without its end)"),
    ],
)
def test_what_is_seen_to_be_wrong_is_refused(name: str, problem: str, plain: str, seen: list[Any]) -> None:
    sent = f"; source: a URL of {len(URL) + 1 + len(name + plain)} characters"
    assert refusal(image=f"{URL}/{name}{plain}") == f"image: {problem}{sent}"
    assert seen == [(f"/{name}{plain}", "bytes=0-65535")]


@pytest.mark.parametrize("plain", ["", "?plain"])
@pytest.mark.parametrize("name", ["good.png", "good.jpg", "large.png", "late.jpg", "empty.png"])
def test_what_is_right_or_not_in_the_first_bytes_passes(name: str, plain: str, seen: list[Any]) -> None:
    preflight.check(parse(image=f"{URL}/{name}{plain}"))
    assert len(seen) == 1


def test_every_place_is_named(seen: list[Any]) -> None:
    bad, good = f"{URL}/small.png", f"{URL}/good.png"
    masks = [{"mask": good, "trajectories": POINTS}, {"mask": bad, "trajectories": POINTS}]
    assert refusal(image_tail=bad, image=good).startswith("image_tail: ")
    assert refusal(image=good, static_mask=bad).startswith("static_mask: ")
    assert refusal(image=good, dynamic_masks=masks).startswith("dynamic_masks[1].mask: ")
    listed = [{"image": good}, {"image": bad}]
    assert refusal("multi-image2video", prompt="p", image_list=listed).startswith("image_list[1].image: ")
    omni = [{"image_url": good}, {"image_url": bad}]
    assert refusal("omni-video", prompt="p", aspect_ratio="1:1", image_list=omni).startswith("image_list[1].image_url:")


def test_the_same_url_is_looked_at_once(seen: list[Any]) -> None:
    preflight.check(parse("multi-image2video", prompt="p", image_list=[{"image": f"{URL}/good.png"}] * 4))
    assert len(seen) == 1


def test_more_than_ten_megabytes_are_refused_by_their_announcement(world: World) -> None:
    span = f"bytes 0-65535/{images.MAX_BYTES + 1}"
    world.stand(lambda connection, *_: respond(connection, png(padding=70_000)[:65536], status=206, Content_Range=span))
    assert "at most 10 MB, 10485760 bytes (got 10485761)" in refusal(image=f"{URL}/x")


# -- what is not seen passes


def _hang_up(connection: socket.socket, *_: Any) -> None:
    connection.close()


def _truncated(connection: socket.socket, *_: Any) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nGIF89a")


BAD = png(9, 9)
SILENT = {
    "403": lambda connection, *_: respond(connection, BAD, status=403),
    "404": lambda connection, *_: respond(connection, BAD, status=404),
    "500": lambda connection, *_: respond(connection, BAD, status=500),
    "416": lambda connection, *_: respond(connection, BAD, status=416),
    "redirect": lambda connection, *_: respond(connection, BAD, status=302, Location="https://other.example.com/"),
    "redirect inside": lambda connection, *_: respond(connection, status=302, Location="http://169.254.169.254/"),
    "another range": lambda connection, *_: respond(connection, BAD, status=206, Content_Range="bytes 9-99/200"),
    "no range said": lambda connection, *_: respond(connection, BAD, status=206),
    "encoded": lambda connection, *_: respond(connection, BAD, Content_Encoding="gzip"),
    "hang up": _hang_up,
    "truncated": _truncated,
    "no http": lambda connection, *_: connection.sendall(b"220 ftp ready\r\n"),
}


@pytest.mark.parametrize("way", SILENT)
def test_a_host_that_shows_nothing_blocks_nothing(way: str, world: World) -> None:
    world.stand(SILENT[way])
    preflight.check(parse(image=f"{URL}/x.png"))
    assert world.dialled == [(PUBLIC, 443)]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x.png",  # in the local stack: not looked at, not refused
        "http://cdn.example.com/x.png",
        "https://localhost/x.png",
        "https://metadata.google.internal/x.png",
        "https://two-faced.example.com/x.png",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/x.png",
        "https://not-there.example.com/x.png",
        "https://user:secret@cdn.example.com/x.png",
    ],
)
def test_an_address_that_we_may_not_reach_is_not_looked_at(url: str, world: World) -> None:
    preflight.check(parse(image=url))
    assert world.dialled == []


def test_all_looks_are_under_way_at_once_and_share_their_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines, every = Deadlines(), threading.Barrier(8)
    monkeypatch.setattr(fetch, "Deadline", deadlines)
    monkeypatch.setattr(pinned_connection, "READ_SECONDS", 300)
    monkeypatch.setattr(preflight, "time", SimpleNamespace(monotonic=lambda: 7.0))

    def slow(connection: socket.socket, path: str, _: dict[str, str]) -> None:
        if path == "/drip":
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + png(9, 9)[:9])
        if every.wait(20) == 0:
            for number in range(8):
                deadlines.let_pass(number)
        silence(connection, path, _)

    world.stand(slow)
    masks = [{"mask": f"{URL}/mask{number}", "trajectories": POINTS} for number in range(6)]
    preflight.check(parse(image=f"{URL}/drip", static_mask=f"{URL}/static", dynamic_masks=masks))
    assert deadlines.passed == [True] * 8 and not every.broken
    assert deadlines.asked == pytest.approx([1.8] * 8)


def test_a_look_that_would_come_too_late_asks_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of a request are more than the looks that are under way at once: the last ones find no time left."""
    now = iter([0.0, 1.7, 1.8, 1.9])
    deadlines = Deadlines()
    monkeypatch.setattr(fetch, "Deadline", deadlines)
    monkeypatch.setattr(preflight, "_MAX_WORKERS", 1)
    monkeypatch.setattr(preflight, "time", SimpleNamespace(monotonic=lambda: next(now)))
    world.stand(lambda c, p, h: respond(c, png(400, 400)))
    masks = [{"mask": f"{URL}/mask{number}", "trajectories": POINTS} for number in range(2)]
    preflight.check(parse(image=f"{URL}/image", dynamic_masks=masks))
    assert deadlines.asked == pytest.approx([0.1])


# -- masks beside their image


@pytest.mark.parametrize(
    ("image", "masks", "message"),
    [
        (png(400, 400), [png(400, 400)], None),
        (png(400, 400), [jpeg(400, 400)], None),
        (png(400, 400), [png(800, 800)], "static_mask: must have the size of image, 400x400 px (got 800x800 px)"),
        (png(400, 400), [png(400, 400), png(400, 401)], "dynamic_masks[0].mask: must have the size of image, 400x400 "),
        (f"{URL}/good.png", [png(400, 400)], None),
        (f"{URL}/good.png", [png(500, 400)], "static_mask: must have the size of image, 400x400 px (got 500x400"),
        (f"{URL}/good.png", [f"{URL}/other.png"], "static_mask: must have the size of image, 400x400 px (got 500"),
        (f"{URL}/late.jpg", [png(400, 400), png(400, 400)], None),
        (f"{URL}/late.jpg", [png(400, 400), png(500, 400)], "dynamic_masks[0].mask: must have the size of static_mask"),
        (png(400, 400), [f"{URL}/late.jpg"], None),
    ],
)
def test_mask_and_image_are_alike(image: Any, masks: list[Any], message: str | None, seen: list[Any]) -> None:
    sent = [one if isinstance(one, str) else text(one) for one in (image, *masks)]
    fields: dict[str, Any] = {"image": sent[0], "static_mask": sent[1]}
    if len(sent) > 2:
        fields["dynamic_masks"] = [{"mask": sent[2], "trajectories": POINTS}]
    if message is None:
        preflight.check(parse(**fields))
    else:
        assert message in refusal(**fields)


def test_inline_images_alone_ask_nobody(world: World) -> None:
    preflight.check(parse(image=text(png(400, 400)), image_tail=text(png(900, 400))))
    assert world.lookups == []


def test_nothing_is_recorded_of_what_the_look_refuses(seen: list[Any]) -> None:
    base_url = "https://provider.example"
    profile = SimpleNamespace(default_model={"image2video": "kling-v3"}, refuses_retired=False, base_url=base_url)
    services: Any = SimpleNamespace(  # nothing that could record
        settings=SimpleNamespace(),
        catalogue=shipped(),
        provider=SimpleNamespace(profile=profile),
        table=SimpleNamespace(earlier=lambda *_: None),
        spending=SimpleNamespace(budget=lambda *_: None),
        clock=Clock(),
    )
    with pytest.raises(KlingError, match="299x400"):
        create.record(services, "acme", parse(image=f"{URL}/small.png"))
    with pytest.raises(KlingError, match="is not supported with"):
        create.record(services, "acme", parse(image=f"{URL}/good.png", static_mask=f"{URL}/good.png"))
