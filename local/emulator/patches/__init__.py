"""Correct MiniStack, the AWS emulator of the local stack, where its behaviour differs from AWS.

    python -m local.emulator.patches            MiniStack with every correction
    python -m local.emulator.patches --stock    MiniStack as published

Only behaviour that this project relies on is corrected. Each correction is one function, marked `@correction`. Its
docstring describes the behaviour of MiniStack and of AWS. MiniStack's installation is not changed: the corrections
change the loaded modules before its server starts.

The corrections are written for one exact release. The code that they change is compared with the expected code, so an
upgrade fails at start instead of running half corrected. To upgrade: pin the new release, set
`patching.MINISTACK_VERSION`, then run

    CORRECTIONS=off python -m pytest tests/emulator

This runs the same tests on stock MiniStack: a test that passes there names a correction that can be deleted. Then run
the tests with the corrections on, and adapt those that refuse to start.
"""
