"""The errors that end a command."""

from typing import IO, Any

import click


class CommandError(click.ClickException):
    """An expected error in the form `what: rule`, with the remedy. Exits with 1."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{self.message}\n-> {self.remedy}", file=file, err=file is None)


class OptionError(CommandError):
    """An error of click's parser: a wrong or missing option, or an unknown command. Exits with 2."""

    exit_code = click.UsageError.exit_code


def option_error(error: click.UsageError) -> OptionError:
    """Return click's error in the form of all others."""
    program = error.ctx.command_path if error.ctx else "kling-relay"
    option = error.param if isinstance(error, click.BadParameter) else None
    what = error.format_message()
    if isinstance(option, click.Option):
        rule = "required" if isinstance(error, click.MissingParameter) else error.message.rstrip(".")
        what = f"{option.opts[0]}: {rule}"
    return OptionError(what, f"{program} --help")
