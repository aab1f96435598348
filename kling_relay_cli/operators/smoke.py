"""One real task, which costs money, through a deployed stack."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from kling_relay_cli import STATE, api_client, image_file
from kling_relay_cli.errors import CommandError
from kling_relay_cli.operators.stack import DeployedStack

KIND = "image2video"
# US dollars per second in Kling's price list, without sound. Relays have other prices.
PRICES = {
    ("kling-v2-5-turbo", "std"): 0.042,
    ("kling-v2-5-turbo", "pro"): 0.07,
    ("kling-v2-6", "std"): 0.042,
    ("kling-v2-6", "pro"): 0.07,
    ("kling-v3", "std"): 0.084,
    ("kling-v3", "pro"): 0.112,
}


def smoke(stack: DeployedStack, body: dict[str, str], image: Path, *, assume_yes: bool, every: float) -> bool:
    """Send one task with a temporary key, and download its video. Return False if the user declines the cost."""
    try:
        encoded = image_file.as_base64(image)
    except image_file.ImageFileError as exc:
        raise CommandError(str(exc), "choose another file with --image") from exc
    if not stack.has_provider_key():
        raise CommandError("provider key: not stored", stack.command("provider-key"))
    if not _accepts_cost(body, assume_yes):
        click.echo("no task was sent")
        return False
    key = stack.operate("create_key", tenant="smoke")
    try:
        _send(api_client.Client(stack.base_url, key["api_key"]), {**body, "image": encoded}, every)
    except api_client.ClientError as exc:
        raise CommandError(str(exc), stack.command("doctor")) from exc
    finally:
        stack.operate("revoke_key", key_id=key["key_id"])
        click.echo("the temporary API key is revoked")
    return True


def _accepts_cost(body: dict[str, str], assume_yes: bool) -> bool:
    """Print the cost and return whether the user accepts it. Raises CommandError without a terminal and `--yes`."""
    price = PRICES.get((body["model_name"], body["mode"]))
    cost = "not known, see your provider's price list"
    if price is not None:
        cost = f"about ${price * float(body['duration']):.2f} in Kling's price list; a relay may have another price"
    click.echo(f"One real task: {body['model_name']}, {body['mode']}, {body['duration']} s. Cost: {cost}.")
    if assume_yes:
        return True
    if not sys.stdin.isatty():
        raise CommandError("cost: not accepted (standard input is not a terminal)", "add --yes to accept the cost")
    return click.confirm("Send it?")


def _send(api: api_client.Client, body: dict[str, Any], every: float) -> None:
    start, shown = time.monotonic(), ""

    def show(text: str) -> None:
        click.echo(f"{time.monotonic() - start:6.1f} s  {text}")

    def on_status(task: dict[str, Any]) -> None:
        nonlocal shown
        if task["task_status"] != shown:
            shown = task["task_status"]
            show(f"{shown:<10}  {task['task_status_msg']}".rstrip())

    task = api.send(KIND, body)
    show(f"task {task['task_id']}")
    task = api.follow(KIND, task, on_status, every=every)
    path = api.download(task, STATE / "videos" / f"{task['task_id']}.mp4")
    seconds = api_client.seconds_of_video(path)
    show(f"downloaded and decoded: {path.stat().st_size} bytes, {seconds:.1f} s of video")
    click.echo(f"video: {path}")
