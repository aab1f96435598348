"""Test that the decision records have one form, and that their index lists each of them once."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs/explanation/decisions"
AREAS = sorted(path.name for path in FOLDER.glob("*.md") if path.name != "README.md")
LINK = r"\[(?P<title>[^\]]+)\]\((?P<file>[\w-]+\.md)?#(?P<anchor>[\w-]+)\)"
STATUS = re.compile(
    rf"accepted (?P<date>\d{{4}}-\d\d)(?:; (?:(?P<change>amended|superseded) (?P<changed>\d{{4}}-\d\d) by {LINK}"
    r"|to be revisited))?"
)
ROW = re.compile(
    r"^\| \[([^\]]+)\]\(([\w-]+\.md)#([\w-]+)\) \| \[([^\]]+)\]\(([\w-]+\.md)\) \| (.+) \| (.+) \|$", re.MULTILINE
)


@dataclass(frozen=True)
class Decision:
    file: str
    area: str
    title: str
    parts: tuple[tuple[str, str], ...]  # (label, text), in the order of the file

    @property
    def anchor(self) -> str:
        return anchor_of(self.title)

    @property
    def status(self) -> str:
        return dict(self.parts).get("Status", "")


def anchor_of(heading: str) -> str:
    """Return the anchor that code hosts give a Markdown heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors_of(path: Path) -> set[str]:
    return {anchor_of(heading) for heading in re.findall(r"^#+ (.+)", path.read_text(), re.MULTILINE)}


def decisions_in(file: str) -> list[Decision]:
    heading, *sections = re.split(r"^## ", (FOLDER / file).read_text(), flags=re.MULTILINE)
    area = heading.splitlines()[0].removeprefix("# Decisions: ")
    found = []
    for section in sections:
        title, body = section.split("\n", 1)
        pieces = re.split(r"^\*\*(\w+):\*\* ", body, flags=re.MULTILINE)
        parts = tuple(zip(pieces[1::2], (text.strip() for text in pieces[2::2]), strict=True))
        found.append(Decision(file, area, title, parts))
    return found


DECISIONS = [decision for file in AREAS for decision in decisions_in(file)]
BY_PLACE = {(decision.file, decision.anchor): decision for decision in DECISIONS}


def test_there_are_decisions_and_each_has_an_anchor_of_its_file() -> None:
    assert len(AREAS) > 10
    assert len(BY_PLACE) == len(DECISIONS) > 100
    assert len({decision.title for decision in DECISIONS}) == len(DECISIONS)


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: f"{decision.file}#{decision.anchor}")
class TestDecision:
    def test_has_four_parts_in_order(self, decision: Decision) -> None:
        assert [label for label, _ in decision.parts] == ["Status", "Context", "Decision", "Consequences"]
        assert [label for label, text in decision.parts if not text] == []

    def test_has_a_title_without_a_date_or_a_full_stop(self, decision: Decision) -> None:
        assert re.fullmatch(r"[A-Z][^.]*(?:\.\w[^.]*)*", decision.title)
        assert not re.search(r"\d{4}-\d\d", decision.title)

    def test_has_a_known_status_and_an_existing_successor(self, decision: Decision) -> None:
        status = STATUS.fullmatch(decision.status)
        assert status is not None, decision.status
        if status["change"] is None:
            return
        successor = BY_PLACE[status["file"] or decision.file, status["anchor"]]
        assert successor != decision
        assert successor.title == status["title"]
        assert successor.status.startswith(f"accepted {status['changed']}")
        assert status["date"] <= status["changed"]


def indexed_status(decision: Decision) -> str:
    """Return the status as the index states it: without the first date, with links from the index's folder."""
    _, _, change = decision.status.partition("; ")
    return change.replace("](#", f"]({decision.file}#") or "accepted"


def test_the_index_lists_each_decision_once_with_area_status_and_date() -> None:
    rows = ROW.findall((FOLDER / "README.md").read_text())
    expected = [
        (each.title, each.file, each.anchor, each.area, each.file, indexed_status(each), each.status.split()[1][:7])
        for each in DECISIONS
    ]
    assert sorted(rows) == sorted(expected)


def test_every_link_leads_to_a_file_and_an_anchor() -> None:
    dead = []
    for file in (*AREAS, "README.md"):
        for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", (FOLDER / file).read_text()):
            path = FOLDER / (target or file)
            if not path.exists() or (anchor and anchor not in anchors_of(path)):
                dead.append((file, target, anchor))
    assert dead == []
