"""Everything that runs on one laptop: never imported by what is deployed.

The package of the layer is at hand, for what both have to read alike: profiles, accounts, the provider's secret.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "layers" / "relay"))
