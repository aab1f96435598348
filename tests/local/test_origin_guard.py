"""Test local/origin_guard.py over real sockets: the accepted values of Host and Origin on this machine's servers.

The headers of a browser are beliefs from documents: the Fetch standard (Origin on every method but GET and HEAD, "null"
for a page without an origin) and Fetch Metadata (Sec-Fetch-Site on every request to 127.0.0.1 and localhost).
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import boto3
import pytest
import requests
from botocore.config import Config

from local.emulator.process import Emulator
from local.origin_guard import Guard
from local.simulator import Simulator
from local.stack import deploy_template
from local.stack.api_gateway import Front
from local.stack.cloudfront import Answer
from tests.support.simulator_client import AUTH, KEY

PORT, FRONT = 4566, 8080
OURS = [f"http://{name}:{FRONT}" for name in ("127.0.0.1", "localhost", "[::1]")]
NAMED = [*("127.0.0.1", "localhost", "[::1]", "LocalHost"), "127.0.0.1:4566", "localhost:4566", "[::1]:4566"]
FOREIGN_HOSTS = [
    *("", "evil.example", "evil.example:4566", "127.0.0.1:4567", "localhost:80", "127.0.0.1.evil.example:4566"),
    *("localhost.evil.example", "notlocalhost:4566", "0.0.0.0:4566", "[::]:4566", "127.0.0.1:4566@evil.example"),
]
FOREIGN_ORIGINS = [
    *("https://evil.example", "null", "", "http://127.0.0.1", "http://localhost:3000", "http://127.0.0.1:4566"),
    *("https://127.0.0.1:8080", "http://127.0.0.1:8080.evil.example", "http://evil.localhost:8080"),
]


def status(guard: Guard, target: str = "/", *, signed: bool = False, allowed: str = "", **headers: str) -> int:
    given = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    refused = guard.refusal(given, target, signed=signed, allowed=allowed)
    return 200 if refused is None else refused[0]


class TestGuard:
    guard = Guard(PORT, FRONT)

    @pytest.mark.parametrize("host", [*NAMED, "127.0.0.1:8080"])  # the front passes its Host on to the emulator
    def test_this_machine(self, host: str) -> None:
        assert status(self.guard, host=host) == 200

    @pytest.mark.parametrize("host", FOREIGN_HOSTS)
    def test_another_host(self, host: str) -> None:
        assert status(self.guard, host=host) == status(self.guard, host=host, signed=True) == 403

    def test_no_host(self) -> None:
        assert self.guard.refusal({}, "/") is not None

    @pytest.mark.parametrize("host", ["bucket.localhost", "a.s3.us-east-1.localhost:4566"])
    def test_names_below_localhost_are_for_the_emulator_alone(self, host: str) -> None:
        assert status(Guard(PORT, subdomains=True), host=host) == 200
        assert status(self.guard, host=host) == 403

    @pytest.mark.parametrize("host", ["bucket.localhost:80", "bucketlocalhost", "bucket.localhost.evil.example"])
    def test_other_names_are_not_below_localhost(self, host: str) -> None:
        assert status(Guard(PORT, FRONT, subdomains=True), host=host) == 403

    @pytest.mark.parametrize("origin", OURS)
    def test_the_fronts_pages(self, origin: str) -> None:
        assert status(self.guard, origin=origin) == 200
        assert status(Guard(PORT), origin=origin) == 403  # without a front there is no page

    @pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
    def test_another_page(self, origin: str) -> None:
        assert status(self.guard, origin=origin) == 403
        assert status(self.guard, origin=origin, signed=True) == 200

    def test_a_page_that_the_operator_admits(self) -> None:
        page = "https://app.example"
        assert status(self.guard, origin=page, allowed=page) == 200
        assert status(self.guard, origin=f"{page}:8443", allowed=page) == 403
        assert status(self.guard, origin=OURS[0], allowed=page) == 200
        assert status(self.guard, origin="null", allowed="*") == 200
        assert status(self.guard, host="evil.example", origin=page, allowed="*") == 403  # a rebound name

    def test_a_front_on_port_80_has_an_origin_without_port(self) -> None:
        assert status(Guard(80, 80), origin="http://localhost") == 200

    @pytest.mark.parametrize(
        ("target", "site", "expected"),
        [
            ("/?Action=DeleteStack", "cross-site", 403),
            ("/?Action=DeleteStack", "same-site", 403),
            ("/queue?a=1&%41ction=SendMessage", "cross-site", 403),
            ("/?Action", "cross-site", 403),
            ("/?Action=DeleteStack", "none", 200),  # typed by the user
            ("/?Action=DeleteStack", "same-origin", 200),
            ("/bucket/video.mp4?X-Amz-Signature=0", "cross-site", 200),  # <video> on a page of the front
            ("/operations", "cross-site", 200),  # a link
        ],
    )
    def test_a_get_that_acts(self, target: str, site: str, expected: int) -> None:
        assert status(self.guard, target, sec_fetch_site=site) == expected
        assert status(self.guard, target) == 200  # from a program

    def test_the_answer_names_what_is_expected(self) -> None:
        host = self.guard.refusal({"host": "evil.example"}, "/")
        origin = self.guard.refusal({"host": "localhost", "origin": "null"}, "/")
        assert host is not None and origin is not None
        assert host[2] == b"Host: one of 127.0.0.1, localhost, [::1], with port 4566 or without (got 'evil.example')\n"
        assert b"http://127.0.0.1:8080 or " in origin[2] and b"(got 'null')" in origin[2]
        for _, headers, _ in (host, origin):
            assert headers["Content-Type"].startswith("text/plain") and "Access-Control-Allow-Origin" not in headers


FOREIGN = [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}]


def refused(answer: requests.Response) -> bool:
    """Whether the guard has refused, and a page could not read why."""
    known = answer.status_code == 403 and answer.text.startswith(("Host: ", "Origin: ", "Sec-Fetch-Site: "))
    return known and not any(name.lower().startswith("access-control-") for name in answer.headers)


def send(method: str, url: str, body: Any = None, **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return session.request(method, url, json=body, headers=given, timeout=10)


class Parts:
    """The parts of a front, which note what has reached them."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.front = Front(0, deploy_template.load_template()["Resources"]["Api"]["Properties"]["GatewayResponses"])
        self.front.start("http://127.0.0.1:9", self, operations=self)  # type: ignore[arg-type]

    def answer(self, method: str, path: str, headers: Any, body: bytes | None = None) -> Any:
        self.reached.append(path)
        return Answer(200, {"Content-Length": "0"}) if body is None else (200, {}, b"")


@pytest.fixture
def parts() -> Iterator[Parts]:
    parts = Parts()
    yield parts
    parts.front.stop()


class TestFront:
    @pytest.mark.parametrize("headers", FOREIGN)
    @pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
    @pytest.mark.parametrize("path", ["/kling/v1/videos/image2video", "/operations/call", "/docs", "/"])
    def test_pages_of_others_reach_nothing(
        self, parts: Parts, path: str, method: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parts.front, "answer", parts.answer)
        assert refused(send(method, parts.front.url + path, {}, **headers))
        assert parts.reached == []

    def test_its_own_pages_do(self, parts: Parts) -> None:
        for origin in (parts.front.url, parts.front.url.replace("127.0.0.1", "localhost")):
            assert send("POST", f"{parts.front.url}/operations/call", {}, Origin=origin).status_code == 200
        assert parts.reached == ["/operations/call"] * 2

    def test_any_page_plays_a_video_since_its_address_is_signed(self, parts: Parts) -> None:
        url = f"{parts.front.url}/videos/a.mp4"
        assert send("GET", url, Origin="https://player.example").status_code == 200
        assert refused(send("GET", url, Host="evil.example"))
        assert parts.reached == ["/videos/a.mp4"]


class TestSimulator:
    @pytest.mark.parametrize("headers", FOREIGN)
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            *(("GET", "/_sim/ledger"), ("POST", "/_sim/reset"), ("OPTIONS", "/_sim/reset")),
            *(("POST", "/v1/videos/text2video"), ("GET", "/bs2/upload-kling/x.mp4"), ("OPTIONS", "/")),
        ],
    )
    def test_pages_of_others_reach_nothing(
        self, sim: Simulator, method: str, path: str, headers: dict[str, str]
    ) -> None:
        body = {"prompt": "from a web page", "model_name": "kling-v3"}
        assert refused(send(method, sim.url + path, body, **AUTH, **headers))
        assert sim.ledger.shown()["posts"] == []

    def test_the_fronts_pages_do(self) -> None:
        with Simulator(key=KEY, front_port=FRONT) as simulator:
            assert send("GET", f"{simulator.url}/_sim/ledger", Origin=OURS[0]).status_code == 200


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(log_path=tmp_path_factory.mktemp("emulator") / "log", front_port=FRONT) as emulator:
        s3 = emulator.client("s3")
        s3.create_bucket(Bucket="videos")
        s3.put_object(Bucket="videos", Key="a.mp4", Body=b"video")
        cors = {"AllowedMethods": ["GET", "POST"], "AllowedOrigins": ["*"], "AllowedHeaders": ["*"]}  # as template.yaml
        s3.put_bucket_cors(Bucket="videos", CORSConfiguration={"CORSRules": [cors]})
        yield emulator


class TestEmulator:
    @pytest.mark.parametrize("headers", FOREIGN)
    @pytest.mark.parametrize("path", ["/", "/videos/a.mp4", "/_ministack/reset", "/_ministack/health", "/_aws/x"])
    @pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
    def test_pages_of_others_reach_nothing(
        self, emulator: Emulator, method: str, path: str, headers: dict[str, str]
    ) -> None:
        asked = {"Access-Control-Request-Method": "POST", "X-Amz-Target": "secretsmanager.ListSecrets"}
        assert refused(send(method, emulator.endpoint_url + path, {}, **asked, **headers))
        assert emulator.client("s3").get_object(Bucket="videos", Key="a.mp4")["Body"].read() == b"video"

    def test_a_picture_of_another_page_does_nothing(self, emulator: Emulator) -> None:
        sqs = emulator.client("sqs")
        sqs.create_queue(QueueName="intake")
        query = {
            **{"Action": "SendMessage", "MessageBody": "x", "Version": "2012-11-05"},
            **{"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Date": "20260101T000000Z", "X-Amz-Expires": "3600"},
            **{"X-Amz-SignedHeaders": "host", "X-Amz-Signature": "00"},  # not checked for the root's constant key
            "X-Amz-Credential": "test/20260101/us-east-1/sqs/aws4_request",
        }
        url = f"{emulator.endpoint_url}/000000000000/intake?{urlencode(query)}"
        count = {"QueueUrl": url.partition("?")[0], "AttributeNames": ["ApproximateNumberOfMessages"]}
        assert refused(send("GET", url, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="image", Sec_Fetch_Mode="no-cors"))
        assert sqs.get_queue_attributes(**count)["Attributes"] == {"ApproximateNumberOfMessages": "0"}
        assert send("GET", url).status_code == 200  # the request itself is one that acts
        assert sqs.get_queue_attributes(**count)["Attributes"] == {"ApproximateNumberOfMessages": "1"}

    def test_a_socket_of_another_page_is_not_opened(self, emulator: Emulator) -> None:
        key = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers = {**upgrade, "Sec-WebSocket-Key": key, "Origin": "https://evil.example"}
        assert send("GET", emulator.endpoint_url, **headers).status_code == 403

    def test_the_fronts_pages_upload_and_play(self, emulator: Emulator) -> None:
        asked = {"Origin": OURS[0], "Access-Control-Request-Method": "POST"}
        preflight = send("OPTIONS", f"{emulator.endpoint_url}/videos", **asked)
        assert preflight.status_code == 200 and "POST" in preflight.headers["Access-Control-Allow-Methods"]
        url = emulator.client("s3").generate_presigned_url("get_object", Params={"Bucket": "videos", "Key": "a.mp4"})
        played = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "video"}
        assert send("GET", url, Range="bytes=0-1", **played).content == b"vi"
        assert send("GET", url, Origin=OURS[0]).content == b"video"  # <video crossorigin>

    def test_a_bucket_in_the_host_is_found(self, emulator: Emulator) -> None:
        """SDKs ask for it with the addressing style "virtual"; "auto" puts the bucket into the path below localhost."""
        config = Config(signature_version="s3v4", s3={"addressing_style": "virtual"})
        s3 = boto3.client("s3", endpoint_url=emulator.endpoint_url, config=config)
        url = s3.generate_presigned_url("get_object", Params={"Bucket": "videos", "Key": "a.mp4"})
        host = urlsplit(url).netloc
        assert host == f"videos.localhost:{emulator.port}"
        assert send("GET", url.replace("//videos.", "//"), Host=host).content == b"video"  # not every resolver knows it
