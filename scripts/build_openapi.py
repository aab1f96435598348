"""Convert docs/openapi.yaml to the JSON that functions/api_docs serves, so that no function needs a YAML parser."""

import json

import yaml

from kling_relay_cli import REPOSITORY

SOURCE = REPOSITORY / "docs/openapi.yaml"
SERVED = REPOSITORY / "functions/api_docs/openapi.json"


def as_json() -> str:
    return json.dumps(yaml.safe_load(SOURCE.read_text()), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    SERVED.write_text(as_json())
