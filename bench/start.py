"""Measure the CPU seconds of a piece of code in a separate interpreter, and the number of modules that it compiled.

python -S start.py BEFORE 'import app' [further statements ...]    BEFORE runs first and is not measured
"""

import sys
import time
from importlib.machinery import SourceFileLoader

_compile = SourceFileLoader.source_to_code
compiled: list[str] = []


def _counting(self: SourceFileLoader, data: object, path: str, **kwargs: object) -> object:
    compiled.append(path)
    return _compile(self, data, path, **kwargs)  # type: ignore[arg-type]


if __name__ == "__main__":
    SourceFileLoader.source_to_code = _counting  # type: ignore[assignment, method-assign]
    names: dict[str, object] = {}
    exec(sys.argv[1], names)  # nosec B102 # noqa: S102
    started = time.process_time()
    exec("\n".join(sys.argv[2:]), names)  # nosec B102 # noqa: S102
    print(time.process_time() - started, len(compiled))
