"""Proof that the distribution shows an object at a signed address, and at no other.

A refusal proves nothing. CloudFront answers a wrong signature with AccessDenied (seen: aws-sdk-java-v2 issue 6543), and
S3 answers a missing object with the same code. So an object is put into the video bucket, and only its bytes count.
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

from kling_relay_cli.stack import DeployedStack, OperatorError

_STRAY = {"Authorization": "Bearer stray"}  # many clients send theirs along, which presigned addresses do not bear
_TIMEOUT = 15  # seconds


@dataclass(frozen=True, slots=True)
class Probe:
    """An object in the video bucket of `stack`."""

    stack: DeployedStack
    key: str
    content: bytes

    def flaw(self, held: dict[str, Any]) -> OperatorError | None:
        """Return what is wrong with addresses that `held`, a delivery key's secret, signs; None if they are good."""
        address = f"{held['url']}/{self.key}"
        try:
            signed, unsigned = _get(_signed(address, held)), _get(address)
        except requests.RequestException as exc:
            remedy = "check the network connection; a new DNS name takes minutes to spread, so repeat it later"
            return OperatorError(f"{held['url']} cannot be reached ({type(exc).__name__})", remedy)
        if signed.status_code != 200:
            return self._refused(signed, held)
        if signed.content != self.content:
            other = f"{held['url']} returned other content than the test object"
            return OperatorError(other, "check for a proxy between this machine and CloudFront, or try another network")
        if unsigned.status_code != 403:
            remedy = "restore the TrustedKeyGroups of template.yaml in its behaviour; until then no video is private"
            return OperatorError(f"{held['url']} returns {unsigned.status_code} without a signature", remedy)
        return None

    def _refused(self, answer: requests.Response, held: dict[str, Any]) -> OperatorError:
        code = "".join(re.findall(r"<Code>(\w{1,40})</Code>", answer.text)[:1])
        what = f"HTTP {answer.status_code} {code}".strip()
        again = f"make delivery-key STAGE={self.stack.stage} ROTATE=1"
        if code == "InvalidKey":
            remedy = f"repeat it in some minutes; if the error stays: {again}"
            return OperatorError(f"CloudFront has no public key for the signing key ({held['key_pair_id']})", remedy)
        if "<HostId>" in answer.text:  # S3 was reached, so the signature is good
            remedy = "compare the bucket's policy and the distribution's origin access with template.yaml"
            return OperatorError(f"CloudFront accepts the signature, and S3 refuses CloudFront: {what}", remedy)
        remedy = f"compare the distribution with template.yaml, then repeat it; for another key: {again}"
        return OperatorError(f"CloudFront refuses a URL signed with {held['key_pair_id']}: {what}", remedy)


@contextmanager
def probing(stack: DeployedStack) -> Iterator[Probe]:
    """Put an object into the video bucket for as long as the block runs. Its name is new, so no cache holds it. It lies
    below videos/, which is all that CloudFront may read, and in no tenant's folder. Raises ClientError."""
    probe = Probe(stack, f"videos/probe-{secrets.token_hex(8)}", secrets.token_bytes(64))
    place, s3 = {"Bucket": stack.outputs["VideoBucket"], "Key": probe.key}, stack.client("s3")
    s3.put_object(**place, Body=probe.content, CacheControl="no-store")
    try:
        yield probe
    finally:
        s3.delete_object(**place)


def _signed(address: str, held: dict[str, Any]) -> str:
    """As the functions sign, which a test of `kling_relay.security.cloudfront_signer` compares."""
    key: Any = serialization.load_pem_private_key(held["private_key"].encode(), None)
    signer = CloudFrontSigner(held["key_pair_id"], lambda message: key.sign(message, ec.ECDSA(SHA256())))
    until = datetime.now(UTC) + timedelta(minutes=5)
    return f"{signer.generate_presigned_url(address, date_less_than=until)}&Hash-Algorithm=SHA256"


def _get(url: str) -> requests.Response:
    return requests.get(url, headers=_STRAY, timeout=_TIMEOUT, allow_redirects=False)
