"""Run the whole stack on one laptop. Nothing that is deployed imports this package."""

import kling_relay_cli  # noqa: F401  (puts the layer's package on the path)
