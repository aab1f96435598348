"""Measure the costs of this program against the physical floor and the usual way, as ratios."""

import kling_relay_cli  # noqa: F401  (it puts the layer's package on the path)
