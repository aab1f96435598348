"""Corrections to MiniStack, the AWS emulator of the local stack, where it behaves unlike AWS.

    python -m local.emulator.patches            MiniStack with every correction
    python -m local.emulator.patches --stock    MiniStack as it was published

Only behaviour that this project relies on is corrected. Each correction is one function, marked `@correction`, whose
docstring says what MiniStack does and what AWS does. Nothing in MiniStack's installation is written to: the corrections
change the loaded modules before its server starts.

The corrections are written against one exact release, and the pieces of code that they change are compared with what
they were written for, so an upgrade fails at start instead of running half corrected. To upgrade: pin the new release,
set `patching.MINISTACK_VERSION`, then run

    CORRECTIONS=off python -m pytest tests/emulator

which runs the same tests on stock MiniStack: a test that passes there names a correction that can be deleted. Then run
the tests with the corrections on, and adapt those that refuse to start.
"""
