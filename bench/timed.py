"""Runs a pipeline of commands: its wall-clock seconds, and the CPU seconds and peak resident memory (MB) of all of it.

python -S timed.py '[["curl", "..."], ["aws", "..."]]'

In a small process of its own, since a child's peak begins at that of the process that started it.
"""

import json
import os
import subprocess
import sys
import time
from typing import IO

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of ru_maxrss

if __name__ == "__main__":
    started, pids = time.perf_counter(), list[int]()
    before: IO[bytes] | None = None
    for command in json.loads(sys.argv[1]):
        process = subprocess.Popen(command, stdin=before, stdout=subprocess.PIPE)
        if before is not None:
            before.close()  # the last one to read it is the command, so that its end is noticed
        pids, before = [*pids, process.pid], process.stdout
    usages = [os.wait4(pid, 0)[1:] for pid in pids]
    if any(status for status, _ in usages):
        sys.exit("a command of the pipeline failed")
    seconds = time.perf_counter() - started
    print(seconds, sum(usage.ru_utime + usage.ru_stime for _, usage in usages), end=" ")
    print(sum(usage.ru_maxrss * _UNIT / 1e6 for _, usage in usages))
