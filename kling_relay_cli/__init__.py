"""The command line of kling-relay, for users and operators of any stage. Deployed code never imports it."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
IN_CHECKOUT = (REPOSITORY / "template.yaml").is_file()
"""False in an installed copy (`pip install .`), which has no Makefile and contains the package `kling_relay`."""
STATE = REPOSITORY / ".local" if IN_CHECKOUT else Path.home() / ".kling-relay"
"""The folder for all files that a local run or a command writes."""

if IN_CHECKOUT:  # last on the path: the folder hides no installed package
    sys.path.append(str(REPOSITORY / "layers" / "relay"))
