"""What an operator does with a deployed stack.

python -m kling_relay_cli provider-key --stage dev      store the provider's API key, from standard input
python -m kling_relay_cli webhook-secret --stage dev    store what the provider signs its callbacks with, likewise
python -m kling_relay_cli delivery-key --stage dev      make or change the key that signs the addresses of videos
python -m kling_relay_cli key --stage dev --tenant acme issue an API key
python -m kling_relay_cli keys --stage dev --tenant acme list a tenant's keys
python -m kling_relay_cli revoke --stage dev --key ID   end a key
python -m kling_relay_cli signing-secret --stage dev --tenant acme  what webhooks to a tenant are signed with
python -m kling_relay_cli replay --stage dev --task ID  send a task's webhooks once more
python -m kling_relay_cli retry-archive --stage dev --task ID  copy a video again now
python -m kling_relay_cli redrive --stage dev           send what lies in a dead-letter queue back
python -m kling_relay_cli export --stage dev --since 2026-11-01     tasks as CSV
python -m kling_relay_cli cap --stage dev --tenant acme --units 500 cap a tenant's month; without --units show it
python -m kling_relay_cli pause --stage dev             stop new paid requests at once
python -m kling_relay_cli resume --stage dev            let them go on
python -m kling_relay_cli doctor --stage dev            check everything that can be wrong with it
python -m kling_relay_cli reconcile --stage dev         compare its rows with what the provider knows
python -m kling_relay_cli smoke --stage dev             send one real task, which costs money
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from kling_relay_cli import REPOSITORY, image_file, keys_and_secrets, smoke, tasks_and_money
from kling_relay_cli.delivery_key import delivery_key
from kling_relay_cli.stack import DeployedStack, OperatorError, explained

COMMANDS: dict[str, Callable[[DeployedStack, argparse.Namespace], int]] = {
    "provider-key": keys_and_secrets.provider_key,
    "webhook-secret": keys_and_secrets.webhook_secret,
    "delivery-key": delivery_key,
    "key": keys_and_secrets.key,
    "keys": keys_and_secrets.keys,
    "revoke": keys_and_secrets.revoke,
    "cap": tasks_and_money.cap,
    "signing-secret": keys_and_secrets.signing_secret,
    "replay": tasks_and_money.replay,
    "retry-archive": tasks_and_money.retry_archive,
    "redrive": tasks_and_money.redrive,
    "export": tasks_and_money.export,
    "pause": tasks_and_money.pause,
    "resume": tasks_and_money.resume,
    "doctor": tasks_and_money.doctor_,
    "reconcile": tasks_and_money.reconcile,
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
        "--image": {"default": str(REPOSITORY / "local/stack/sample.jpg")},
        "--prompt": {"default": "the sun goes down behind the mountains"},
        "--every": {"type": float, "default": 5.0, "help": "seconds between looks"},
    },
}


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kling_relay_cli",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    except image_file.PictureError as exc:
        trouble = OperatorError(str(exc), "choose another --image")
    except (EOFError, KeyboardInterrupt):
        trouble = OperatorError("stopped", "start it again when you like")
    print(f"{trouble}\n-> {trouble.remedy}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
