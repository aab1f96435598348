"""Commands that check a deployed stack: `doctor`, `reconcile`, `smoke`."""

from pathlib import Path

import click

from kling_relay_cli import REPOSITORY
from kling_relay_cli.operators import doctor as examination
from kling_relay_cli.operators import reconcile_report
from kling_relay_cli.operators import smoke as smoke_test
from kling_relay_cli.operators.command import examples, on_stack
from kling_relay_cli.operators.stack import DeployedStack

_SAMPLE = REPOSITORY / "local/stack/sample.jpg"


@click.command("doctor", epilog=examples("doctor --stage dev"))
@on_stack
@click.pass_context
def doctor(ctx: click.Context, stack: DeployedStack) -> None:
    """Check keys, URLs, callbacks, alarm subscriptions and more.

    Each problem is printed with its remedy. Exits 1 if a check fails.
    """
    findings = examination.examine(stack)
    for finding in findings:
        click.echo(f"{'problem' if finding.problem else 'hint' if finding.hint else 'ok':<8} {finding.check}")
        if message := finding.problem or finding.hint:
            click.echo(f"         {message}\n         -> {finding.remedy}")
        if finding.note:
            click.echo(f"         {finding.note}")
    failed = sum(bool(finding.problem) for finding in findings)
    click.echo(f"\n{failed} of {len(findings)} checks failed" if failed else f"\nall {len(findings)} checks passed")
    ctx.exit(1 if failed else 0)


@click.command("reconcile", epilog=examples("reconcile --stage dev", "reconcile --stage dev --days 7"))
@on_stack
@click.option("--days", type=int, help="The window in days, 1 to 30. Default: 30.")
@click.pass_context
def reconcile(ctx: click.Context, stack: DeployedStack, days: int | None) -> None:
    """Compare the task table with the provider; read-only.

    Exits 1 if there are findings. docs/runbook.md#reconciliation explains each of them.
    """
    report = stack.operate("reconcile", **({} if days is None else {"days": days}))
    click.echo("\n".join(reconcile_report.lines(report)))
    ctx.exit(0 if report["sound"] else 1)


@click.command("smoke", epilog=examples("smoke --stage dev", "smoke --stage dev --yes --model kling-v3 --mode pro"))
@on_stack
@click.option("--yes", is_flag=True, help="Accept the cost without a prompt.")
@click.option("--model", default="kling-v2-5-turbo", show_default=True, help="The model_name of the request.")
@click.option("--mode", default="std", show_default=True, help="The mode of the request.")
@click.option("--duration", type=click.Choice(("5", "10")), default="5", show_default=True, help="Seconds of video.")
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    required=not _SAMPLE.exists(),
    default=_SAMPLE if _SAMPLE.exists() else None,
    help="An image file. Default in a checkout: a sample.",
)
@click.option("--prompt", default="the sun goes down behind the mountains", show_default=True, help="The prompt.")
@click.option("--every", type=float, default=5.0, show_default=True, help="Seconds between two queries.")
@click.pass_context
def smoke(
    ctx: click.Context,
    stack: DeployedStack,
    yes: bool,
    model: str,
    mode: str,
    duration: str,
    image: Path,
    prompt: str,
    every: float,
) -> None:
    """Send one real task, which costs money, and download its video.

    The command creates a temporary API key and revokes it at the end. The video is in .local/videos of a checkout,
    otherwise in ~/.kling-relay/videos.
    """
    body = {"model_name": model, "mode": mode, "duration": duration, "prompt": prompt}
    sent = smoke_test.smoke(stack, body, image, assume_yes=yes, every=every)
    ctx.exit(0 if sent else 1)


COMMANDS = (doctor, reconcile, smoke)
