"""Commands that limit or stop spending."""

from datetime import UTC, datetime

import click

from kling_relay_cli.errors import CommandError
from kling_relay_cli.operators.command import examples, on_stack, tenant_option
from kling_relay_cli.operators.stack import DeployedStack


@click.command(
    "cap",
    epilog=examples(
        "cap --stage dev --tenant demo                 show the committed units",
        "cap --stage dev --tenant demo --units 500",
        "cap --stage dev --tenant demo --units default",
    ),
)
@on_stack
@tenant_option
@click.option("--units", help="Whole units a month; 0: no cap; default: the cap of the stack. Without it: show.")
def cap(stack: DeployedStack, tenant: str, units: str | None) -> None:
    """Set or show a tenant's monthly cap."""
    if units is None:
        month = stack.operate("spend", tenant=tenant)
    else:
        month = stack.operate("set_cap", tenant=tenant, units=_units(units))
    cap_text = f"{month['cap_units']:g} units a month" if month["cap_units"] else "none"
    source = "set for this tenant" if month["own_cap"] else "from the stack (MonthlyCapUnits)"
    click.echo(f"tenant     {tenant}")
    click.echo(f"cap        {cap_text}, {source}")
    click.echo(f"committed  {month['committed_units']:g} units in {month['month']} (UTC), by tasks under a cap")


def _units(text: str) -> int | None:
    if text == "default":
        return None
    if not text.isdecimal():
        raise CommandError(
            f"units: must be a whole number or default (got {text!r})", "for example --units 500 (make: UNITS=500)"
        )
    return int(text)


@click.command("pause", epilog=examples('pause --stage dev --reason "the bill is too high"'))
@on_stack
@click.option("--reason", default="", help="Shown by `doctor` and on the dashboard.")
def pause(stack: DeployedStack, reason: str) -> None:
    """Stop new submissions at once; running tasks continue."""
    state = stack.operate("pause", reason=reason)
    shown = f" ({state['reason']})" if state["reason"] else ""
    click.echo(f"paused since {_time(state['since'])}{shown}: no new task is sent to the provider")
    click.echo("Running tasks continue. New tasks are accepted and wait, until their deadline at most.")
    click.echo(f"next: {stack.command('resume')}")


@click.command("resume", epilog=examples("resume --stage dev"))
@on_stack
def resume(stack: DeployedStack) -> None:
    """End a pause; the sweeper starts the waiting tasks."""
    resumed = stack.operate("resume")["resumed"]
    click.echo(
        "submissions resumed: the sweeper starts some waiting tasks every minute"
        if resumed
        else "submissions were not paused"
    )


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


COMMANDS = (cap, pause, resume)
