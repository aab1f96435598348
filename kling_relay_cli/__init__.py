"""The command line of kling-relay, for users and operators of any stage. Nothing that is deployed imports it."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
STATE = REPOSITORY / ".local"
"""The folder for everything that a local run leaves behind."""

# The layer's package comes last on the path: it hides nothing that is installed.
sys.path.append(str(REPOSITORY / "layers" / "relay"))
