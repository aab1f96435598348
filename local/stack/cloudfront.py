"""Play CloudFront on this machine: serve the bucket's videos at signed addresses only.

Checks and answers follow the Amazon CloudFront Developer Guide (signed URLs with a canned policy) and S3's own answers
(ranges, conditions). Nothing is cached.
"""

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PREFIX = "/videos/"
_CHUNK = 1 << 16
_SIGNING = ("Expires", "Signature", "Key-Pair-Id", "Hash-Algorithm", "Policy")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_STANDARD = str.maketrans("-_~", "+=/")
_POLICY = '{"Statement":[{"Resource":"%s","Condition":{"DateLessThan":{"AWS:EpochTime":%s}}}]}'


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Iterable[bytes] = ()


class Refused(Exception):
    """A request answered with `status` and an error in XML, like CloudFront and S3."""

    def __init__(self, code: str, message: str, status: int = 403, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code)
        self.code, self.message, self.status, self.headers = code, message, status, headers or {}

    def answer(self) -> Answer:
        text = f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message></Error>"
        body = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
        headers = {"Content-Type": "text/xml", "Content-Length": str(len(body))}
        return Answer(self.status, {**headers, **self.headers}, (body,))


_DENIED = ("AccessDenied", "Access denied")


@dataclass(frozen=True)
class Edge:
    """Answer for the prefix `url` of signed addresses. `public_key`: key pair id -> PEM, None for an untrusted key.

    `headers`: the template's ResponseHeadersPolicyConfig. `now`: Unix seconds.
    """

    url: str
    s3: Any
    bucket: str
    public_key: Callable[[str], str | None]
    headers: Mapping[str, Any]
    now: Callable[[], float] = field(default=time.time)

    def answer(self, method: str, target: str, headers: Mapping[str, str]) -> Answer:
        """Answer a request. `target`: path and query as sent. An Authorization header is ignored, like any other."""
        sent = {name.lower(): value for name, value in headers.items()}
        try:
            if method not in ("GET", "HEAD", "OPTIONS"):
                raise Refused("AccessDenied", "This distribution does not allow the HTTP method")
            self._check(target)
            answer = self._preflight(sent) if method == "OPTIONS" else self._object(method, target, sent)
        except Refused as refused:
            answer = refused.answer()
        return Answer(answer.status, answer.headers | self._added("origin" in sent), answer.body)

    def _check(self, target: str) -> None:
        """Check that a trusted key signed the address for exactly this resource, and that it has not expired."""
        path, _, query = target.partition("?")
        pairs = [pair for pair in query.split("&") if pair]
        own = "&".join(pair for pair in pairs if pair.partition("=")[0] not in _SIGNING)
        signed = dict(parse_qsl(query, keep_blank_values=True))
        if not signed.get("Key-Pair-Id"):
            raise Refused("MissingKey", "Missing Key-Pair-Id query parameter or cookie value")
        if (pem := self.public_key(signed["Key-Pair-Id"])) is None:
            raise Refused("InvalidKey", "Unknown Key")
        expires = signed.get("Expires", "")
        known = "Policy" not in signed and signed.get("Hash-Algorithm") == "SHA256"  # the only form that the relay uses
        if not known or not re.fullmatch(r"[0-9]{1,12}", expires):
            raise Refused(*_DENIED)
        policy = _POLICY % (f"{self.url}{path}{'?' if own else ''}{own}", expires)
        key = load_pem_public_key(pem.encode())
        try:
            if not isinstance(key, EllipticCurvePublicKey):
                raise InvalidSignature
            signature = base64.b64decode(signed.get("Signature", "").translate(_STANDARD), validate=True)
            key.verify(signature, policy.encode(), ECDSA(SHA256()))
        except (InvalidSignature, binascii.Error, ValueError):
            raise Refused(*_DENIED) from None
        if int(expires) <= self.now():
            raise Refused(*_DENIED)

    def _object(self, method: str, target: str, sent: Mapping[str, str]) -> Answer:
        place = {"Bucket": self.bucket, "Key": unquote(target.partition("?")[0].removeprefix("/"))}
        try:
            about = self.s3.head_object(**place)
            size, kept = about["ContentLength"], about["ResponseMetadata"]["HTTPHeaders"]
            names = ("Content-Type", "ETag", "Last-Modified", "Cache-Control", "Content-Disposition")
            headers = {name: kept[name.lower()] for name in names if name.lower() in kept} | {"Accept-Ranges": "bytes"}
            if about["ETag"] in [tag.strip() for tag in sent.get("if-none-match", "").split(",")]:
                return Answer(304, headers)
            span = (
                asked_range(sent.get("range", ""), size)
                if sent.get("if-range", about["ETag"]) == about["ETag"]
                else None
            )
            first, last = span or (0, size - 1)
            headers["Content-Length"] = str(last - first + 1)
            if span:
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            if method == "HEAD" or not size:
                return Answer(206 if span else 200, headers)
            body = self.s3.get_object(**place, Range=f"bytes={first}-{last}")["Body"]
        except ClientError as error:  # CloudFront may not list the bucket, so S3 denies access to an absent object
            raise Refused("AccessDenied", "Access Denied") from error
        return Answer(206 if span else 200, headers, body.iter_chunks(_CHUNK))

    def _preflight(self, sent: Mapping[str, str]) -> Answer:
        """Return S3's answer by the bucket's CorsConfiguration, which allows the same as the policy."""
        wanted = sent.get("access-control-request-method", "")
        if "origin" not in sent or wanted not in self.headers["CorsConfig"]["AccessControlAllowMethods"]["Items"]:
            raise Refused("AccessForbidden", "CORSResponse: This CORS request is not allowed")
        cors = self.headers["CorsConfig"]
        allowed = {
            "Access-Control-Allow-Methods": ", ".join(cors["AccessControlAllowMethods"]["Items"]),
            "Access-Control-Allow-Headers": ", ".join(cors["AccessControlAllowHeaders"]["Items"]),
            "Access-Control-Max-Age": str(cors["AccessControlMaxAgeSec"]),
        }
        return Answer(200, {"Content-Length": "0"} | allowed)

    def _added(self, has_origin: bool) -> dict[str, str]:
        """Return the headers of the response headers policy, and the CORS headers if there is an Origin."""
        added = (
            {"X-Content-Type-Options": "nosniff"}
            if "ContentTypeOptions" in self.headers["SecurityHeadersConfig"]
            else {}
        )
        if has_origin:
            cors = self.headers["CorsConfig"]
            added["Access-Control-Allow-Origin"] = ", ".join(cors["AccessControlAllowOrigins"]["Items"])
            added["Access-Control-Expose-Headers"] = ", ".join(cors["AccessControlExposeHeaders"]["Items"])
        return added


def asked_range(header: str, size: int) -> tuple[int, int] | None:
    """Return first and last byte of a Range header.

    Return None if the whole object is the answer, as for several ranges at once and for an invalid range. Raise Refused
    (416) for a range behind the end.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]) or (found[1] and found[2] and int(found[1]) > int(found[2])):
        return None
    if found[1]:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
    else:
        first, last = max(0, size - int(found[2])), size - 1
    if first >= size:  # behind the end, or an empty suffix
        raise Refused(
            "InvalidRange", "The requested range is not satisfiable", 416, {"Content-Range": f"bytes */{size}"}
        )
    return first, last
