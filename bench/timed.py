"""Run a pipeline of commands; print its wall-clock seconds, and the CPU seconds and peak memory (MB) of all of it.

    python -S timed.py '[["curl", "..."], ["aws", "..."]]'

Runs in a small separate process, because a child's peak memory starts at that of its parent.
"""

import json
import os
import subprocess
import sys
import time
from typing import IO

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes per unit of ru_maxrss

if __name__ == "__main__":
    started, pids = time.perf_counter(), list[int]()
    before: IO[bytes] | None = None
    for command in json.loads(sys.argv[1]):
        process = subprocess.Popen(command, stdin=before, stdout=subprocess.PIPE)
        if before is not None:
            before.close()  # only the next command keeps the pipe open, so that it notices the end
        pids, before = [*pids, process.pid], process.stdout
    usages = [os.wait4(pid, 0)[1:] for pid in pids]
    if any(status for status, _ in usages):
        sys.exit("a command of the pipeline failed")
    seconds = time.perf_counter() - started
    print(seconds, sum(usage.ru_utime + usage.ru_stime for _, usage in usages), end=" ")
    print(sum(usage.ru_maxrss * _UNIT / 1e6 for _, usage in usages))
