"""The operator's commands about keys and secrets of a deployed stack: the provider's, the clients', the webhooks'."""

import argparse
import getpass
import sys
from datetime import UTC, datetime

from kling_relay_cli import provider_secret
from kling_relay_cli.stack import DeployedStack, OperatorError


def provider_key(stack: DeployedStack, options: argparse.Namespace) -> int:
    stored = stack.provider_secret()  # asked first: nobody types a key for a stack that is not there
    key = _typed("The provider's API key: ")
    if not key or len(key.split()) != 1 or not key.isprintable():
        what = "the key must not contain spaces" if key else "no key was entered"
        raise OperatorError(what, f"paste the key alone: make provider-key STAGE={stack.stage}")
    stack.store_provider_secret(provider_secret.with_key(stored, stack.account, key))
    print(f"stored in {stack.outputs['ProviderKeySecret']}, for the account {stack.account}")
    print("It is used from the next task on; one that was stored before, for five minutes more.")
    print(f"next: make key STAGE={stack.stage} TENANT=demo")
    return 0


def webhook_secret(stack: DeployedStack, options: argparse.Namespace) -> int:
    stored = stack.provider_secret()
    given = _typed("The provider's webhook secret (while it is rotated both; none to remove it): ").split()
    wrong = [one for one in given if not provider_secret.is_webhook_secret(one)]
    if not given or (wrong and given != ["none"]):
        what = "the webhook secret must have the form whsec_..." if given else "no webhook secret was entered"
        raise OperatorError(what, f"paste it from the provider's console: make webhook-secret STAGE={stack.stage}")
    stack.store_provider_secret(provider_secret.with_webhook_secrets(stored, stack.account, " ".join(given)))
    print("Callbacks that carry a signature are checked within five minutes from now.")
    print(f"next: make doctor STAGE={stack.stage}")
    return 0


def _typed(question: str) -> str:
    """A secret, from the terminal without echo or from standard input."""
    return (getpass.getpass(question) if sys.stdin.isatty() else sys.stdin.read()).strip()


def key(stack: DeployedStack, options: argparse.Namespace) -> int:
    wanted = {"label": options.label, "expires_in_days": options.days, "expires_at": options.until}
    if options.scopes is not None:
        wanted["scopes"] = options.scopes.replace(",", " ").split()
    issued = stack.operate("create_key", tenant=options.tenant, **wanted)
    print(f"A new key of tenant {options.tenant} (key id {issued['key_id']}). It is shown once: keep it now.\n")
    print(f"  api_key     {issued['api_key']}")
    print(f"  access_key  {issued['access_key']}      for clients that sign Kling's tokens: these two instead")
    print(f"  secret_key  {issued['secret_key']}")
    print(f"\nnext: give your client the base URL {stack.outputs['ApiUrl']} and the key")
    return 0


def keys(stack: DeployedStack, options: argparse.Namespace) -> int:
    listed = stack.operate("list_keys", tenant=options.tenant)["keys"]
    if not listed:
        print(f"tenant {options.tenant} has no keys\nnext: make key STAGE={stack.stage} TENANT={options.tenant}")
        return 0
    rows = [("key id", "state", "scopes", "created", "expires", "label")]
    for one in listed:
        dates = _day(one["created_at"]), _day(one["expires_at"])
        rows.append((one["key_id"], one["state"], ",".join(one["scopes"]), *dates, one["label"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def revoke(stack: DeployedStack, options: argparse.Namespace) -> int:
    given: str = options.key
    key_id = given.split("_")[1] if given.startswith("kr_") else given  # a whole key: its secret stays here
    if not stack.operate("revoke_key", key_id=key_id)["revoked"]:
        raise OperatorError(f"key {key_id!r} not found", f"list the ids: make keys STAGE={stack.stage} TENANT=...")
    print(f"key {key_id} is revoked")
    return 0


def signing_secret(stack: DeployedStack, options: argparse.Namespace) -> int:
    answer = stack.operate("signing_secret", tenant=options.tenant, change=options.change)
    print(answer["secret"])
    if options.change:
        print("Webhooks carry the old signature too for seven days: give the new secret to the receivers until then.")
    return 0


def _day(ms: int | None) -> str:
    return "never" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
