"""Test parameters, the functions' settings for metrics, topics, and deploy profiles."""

import re
import tomllib
from typing import Any

from tests.template.rules import REPOSITORY, of_type, references

Template = dict[str, Any]


def test_our_metrics_carry_the_stacks_name(template: Template) -> None:
    """The alarms ask for it; every function that measures has to be told."""
    functions = of_type(template, "AWS::Lambda::Function")
    given = {
        name: function["Properties"]["Environment"]["Variables"].get("STACK_NAME")
        for name, function in functions.items()
    }
    silent = {name for name, value in given.items() if value is None}
    assert silent == {"ApiDocsFunction", "OpsWidgetFunction"}
    assert [value for value in given.values() if value is not None] == [{"Ref": "AWS::StackName"}] * 8


def test_the_topics_encryption_lets_cloudwatch_in(template: Template) -> None:
    for topic in of_type(template, "AWS::SNS::Topic").values():
        assert "KmsMasterKeyId" not in topic["Properties"]


# Name -> the default of a parameter that the issue asks for.
DEFAULTS = {
    "Provider": "cometapi",
    "KlingBaseUrl": "",
    "ResultHosts": "warn",
    "DefaultModelImage2Video": "",
    "DefaultModelMultiImage2Video": "",
    "DefaultModelText2Video": "",
    "DefaultModelOmniVideo": "",
    "DeadlineSeconds": 86_400,
    "SubmitTimeoutSeconds": 15,
    "TaskRetentionDays": 400,
    "VideoRetentionDays": 0,
    "InputRetentionDays": 7,
    "InboxRetentionDays": 0,
    "ResultRetentionDays": 0,
    "IntakeTenant": "inbox",
    "IntakePrompt": "",
    "IntakeMode": "",
    "IntakeDuration": "",
    "LogRetentionDays": 30,
    "WaitScale": "1",
    "MonthlyCapUnits": 0,
    "SpendAlarmUnits": 0,
    "OnUnconfirmed": "auto",
    "RequireWebhookSignature": "off",
}


def test_parameters_have_sane_defaults(template: Template) -> None:
    parameters = template["Parameters"]
    assert {name: parameters[name]["Default"] for name in DEFAULTS} == DEFAULTS


def test_a_stack_deploys_without_a_single_question(template: Template) -> None:
    for name, parameter in template["Parameters"].items():
        assert "Default" in parameter, name
        default = str(parameter["Default"])
        assert default in map(str, parameter.get("AllowedValues", [default])), name
        assert re.search(parameter.get("AllowedPattern", ""), default), name
        assert parameter.get("NoEcho") is None, f"{name}: secrets do not belong into parameters"


def test_every_parameter_is_used(template: Template) -> None:
    used = references([template["Resources"], template["Conditions"], template["Rules"], template["Outputs"]])
    assert set(template["Parameters"]) == used & set(template["Parameters"])


def test_every_provider_profile_can_be_chosen(template: Template) -> None:
    import json

    profiles = json.loads((REPOSITORY / "layers/relay/kling_relay/provider/profiles.json").read_text())
    assert set(template["Parameters"]["Provider"]["AllowedValues"]) == set(profiles)
    rule = template["Rules"]["ProviderHasHost"]
    without_host, _ = rule["RuleCondition"]["Fn::Contains"]
    assert set(without_host) == {name for name, profile in profiles.items() if not profile["base_url"]}
    assert "KlingBaseUrl" in json.dumps(rule["Assertions"])


def test_the_paid_post_fits_into_the_api_functions_time(template: Template) -> None:
    from kling_relay.provider.http import CONNECT_SECONDS

    longest = template["Parameters"]["SubmitTimeoutSeconds"]["MaxValue"] + CONNECT_SECONDS
    assert longest + 2 < template["Resources"]["TaskApiFunction"]["Properties"]["Timeout"]


def test_profiles_deploy_what_the_makefile_looks_for() -> None:
    profiles = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())
    for stage in ("dev", "prod"):
        deploy = profiles[stage]["deploy"]["parameters"]
        assert deploy["stack_name"] == f"kling-relay-{stage}"
        assert deploy["capabilities"].split() == ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
        assert deploy["fail_on_empty_changeset"] is False
    assert profiles["prod"]["deploy"]["parameters"]["confirm_changeset"] is True


def test_the_look_at_images_leaves_time_for_the_paid_post(template: Template) -> None:
    from kling_relay.api import preflight
    from kling_relay.provider import http

    longest = preflight.SECONDS + template["Parameters"]["SubmitTimeoutSeconds"]["MaxValue"] + http.CONNECT_SECONDS
    assert longest + 2 < template["Resources"]["TaskApiFunction"]["Properties"]["Timeout"]
