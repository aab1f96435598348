"""The key that signs the addresses of videos: its public half goes to CloudFront, its private half to a secret.

The order is what keeps every address good. A function signs with what the secret holds, so the secret is written last,
when the distribution has shown an object at an address that the new key signed. It is written whole, with the key's id
and the distribution's address: a function never sees half of a change. Two slots, A and B, are trusted at once; the
newer signs, and what the older one signed stays good until the slot is needed again. A run that breaks off has changed
nothing that signs: repeat it.
"""

import argparse
import json
import time
from typing import Any

from botocore.exceptions import WaiterError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kling_relay_cli.delivery_probe import probing
from kling_relay_cli.stack import DeployedStack, OperatorError

SLOTS = ("A", "B")
_POLL_SECONDS = 5
_PATIENCE = 360  # polls: half an hour; a new distribution takes some minutes
_CACHED_SECONDS = 600  # functions keep a secret for five minutes, and may be a little late
_LIFE_SECONDS = 31 * 86_400  # of an address, at most


def new_pair() -> tuple[str, str]:
    """Private and public half, P-256, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return private, public_half(private)


def public_half(private: str) -> str:
    key = serialization.load_pem_private_key(private.encode(), None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def secret_text(*, url: str, slot: str, key_pair_id: str, private_key: str) -> str:
    """What the functions read (security/cloudfront_signer.py), and `slot` and `made_at` for this module."""
    return json.dumps({
        "url": url, "slot": slot, "key_pair_id": key_pair_id, "private_key": private_key, "made_at": int(time.time())
    })  # fmt: skip


def delivery_key(stack: DeployedStack, options: argparse.Namespace) -> int:
    """Make a key where none signs; with `options.rotate` another one beside it, which signs from then on."""
    given = _slots(stack)
    held = {} if mismatch(stack) else _held(stack)
    if held and not options.rotate:
        _prove(stack, held)
        made = time.strftime("%Y-%m-%d", time.gmtime(held["made_at"]))
        print(f"key {held['slot']} signs since {made}: nothing to do")
        print(f"to change it: make delivery-key STAGE={stack.stage} ROTATE=1")
        return 0
    signing = held.get("slot", "")
    slot = min((one for one in SLOTS if one != signing), key=lambda one: bool(given[one]))
    if given[slot]:  # a public key cannot be changed in place: it goes, then the new one comes
        if signing:
            _may_end(stack, held, slot, options.rotate)
        print(f"removing the old key {slot} ...", flush=True)
        _update(stack, slot, "")
    private, public = new_pair()
    print(f"deploying the public half as DeliveryKey{slot}; a new distribution takes some minutes ...", flush=True)
    _update(stack, slot, public)
    key_pair_id, url = stack.resource(f"DeliveryPublicKey{slot}"), stack.delivery_url
    text = secret_text(url=url, slot=slot, key_pair_id=key_pair_id, private_key=private)
    _wait_for_proof(stack, json.loads(text))
    stack.client("secretsmanager").put_secret_value(SecretId=stack.outputs["DeliveryKeySecret"], SecretString=text)
    print("the distribution returns a test object for a signed URL, and refuses it without a signature")
    print(f"key {slot} ({key_pair_id}) signs now, in every function within five minutes")
    print(f"videos come from {url}\nnext: make doctor STAGE={stack.stage}")
    return 0


def check(stack: DeployedStack) -> None:
    """Raise OperatorError if addresses that are signed now are no good."""
    if wrong := mismatch(stack):
        raise OperatorError(wrong, f"make delivery-key STAGE={stack.stage}")
    _prove(stack, _held(stack))


def mismatch(stack: DeployedStack) -> str:
    """Why the key in the secret does not belong to the stack's parameters and distribution; empty if it does."""
    if not stack.delivery_url:
        return "there is no distribution"
    try:
        held = _held(stack)
        if not held:
            return "the stack has a distribution and no signing key"
        if _slots(stack)[held["slot"]].split() != public_half(held["private_key"]).split():
            return f"the stack's DeliveryKey{held['slot']} is not the public half of the signing key"
        if held["key_pair_id"] != stack.resource(f"DeliveryPublicKey{held['slot']}"):
            return f"key {held['slot']} has another id at CloudFront than in the URLs"
        if held["url"] != stack.delivery_url:
            return f"URLs start with {held['url']}, the distribution is at {stack.delivery_url}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "the secret of the signing key cannot be read"
    return ""


def _slots(stack: DeployedStack) -> dict[str, str]:
    """Slot -> public half, empty where there is none."""
    names = {slot: f"DeliveryKey{slot}" for slot in SLOTS}
    if not set(names.values()) <= set(stack.parameters):
        raise OperatorError("the stack has a version without delivery keys", stack.deploy)
    return {slot: stack.parameters[name] for slot, name in names.items()}


def _held(stack: DeployedStack) -> dict[str, Any]:
    secrets = stack.client("secretsmanager")
    try:
        text = secrets.get_secret_value(SecretId=stack.outputs["DeliveryKeySecret"])["SecretString"]
    except secrets.exceptions.ResourceNotFoundException:  # nothing has been stored yet
        return {}
    held: dict[str, Any] = json.loads(text)
    return held


def _may_end(stack: DeployedStack, held: dict[str, Any], slot: str, rotate: str) -> None:
    """Whether what `slot` signed may stop to work. It signed until the key that is `held` was made."""
    age = time.time() - held["made_at"]
    if age < _CACHED_SECONDS:
        wait = f"wait {_CACHED_SECONDS - age:.0f} seconds, then repeat it"
        raise OperatorError(f"functions may still sign with key {slot}", wait)
    if age < _LIFE_SECONDS and rotate != "now":
        until = time.strftime("%Y-%m-%d", time.gmtime(held["made_at"] + _LIFE_SECONDS))
        now = f"make delivery-key STAGE={stack.stage} ROTATE=now"
        remedy = f"rotate after that day; if key {slot} has leaked: {now}"
        raise OperatorError(f"URLs signed with key {slot} are valid until {until}, and would stop working now", remedy)


def _update(stack: DeployedStack, slot: str, public: str) -> None:
    """Set one parameter of the deployed stack and nothing else, and wait until that is done."""
    changed = f"DeliveryKey{slot}"
    kept: list[dict[str, Any]] = [
        {"ParameterKey": name, "UsePreviousValue": True} for name in stack.parameters if name != changed
    ]
    cloudformation = stack.client("cloudformation")
    cloudformation.update_stack(
        StackName=stack.name,
        UsePreviousTemplate=True,
        Parameters=[*kept, {"ParameterKey": changed, "ParameterValue": public}],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    _wait(stack, cloudformation.get_waiter("stack_update_complete"), StackName=stack.name)
    stack.forget()


def _wait(stack: DeployedStack, waiter: Any, **what: str) -> None:
    try:
        waiter.wait(**what, WaiterConfig={"Delay": _POLL_SECONDS, "MaxAttempts": _PATIENCE})
    except WaiterError as exc:
        remedy = f"read the events of {stack.name}, then repeat it; the signing key has not changed"
        raise OperatorError(f"AWS did not finish: {exc}", remedy) from exc


def _prove(stack: DeployedStack, held: dict[str, Any]) -> None:
    """Raise OperatorError unless the distribution shows an object at an address that `held` signs, and no other."""
    with probing(stack) as probe:
        if flaw := probe.flaw(held):
            raise flaw


def _wait_for_proof(stack: DeployedStack, held: dict[str, Any]) -> None:
    """Wait until CloudFront has the key everywhere, and the edge that is next to here has given the proof."""
    _wait(stack, stack.client("cloudfront").get_waiter("distribution_deployed"), Id=stack.resource("Delivery"))
    with probing(stack) as probe:
        for tries, flaw in enumerate(iter(lambda: probe.flaw(held), None), 1):
            if tries == _PATIENCE:
                raise OperatorError(str(flaw), f"{flaw.remedy}; the signing key has not changed")
            if tries == 1:
                print(f"not yet: {flaw} ...", flush=True)
            time.sleep(_POLL_SECONDS)
