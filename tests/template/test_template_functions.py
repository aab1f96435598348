"""Test the functions: one folder, function, role and log group each, and exactly the variables that the code reads."""

import re
from pathlib import Path
from typing import Any

from kling_relay.operations import reconcile
from kling_relay.provider import client, http
from kling_relay.provider.profiles import _profiles, profile
from kling_relay.settings import Settings

from tests.template.rules import REPOSITORY, of_type, references, settings_read

Template = dict[str, Any]

# Settings that a function's code can read and is not given, with the reason why the default is right there.
LEFT_TO_THE_DEFAULT = {
    ("OpsWidgetFunction", "task_retention_days"): "it writes nothing",
    ("OpsWidgetFunction", "stack_name"): "it measures nothing",
    ("OperateTasksFunction", "task_retention_days"): "it ends no task, so it writes no expiry",
    ("NotifyClientFunction", "task_retention_days"): "it ends no task, so it writes no expiry",
    ("NotifyClientFunction", "allow_local_webhooks"): "a switch of laptops: no stack has it",
    ("ImageUploadFunction", "allow_local_webhooks"): "a switch of laptops: no stack has it",
    ("TaskApiFunction", "allow_local_webhooks"): "a switch of laptops: no stack has it",
}

EVERYWHERE = {"task_table", "account_id"}  # Globals give them to every function, whether it reads them or not


def functions(template: Template) -> dict[str, dict[str, Any]]:
    return {name: resource["Properties"] for name, resource in of_type(template, "AWS::Lambda::Function").items()}


def folder_of(logical_id: str) -> Path:
    """functions/advance_task for AdvanceTaskFunction."""
    snake = re.sub(r"(?<!^)([A-Z])", r"_\1", logical_id.removesuffix("Function")).lower()
    return REPOSITORY / "functions" / snake


def test_folders_and_logical_ids_are_the_same_list(template: Template) -> None:
    folders = {path.parent for path in (REPOSITORY / "functions").glob("*/app.py")}
    assert {folder_of(name) for name in functions(template)} == folders
    for name, function in functions(template).items():
        assert function["Code"]["S3Key"] == f"functions/{folder_of(name).name}"
        assert function["Handler"] == "app.handler"


def test_each_has_a_log_group_of_its_own_that_forgets(template: Template) -> None:
    groups = of_type(template, "AWS::Logs::LogGroup")
    for name, function in functions(template).items():
        assert function["LoggingConfig"] == {"LogGroup": {"Ref": f"{name.removesuffix('Function')}Logs"}}
    assert {f"{name.removesuffix('Function')}Logs" for name in functions(template)} <= set(groups)
    assert all(group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in groups.values())


def test_time_and_memory_are_said(template: Template, written: Template) -> None:
    for name, function in functions(template).items():
        assert "Timeout" in written["Resources"][name]["Properties"], name
        assert 128 <= function["MemorySize"] <= 2048, name
        assert function["Runtime"] == "python3.13"
        assert function["Architectures"] == ["arm64"]


def test_behind_the_api_they_end_before_the_gateway_gives_up(template: Template) -> None:
    (api,) = of_type(template, "AWS::ApiGateway::RestApi").values()
    behind = references(api["Properties"]["Body"]["paths"]) & set(functions(template))
    assert behind == {"TaskApiFunction", "KlingCallbackFunction", "ApiDocsFunction"}
    for name in behind:
        assert functions(template)[name]["Timeout"] < 29, name


def test_no_concurrency_is_reserved(template: Template) -> None:
    """An account may have ten in all."""
    assert not [name for name, function in functions(template).items() if "ReservedConcurrentExecutions" in function]


def test_functions_are_traced(template: Template) -> None:
    assert {function["TracingConfig"]["Mode"] for function in functions(template).values()} == {"Active"}


def test_variables_are_settings_and_read(template: Template) -> None:
    not_read = set()
    for name, function in functions(template).items():
        given = {variable.lower() for variable in function["Environment"]["Variables"]}
        reads, _ = settings_read(folder_of(name))
        not_read |= {(name, variable) for variable in given - reads - EVERYWHERE}
        assert given <= set(Settings.__dataclass_fields__)
    assert not not_read


def test_every_setting_that_is_read_is_given(template: Template) -> None:
    left = set()
    for name, function in functions(template).items():
        given = {variable.lower() for variable in function["Environment"]["Variables"]}
        reads, needs = settings_read(folder_of(name))
        assert needs <= given, f"{name} needs {sorted(needs - given)}"
        left |= {(name, setting) for setting in reads - given}
    assert left == set(LEFT_TO_THE_DEFAULT)


def test_a_reading_is_found_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from kling_relay.lifecycle import sweep as s\n"
        "from kling_relay.services import get_services\n"
        "def handler(event, context):\n"
        "    s.sweep(get_services())\n"
        "    return get_services().settings.wait_scale\n"
    )
    reads, needs = settings_read(tmp_path)
    assert {"wait_scale", "provider", "deadline_seconds"} <= reads  # here, in sweep, and behind start_waiting
    assert needs == {"task_table", "state_machine_arn", "notify_function"}
    (tmp_path / "app.py").write_text("def handler(event, context): pass\n")
    assert settings_read(tmp_path) == (set(), set())


def test_layers_are_for_the_functions_machine(template: Template, written: Template) -> None:
    layers = of_type(template, "AWS::Lambda::LayerVersion")
    assert len(layers) == 2
    for layer in layers.values():
        assert layer["Properties"]["CompatibleRuntimes"] == ["python3.13"]
        assert layer["Properties"]["CompatibleArchitectures"] == ["arm64"]
    for name in of_type(written, "AWS::Serverless::LayerVersion"):
        makefile = REPOSITORY / written["Resources"][name]["Properties"]["ContentUri"].removeprefix("s3://artifacts/")
        assert written["Resources"][name]["Metadata"] == {"BuildMethod": "makefile", "BuildArchitecture": "arm64"}
        assert f"\nbuild-{name}:" in (makefile / "Makefile").read_text()


def scheduled(template: Template) -> dict[str, tuple[str, str | None]]:
    """Function -> when a rule calls it, and with what."""
    found = {}
    for rule in of_type(template, "AWS::Events::Rule").values():
        if "ScheduleExpression" not in rule["Properties"]:
            continue
        assert rule["Properties"].get("State", "ENABLED") == "ENABLED"
        (target,) = rule["Properties"]["Targets"]
        (function,) = references(target["Arn"])
        found[function] = (rule["Properties"]["ScheduleExpression"], target.get("Input"))
    return found


def test_the_sweeper_comes_every_minute_and_the_report_every_day(template: Template) -> None:
    assert scheduled(template) == {
        "SweepTasksFunction": ("rate(1 minute)", None),
        "OperateTasksFunction": ("rate(1 day)", '{"action": "reconcile"}'),
    }
    assert functions(template)["SweepTasksFunction"]["Timeout"] < 60


def test_what_comes_again_by_itself_is_not_repeated(template: Template) -> None:
    invocations = [one["Properties"] for one in of_type(template, "AWS::Lambda::EventInvokeConfig").values()]
    asked_again = {*scheduled(template), "NotifyClientFunction"}  # that one by the sweeper
    found = {one["FunctionName"]["Ref"]: one["MaximumRetryAttempts"] for one in invocations}
    assert found == dict.fromkeys(asked_again, 0)


def test_the_report_ends_before_its_function(template: Template) -> None:
    """The longest call: a key is refused and the newer one tried. A second look waits for the gap of two denials."""
    call = 2 * (http.CONNECT_SECONDS + client.QUERY_SECONDS)
    gap = max(profile(name, "https://x.example").denial_gap_seconds for name in _profiles())
    longest = reconcile.SECONDS + gap + call
    assert longest + 15 < functions(template)["OperateTasksFunction"]["Timeout"]
