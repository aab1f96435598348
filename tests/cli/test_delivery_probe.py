"""What proves that signed addresses are good, against a server that plays CloudFront in each state it can be in.

Beliefs: CloudFront answers MissingKey and InvalidKey (document: developer guide, "signed URLs"), AccessDenied to a
signature that it does not take (report: aws-sdk-java-v2 issue 6543), and passes an error of S3 on as it is, with its
<HostId> (document: "How CloudFront processes HTTP 4xx and 5xx status codes"). The rest are guesses at what may stand
between.
"""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from kling_relay_cli.delivery_key import new_pair
from kling_relay_cli.delivery_probe import probing

PRIVATE, _ = new_pair()


def error(code: str, more: str = "") -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>".encode()


MISSING, DENIED = (403, error("MissingKey")), (403, error("AccessDenied"))
S3_DENIED = (403, error("AccessDenied", "<RequestId>R</RequestId><HostId>H</HostId>"))
Shown = tuple[int, bytes] | None  # None: the object itself, 200


class CloudFront(ThreadingHTTPServer):
    """Answers a signed request with `signed`, and one without a signature with `unsigned`."""

    daemon_threads = True
    signed: Shown = None
    unsigned: Shown = MISSING
    objects: dict[str, bytes]
    asked: list[tuple[bool, str]]

    def shown(self, path: str, sent: str) -> tuple[int, bytes]:
        key, _, query = path.removeprefix("/").partition("?")
        signed = all(f"{name}=" in query for name in ("Expires", "Signature", "Key-Pair-Id", "Hash-Algorithm"))
        self.asked.append((signed, sent))
        answer = self.signed if signed else self.unsigned
        return answer or ((200, self.objects[key]) if key in self.objects else S3_DENIED)


class Handler(BaseHTTPRequestHandler):
    server: CloudFront

    def do_GET(self) -> None:
        status, body = self.server.shown(self.path, self.headers.get("Authorization", ""))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def cloudfront() -> Iterator[CloudFront]:
    with CloudFront(("127.0.0.1", 0), Handler) as server:
        server.objects, server.asked = {}, []
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def stack(cloudfront: CloudFront) -> Any:
    """A deployed stack whose video bucket holds what the server shows."""
    s3 = SimpleNamespace(
        put_object=lambda Bucket, Key, Body, CacheControl: cloudfront.objects.update({Key: Body}),
        delete_object=lambda Bucket, Key: cloudfront.objects.pop(Key),
    )
    return SimpleNamespace(stage="dev", outputs={"VideoBucket": "videos"}, client=lambda _: s3)


def flaw(cloudfront: CloudFront, url: str = "") -> Any:
    here = url or f"http://127.0.0.1:{cloudfront.server_address[1]}"
    with probing(stack(cloudfront)) as probe:
        (key,) = cloudfront.objects
        assert key.startswith("videos/probe-") and key.count("/") == 1
        return probe.flaw({"url": here, "key_pair_id": "K1", "private_key": PRIVATE})


def test_the_object_itself_with_a_signature_and_a_refusal_without_one(cloudfront: CloudFront) -> None:
    assert flaw(cloudfront) is None
    assert cloudfront.asked == [(True, "Bearer stray"), (False, "Bearer stray")]
    assert cloudfront.objects == {}


@pytest.mark.parametrize(
    ("signed", "unsigned", "what", "remedy"),
    [
        (DENIED, MISSING, "refuses a URL signed with K1: HTTP 403 AccessDenied", "template.yaml"),
        (MISSING, MISSING, "refuses a URL signed", "template.yaml"),  # it drops the query
        ((403, error("InvalidKey")), MISSING, "has no public key for the signing key (K1)", "repeat it"),
        (S3_DENIED, MISSING, "S3 refuses CloudFront: HTTP 403 AccessDenied", "the bucket's policy"),
        ((400, b""), MISSING, "HTTP 400", "ROTATE=1"),  # the stray Authorization header
        ((302, b""), MISSING, "HTTP 302", "template.yaml"),
        ((200, b"<html>sign in to this network</html>"), MISSING, "returned other content", "proxy"),
        ((206, b""), MISSING, "HTTP 206", "template.yaml"),
        (None, None, "returns 200 without a signature", "TrustedKeyGroups"),
        (None, (302, b""), "returns 302 without a signature", "TrustedKeyGroups"),
    ],
    ids=range(10),
)
def test_everything_else_is_a_flaw_and_says_what_to_do(
    cloudfront: CloudFront, signed: Shown, unsigned: Shown, what: str, remedy: str
) -> None:
    cloudfront.signed, cloudfront.unsigned = signed, unsigned
    found = flaw(cloudfront)
    assert what in str(found) and remedy in found.remedy
    assert cloudfront.objects == {}


def test_a_distribution_out_of_reach(cloudfront: CloudFront) -> None:
    found = flaw(cloudfront, "http://127.0.0.1:9")
    assert str(found) == "http://127.0.0.1:9 cannot be reached (ConnectionError)" and "repeat it" in found.remedy


def test_the_object_goes_whatever_happens(cloudfront: CloudFront) -> None:
    with pytest.raises(KeyboardInterrupt), probing(stack(cloudfront)):
        assert len(cloudfront.objects) == 1
        raise KeyboardInterrupt
    assert cloudfront.objects == {}


def test_each_object_has_a_name_and_content_that_no_cache_knows(cloudfront: CloudFront) -> None:
    with probing(stack(cloudfront)) as one, probing(stack(cloudfront)) as other:
        assert one.key != other.key and one.content != other.content
