"""Shared parts of the operators' commands: the stack, examples, and the input of secrets."""

import functools
import sys
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import click
from botocore.exceptions import BotoCoreError, ClientError

from kling_relay_cli.operators.stack import DeployedStack, explained

P = ParamSpec("P")

tenant_option = click.option("--tenant", default="demo", show_default=True, help="The owner of keys and tasks.")


def examples(*lines: str) -> str:
    """Return the end of a help text, with one example a line."""
    return "\n".join(("\b", "Examples:", *(f"  kling-relay {line}" for line in lines)))


def on_stack(function: Callable[Concatenate[DeployedStack, P], None]) -> Callable[P, None]:
    """Add the option `--stage`, pass its stack to the command, and explain errors of AWS."""

    @click.option("--stage", envvar="STAGE", show_envvar=True, default="dev", show_default=True,
                  help="The stack is kling-relay-STAGE.")  # fmt: skip
    @functools.wraps(function)
    def command(*args: P.args, **options: P.kwargs) -> None:
        stack = DeployedStack(str(options.pop("stage")))
        try:
            function(stack, *args, **options)
        except (ClientError, BotoCoreError) as exc:
            raise explained(exc, stack) from exc

    return command


def read_secret(question: str) -> str:
    """Read a secret from the terminal without echo, or from standard input."""
    if sys.stdin.isatty():
        return str(click.prompt(question, default="", show_default=False, hide_input=True)).strip()
    return sys.stdin.read().strip()
