"""A Kling-compatible video API in your own AWS account: everything that the functions share."""

import gc

# Nearly all that a start makes stays for good: looking through it for garbage takes a tenth of a cold start.
gc.set_threshold(100_000)
