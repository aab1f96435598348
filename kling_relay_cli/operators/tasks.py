"""Commands for single tasks, dead letters and exports; OperateTasksFunction does the work."""

from pathlib import Path
from typing import Any

import click
import requests

from kling_relay_cli.errors import CommandError
from kling_relay_cli.operators.command import examples, on_stack
from kling_relay_cli.operators.stack import DeployedStack

task_option = click.option("--task", required=True, metavar="TASK_ID", help="The id of the task.")


@click.command("replay", epilog=examples("replay --stage dev --task TASK_ID", "replay --task TASK_ID --sequence 2"))
@on_stack
@task_option
@click.option("--sequence", type=int, help="Only the webhook with this number. Default: all.")
def replay(stack: DeployedStack, task: str, sequence: int | None) -> None:
    """Send a task's webhooks again, with the same ids."""
    fields = {} if sequence is None else {"sequence": sequence}
    sent = stack.operate("replay_notice", task_id=task, **fields)["webhooks"]
    click.echo(f"{_count(sent, 'webhook')} queued again, with the same {'id' if sent == 1 else 'ids'}")


@click.command("retry-archive", epilog=examples("retry-archive --stage dev --task TASK_ID"))
@on_stack
@task_option
def retry_archive(stack: DeployedStack, task: str) -> None:
    """Copy a finished video again after a failed copy.

    Works for an expired task too, while the provider still has the video.
    """
    if stack.operate("retry_archive", task_id=task)["begun"]:
        click.echo(f"task {task}: a new copy of the video has started")
    else:
        click.echo(f"task {task}: a copy of the video is already running")
    click.echo("next: GET the task, or open it in the dashboard")


@click.command("redrive", epilog=examples("redrive --stage dev", "redrive --queue IntakeDeadLetters"))
@on_stack
@click.option(
    "--queue",
    default="IntakeDeadLetters",
    show_default=True,
    metavar="LOGICAL_ID",
    help="The dead-letter queue, by its logical id in template.yaml.",
)
def redrive(stack: DeployedStack, queue: str) -> None:
    """Move messages of a dead-letter queue back to their source."""
    done = stack.operate("redrive", queue=queue)
    click.echo(f"{_count(done['moved'], 'message')} moved back from {done['queue']}")
    if done["left"]:
        click.echo(f"about {done['left']} remain\nnext: {stack.command('redrive', queue=done['queue'])}")


@click.command(
    "export",
    epilog=examples("export --stage dev --since 2026-11-01", "export --tenant demo --out demo.csv"),
)
@on_stack
@click.option("--since", metavar="TIME", help="Tasks created from this date or time on. Default: the last 24 hours.")
@click.option("--until", metavar="TIME", help="Tasks created before this date or time.")
@click.option("--tenant", "--only", "tenant", help="Only tasks of this tenant. Default: all tenants.")
@click.option("--out", default="tasks.csv", show_default=True, type=click.Path(path_type=Path), help="The CSV file.")
def export(stack: DeployedStack, since: str | None, until: str | None, tenant: str | None, out: Path) -> None:
    """Write the tasks of a time window as CSV.

    The file contains no prompts and no addresses.
    """
    fields = {"since": since, "until": until, "tenant": tenant}
    response = stack.operate("export", **{name: value for name, value in fields.items() if value})
    try:
        _write(out, response)
    except OSError as exc:  # the base class of requests' errors too
        remedy = f"choose another file with --out (make: OUT=), or repeat: {stack.command('export')}"
        raise CommandError(f"{out}: not written ({type(exc).__name__})", remedy) from exc
    click.echo(f"{_count(response['rows'], 'task')}: {out}")


def _write(path: Path, response: dict[str, Any]) -> None:
    if "csv" in response:
        path.write_bytes(response["csv"].encode())
        return
    with requests.get(response["url"], stream=True, timeout=60) as download, path.open("wb") as file:
        download.raise_for_status()
        for piece in download.iter_content(65_536):
            file.write(piece)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


COMMANDS = (replay, retry_archive, redrive, export)
