"""What an operator does with a deployed stack.

python -m local.deployed provider-key --stage dev      store the provider's API key, from standard input
python -m local.deployed webhook-secret --stage dev    store what the provider signs its callbacks with, likewise
python -m local.deployed delivery-key --stage dev      make or change the key that signs the addresses of videos
python -m local.deployed key --stage dev --tenant acme issue an API key
python -m local.deployed keys --stage dev --tenant acme list a tenant's keys
python -m local.deployed revoke --stage dev --key ID   end a key
python -m local.deployed signing-secret --stage dev --tenant acme  what webhooks to a tenant are signed with
python -m local.deployed replay --stage dev --task ID  send a task's webhooks once more
python -m local.deployed retry-archive --stage dev --task ID  copy a video again now
python -m local.deployed redrive --stage dev           send what lies in a dead-letter queue back
python -m local.deployed export --stage dev --since 2026-11-01     tasks as CSV
python -m local.deployed cap --stage dev --tenant acme --units 500 cap a tenant's month; without --units show it
python -m local.deployed pause --stage dev             stop new paid requests at once
python -m local.deployed resume --stage dev            let them go on
python -m local.deployed doctor --stage dev            check everything that can be wrong with it
python -m local.deployed reconcile --stage dev         compare its rows with what the provider knows
python -m local.deployed smoke --stage dev             send one real task, which costs money
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local import credentials, operating, packaging, picture, smoke
from local.delivery_key import delivery_key
from local.deployed_stack import DeployedStack, OperatorError, explained

COMMANDS: dict[str, Callable[[DeployedStack, argparse.Namespace], int]] = {
    "provider-key": credentials.provider_key,
    "webhook-secret": credentials.webhook_secret,
    "delivery-key": delivery_key,
    "key": credentials.key,
    "keys": credentials.keys,
    "revoke": credentials.revoke,
    "cap": operating.cap,
    "signing-secret": credentials.signing_secret,
    "replay": operating.replay,
    "retry-archive": operating.retry_archive,
    "redrive": operating.redrive,
    "export": operating.export,
    "pause": operating.pause,
    "resume": operating.resume,
    "doctor": operating.doctor_,
    "reconcile": operating.reconcile,
    "smoke": smoke.smoke,
}


_TENANT = {"--tenant": {"default": "demo", "help": "whose tasks its owner sees"}}
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "delivery-key": {
        "--rotate": {"choices": ("", "1", "now"), "default": "", "help": "1: a new key; now: whatever ends"},
    },
    "key": {
        **_TENANT,
        "--label": {"default": "", "help": "what you will know it by in the list"},
        "--scopes": {"help": "submit, read, or both (as without it)"},
        "--days": {"type": int, "help": "how long it works; without it for ever"},
        "--until": {"help": "the same as a date: 2027-01-31"},
    },
    "keys": _TENANT,
    "signing-secret": {
        **_TENANT,
        "--change": {"action": "store_true", "help": "a new one; the old one goes on for a week"},
    },
    "replay": {
        "--task": {"default": "", "help": "the task's id"},
        "--sequence": {"type": int, "help": "only the webhook of this number"},
    },
    "retry-archive": {"--task": {"default": "", "help": "the task's id"}},
    "redrive": {"--queue": {"default": "IntakeDeadLetters", "help": "its logical id in template.yaml"}},
    "export": {
        "--since": {"help": "tasks recorded from then on: 2026-11-01, or with a time; without it of the last day"},
        "--until": {"help": "and before then"},
        "--tenant": {"help": "only this one's"},
        "--out": {"default": "tasks.csv", "help": "where to"},
    },
    "cap": {**_TENANT, "--units": {"help": "whole units a month, 0: none, default: as the stack has it"}},
    "pause": {"--reason": {"default": "", "help": "what those who look will read"}},
    "reconcile": {"--days": {"type": int, "help": "how far back, 1 to 30; without it 30"}},
    "revoke": {"--key": {"default": "", "help": "its id, as the list shows it"}},
    "smoke": {
        "--yes": {"action": "store_true", "help": "spend the money without asking"},
        "--model": {"default": "kling-v2-5-turbo"},
        "--mode": {"default": "std"},
        "--duration": {"default": "5", "choices": ("5", "10")},
        "--image": {"default": str(packaging.REPOSITORY / "local/sample.jpg")},
        "--prompt": {"default": "the sun goes down behind the mountains"},
        "--every": {"type": float, "default": 5.0, "help": "seconds between looks"},
    },
}


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m local.deployed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        command = commands.add_parser(name)
        command.add_argument("--stage", default="dev", help="of the stack kling-relay-STAGE")
        for option, settings in OPTIONS.get(name, {}).items():
            command.add_argument(option, **settings)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    stack = DeployedStack(options.stage)
    try:
        return COMMANDS[options.command](stack, options)
    except OperatorError as exc:
        trouble = exc
    except (ClientError, BotoCoreError) as exc:
        trouble = explained(exc, stack)
    except picture.PictureError as exc:
        trouble = OperatorError(str(exc), "choose another --image")
    except (EOFError, KeyboardInterrupt):
        trouble = OperatorError("stopped", "start it again when you like")
    print(f"{trouble}\n-> {trouble.remedy}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
