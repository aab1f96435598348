"""One cold start, in an interpreter of its own: the CPU seconds of a piece of code, and how many modules it compiled.

python -S start.py 'import app' [what makes it ready ...]
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
    started = time.process_time()
    exec("\n".join(sys.argv[1:]), {})  # nosec B102 # noqa: S102
    print(time.process_time() - started, len(compiled))
