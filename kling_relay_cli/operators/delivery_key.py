"""The key that signs video URLs: its public half goes to CloudFront, its private half to a secret.

The order of the steps keeps every URL valid. A function signs with the key in the secret. So the secret is written
last, after the distribution has served an object at a URL that the new key signed. One write contains the key, its id
and the distribution's URL: a function never reads half of a change. CloudFront trusts two slots, A and B. The newer key
signs; URLs of the older key stay valid until its slot is reused. An interrupted run changes no signature: repeat it.
"""

import json
import time
from typing import Any

import click
from botocore.exceptions import WaiterError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kling_relay_cli.errors import CommandError
from kling_relay_cli.operators.delivery_probe import probing
from kling_relay_cli.operators.stack import DeployedStack

SLOTS = ("A", "B")
_POLL_SECONDS = 5
_MAX_POLLS = 360  # half an hour; a new distribution takes some minutes
_CACHE_SECONDS = 600  # functions cache a secret for five minutes; twice that is safe
_URL_LIFETIME_SECONDS = 31 * 86_400  # at most
_UNCHANGED = "functions still sign as before"


def new_pair() -> tuple[str, str]:
    """Create a P-256 key; return its private and its public half as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return private, public_half(private)


def public_half(private: str) -> str:
    """Return the public half of a private key, as PEM."""
    key = serialization.load_pem_private_key(private.encode(), None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def secret_text(*, url: str, slot: str, key_pair_id: str, private_key: str) -> str:
    """Return the secret for the functions (security/cloudfront_signer.py); this module reads `slot` and `made_at`."""
    return json.dumps({
        "url": url, "slot": slot, "key_pair_id": key_pair_id, "private_key": private_key, "made_at": int(time.time())
    })  # fmt: skip


def ensure_key(stack: DeployedStack, rotate: str = "") -> None:
    """Create a key if none signs. With `rotate` ("1" or "now") add another one, which signs from then on."""
    public_halves = _slots(stack)
    held = {} if mismatch(stack) else _held(stack)
    if held and not rotate:
        _prove(stack, held)
        made = time.strftime("%Y-%m-%d", time.gmtime(held["made_at"]))
        click.echo(f"no change: key {held['slot']} signs since {made}")
        click.echo(f"to rotate it: {stack.command('delivery-key', rotate='1')}")
        return
    signing = held.get("slot", "")
    slot = min((one for one in SLOTS if one != signing), key=lambda one: bool(public_halves[one]))
    if public_halves[slot]:  # CloudFront cannot replace a public key in place: remove it, then add the new one
        if signing:
            _require_removable(stack, held, slot, rotate)
        click.echo(f"removing the old key {slot} ...")
        _update(stack, slot, "")
    private, public = new_pair()
    click.echo(f"deploying the public half as DeliveryKey{slot}; a new distribution takes some minutes ...")
    _update(stack, slot, public)
    key_pair_id, url = stack.resource(f"DeliveryPublicKey{slot}"), stack.delivery_url
    text = secret_text(url=url, slot=slot, key_pair_id=key_pair_id, private_key=private)
    _wait_for_proof(stack, json.loads(text))
    stack.client("secretsmanager").put_secret_value(SecretId=stack.outputs["DeliveryKeySecret"], SecretString=text)
    click.echo("the distribution serves a test object at a signed URL, and rejects the unsigned URL")
    click.echo(f"key {slot} ({key_pair_id}) signs now, in every function within five minutes")
    click.echo(f"video URLs start with {url}\nnext: {stack.command('doctor')}")


def check(stack: DeployedStack) -> None:
    """Raise CommandError if new video URLs do not work."""
    if problem := mismatch(stack):
        raise CommandError(problem, stack.command("delivery-key"))
    _prove(stack, _held(stack))


def mismatch(stack: DeployedStack) -> str:
    """Return why the stored key does not fit the stack's parameters and distribution; empty if it does."""
    if not stack.delivery_url:
        return "distribution: missing"
    try:
        held = _held(stack)
        if not held:
            return "delivery key: not stored, although the stack has a distribution"
        if _slots(stack)[held["slot"]].split() != public_half(held["private_key"]).split():
            return f"delivery key: the parameter DeliveryKey{held['slot']} is not its public half"
        if held["key_pair_id"] != stack.resource(f"DeliveryPublicKey{held['slot']}"):
            return f"delivery key: key {held['slot']} has another id at CloudFront (got {held['key_pair_id']})"
        if held["url"] != stack.delivery_url:
            return f"delivery key: URLs start with {held['url']}, the distribution is at {stack.delivery_url}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "delivery key: its secret is not readable"
    return ""


def _slots(stack: DeployedStack) -> dict[str, str]:
    """Return slot -> public half; empty for an unused slot."""
    names = {slot: f"DeliveryKey{slot}" for slot in SLOTS}
    if not set(names.values()) <= set(stack.parameters):
        raise CommandError(f"stack {stack.name}: its version has no delivery keys", stack.deploy)
    return {slot: stack.parameters[name] for slot, name in names.items()}


def _held(stack: DeployedStack) -> dict[str, Any]:
    """Return the stored delivery key; empty if none is stored."""
    secrets = stack.client("secretsmanager")
    try:
        text = secrets.get_secret_value(SecretId=stack.outputs["DeliveryKeySecret"])["SecretString"]
    except secrets.exceptions.ResourceNotFoundException:  # no value is stored yet
        return {}
    held: dict[str, Any] = json.loads(text)
    return held


def _require_removable(stack: DeployedStack, held: dict[str, Any], slot: str, rotate: str) -> None:
    """Raise CommandError if URLs of `slot` must stay valid. It signed until the key that is `held` was created."""
    age = time.time() - held["made_at"]
    if age < _CACHE_SECONDS:
        wait = f"wait {_CACHE_SECONDS - age:.0f} seconds, then run the command again"
        raise CommandError(f"delivery key {slot}: functions may still sign with it", wait)
    if age < _URL_LIFETIME_SECONDS and rotate != "now":
        until = time.strftime("%Y-%m-%d", time.gmtime(held["made_at"] + _URL_LIFETIME_SECONDS))
        now = stack.command("delivery-key", rotate="now")
        remedy = f"rotate after that day; if key {slot} has leaked: {now}"
        raise CommandError(f"delivery key {slot}: its URLs are valid until {until}, and would stop working now", remedy)


def _update(stack: DeployedStack, slot: str, public: str) -> None:
    """Change one parameter of the deployed stack, and wait until the update is complete."""
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


def _wait(stack: DeployedStack, waiter: Any, **target: str) -> None:
    try:
        waiter.wait(**target, WaiterConfig={"Delay": _POLL_SECONDS, "MaxAttempts": _MAX_POLLS})
    except WaiterError as exc:
        remedy = f"read the events of {stack.name}, then run the command again; {_UNCHANGED}"
        raise CommandError(f"update: not complete ({exc})", remedy) from exc


def _prove(stack: DeployedStack, held: dict[str, Any]) -> None:
    """Raise CommandError unless the distribution serves an object at URLs that `held` signs, and at no other."""
    with probing(stack) as probe:
        if flaw := probe.flaw(held):
            raise flaw


def _wait_for_proof(stack: DeployedStack, held: dict[str, Any]) -> None:
    """Wait until CloudFront has deployed the key, and the nearest edge serves a signed URL."""
    _wait(stack, stack.client("cloudfront").get_waiter("distribution_deployed"), Id=stack.resource("Delivery"))
    with probing(stack) as probe:
        for tries, flaw in enumerate(iter(lambda: probe.flaw(held), None), 1):
            if tries == _MAX_POLLS:
                raise CommandError(str(flaw), f"{flaw.remedy}; {_UNCHANGED}")
            if tries == 1:
                click.echo(f"waiting: {flaw} ...")
            time.sleep(_POLL_SECONDS)
