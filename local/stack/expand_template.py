"""Print template.yaml as AWS sees it after the SAM transform, as JSON: `python -m local.stack.expand_template`."""

import json
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from local.stack.deploy_template import load_template


def transformed(source: dict[str, Any]) -> dict[str, Any]:
    """Return the CloudFormation template that the SAM transform makes of `source`, which it changes."""
    for resource in source["Resources"].values():
        for place in ("CodeUri", "ContentUri", "DefinitionUri"):
            if place in resource.get("Properties", {}):
                resource["Properties"][place] = f"s3://artifacts/{resource['Properties'][place]}"
    session = boto3.Session(region_name="us-east-1")
    made: dict[str, Any] = Translator({}, Parser(), boto_session=session).translate(
        source, {"AWS::Region": "us-east-1"}
    )
    return made


if __name__ == "__main__":
    print(json.dumps(transformed(load_template()), indent=2))
