"""One real task, which costs money, through a deployed stack: `make smoke`."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from kling_relay_cli import STATE, api_client, image_file
from kling_relay_cli.stack import DeployedStack, OperatorError

KIND = "image2video"
# Dollars a second by Kling's own price list, silent; relays have lists of their own.
PRICES = {
    ("kling-v2-5-turbo", "std"): 0.042,
    ("kling-v2-5-turbo", "pro"): 0.07,
    ("kling-v2-6", "std"): 0.042,
    ("kling-v2-6", "pro"): 0.07,
    ("kling-v3", "std"): 0.084,
    ("kling-v3", "pro"): 0.112,
}


def smoke(stack: DeployedStack, options: argparse.Namespace) -> int:
    body = {"model_name": options.model, "mode": options.mode, "duration": options.duration}
    image = image_file.as_base64(Path(options.image))
    if not stack.has_provider_key():
        raise OperatorError(
            "no provider key is stored, so the task would wait", f"make provider-key STAGE={stack.stage}"
        )
    if not _agreed(options):
        print("nothing was sent")
        return 1
    issued = stack.operate("create_key", tenant="smoke")
    try:
        _send(
            api_client.Client(stack.base_url, issued["api_key"]),
            {**body, "image": image, "prompt": options.prompt},
            options,
        )
    except api_client.ClientError as exc:
        raise OperatorError(str(exc), f"make doctor STAGE={stack.stage}") from exc
    finally:
        stack.operate("revoke_key", key_id=issued["key_id"])
        print("its temporary key is revoked")
    return 0


def _agreed(options: argparse.Namespace) -> bool:
    """Whether the money may be spent. Without a terminal and without --yes it may not."""
    price = PRICES.get((options.model, options.mode))
    cost = "see your provider's price list"
    if price is not None:
        cost = f"about ${price * float(options.duration):.2f} by Kling's list; a relay may charge another price"
    print(f"This sends one real task: {options.model}, {options.mode}, {options.duration} s. Cost: {cost}.")
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise OperatorError("standard input is not a terminal", "pass --yes to accept the cost")
    return input("Send it? [y/N] ").strip().lower() in ("y", "yes")


def _send(api: api_client.Client, body: dict[str, Any], options: argparse.Namespace) -> None:
    began, shown = time.monotonic(), ""

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    def look(task: dict[str, Any]) -> None:
        nonlocal shown
        if task["task_status"] != shown:
            shown = task["task_status"]
            tell(f"{shown:<10}  {task['task_status_msg']}".rstrip())

    task = api.send(KIND, body)
    tell(f"task {task['task_id']}")
    task = api.follow(KIND, task, look, every=options.every)
    path = api.download(task, STATE / "videos" / f"{task['task_id']}.mp4")
    seconds = api_client.seconds_of_video(path)
    tell(f"downloaded and decoded: {path.stat().st_size} bytes, {seconds:.1f} s of video")
    print(f"video: {path}")
