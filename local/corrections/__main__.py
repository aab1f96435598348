"""Start MiniStack, corrected unless `--stock` is given. Its settings come from the environment, as it documents."""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time


def _end_with(parent: int) -> None:
    """Kill this process group and remove its temporary folder as soon as `parent` is no longer the parent process.

    Works where the parent was killed and could not clean up. The cleaning is left to a shell outside the process group,
    because Lambda workers may write to the folder until they are dead.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    clean_up = 'kill -KILL -- "-$1"; rm -rf -- "$2"'
    subprocess.Popen(
        ["/bin/sh", "-c", clean_up, "sh", str(os.getpgrp()), tempfile.gettempdir()], start_new_session=True, cwd="/"
    )


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m local.corrections")
    options.add_argument("--stock", action="store_true", help="apply no corrections")
    options.add_argument("--parent", type=int, metavar="PID", help="end, and delete TMPDIR, when this parent is gone")
    given = options.parse_args()
    if given.parent is not None:
        threading.Thread(target=_end_with, args=(given.parent,), daemon=True, name="parent-watch").start()
    if not given.stock:
        from local.corrections import functions, gateway, patching, resources, workflows  # noqa: F401

        patching.apply_all()
    from ministack.app import main as ministack

    sys.argv = ["ministack"]
    ministack()


if __name__ == "__main__":
    main()
