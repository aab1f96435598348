"""Test addresses on private, link-local or loopback hosts: they are refused before payment, in every field.

A provider on the internet cannot fetch from them. Reports: users send addresses of their own file servers.
"""

from dataclasses import replace
from typing import Any

import pytest
from kling_relay.transfer import ssrf_rules

from tests.support.fake_cloud import MemoryCloud
from tests.support.stack_in_memory import BODY, World

INTERNAL = [
    *("localhost", "LOCALHOST", "localhost.", "a.localhost", "nas", "nas.local", "files.home.arpa", "x.lan", "x.corp"),
    *("metadata.google.internal", "ip-10-0-0-1.ec2.internal", "10.0.0.1", "172.16.0.1", "192.168.1.10", "127.0.0.1"),
    *("169.254.169.254", "0.0.0.0", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4.5", "100.64.0.1"),
    *("%31%32%37.0.0.1", "１２７.0.0.1", "127。0。0。1", "local%68ost"),
    *("[::1]", "[::]", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]"),
]
PUBLIC = [
    *("images.example", "internal.example", "localhost.example", "8.8.8.8", "134744072", "bücher.example"),
    *("[2606:4700::1111]", "[::ffff:8.8.8.8]", "xn--bcher-kva.example", "my_files.example", "files.example."),
]


@pytest.mark.parametrize("host", INTERNAL)
def test_a_host_that_no_provider_reaches(host: str) -> None:
    for url in (f"http://{host}/a.png", f"https://user:word@{host}:8443/a.png?b=c"):
        with pytest.raises(ssrf_rules.AddressError):
            ssrf_rules.check_reachable(url)


@pytest.mark.parametrize("host", PUBLIC)
def test_a_host_on_the_internet(host: str) -> None:
    ssrf_rules.check_reachable(f"http://{host}/a.png")
    ssrf_rules.check_reachable(f"HTTPS://user@{host}:8443/a.png?b=http://10.0.0.1/")


def refused(world: World, kind: str, body: dict[str, Any]) -> str:
    status, answer = world.http("POST", f"/v1/videos/{kind}", body, authorization=world.key())
    assert (status, answer["code"]) == (400, 1201)
    assert world.tasks() == [] and world.provider.posts == []
    message: str = answer["message"]
    return message


URL = "http://192.168.1.10/a"
OMNI = {"prompt": "p", "aspect_ratio": "1:1"}


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("image2video", {"image": URL}, "image"),
        ("image2video", {"image_tail": URL}, "image_tail"),
        ("image2video", {**BODY, "model_name": "kling-v1", "static_mask": URL}, "static_mask"),
        ("multi-image2video", {"prompt": "p", "image_list": [{"image": URL}]}, "image_list[0].image"),
        ("omni-video", {**OMNI, "image_list": [{"image_url": URL}]}, "image_list[0].image_url"),
        ("omni-video", {"prompt": "p", "video_list": [{"video_url": URL}]}, "video_list[0].video_url"),
    ],
)
def test_every_field_with_an_address_is_checked(world: World, kind: str, body: dict[str, Any], field: str) -> None:
    message = refused(world, kind, body)
    assert message.startswith(f"{field}: must have a public host") and "192.168" not in message


@pytest.mark.parametrize("host", ["localhost", "nas.local", "metadata.google.internal", "intranet", "10.0.0.1"])
def test_so_is_the_callback_url(world: World, host: str) -> None:
    message = refused(world, "image2video", {**BODY, "callback_url": f"https://{host}/hook"})
    assert message.startswith("callback_url: must be an https:// URL with a public host")


def test_a_provider_on_this_network_reaches_its_neighbours() -> None:
    world = World(MemoryCloud())
    world.provider.profile = replace(world.provider.profile, base_url="http://127.0.0.1:9000")
    assert world.create({**BODY, "image": URL}).upstream_id
