"""Keep the API keys of the local stack: issued once per checkout, and restored in each new stack.

The emulator loses all data when it ends. The parts of a key are therefore kept as they are in AWS: the stack's secret,
from which its hash is derived, and its rows in the task table.
"""

import json
import os
from pathlib import Path
from typing import Any

from local.emulator.process import Emulator
from local.stack import deploy_template

TENANTS = ("demo", "second")

Kept = dict[str, Any]
"""`relay_secret`: text of the stack's secret. `rows`: DynamoDB items. `keys`: tenant -> the answer of `create_key`."""


def keys(emulator: Emulator, outputs: dict[str, str], path: Path) -> dict[str, dict[str, str]]:
    """Return each tenant's key, kept in the file `path` from the first start on. Delete the file for new keys.

    Call it before a function reads the stack's secret, because functions cache it. Raise DeploymentError if no key can
    be issued.
    """
    kept = _read(path)
    if kept is None:
        kept = _issue(emulator, outputs)
        write_private(path, kept)
    else:
        secret = deploy_template.physical_id(emulator, "RelaySecret")
        emulator.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=kept["relay_secret"])
        for row in kept["rows"]:
            emulator.client("dynamodb").put_item(TableName=outputs["TaskTable"], Item=row)
    found: dict[str, dict[str, str]] = kept["keys"]
    return found


def write_private(path: Path, value: Any) -> None:
    """Write `value` as JSON into a file that only its owner may read, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(json.dumps(value, indent=2) + "\n")
    fresh.replace(path)


def _read(path: Path) -> Kept | None:
    """Return the kept data; None if there is no file, or one without a key for each tenant."""
    try:
        kept = json.loads(path.read_text())
        whole = {"relay_secret", "rows", "keys"} <= kept.keys() and set(TENANTS) <= kept["keys"].keys()
    except (FileNotFoundError, ValueError, AttributeError):
        return None
    return kept if whole else None


def _issue(emulator: Emulator, outputs: dict[str, str]) -> Kept:
    issued = {tenant: _create_key(emulator, outputs["OperateTasksFunction"], tenant) for tenant in TENANTS}
    names = [name for tenant, key in issued.items() for name in (f"key#{key['key_id']}", f"tenant-keys#{tenant}")]
    table = {"TableName": outputs["TaskTable"], "ConsistentRead": True}
    dynamodb = emulator.client("dynamodb")
    secret = emulator.client("secretsmanager").get_secret_value(
        SecretId=deploy_template.physical_id(emulator, "RelaySecret")
    )
    return {
        "relay_secret": secret["SecretString"],
        "rows": [dynamodb.get_item(Key={"pk": {"S": name}}, **table)["Item"] for name in names],
        "keys": issued,
    }


def _create_key(emulator: Emulator, function: str, tenant: str) -> dict[str, str]:
    payload = json.dumps({"action": "create_key", "tenant": tenant})
    answer = emulator.client("lambda").invoke(FunctionName=function, Payload=payload)
    issued: dict[str, str] = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise deploy_template.DeploymentError(f"no API key could be issued: {issued}")
    return issued
