"""Start MiniStack, corrected unless `--stock` is given. Its settings come from the environment, as it documents."""

import argparse
import os
import subprocess
import sys
import threading
import time

from local.origin_guard import Guard, guarded


def _end_with(parent: int, folder: str) -> None:
    """Kill this process group and delete `folder` as soon as `parent` is no longer the parent process.

    This works even if the parent was killed and could not clean up. A shell outside the process group cleans up,
    because Lambda workers may write to the folder until they are dead.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    clean_up = 'kill -KILL "-$1"; rm -rf -- "$2"'
    subprocess.Popen(["/bin/sh", "-c", clean_up, "sh", str(os.getpgrp()), folder], start_new_session=True, cwd="/")


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m local.emulator.patches")
    options.add_argument("--stock", action="store_true", help="apply no corrections")
    options.add_argument("--front-port", type=int, help="port of the front, whose pages may call this server")
    options.add_argument(
        "--end-with",
        nargs=2,
        metavar=("PARENT", "FOLDER"),
        help="end and delete FOLDER when the process PARENT has ended",
    )
    given = options.parse_args()
    if given.end_with:
        parent, folder = given.end_with
        threading.Thread(target=_end_with, args=(int(parent), folder), daemon=True, name="parent-watch").start()
    if not given.stock:
        from local.emulator.patches import (  # noqa: F401
            access,
            alarms,
            executions,
            functions,
            gateway,
            metrics,
            patching,
            resources,
            task_tokens,
        )

        patching.apply_all()
    from ministack import app as ministack

    guard = Guard(int(os.environ["GATEWAY_PORT"]), given.front_port, subdomains=True)
    ministack.app = guarded(ministack.app, guard)
    sys.argv = ["ministack"]
    ministack.main()


if __name__ == "__main__":
    main()
