"""Run the command line: `python -m kling_relay_cli COMMAND`."""

import sys

from kling_relay_cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
