"""Measure the costs of this program as ratios: against the physical minimum and against the usual implementation."""

import kling_relay_cli  # noqa: F401  (puts the layer's package on the path)
