"""Run the provider as a separate process: `python -m local.simulator`."""

import argparse
import json
import os
import signal
import time

from local.simulator.account import Account
from local.simulator.server import Simulator


def end_with_parent(parent: int) -> None:
    """End this process when its parent has ended. Nothing is on disk, so nothing has to be cleaned up."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.simulator", description="A Kling provider on this machine.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 = any free port")
    parser.add_argument("--front-port", type=int, help="port of the front, whose pages may call this server")
    parser.add_argument("--key", default=Account.key, help="the API key that it accepts")
    parser.add_argument("--render-seconds", type=float, default=8.0, help="seconds from submitted to the end of a task")
    parser.add_argument("--render-size", type=int, default=1280, help="longest side of a video in pixels")
    parser.add_argument("--slots", type=int, default=0, help="parallel tasks; 0 = no limit")
    parser.add_argument("--account", type=json.loads, default={}, help="further settings of the account, as JSON")
    options = parser.parse_args()
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    simulator = Simulator(
        options.port,
        front_port=options.front_port,
        key=options.key,
        render_seconds=options.render_seconds,
        render_size=options.render_size,
        slots=options.slots,
        **options.account,
    ).start()
    print(json.dumps({"url": simulator.url, "pid": os.getpid()}), flush=True)
    end_with_parent(parent)


main()
