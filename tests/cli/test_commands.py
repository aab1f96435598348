"""kling_relay_cli/commands.py: the entry point, its help, its errors, and the Makefile that calls it."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kling_relay_cli import REPOSITORY, commands
from kling_relay_cli.errors import CommandError
from kling_relay_cli.operators import stack as operators_stack
from kling_relay_cli.operators.stack import next_command

COMMANDS = sorted(commands.cli.commands)
SECRETS = {"api-key", "password", "secret", "token"}


def help_of(*arguments: str) -> str:
    result = CliRunner().invoke(commands.cli, [*arguments, "--help"], terminal_width=100)
    assert result.exit_code == 0
    return result.output


def options_of(command: str) -> dict[str, click.Option]:
    parameters = commands.cli.commands[command].params
    return {name: one for one in parameters if isinstance(one, click.Option) for name in one.opts}


class TestHelp:
    def test_each_command_is_in_one_section(self) -> None:
        text = help_of()
        listed = [one.name for section in commands.SECTIONS.values() for one in section]
        assert sorted(str(name) for name in listed) == COMMANDS
        for title, section in commands.SECTIONS.items():
            part = text.partition(f"\n{title}:\n")[2].split("\n\n")[0]
            assert re.findall(r"^  ([a-z-]+)  ", part, re.MULTILINE) == [one.name for one in section]
        assert "..." not in text.partition("Keys and secrets:")[2], "no short text is cut off"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_option_is_described_and_each_example_is_valid(self, command: str) -> None:
        text = help_of(command)
        assert all(option.help for option in options_of(command).values())
        examples = re.findall(r"^ +kling-relay (.+)$", text.partition("Examples:")[2], re.MULTILINE)
        assert examples
        for example in examples:
            words = shlex.split(re.split(r"  | < ", example)[0])
            parsed = commands.cli.commands[words[0]].make_context(words[0], words[1:])
            assert words[0] == command and parsed.params["stage"] == "dev"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_no_option_takes_a_secret(self, command: str) -> None:
        assert not {name.removeprefix("--") for name in options_of(command)} & SECRETS


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["revoke"], "--key: required\n-> "),
            (["key", "--days", "many"], "--days: 'many' is not a valid integer\n-> "),
            (["smoke", "--duration", "7"], "--duration: '7' is not one of '5', '10'\n-> "),
            (["delivery-key", "--rotate", "2"], "--rotate: '2' is not one of '1', 'now'\n-> "),
            (["cap", "--unit", "5"], "No such option '--unit'. Did you mean '--units'?\n-> "),
            (["paws"], "No such command 'paws'. Did you mean 'pause'?\n-> "),
        ],
    )
    def test_wrong_usage_exits_2(self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert commands.main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(message) and printed.err.endswith(" --help\n") and printed.out == ""

    def test_without_a_command_the_help_is_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert commands.main([]) == 2
        assert "Keys and secrets:" in "".join(capsys.readouterr())

    @pytest.mark.parametrize("error", [KeyboardInterrupt, EOFError, click.Abort])
    def test_an_interrupt_exits_1(
        self, error: type[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(commands.cli.commands["pause"], "callback", interrupted)
        assert commands.main(["pause"]) == 1
        assert "stopped by the user\n-> " in capsys.readouterr().err

    def test_an_expected_error_is_printed_with_its_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(*_: object, **__: object) -> None:
            raise CommandError("key: not found", "list the ids")

        monkeypatch.setattr(commands.cli.commands["pause"], "callback", failing)
        result = CliRunner().invoke(commands.cli, ["pause"])
        assert (result.exit_code, result.stderr) == (1, "key: not found\n-> list the ids\n")


class TestStage:
    def stages(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
        found: list[str] = []

        class Stack(operators_stack.DeployedStack):
            def operate(self, action: str, **fields: object) -> dict[str, object]:
                found.append(self.name)
                return {"resumed": True}

        monkeypatch.setattr("kling_relay_cli.operators.command.DeployedStack", Stack)
        assert commands.main(["resume", *arguments]) == 0
        return found

    def test_its_default_its_variable_and_its_option(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("STAGE", raising=False)
        assert self.stages(monkeypatch) == ["kling-relay-dev"]
        monkeypatch.setenv("STAGE", "test")
        assert self.stages(monkeypatch) == ["kling-relay-test"]
        assert self.stages(monkeypatch, "--stage", "prod") == ["kling-relay-prod"]

    def test_the_next_command_fits_the_installation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert next_command("dev", "key", tenant="demo") == "make key STAGE=dev TENANT=demo"
        monkeypatch.setattr(operators_stack, "IN_CHECKOUT", False)
        assert next_command("dev", "key", tenant="demo") == "kling-relay key --stage dev --tenant demo"


MAKEFILE = (REPOSITORY / "Makefile").read_text()
VARIABLES = dict(re.findall(r"^([a-z-]+): OPTIONS :=([A-Z ]*)## ", MAKEFILE, re.MULTILINE))


def make(*arguments: str) -> str:
    """Run make without the variables of a make around this test; return its output."""
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    call = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(call, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout


def from_make(*arguments: str) -> list[str]:
    """The words that make passes to the command line."""
    call = ["--dry-run", "VENV=/nowhere", "--old-file=/nowhere/run.done", *arguments]
    (line,) = [line for line in make(*call).splitlines() if " -m kling_relay_cli " in line]
    return shlex.split(line.partition(" -m kling_relay_cli ")[2])


class TestMake:
    def test_it_has_every_command(self) -> None:
        assert sorted(VARIABLES) == COMMANDS

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_variable_becomes_an_option(self, command: str) -> None:
        names = VARIABLES[command].split()
        known = options_of(command)
        values = {name: self.value(known[f"--{name.lower()}"]) for name in names}
        words = from_make(command, "STAGE=prod", *(f"{name}={value}" for name, value in values.items()))
        flags = {name for name in names if known[f"--{name.lower()}"].is_flag}
        expected = [["--" + name.lower(), *([] if name in flags else [value])] for name, value in values.items()]
        assert words == [command, "--stage", "prod", *(word for words in expected for word in words)]
        commands.cli.commands[command].make_context(command, words[1:])

    def value(self, option: click.Option) -> str:
        if isinstance(option.type, click.Choice):
            return str(option.type.choices[-1])
        return "1" if option.is_flag or option.type is click.INT else "a b"

    def test_an_empty_variable_is_no_option(self) -> None:
        assert from_make("delivery-key") == ["delivery-key", "--stage", "dev"]
        assert from_make("key") == ["key", "--stage", "dev", "--tenant", "demo"]
        assert from_make("pause", "REASON=") == ["pause", "--stage", "dev"]

    def test_a_value_reaches_the_command_unchanged(self) -> None:
        reason = """it's "odd" `echo x` \\ ; # & *"""
        assert from_make("pause", f"REASON={reason.replace('$', '$$')}")[-2:] == ["--reason", reason]

    def test_it_lists_them(self) -> None:
        assert set(COMMANDS) <= set(re.findall(r"^  make ([a-z-]+) ", make("help"), re.MULTILINE))


class TestInstallation:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())

    def test_the_script_is_the_entry_point(self) -> None:
        assert self.project["project"]["scripts"] == {"kling-relay": "kling_relay_cli.commands:main"}

    def test_each_library_is_a_dependency(self) -> None:
        declared = {re.split(r"[<>=~!;\[ ]", one)[0] for one in self.project["project"]["dependencies"]}
        assert declared == self.libraries()

    def libraries(self) -> set[str]:
        """The third-party packages that the modules of the command line import at their top level."""
        script = "import sys, kling_relay_cli.commands; print(*(one.__file__ for n, one in sys.modules.items() if {}))"
        ours = 'n.split(".")[0] in ("kling_relay", "kling_relay_cli")'
        call = [sys.executable, "-c", script.format(ours)]
        loaded = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True).stdout
        trees = [ast.parse(Path(path).read_text()) for path in loaded.split()]
        nodes = [node for tree in trees for node in tree.body]
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"kling_relay", "kling_relay_cli"}
