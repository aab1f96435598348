"""Test the hosts of a provider's videos: a list by profile, warned or enforced, at every hop but its own host."""

from dataclasses import replace
from typing import Any

import pytest
from kling_relay.lifecycle import archive
from kling_relay.tasks.task import Phase, Task
from kling_relay.transfer.fetch import open_url
from kling_relay.transfer.fetch_error import FetchError
from kling_relay.transfer.s3_copy import ArchiveError
from kling_relay.transfer.ssrf_rules import AddressError, is_below

from tests.support.loopback_servers import mp4, respond, serve
from tests.support.stack_in_memory import Cloud, World

IN_MEMORY = True
LISTED = ["klingai.com", "kling.ai"]


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("klingai.com", True),
        ("v16-kling-fdl.klingai.com", True),
        ("a.b.kling.ai", True),
        ("notklingai.com", False),
        ("klingai.com.evil.example", False),
        ("klingai.co", False),
        ("com", False),
        ("", False),
    ],
)
def test_a_name_stands_for_everything_below_it(host: str, listed: bool) -> None:
    assert is_below(host, LISTED) is listed


def check(world: World, host: str) -> list[Any]:
    """What was logged about a host; raises AddressError where it is denied."""
    logged: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive.logger, "warning", lambda *said, **more: logged.append((said, more)))
        archive._check_host(world.services, world.provider.profile, host)
    return logged


@pytest.mark.parametrize("mode", ["warn", "deny"])
def test_listed_hosts_and_the_providers_own_pass_in_silence(cloud: Cloud, mode: str) -> None:
    world = World(cloud, result_hosts=mode)
    world.provider.profile = replace(world.provider.profile, result_hosts=LISTED)
    assert [check(world, host) for host in ("x.klingai.com", "kling.ai", "provider.example")] == [[], [], []]
    assert not world.measured


def test_an_unlisted_host_is_told_of_by_default(world: World) -> None:
    told = {"extra": {"host": "cdn.example", "denied": False}}
    assert check(world, "cdn.example") == [(("result_host_not_listed",), told)]
    assert world.measured == {"ResultHostNotListed": 1}


def test_an_unlisted_host_is_denied_where_the_operator_says_so(cloud: Cloud) -> None:
    with pytest.raises(AddressError, match="refused_host"):
        check(World(cloud, result_hosts="deny"), "cdn.example")


def test_a_denied_copy_says_so_in_the_row_and_connects_nowhere(cloud: Cloud) -> None:
    """No socket is allowed in this test: a name that is denied is not even resolved."""
    world = World(cloud, result_hosts="deny")
    task = Task("t", "acme", "image2video", Phase.RENDERED, {}, 0, 0)
    task.outputs.append({"id": "a", "url": "https://cdn.example/v.mp4", "duration": "5"})
    with pytest.raises(ArchiveError, match="refused_host"):
        archive.copy_outputs(world.services, task, seconds=5)


@pytest.mark.enable_socket
def test_every_hop_is_checked_but_the_trusted_origin() -> None:
    checked: list[str] = []

    def deny(host: str) -> None:
        checked.append(host)
        raise AddressError("refused_host")

    def handler(connection: Any, path: str, headers: dict[str, str]) -> None:
        if path == "/away":
            return respond(connection, status=302, Location="https://cdn.example/v.mp4")
        return respond(connection, mp4())

    with serve(handler) as port:
        origin = f"http://127.0.0.1:{port}"
        limits: Any = {"max_bytes": 1 << 20, "deadline_seconds": 5, "trusted_origin": origin, "check_host": deny}
        with open_url(f"{origin}/v.mp4", **limits) as download:
            assert download.length == 3000
        assert checked == []
        with pytest.raises(FetchError, match="refused_host"), open_url(f"{origin}/away", **limits):
            pass
        assert checked == ["cdn.example"]
