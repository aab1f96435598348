"""Commands for keys and secrets: the provider's, the distribution's, the clients', the webhooks'."""

from datetime import UTC, datetime
from typing import Any

import click

from kling_relay_cli.errors import CommandError
from kling_relay_cli.operators import delivery_key as delivery
from kling_relay_cli.operators import provider_secret
from kling_relay_cli.operators.command import examples, on_stack, read_secret, tenant_option
from kling_relay_cli.operators.stack import DeployedStack


@click.command("provider-key", epilog=examples("provider-key --stage dev", "provider-key --stage dev < key.txt"))
@on_stack
def provider_key(stack: DeployedStack) -> None:
    """Store the provider's API key, from a prompt or standard input.

    The key belongs to the account of new tasks. Keys of other accounts stay stored.
    """
    stored = stack.provider_secret()  # before the prompt: a missing stack fails first
    key = read_secret("The provider's API key")
    if not key or len(key.split()) != 1 or not key.isprintable():
        what = "must not contain blanks or control characters" if key else "required (got nothing)"
        raise CommandError(f"provider key: {what}", f"enter the key alone: {stack.command('provider-key')}")
    stack.store_provider_secret(provider_secret.with_key(stored, stack.account, key))
    click.echo(f"stored in {stack.outputs['ProviderKeySecret']}, for the account {stack.account}")
    click.echo("Functions read it within five minutes; without an older key, with the next task.")
    click.echo(f"next: {stack.command('key', tenant='demo')}")


@click.command("webhook-secret", epilog=examples("webhook-secret --stage dev", "webhook-secret < secret.txt"))
@on_stack
def webhook_secret(stack: DeployedStack) -> None:
    """Store the secret of the provider's callbacks, from a prompt or standard input.

    Enter whsec_... as the provider shows it. During a rotation enter both, separated by a blank. Enter none to
    remove them.
    """
    stored = stack.provider_secret()
    given = read_secret("The provider's webhook secrets, or none").split()
    invalid = [one for one in given if not provider_secret.is_webhook_secret(one)]
    if not given or (invalid and given != ["none"]):
        what = "must have the form whsec_..." if given else "required (got nothing)"
        remedy = f"enter it as the provider shows it: {stack.command('webhook-secret')}"
        raise CommandError(f"webhook secret: {what}", remedy)
    stack.store_provider_secret(provider_secret.with_webhook_secrets(stored, stack.account, " ".join(given)))
    click.echo("Functions verify signed callbacks with it within five minutes.")
    click.echo(f"next: {stack.command('doctor')}")


@click.command(
    "delivery-key",
    epilog=examples("delivery-key --stage dev", "delivery-key --stage dev --rotate 1", "delivery-key --rotate now"),
)
@on_stack
@click.option(
    "--rotate",
    type=click.Choice(("1", "now")),
    help="1: add a second key. now: also end the URLs of the older key, after a leak.",
)
def delivery_key(stack: DeployedStack, rotate: str | None) -> None:
    """Create or rotate the key that signs video URLs.

    The first key creates a CloudFront distribution, which takes some minutes. The command tests a signed URL
    before functions sign with the key. An interrupted run changes no URL: repeat it.
    """
    delivery.ensure_key(stack, rotate or "")


@click.command(
    "key",
    epilog=examples(
        "key --stage dev --tenant demo",
        'key --tenant demo --scopes read --days 90 --label "status page"',
    ),
)
@on_stack
@tenant_option
@click.option("--label", default="", help="A note for the list of keys.")
@click.option("--scopes", help="submit, read, or both separated by a comma. Default: both.")
@click.option("--days", type=int, help="The key expires after this number of days. Default: never.")
@click.option("--until", metavar="DATE", help="The key expires on this date, for example 2027-01-31.")
def key(stack: DeployedStack, tenant: str, label: str, scopes: str | None, days: int | None, until: str | None) -> None:
    """Create an API key and print it once."""
    fields: dict[str, Any] = {"label": label, "expires_in_days": days, "expires_at": until}
    if scopes is not None:
        fields["scopes"] = scopes.replace(",", " ").split()
    created = stack.operate("create_key", tenant=tenant, **fields)
    click.echo(f"New key of tenant {tenant} (key id {created['key_id']}). It is shown once: store it now.\n")
    click.echo(f"  api_key     {created['api_key']}")
    click.echo(f"  access_key  {created['access_key']}      for clients that sign AK/SK tokens: these two instead")
    click.echo(f"  secret_key  {created['secret_key']}")
    click.echo(f"\nnext: configure your client with the base URL {stack.outputs['ApiUrl']} and the key")


@click.command("keys", epilog=examples("keys --stage dev --tenant demo"))
@on_stack
@tenant_option
def keys(stack: DeployedStack, tenant: str) -> None:
    """List a tenant's API keys: id, state, scopes and dates."""
    listed = stack.operate("list_keys", tenant=tenant)["keys"]
    if not listed:
        click.echo(f"tenant {tenant} has no keys\nnext: {stack.command('key', tenant=tenant)}")
        return
    rows = [("key id", "state", "scopes", "created", "expires", "label")]
    for one in listed:
        dates = _day(one["created_at"]), _day(one["expires_at"])
        rows.append((one["key_id"], one["state"], ",".join(one["scopes"]), *dates, one["label"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@click.command("revoke", epilog=examples("revoke --stage dev --key KEY_ID"))
@on_stack
@click.option("--key", "given", required=True, metavar="KEY_ID", help="Its id from `keys`. The whole key works too.")
def revoke(stack: DeployedStack, given: str) -> None:
    """Revoke an API key at once."""
    key_id = given.split("_")[1] if given.startswith("kr_") else given  # a whole key: only its id leaves this machine
    if not stack.operate("revoke_key", key_id=key_id)["revoked"]:
        raise CommandError(f"key: not found (got {key_id!r})", f"list the ids: {stack.command('keys', tenant='...')}")
    click.echo(f"key {key_id} is revoked: the API rejects it from now on")


@click.command(
    "signing-secret",
    epilog=examples("signing-secret --stage dev --tenant demo", "signing-secret --tenant demo --change"),
)
@on_stack
@tenant_option
@click.option("--change", is_flag=True, help="Create a new secret. The old one also signs for seven days.")
def signing_secret(stack: DeployedStack, tenant: str, change: bool) -> None:
    """Print the secret that signs webhooks to a tenant."""
    click.echo(stack.operate("signing_secret", tenant=tenant, change=change)["secret"])
    if change:
        click.echo("Webhooks carry both signatures for seven days. Update the receivers within this time.")


def _day(ms: int | None) -> str:
    return "never" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"


COMMANDS = (provider_key, webhook_secret, delivery_key, key, keys, revoke, signing_secret)
