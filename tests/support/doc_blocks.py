"""Collect the pages of the documentation and their fenced code blocks. docs/README.md describes the info strings."""

import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_MAKE = re.compile(r"(?:[A-Z_]+=\S+ )*make\b")


class Block(NamedTuple):
    page: str
    line: int
    info: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Return the logical lines of a shell block, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]

    @property
    def only_make(self) -> bool:
        return all(_MAKE.match(command) for command in self.commands)

    @property
    def runs(self) -> bool:
        """Return whether the block runs against the local stack."""
        return self.info == "python" or (self.info == "sh" and not self.only_make)


def blocks_of(page: str, text: str) -> list[Block]:
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[2].strip(), textwrap.dedent(match[3]))
        for match in _FENCE.finditer(text)
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """Return the text without its code blocks."""
    return _FENCE.sub("", text)


class MakeCall(NamedTuple):
    target: str
    variables: set[str]
    environment: set[str]
    """The variables in front of `make`."""


def make_call(command: str) -> MakeCall | None:
    """Parse a make command; return None if `command` calls another program."""
    if not _MAKE.match(command):
        return None
    words = shlex.split(command, comments=True)
    place = words.index("make")
    before, after = (
        {word.partition("=")[0] for word in part if "=" in word} for part in (words[:place], words[place:])
    )
    return MakeCall(words[place + 1], after, before)


BLOCKS = [block for page in PAGES for block in blocks_of(name_of(page), page.read_text())]
