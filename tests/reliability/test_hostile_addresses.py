"""Test untrusted addresses, as image, as finished video, and in fetch itself.

No connection is ever opened to a non-public address, whatever the URL, the resolver or a redirect contains.
"""

import random
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kling_relay.api import preflight
from kling_relay.transfer import fetch
from kling_relay.transfer.fetch_error import FetchError
from kling_relay.transfer.s3_copy import ArchiveError, archive

from tests.reliability.campaign import Campaign
from tests.reliability.hostile_urls import CLASSES, EDGES, INSIDE, blocked
from tests.reliability.internet import NAMES, NEIGHBOURS, PUBLIC, Internet
from tests.support.loopback_servers import respond

pytestmark = pytest.mark.enable_socket

REFUSED = ("refused_url", "refused_address", "unresolved")
REDIRECTED_TO = ("special ranges", "schemes", "ports", "userinfo", "numbers", "ipv6", "names")
_ELSEWHERE = re.compile(r"[A-Za-z0-9+]+://[^/?#][!-~]*\Z")  # what does not stay on the host that redirects
REBIND = "rebind.example.com"


@pytest.fixture(autouse=True)
def _names_that_lead_inside(internet: Internet) -> None:
    internet.names |= INSIDE


def fetched(url: Any) -> str:
    """The class of error of a fetch, or "" for one that succeeded."""
    try:
        with fetch.open_url(url, max_bytes=1000, deadline_seconds=5) as download:
            while download.read():
                pass
    except FetchError as error:
        return error.reason
    return ""


def looked_at(url: Any) -> str:
    try:
        fetch.read_start(url, size=1000, deadline_seconds=5)
    except FetchError as error:
        return error.reason
    return ""


def archived(url: Any) -> str:
    with pytest.raises(ArchiveError) as caught:
        archive(None, bucket="videos", key="k", url=url, max_bytes=1000, deadline_seconds=5)
    return caught.value.reason


def _hostile(campaign: Campaign) -> Iterator[tuple[str, str]]:
    """Every edge of every special range, then all classes in turn."""
    yield from (("edges", edge) for edge in EDGES)
    classes = list(CLASSES)
    for number in range(campaign.size(1_000, 20_000)):
        yield classes[number % len(classes)], ""


def test_hostile_addresses(campaign: Campaign, internet: Internet) -> None:
    seen: set[str] = set()

    def attack(case: tuple[str, str], dice: random.Random) -> None:
        name, edge = case
        url = f"https://{edge}/v.mp4" if edge else CLASSES[name](dice)
        seen.add(url)
        reasons = (fetched(url), looked_at(url))
        assert reasons[0] == reasons[1] and reasons[0] in REFUSED, f"{url!r}: {reasons}"
        assert archived(url) in ("refused_address", "source_unreachable"), url
        assert preflight._probe(url, time.monotonic() + 5) is None
        assert internet.connected == [], f"{url!r} connected to {internet.connected}"

    campaign.run(_hostile(campaign), attack)
    campaign.figures["addresses"], campaign.figures["connections"] = len(seen), len(internet.connected)
    assert len(seen) >= 400


BENIGN = ["{}", "{}/", "{}:443/v.mp4", "{}/a%2Fb/c+d~e.mp4?sig=a%2Fb%3D%3D&next=http://127.0.0.1/@x", "{}/视频.mp4#t=1"]


def test_benign_addresses(campaign: Campaign, internet: Internet) -> None:
    """The other side: nothing that a person may have is refused."""
    hosts = [*PUBLIC, *NEIGHBOURS, *NAMES, "CDN.Example.COM", "bücher.example"]
    cases = [f"https://{form.format(host)}" for host in hosts for form in BENIGN]

    def visit(url: str, dice: random.Random) -> None:
        internet.forget()
        assert fetched(url) == "", url
        assert [port for _, port in internet.connected] == [443] and len(internet.looked_up) <= 1

    campaign.run(cases, visit)
    assert len(cases) >= 100


def _answers(dice: random.Random) -> list[str]:
    """What a resolver says that is in an attacker's hands: public, inside, or both."""
    public, inside = dice.sample(PUBLIC, dice.randrange(1, 4)), [blocked(dice) for _ in range(dice.randrange(1, 3))]
    answers = dice.choice([public, public, inside, public + inside])
    dice.shuffle(answers)
    return answers


def test_rebinding(campaign: Campaign, internet: Internet) -> None:
    """One script: what the resolver says, each time that it is asked, while the server redirects to its own name."""

    def play(number: int, dice: random.Random) -> None:
        internet.forget()
        script, redirects = [_answers(dice) for _ in range(8)], dice.randrange(4)
        answers = iter(script)
        internet.names[REBIND] = lambda: next(answers)

        def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
            left = int(path[1:])
            respond(connection, b"end") if left == 0 else respond(connection, status=302, Location=f"/{left - 1}")

        internet.handler = handler
        reached: list[tuple[str, int]] = []
        expected = "bad_response"  # too many redirects
        for hop in range(min(redirects, fetch.MAX_REDIRECTS) + 1):
            if any(answer not in PUBLIC for answer in script[hop]):
                expected = "refused_address"
                break
            reached.append((script[hop][0], 443))
            if hop == redirects:
                expected = ""
        assert fetched(f"https://{REBIND}/{redirects}") == expected, script
        assert internet.connected == reached, f"{script}: {internet.connected}"
        campaign.figures["refused" if expected else "fetched"] += 1

    campaign.run(range(campaign.size(50, 2_000)), play)
    assert campaign.figures["refused"] and campaign.figures["fetched"]


def _chain(dice: random.Random) -> tuple[list[str], int | None]:
    """The places that a server redirects to, one after the other; and the first of them that is hostile."""
    places: list[str] = []
    for hop in range(1, dice.randrange(2, 6)):
        good = [f"https://{name}/{hop}" for name in ("cdn.example.com", "other.example.com", PUBLIC[2])]
        places.append(
            dice.choice([*good, f"/{hop}", f"//other.example.com/{hop}", f"https://cdn.example.com:443/{hop}"])
        )
    if dice.random() < 0.75:
        at = dice.randrange(min(len(places), fetch.MAX_REDIRECTS))
        while not _ELSEWHERE.match(bad := CLASSES[dice.choice(REDIRECTED_TO)](dice)):
            pass
        return [*places[:at], bad], at
    return places, None


def test_redirect_chains(campaign: Campaign, internet: Internet) -> None:
    def follow(number: int, dice: random.Random) -> None:
        internet.forget()
        places, bad = _chain(dice)

        def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
            hop = int(path[1:])
            if hop == len(places):
                return respond(connection, b"end")
            return respond(connection, status=dice.choice([301, 302, 303, 307, 308]), Location=places[hop])

        internet.handler = handler
        reason = fetched("https://cdn.example.com/0")
        passes = bad is None and len(places) <= fetch.MAX_REDIRECTS
        assert (reason == "") is passes, f"{places}: {reason}"
        assert {address for address, _ in internet.connected} <= set(PUBLIC), f"{places}: {internet.connected}"
        assert {port for _, port in internet.connected} == {443}
        assert len(internet.connected) == (1 + bad if bad is not None else min(len(places), fetch.MAX_REDIRECTS) + 1)
        internet.forget()
        assert looked_at("https://cdn.example.com/0") == "status"
        assert len(internet.connected) == 1, "the look follows no redirect"
        campaign.figures["followed" if passes else "refused"] += 1

    campaign.run(range(campaign.size(50, 2_000)), follow)
    assert campaign.figures["followed"] and campaign.figures["refused"]
