"""Proof that the distribution serves an object at a signed URL, and not at an unsigned one.

A rejection proves nothing. CloudFront answers a wrong signature with AccessDenied (seen: aws-sdk-java-v2 issue 6543),
and S3 answers a missing object with the same code. So the probe writes an object to the video bucket and compares its
bytes.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from botocore.signers import CloudFrontSigner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from kling_relay_cli.errors import CommandError
from kling_relay_cli.operators.stack import DeployedStack, next_command

_STRAY = {"Authorization": "Bearer stray"}  # many clients send this header; presigned URLs of S3 reject it
_TIMEOUT = 15  # seconds


@dataclass(frozen=True, slots=True)
class Probe:
    """A test object in the video bucket of `stack`."""

    stack: DeployedStack
    key: str
    content: bytes

    def flaw(self, held: dict[str, Any]) -> CommandError | None:
        """Return the problem of URLs that `held`, a delivery key's secret, signs; None if they work."""
        url = f"{held['url']}/{self.key}"
        try:
            signed, unsigned = _get(_signed(url, held)), _get(url)
        except requests.RequestException as exc:
            remedy = "check this machine's network; DNS of a new distribution takes minutes: try again later"
            return CommandError(f"{held['url']}: no connection ({type(exc).__name__})", remedy)
        if signed.status_code != 200:
            return self._rejection(signed, held)
        if signed.content != self.content:
            other = f"{held['url']}: the response is not the test object"
            return CommandError(other, "try another network: a proxy may be between this machine and CloudFront")
        if unsigned.status_code != 403:
            remedy = "restore the TrustedKeyGroups of template.yaml in its behaviour: until then no video is private"
            rule = f"an unsigned URL must be rejected with 403 (got {unsigned.status_code})"
            return CommandError(f"{held['url']}: {rule}", remedy)
        return None

    def _rejection(self, response: requests.Response, held: dict[str, Any]) -> CommandError:
        code = "".join(re.findall(r"<Code>(\w{1,40})</Code>", response.text)[:1])
        got = f"HTTP {response.status_code} {code}".strip()
        rotate = next_command(self.stack.stage, "delivery-key", rotate="1")
        if code == "InvalidKey":
            remedy = f"try again in some minutes; if the error persists: {rotate}"
            return CommandError(f"delivery key {held['key_pair_id']}: not found by CloudFront", remedy)
        if "<HostId>" in response.text:  # the response is from S3, so CloudFront accepted the signature
            remedy = "compare the bucket's policy and the distribution's origin access with template.yaml"
            return CommandError(f"video bucket: S3 rejects CloudFront (got {got})", remedy)
        remedy = f"compare the distribution with template.yaml, then try again; for another key: {rotate}"
        return CommandError(f"delivery key {held['key_pair_id']}: CloudFront rejects its URLs (got {got})", remedy)


@contextmanager
def probing(stack: DeployedStack) -> Iterator[Probe]:
    """Keep a test object in the video bucket while the block runs. Raises ClientError.

    Its name is new, so no cache has it. It is below videos/, the only prefix that CloudFront reads, and in no
    tenant's folder.
    """
    probe = Probe(stack, f"videos/probe-{secrets.token_hex(8)}", secrets.token_bytes(64))
    location, s3 = {"Bucket": stack.outputs["VideoBucket"], "Key": probe.key}, stack.client("s3")
    s3.put_object(**location, Body=probe.content, CacheControl="no-store")
    try:
        yield probe
    finally:
        s3.delete_object(**location)


def _signed(url: str, held: dict[str, Any]) -> str:
    """Sign as the functions do; a test of `kling_relay.security.cloudfront_signer` compares both."""
    key: Any = serialization.load_pem_private_key(held["private_key"].encode(), None)
    signer = CloudFrontSigner(held["key_pair_id"], lambda message: key.sign(message, ec.ECDSA(SHA256())))
    until = datetime.now(UTC) + timedelta(minutes=5)
    return f"{signer.generate_presigned_url(url, date_less_than=until)}&Hash-Algorithm=SHA256"


def _get(url: str) -> requests.Response:
    return requests.get(url, headers=_STRAY, timeout=_TIMEOUT, allow_redirects=False)
