"""Test template.yaml as a text: contents, sections, parameter groups of the console, anchors, length of lines."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tests.template.rules import REPOSITORY

Template = dict[str, Any]

TEXT = (REPOSITORY / "template.yaml").read_text()
SECTIONS = [
    *("parameters", "api", "functions", "layers", "workflow", "storage", "s3 inbox", "delivery", "events"),
    *("alarms: pages", "alarms: tickets", "dashboard", "queries", "outputs"),
]

_BANNER = re.compile(r"^ *# -{20,} (.+)$", re.MULTILINE)
_TYPES = {
    "AWS::Serverless::Api": "api",
    "AWS::ApiGateway::DomainName": "api",
    "AWS::ApiGateway::BasePathMapping": "api",
    "AWS::SSM::Parameter": "api",
    "AWS::Serverless::Function": "functions",
    "AWS::Serverless::LayerVersion": "layers",
    "AWS::Serverless::StateMachine": "workflow",
    "AWS::DynamoDB::Table": "storage",
    "AWS::S3::Bucket": "storage",
    "AWS::S3::BucketPolicy": "storage",
    "AWS::Events::Rule": "s3 inbox",
    "AWS::SQS::Queue": "s3 inbox",
    "AWS::SQS::QueuePolicy": "s3 inbox",
    "AWS::Lambda::EventSourceMapping": "s3 inbox",
    "AWS::CloudFront::CachePolicy": "delivery",
    "AWS::CloudFront::Distribution": "delivery",
    "AWS::CloudFront::KeyGroup": "delivery",
    "AWS::CloudFront::OriginAccessControl": "delivery",
    "AWS::CloudFront::PublicKey": "delivery",
    "AWS::CloudFront::ResponseHeadersPolicy": "delivery",
    "AWS::Events::EventBus": "events",
    "AWS::CloudWatch::Dashboard": "dashboard",
    "AWS::Logs::QueryDefinition": "queries",
}
_NAMES = {
    "ApiAccessLogs": "api",
    "TaskLifecycleLogs": "workflow",
    "RelaySecret": "storage",
    "ProviderKeySecret": "storage",
    "DeliveryKeySecret": "delivery",
}
_TOPICS = {"OperatorTopic": "alarms: pages", "TicketTopic": "alarms: tickets"}
_LONG_ROWS = (
    r' +\["(KlingRelay|AWS/)',  # one series of the dashboard
    r" +\[\{",  # one expression of the dashboard
    r' +"query": "',
    r" +- \{Id: \w+, ReturnData: false, MetricStat: ",  # one function of an alarm on all functions
    r" +Format: '\{",
    r" +\| stats ",
)


def contents(text: str) -> list[str]:
    """Return the section names of the comment at the top."""
    lines = [line for line in text.splitlines()[:20] if line.startswith("#   ")]
    return [re.split(r" {2,}", line.removeprefix("#   "))[0] for line in lines]


def placed(text: str) -> dict[str, str]:
    """Return the section of each resource."""
    found, section = {}, ""
    for line in text[text.index("\nResources:\n") : text.index("\nOutputs:\n")].splitlines():
        if banner := _BANNER.fullmatch(line):
            section = banner[1]
        elif resource := re.fullmatch(r"  (\w+):.*", line):
            found[resource[1]] = section
    return found


def proper(name: str, resource: dict[str, Any]) -> str:
    """Return the section that a resource belongs to."""
    kind, properties = resource["Type"], resource.get("Properties", {})
    if kind.startswith("AWS::CloudWatch::") and kind.endswith("Alarm"):
        (topic,) = properties.get("AlarmActions", [{"Ref": "OperatorTopic"}])  # a part of a composite alarm has none
        return _TOPICS[topic["Ref"]]
    if kind.startswith("AWS::SNS::"):
        return _TOPICS[properties.get("TopicArn", {"Ref": name})["Ref"]]
    return _TYPES.get(kind) or _NAMES.get(name) or ("functions" if kind == "AWS::Logs::LogGroup" else "none")


def misplaced(written: Template, text: str) -> list[str]:
    """Return the resources that are not in the section of their type."""
    found = placed(text)
    assert set(found) == set(written["Resources"])
    expected = {name: proper(name, resource) for name, resource in written["Resources"].items()}
    return [f"{name}: {expected[name]}" for name, section in found.items() if section != expected[name]]


def interface_problems(template: Template) -> list[str]:
    """Return the parameters without exactly one group, a label or a description, and names without a parameter."""
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    labels = {name: label["default"] for name, label in interface["ParameterLabels"].items()}
    parameters = template["Parameters"]
    found = [f"{name}: {grouped.count(name)} groups" for name in parameters if grouped.count(name) != 1]
    found += [f"{name}: no label" for name in parameters if not labels.get(name)]
    found += [f"{name}: no description" for name, one in parameters.items() if not one.get("Description")]
    found += [f"{name}: no parameter" for name in sorted({*grouped, *labels} - set(parameters))]
    found += [f"{label}: not unique" for label in sorted(set(labels.values())) if [*labels.values()].count(label) > 1]
    return found


def _nodes(node: yaml.Node, key: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """Yield (key, node) of a YAML document; an alias yields the node of its anchor."""
    yield key, node
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _nodes(value, name.value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _nodes(item, key)


def _plain(node: yaml.Node) -> str:
    """Return the content of a node as text."""
    if isinstance(node, yaml.MappingNode):
        return repr(sorted((key.value, _plain(value)) for key, value in node.value))
    if isinstance(node, yaml.SequenceNode):
        return repr([_plain(item) for item in node.value])
    return f"{node.tag} {node.value}"


def copies(text: str) -> set[str]:
    """Return the IAM statements and the composed ARNs that are written more than once instead of by alias."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert root is not None
    wanted: dict[int, yaml.Node] = {}
    for key, node in _nodes(root):
        statement = isinstance(node, yaml.MappingNode) and key == "Statement"
        arn = isinstance(node, yaml.ScalarNode) and node.tag == "!Sub" and re.match(r"arn:|\$\{\w+\.Arn\}/", node.value)
        if statement or arn:
            wanted[id(node)] = node
    texts = sorted(_plain(node) for node in wanted.values())
    return {one for one, other in pairwise(texts) if one == other}


def long_lines(text: str) -> list[str]:
    """Return lines above 160 characters, except for rows of tables and for texts that have to be one line."""
    lines = [line for line in text.splitlines() if len(line) > 160]
    return [line for line in lines if not any(re.match(row, line) for row in _LONG_ROWS)]


def test_the_contents_are_the_banners() -> None:
    assert contents(TEXT) == SECTIONS
    assert _BANNER.findall(TEXT) == SECTIONS


def test_banners_have_one_width() -> None:
    assert {len(banner[0]) for banner in _BANNER.finditer(TEXT)} == {119}


def test_every_resource_is_in_the_section_of_its_type(written: Template) -> None:
    assert misplaced(written, TEXT) == []


def test_a_resource_in_another_section_is_found(written: Template) -> None:
    topic = "  TicketTopic:\n    Type: AWS::SNS::Topic\n"
    assert TEXT.count(topic) == 1
    text = TEXT.replace(topic, "    #\n").replace("  OperatorTopic:\n", topic + "  OperatorTopic:\n", 1)
    assert misplaced(written, text) == ["TicketTopic: alarms: tickets"]


def test_every_parameter_has_one_group_a_label_and_a_description(template: Template) -> None:
    assert interface_problems(template) == []


def test_parameters_are_in_the_order_of_their_groups(written: Template) -> None:
    groups = written["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert list(written["Parameters"]) == [name for group in groups for name in group["Parameters"]]


def test_a_parameter_outside_of_the_groups_is_found() -> None:
    interface = {
        "ParameterGroups": [{"Parameters": ["A", "Gone"]}, {"Parameters": ["A"]}],
        "ParameterLabels": {"A": {"default": "Same"}, "B": {"default": "Same"}, "C": {"default": ""}},
    }
    parameters = {"A": {"Description": "a"}, "B": {"Description": "b"}, "C": {}}
    template = {"Metadata": {"AWS::CloudFormation::Interface": interface}, "Parameters": parameters}
    assert interface_problems(template) == [
        *("A: 2 groups", "B: 0 groups", "C: 0 groups", "C: no label", "C: no description"),
        *("Gone: no parameter", "Same: not unique"),
    ]


def test_repeated_statements_and_arns_are_aliases() -> None:
    assert copies(TEXT) == set()


@pytest.mark.parametrize(
    ("alias", "copy"),
    [
        ("            - *start_execution\n", "            - {Effect: Allow, Action: a:B, Resource: c}\n" * 2),
        ("              Resource: *input_objects\n", "              Resource: !Sub ${InputBucket.Arn}/inputs/*\n"),
    ],
)
def test_a_copy_is_found(alias: str, copy: str) -> None:
    assert alias in TEXT
    assert len(copies(TEXT.replace(alias, copy, 1))) == 1


def test_lines_are_short() -> None:
    assert long_lines(TEXT) == []


def test_a_long_line_is_found() -> None:
    line = "      Description: " + "x" * 160
    assert long_lines(f"{TEXT}\n{line}\n") == [line]
