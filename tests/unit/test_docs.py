"""Test README.md and docs/ against code, template and Makefile. tests/workflow/test_readme.py runs their blocks."""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import botocore.session
import click
import pytest
from botocore import xform_name
from kling_relay.api import request
from kling_relay.observability import REASONS, UNITS, Metric
from kling_relay.operations.discrepancies import Finding
from kling_relay.tasks.notification import EVENTS
from kling_relay.tasks.task import MOVES, Phase, Task

from kling_relay_cli.commands import SECTIONS, cli
from local.stack.deploy_template import load_template
from tests.support.doc_blocks import BLOCKS, PAGES, ROOT, Block, blocks_of, make_call, name_of, prose
from tests.support.stack_in_memory import World
from tests.template.drawing import logged

TABLE_IN_MEMORY = True
PACKAGE = ROOT / "layers/relay/kling_relay"
TEMPLATE = load_template()
MAKEFILE = (ROOT / "Makefile").read_text()
READERS = "".join(path.read_text() for folder in ("local", "layers/relay") for path in (ROOT / folder).rglob("*.py"))
RULES = {
    rule[0]: rule[1] for rule in re.findall(r"^([a-z-]+):(.*(?:\n.+)*)", MAKEFILE, re.MULTILINE) if "##" in rule[1]
}
INFO = {
    "sh",
    "sh needs-aws",
    "python",
    "python needs-library",
    "json",
    "json event",
    "logs-insights",
    "mermaid",
    "text",
}
TOP = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
S3 = {"cp", "ls", "sync", "rm", "mv"}
GLOBAL_OPTIONS = {"query", "output", "region", "endpoint-url"}
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]


def page(name: str) -> str:
    return (ROOT / name).read_text()


def of(*infos: str) -> list[Any]:
    return [pytest.param(block, id=f"{block.page}:{block.line}") for block in BLOCKS if block.info in infos]


def section(name: str, heading: str) -> str:
    """The part of a page below `heading`, to the next heading of the same level."""
    level = heading.split(" ")[0]
    after = page(name).partition(f"\n{heading}\n")[2]
    assert after, f"{name}: no heading {heading}"
    return re.split(rf"^#{{1,{len(level)}}} ", after, flags=re.MULTILINE)[0]


def cells(text: str) -> list[list[str]]:
    """The rows of the tables in `text`, without their heads."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^ *(\|.*\|)$", text, re.MULTILINE)
    ]
    ruled = [number for number, row in enumerate(rows) if set("".join(row)) <= set("-:")]
    return [row for number, row in enumerate(rows) if number not in ruled and number + 1 not in ruled]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# -------------------------------------------------------------------------------------------------------------- blocks
def test_there_is_something_to_check() -> None:
    assert len(PAGES) > 30 and len(BLOCKS) > 60
    assert {block.info for block in BLOCKS} == INFO, "every info string is in use, and no other"
    assert sum(block.runs for block in BLOCKS) > 8


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{block.page}:{block.line}") for block in BLOCKS])
def test_each_block_has_an_info_string_that_selects_a_check(block: Block) -> None:
    assert block.info in INFO, "docs/README.md lists the info strings"
    assert block.text.strip()


def test_the_index_lists_the_info_strings() -> None:
    listed = [code(row[0])[0] for row in cells(section("docs/README.md", "## How these pages are tested"))]
    assert set(listed) == INFO


def test_an_unclosed_or_nested_fence_is_noticed() -> None:
    for path in PAGES:
        assert len(re.findall(r"^ *```", path.read_text(), re.MULTILINE)) == 2 * len(
            blocks_of(name_of(path), path.read_text())
        ), path


def make_problems(command: str) -> Iterator[str]:
    call = make_call(command)
    if call is None:
        return
    if call.target not in RULES:
        yield f"no target {call.target}"
        return
    unknown = {name for name in call.variables if not re.search(rf"\b{name}\b", RULES[call.target])}
    yield from (f"{call.target} has no variable {name}" for name in unknown)
    yield from (f"nothing reads {name}" for name in call.environment if name not in RULES[call.target] + READERS)


def aws_calls(command: str) -> list[str]:
    inner = re.findall(r"\$\((aws [^)]*)\)", command)
    outer = [re.sub(r"\$\([^)]*\)", "X", command)] if command.startswith("aws ") else []
    return [*inner, *outer]


def aws_problems(call: str) -> Iterator[str]:
    words = re.findall(r"(?:[^\s'\"]|'[^']*'|\"[^\"]*\")+", call)
    service, operation = words[1], words[2]
    options = {word.removeprefix("--") for word in words if word.startswith("--")}
    if service == "s3":
        if operation not in S3:
            yield f"aws s3 {operation}: no such command"
        return
    model = botocore.session.get_session().get_service_model(service)
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    if operation not in operations:
        yield f"aws {service} {operation}: no such operation"
        return
    shape = model.operation_model(operations[operation]).input_shape
    known = {xform_name(name, "-") for name in (shape.members if shape else ())}
    known |= GLOBAL_OPTIONS | {"max-items", "status-filter"}
    yield from (f"aws {service} {operation}: no option --{one}" for one in options - known)


def cli_problems(command: str) -> Iterator[str]:
    if not command.startswith("kling-relay ") or command.endswith("--help"):
        return
    _, name, *words = shlex.split(command, comments=True)
    try:
        cli.commands[name].make_context(name, words)
    except (KeyError, click.UsageError) as exc:
        yield f"kling-relay {name}: {exc}"


def shell_problems(block: Block) -> list[str]:
    parsed = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=10)
    found = [parsed.stderr] * bool(parsed.returncode or parsed.stderr)
    for command in block.commands:
        found += [*make_problems(command), *cli_problems(command)]
        found += [problem for call in aws_calls(command) for problem in aws_problems(call)]
    return found


@pytest.mark.parametrize("block", of("sh", "sh needs-aws"))
def test_shell_blocks_name_what_exists(block: Block) -> None:
    assert shell_problems(block) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("make kyes STAGE=dev", "no target kyes"),
        ("make keys STAGE=dev TENANTS=demo", "keys has no variable TENANTS"),
        ("ALLOW_LOCALHOST=1 make serve", "nothing reads ALLOW_LOCALHOST"),
        ("aws dynamodb describe-tables", "aws dynamodb describe-tables: no such operation"),
        ("aws dynamodb describe-table --table x", "aws dynamodb describe-table: no option --table"),
        ('echo "$(aws iam list-polices)"', "aws iam list-polices: no such operation"),
        ("aws s3 copy a b", "aws s3 copy: no such command"),
        ("kling-relay kyes", "kling-relay kyes: 'kyes'"),
        ("kling-relay keys --tenants demo", "kling-relay keys: No such option '--tenants'."),
    ],
)
def test_a_wrong_command_is_found(text: str, problem: str) -> None:
    assert shell_problems(Block("x", 1, "sh", text)) == [problem]


@pytest.mark.parametrize("block", of("python", "python needs-library"))
def test_python_blocks_compile(block: Block) -> None:
    compile(block.text, f"{block.page}:{block.line}", "exec")


@pytest.mark.parametrize("block", of("json"))
def test_json_blocks_are_requests(block: Block) -> None:
    body = json.loads(block.text)
    checked = request.check(body.pop("kind"), body, "inbox/")
    assert checked.notes == [], "each field is one of this kind"


def test_the_event_has_the_fields_of_a_real_one(world: World) -> None:
    (block,) = [block for block in BLOCKS if block.info == "json event"]
    shown = json.loads(block.text)
    world.until_closed(world.create().id)
    world.run_notifier()
    detail_type, real = world.events[-1]
    assert detail_type == "Kling Task Succeeded" and set(shown) == set(real)
    assert set(shown["videos"][0]) == set(real["videos"][0])


@pytest.mark.parametrize("block", of("logs-insights"))
def test_queries_ask_for_logged_keys(block: Block) -> None:
    messages, keys = logged()
    keys |= {one.name for one in fields(Finding)}
    assert set(re.findall(r'message = "(\w+)"', block.text)) <= messages
    asked = set(re.findall(r"(?<=fields )([^|]*)", block.text)[0].replace(" ", "").strip().split(","))
    assert asked <= keys | {"@timestamp", "message"}


@pytest.mark.parametrize("block", of("mermaid"))
def test_diagrams_have_a_known_type(block: Block) -> None:
    assert block.text.split()[0] in ("flowchart", "sequenceDiagram", "stateDiagram-v2")


def test_the_diagram_of_the_phases_is_the_table_of_moves() -> None:
    (block,) = [block for block in BLOCKS if block.text.startswith("stateDiagram")]
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)", block.text, re.MULTILINE))
    moves = {(start.value, target.value) for target, starts in MOVES.items() for start in starts}
    assert drawn == moves | {("expired", "failed")}, "an expired task that its client deletes fails"
    ends = set(re.findall(r"(\w+) --> \[\*\]", block.text))
    assert ends == {phase.value for phase in Phase if not any(phase in starts for starts in MOVES.values())}


# ------------------------------------------------------------------------------------------------------- architecture
def test_the_drawing_of_the_packages_equals_the_folders_and_the_contract() -> None:
    (block,) = [block for block in BLOCKS if "kling_relay/\n" in block.text]
    drawn = re.findall(r"^  (\w+)(/?) ", block.text, re.MULTILINE)
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert {name for name, slash in drawn if slash} == folders
    assert {name for name, slash in drawn if not slash} == modules
    assert [name for name, _ in drawn] == CONTRACT["layers"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_named_paths_exist(path: Path) -> None:
    """Paths of the repository, and modules of the package as `package/module`."""
    names = [name.split(":")[0] for name in code(prose(path.read_text())) if re.fullmatch(r"[\w-]+/[\w./-]*", name)]
    packages = {one.parent.name for one in PACKAGE.glob("*/__init__.py")}
    missing = [name for name in names if name.split("/")[0] in TOP and not (ROOT / name).exists()]
    inside = [name for name in names if name.split("/")[0] in packages - TOP]
    missing += [name for name in inside if not any((PACKAGE / f"{name}{end}").exists() for end in ("", ".py"))]
    assert missing == []


# --------------------------------------------------------------------------------------------------------------- links
def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_to_pages_and_anchors(path: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text()).replace("\n", " ")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    linked = {
        (ROOT / "docs" / link.partition("#")[0]).resolve()
        for link in re.findall(r"\]\(([^)\s]+)\)", page("docs/README.md"))
    }
    decisions = ROOT / "docs/explanation/decisions"
    pages = {path for path in PAGES if path.parent != decisions} - {ROOT / "README.md", ROOT / "docs/README.md"}
    assert {name_of(path) for path in pages if path not in linked} == set()


def test_the_readme_is_short_and_starts_with_the_first_request() -> None:
    readme = page("README.md")
    assert len(readme.split()) <= 900
    first = readme.partition("\n## Deploy it\n")[0]
    assert "```mermaid" in first and "make run" in first and "curl" in first


# -------------------------------------------------------------------------------------------------------------- tables
@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_make_targets_in_the_text_exist(path: Path) -> None:
    calls = [name for name in code(prose(path.read_text()).replace("\n", " ")) if name.startswith("make ")]
    named = {target for name in calls for target in re.findall(r"^make ([a-z-]+)", name)}
    assert named <= set(RULES)


def test_commands_are_the_targets_of_the_makefile() -> None:
    rows = {code(row[0])[0].removeprefix("make "): row for row in cells(page("docs/reference/commands.md"))}
    assert set(rows) == set(RULES)
    for target, row in rows.items():
        names = {name.partition("=")[0] for name in code(row[2])}
        assert {name for name in names if not re.search(rf"\b{name}\b", RULES[target])} == set(), target


def test_sections_of_commands_are_those_of_the_command_line() -> None:
    for title, commands in SECTIONS.items():
        listed = [code(row[0])[0] for row in cells(section("docs/reference/commands.md", f"## {title}"))]
        assert listed == [f"make {command.name}" for command in commands]


def test_parameters_are_those_of_the_template_with_their_defaults() -> None:
    listed: dict[str, str] = {}
    for row in cells(section("docs/reference/configuration.md", "## Parameters")):
        listed |= dict.fromkeys(code(row[0]), (code(row[1]) or [""])[0])
    assert listed == {name: str(one.get("Default", "")) for name, one in TEMPLATE["Parameters"].items()}


def test_providers_are_those_of_the_template() -> None:
    rows = cells(section("docs/reference/configuration.md", "## Providers"))
    profiles = json.loads((PACKAGE / "provider/profiles.json").read_text())
    assert [code(row[0])[0] for row in rows] == TEMPLATE["Parameters"]["Provider"]["AllowedValues"] == list(profiles)
    needs_host = {code(row[0])[0] for row in rows if "needs `KlingBaseUrl`" in row[3]}
    assert needs_host == {name for name, profile in profiles.items() if not profile["base_url"]}


def test_outputs_are_those_of_the_template() -> None:
    rows = cells(section("docs/reference/configuration.md", "## Outputs"))
    assert {name for row in rows for name in code(row[0])} == set(TEMPLATE["Outputs"])


def test_metrics_are_those_of_the_catalogue() -> None:
    rows = cells(section("docs/reference/log-events-and-metrics.md", "## Metrics"))
    assert {code(row[0])[0]: row[1] for row in rows} == {str(metric): unit for metric, unit in UNITS.items()}
    for name, _, meaning in rows:
        dimension, values = REASONS.get(Metric(code(name)[0]), ("", ()))
        listed = re.search(r"by `(\w+)`: ([\w, ]+)", meaning)
        assert (listed[1], set(listed[2].split(", "))) == (dimension, set(values)) if listed else not values, name


def test_log_events_are_those_of_the_code() -> None:
    messages, _ = logged()
    rows = cells(section("docs/reference/log-events-and-metrics.md", "### Events"))
    listed = [code(row[0])[0] for row in rows]
    assert set(listed) == messages and len(listed) == len(set(listed))
    assert [name for name in messages if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []


def test_named_log_events_exist() -> None:
    """In the table of keys, and in sentences such as "log line `copy_failed`"."""
    messages, _ = logged()
    keys = cells(section("docs/reference/log-events-and-metrics.md", "### Keys"))
    named = {name for row in keys for name in code(row[2]) if "_" in name}  # no phase has one
    assert len(named) > 20 and named - messages == set()
    sentences = re.compile(r"[Ll]og lines? `(\w+)`|`(\w+)`(?:, repeatedly)?,? in the logs?\b|\(log line `(\w+)`")
    for path in PAGES:
        text = prose(path.read_text()).replace("\n", " ")
        named = {name for found in sentences.findall(text) for name in found if name}
        assert named - messages == set(), path


def test_events_are_those_of_the_code() -> None:
    rows = cells(section("docs/reference/webhooks.md", "## EventBridge events"))
    assert {code(row[1])[0]: code(row[0])[0] for row in rows} == EVENTS


def test_indexes_are_those_of_the_template() -> None:
    listed = {}
    for row in cells(section("docs/reference/data-model.md", "## Indexes")):
        listed[code(row[0])[0]] = (code(row[1])[0], code(row[2])[0], set(code(row[3])))
    table = TEMPLATE["Resources"]["TaskTable"]["Properties"]["GlobalSecondaryIndexes"]
    indexes = [one["Fn::If"][1] if "Fn::If" in one else one for one in table]
    assert listed == {
        one["IndexName"]: (
            *(key["AttributeName"] for key in one["KeySchema"]),
            set(one["Projection"].get("NonKeyAttributes", ())),
        )
        for one in indexes
    }


def test_kinds_of_rows_are_those_of_the_code() -> None:
    rows = cells(section("docs/reference/data-model.md", "## Kinds of rows"))
    listed = {name.partition("#")[0]: code(row[2])[0] for row in rows for name in code(row[0])}
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert set(re.findall(r'f"([a-z-]+)#\{', source)) - set(listed) == set(), "a kind of row without a line"
    assert {kind for kind in listed if not re.search(rf'"{kind}[#"]', source)} == set()
    assert {module for module in listed.values() if not (PACKAGE / module).exists()} == set()
    others = cells(section("docs/reference/data-model.md", "## Other rows"))
    explained = {name.partition("#")[0] for row in others for name in code(row[0])}
    assert explained | {"task"} == set(listed)


def test_columns_are_those_of_a_task() -> None:
    rows = cells(section("docs/reference/data-model.md", "## Task row"))
    listed = {name for row in rows for name in code(row[0])}
    kept = {one.name for one in fields(Task)} - {"id", "notices"}
    keys = {one["AttributeName"] for one in _definitions()} - {"pk"}
    assert (kept | keys) - listed == set()
    source = "".join(path.read_text() for path in (PACKAGE / "tasks").glob("*.py"))
    assert {name for name in listed if not re.search(rf"\b{re.sub('_[0-9]$', '_', name)}", source)} == set()


def _definitions() -> list[dict[str, str]]:
    found = TEMPLATE["Resources"]["TaskTable"]["Properties"]["AttributeDefinitions"]
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in found]
