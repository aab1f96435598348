"""Test the delivered video over real sockets: api_gateway.py and cloudfront.py in front of the emulator's S3."""

import base64
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
import requests
from botocore.signers import CloudFrontSigner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kling_relay_cli.operators.delivery_key import new_pair
from local.emulator.process import Emulator
from local.stack import deploy_template
from local.stack.api_gateway import Front
from local.stack.cloudfront import Edge

TEMPLATE = deploy_template.load_template()["Resources"]
HEADERS = TEMPLATE["DeliveryHeaders"]["Properties"]["ResponseHeadersPolicyConfig"]
VIDEO = os.urandom(200_003)
KEY, SPACE = "videos/acme/t1/0.mp4", "videos/acme/t 2/é+.mp4"
PAIRS = {name: new_pair() for name in ("KA", "KB", "KGONE")}
PLAYER = "https://player.example"


class Delivery:
    """A running front, whose trusted keys and clock are the test's."""

    def __init__(self, emulator: Emulator) -> None:
        self.s3, self.now, self.trusted = emulator.client("s3"), 1_790_000_000.0, {"KA", "KB"}
        self.s3.create_bucket(Bucket="delivered")
        about = {"ContentType": "video/mp4", "CacheControl": "max-age=300", "ContentDisposition": "inline"}
        for key in (KEY, SPACE):
            self.s3.put_object(Bucket="delivered", Key=key, Body=VIDEO, **about)
        self.s3.put_object(Bucket="delivered", Key="videos/empty.mp4", Body=b"")
        self.front = Front(0, TEMPLATE["Api"]["Properties"]["GatewayResponses"])
        known = {name: public for name, (_, public) in PAIRS.items()}
        edge = Edge(
            *(
                self.front.url,
                self.s3,
                "delivered",
                lambda name: known[name] if name in self.trusted else None,
                HEADERS,
            ),
            now=lambda: self.now,
        )
        self.front.start("http://127.0.0.1:9", edge)
        self.session = requests.Session()
        self.session.trust_env = False

    def signed(self, key: str = KEY, *, by: str = "KA", expires: int = 1_790_000_300, claims: str = "") -> str:
        """As botocore signs it; `claims` another id than the key's own."""
        private: Any = serialization.load_pem_private_key(PAIRS[by][0].encode(), None)
        signer = CloudFrontSigner(claims or by, lambda message: private.sign(message, ec.ECDSA(SHA256())))
        until = datetime.fromtimestamp(expires, UTC)
        url = f"{self.front.url}/{quote(key)}"
        return f"{signer.generate_presigned_url(url, date_less_than=until)}&Hash-Algorithm=SHA256"

    def ask(self, url: str, method: str = "GET", **headers: str) -> requests.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.request(method, url, headers=sent, timeout=10, allow_redirects=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    with Emulator(log_path=tmp_path_factory.mktemp("emulator") / "log") as emulator:
        delivery = Delivery(emulator)
        yield delivery
        delivery.front.stop()


@pytest.fixture
def delivery(running: Delivery) -> Delivery:
    running.now, running.trusted = 1_790_000_000.0, {"KA", "KB"}
    return running


def refused(answer: requests.Response) -> tuple[int, str]:
    """Status and code of an error in XML."""
    assert answer.headers["Content-Type"] == "text/xml" and answer.text.startswith("<?xml ")
    return answer.status_code, answer.text.split("<Code>")[1].split("</Code>")[0]


@pytest.mark.parametrize("key", [KEY, SPACE])
def test_whoever_has_the_address_has_the_video(delivery: Delivery, key: str) -> None:
    answer = delivery.ask(delivery.signed(key))
    assert (answer.status_code, answer.content) == (200, VIDEO)
    told = {name: answer.headers[name] for name in ("Content-Type", "Cache-Control", "Accept-Ranges", "Content-Length")}
    assert told == {
        **{"Content-Type": "video/mp4", "Cache-Control": "max-age=300", "Accept-Ranges": "bytes"},
        "Content-Length": str(len(VIDEO)),
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Content-Disposition"] == "inline"


def test_a_stray_authorization_header_is_nobodys_business(delivery: Delivery) -> None:
    for value in ("Bearer kr_key", "AWS4-HMAC-SHA256 Credential=x", "Basic eA=="):
        assert delivery.ask(delivery.signed(), Authorization=value).content == VIDEO


def test_head_tells_the_same_without_the_body(delivery: Delivery) -> None:
    got, head = (delivery.ask(delivery.signed(), method) for method in ("GET", "HEAD"))
    assert head.status_code == 200 and head.content == b""
    dropped = {"Date"}
    assert {k: v for k, v in head.headers.items() if k not in dropped} == {
        k: v for k, v in got.headers.items() if k not in dropped
    }
    part = delivery.ask(delivery.signed(), "HEAD", Range="bytes=5-9")
    assert (part.status_code, part.headers["Content-Length"]) == (206, "5")


TAMPERED = {
    "another video": lambda url: url.replace("/t1/0.mp4", "/t1/1.mp4"),
    "another tenant": lambda url: url.replace("/acme/", "/evil/"),
    "a longer life": lambda url: url.replace("Expires=1790000300", "Expires=1790000301"),
    "no expiry": lambda url: url.replace("Expires=1790000300", "Expires="),
    "no number": lambda url: url.replace("Expires=1790000300", "Expires=1790000300%20"),
    "a query of its own": lambda url: url + "&response-content-type=text/html",
    "no signature": lambda url: url.replace("Signature=", "Nothing="),
    "half a signature": lambda url: url.replace("&Key-Pair-Id", "x&Key-Pair-Id"),
    "no base64": lambda url: url.replace("Signature=", "Signature=!"),
    "another hash": lambda url: url.replace("SHA256", "SHA1"),
    "no hash": lambda url: url.replace("&Hash-Algorithm=SHA256", ""),
    "a policy beside it": lambda url: url + "&Policy=" + base64.b64encode(b'{"Statement":[{"Resource":"*"}]}').decode(),
    "signed by B as A": lambda _: "KB as KA",
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_changed_is_refused(delivery: Delivery, name: str) -> None:
    whole = delivery.signed()
    url = TAMPERED[name](whole)
    url = delivery.signed(by="KB", claims="KA") if url == "KB as KA" else url
    assert url != whole and delivery.ask(whole).status_code == 200
    for method in ("GET", "OPTIONS"):
        assert refused(delivery.ask(url, method, Authorization="Bearer x")) == (403, "AccessDenied")
    assert delivery.ask(url, "HEAD").status_code == 403


def test_who_signed_has_to_be_known(delivery: Delivery) -> None:
    bare = delivery.signed().partition("?")[0]
    assert refused(delivery.ask(bare)) == (403, "MissingKey")
    assert refused(delivery.ask(f"{bare}?Expires=1790000300")) == (403, "MissingKey")
    assert refused(delivery.ask(delivery.signed(by="KGONE"))) == (403, "InvalidKey")
    assert refused(delivery.ask(delivery.signed(claims="KGONE"))) == (403, "InvalidKey")


def test_it_ends_to_the_second(delivery: Delivery) -> None:
    url = delivery.signed(expires=1_790_000_300)
    delivery.now = 1_790_000_299.9
    assert delivery.ask(url).status_code == 200
    delivery.now = 1_790_000_300.0
    assert refused(delivery.ask(url)) == (403, "AccessDenied")


def test_a_rotation_leaves_old_addresses_alone_until_their_key_goes(delivery: Delivery) -> None:
    old, new = delivery.signed(by="KA"), delivery.signed(by="KB")
    delivery.trusted = {"KA"}
    assert [delivery.ask(url).status_code for url in (old, new)] == [200, 403]
    delivery.trusted = {"KA", "KB"}
    assert [delivery.ask(url).status_code for url in (old, new)] == [200, 200]
    delivery.trusted = {"KB"}
    assert [delivery.ask(url).status_code for url in (old, new)] == [403, 200]


def test_what_is_not_there_cannot_be_told_from_what_is_forbidden(delivery: Delivery) -> None:
    assert refused(delivery.ask(delivery.signed("videos/acme/t1/9.mp4"))) == (403, "AccessDenied")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(delivery: Delivery, method: str) -> None:
    assert refused(delivery.ask(delivery.signed(), method)) == (403, "AccessDenied")


SIZE = len(VIDEO)
_byte = st.one_of(st.integers(0, SIZE + 5), st.integers(SIZE - 2, SIZE + 2), st.integers(0, 10**30))


@settings(max_examples=60, deadline=None)
@given(first=_byte, last=st.none() | _byte)
@example(first=0, last=None)
@example(first=SIZE - 1, last=SIZE - 1)
@example(first=SIZE, last=None)
@example(first=5, last=4)
def test_any_range(running: Delivery, first: int, last: int | None) -> None:
    running.now = 1_790_000_000.0
    answer = running.ask(running.signed(), Range=f"bytes={first}-{'' if last is None else last}")
    if last is not None and last < first:  # no range
        assert (answer.status_code, answer.content) == (200, VIDEO)
    elif first >= SIZE:
        assert refused(answer) == (416, "InvalidRange") and answer.headers["Content-Range"] == f"bytes */{SIZE}"
    else:
        end = SIZE if last is None else min(last + 1, SIZE)
        assert (answer.status_code, answer.content) == (206, VIDEO[first:end])
        assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{SIZE}"


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.integers(0, SIZE + 5), st.integers(0, 10**30)))
@example(0)
@example(SIZE)
def test_any_suffix(running: Delivery, length: int) -> None:
    running.now = 1_790_000_000.0
    answer = running.ask(running.signed(), Range=f"bytes=-{length}")
    if length == 0:
        assert refused(answer) == (416, "InvalidRange")
    else:
        assert (answer.status_code, answer.content) == (206, VIDEO[-length:] if length < SIZE else VIDEO)


@pytest.mark.parametrize(
    "header", ["bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,4-5", "bytes 0-1", "", "bytes=0-1-2"]
)
def test_what_is_no_single_range_is_the_whole(delivery: Delivery, header: str) -> None:
    answer = delivery.ask(delivery.signed(), Range=header)
    assert (answer.status_code, answer.content) == (200, VIDEO)


def test_conditions(delivery: Delivery) -> None:
    tag = delivery.ask(delivery.signed(), "HEAD").headers["ETag"]
    assert delivery.ask(delivery.signed(), If_None_Match=tag).status_code == 304
    assert delivery.ask(delivery.signed(), If_None_Match='"other"').status_code == 200
    assert delivery.ask(delivery.signed(), Range="bytes=0-1", If_Range=tag).status_code == 206
    assert delivery.ask(delivery.signed(), Range="bytes=0-1", If_Range='"other"').content == VIDEO


def test_an_object_without_bytes(delivery: Delivery) -> None:
    answer = delivery.ask(delivery.signed("videos/empty.mp4"))
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_page_may_read_it(delivery: Delivery) -> None:
    assert "Access-Control-Allow-Origin" not in delivery.ask(delivery.signed()).headers
    answer = delivery.ask(delivery.signed(), Origin=PLAYER, Range="bytes=0-1")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert {"Content-Range", "Content-Length"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))


def test_a_page_asks_first_where_it_sends_authorization(delivery: Delivery) -> None:
    asked = {"Origin": PLAYER, "Access_Control_Request_Headers": "authorization,range"}
    answer = delivery.ask(delivery.signed(), "OPTIONS", Access_Control_Request_Method="GET", **asked)
    assert answer.status_code == 200 and answer.headers["Access-Control-Allow-Origin"] == "*"
    assert {"Authorization", "Range"} <= set(answer.headers["Access-Control-Allow-Headers"].split(", "))
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    denied = delivery.ask(delivery.signed(), "OPTIONS", Access_Control_Request_Method="DELETE", **asked)
    assert refused(denied) == (403, "AccessForbidden")
    unsigned = delivery.signed().partition("?")[0]
    assert delivery.ask(unsigned, "OPTIONS", Access_Control_Request_Method="GET", **asked).status_code == 403


def test_one_connection_serves_many_answers(delivery: Delivery) -> None:
    """Lengths are right to the byte: whatever is left over would be taken for the next answer."""
    host, _, port = delivery.front.url.removeprefix("http://").partition(":")
    path = delivery.signed().removeprefix(delivery.front.url)
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        stream = connection.makefile("rb")
        for method, more, status in [
            *(("GET", "Range: bytes=0-9", 206), ("HEAD", "X: y", 200), ("GET", "Range: bytes=999999-", 416)),
            *(("OPTIONS", "X: y", 403), ("GET", "Content-Length: 0", 200), ("GET", "Range: bytes=-1", 206)),
        ]:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n\r\n".encode())
            assert stream.readline().split()[1] == str(status).encode()
            length = 0
            while (line := stream.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            assert method == "HEAD" or len(stream.read(length)) == length


def test_a_player_that_leaves_early_is_no_news(delivery: Delivery, capfd: pytest.CaptureFixture[str]) -> None:
    host, _, port = delivery.front.url.removeprefix("http://").partition(":")
    path = delivery.signed().removeprefix(delivery.front.url)
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            connection.recv(100)
    time.sleep(0.2)
    assert delivery.ask(delivery.signed()).status_code == 200
    assert capfd.readouterr().err == ""


def test_other_paths_still_lead_to_the_api(delivery: Delivery) -> None:
    for path in ("/v1/videos/image2video/x", "/kling/v1/videos/x", "/video", "/videos"):
        assert delivery.ask(delivery.front.url + path).json()["code"] == 5001  # nobody is behind: it was never sent
