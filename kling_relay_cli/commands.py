"""The entry point `kling-relay`: all commands, in the sections of its help.

A module of operators/ (or users/) holds the commands of one section.
"""

from collections.abc import Mapping, Sequence

import click
from kling_relay import __version__

from kling_relay_cli.errors import CommandError, option_error
from kling_relay_cli.operators import checks, keys_and_secrets, spending, tasks

SECTIONS: Mapping[str, Sequence[click.Command]] = {
    "Keys and secrets": keys_and_secrets.COMMANDS,
    "Tasks": tasks.COMMANDS,
    "Spending": spending.COMMANDS,
    "Checks": checks.COMMANDS,
}


class SectionedGroup(click.Group):
    """A group whose help lists the commands by section."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(len(name) for name in self.commands)
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(f"{one.name:<{longest}}", one.get_short_help_str(formatter.width)) for one in commands]
                formatter.write_dl(rows)


@click.group(
    cls=SectionedGroup,
    commands=[command for commands in SECTIONS.values() for command in commands],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="kling-relay")
def cli() -> None:
    """Operate a deployed stack of kling-relay.

    \b
    kling-relay COMMAND --stage dev            the stack is kling-relay-dev
    kling-relay COMMAND --help                 options and examples of a command

    Without an installation: `python -m kling_relay_cli COMMAND`, or `make COMMAND STAGE=dev NAME=value` in a
    checkout. Commands use your AWS credentials (AWS_PROFILE, AWS_DEFAULT_REGION). Secrets are read from standard
    input or from a prompt without echo.

    Exit codes: 0 success, 1 an error or findings (doctor, reconcile), 2 wrong usage.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    error: click.ClickException
    try:
        return int(cli.main(arguments, standalone_mode=False) or 0)
    except click.Abort:
        error = CommandError("stopped by the user", "run the command again")
    except click.exceptions.NoArgsIsHelpError as exc:
        error = exc
    except click.UsageError as exc:
        error = option_error(exc)
    except click.ClickException as exc:
        error = exc
    error.show()
    return error.exit_code
