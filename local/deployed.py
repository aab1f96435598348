"""What an operator does with a deployed stack.

python -m local.deployed provider-key --stage dev      store the provider's API key, from standard input
python -m local.deployed webhook-secret --stage dev    store what the provider signs its callbacks with, likewise
python -m local.deployed delivery-key --stage dev      make or change the key that signs the addresses of videos
python -m local.deployed key --stage dev --tenant acme issue an API key
python -m local.deployed keys --stage dev --tenant acme list a tenant's keys
python -m local.deployed revoke --stage dev --key ID   end a key
python -m local.deployed signing-secret --stage dev --tenant acme  what webhooks to a tenant are signed with
python -m local.deployed replay --stage dev --task ID  send a task's webhooks once more
python -m local.deployed cap --stage dev --tenant acme --units 500 cap a tenant's month; without --units show it
python -m local.deployed pause --stage dev             stop new paid requests at once
python -m local.deployed resume --stage dev            let them go on
python -m local.deployed doctor --stage dev            check everything that can be wrong with it
python -m local.deployed reconcile --stage dev         compare its rows with what the provider knows
python -m local.deployed smoke --stage dev             send one real task, which costs money
"""

import argparse
import getpass
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local import client, doctor, packaging, picture, provider_secret, reconciliation
from local.delivery_key import delivery_key
from local.deployed_stack import DeployedStack, OperatorError, explained

KIND = "image2video"
# Dollars a second by Kling's own price list, silent; relays have lists of their own.
PRICES = {
    ("kling-v2-5-turbo", "std"): 0.042,
    ("kling-v2-5-turbo", "pro"): 0.07,
    ("kling-v2-6", "std"): 0.042,
    ("kling-v2-6", "pro"): 0.07,
    ("kling-v3", "std"): 0.084,
    ("kling-v3", "pro"): 0.112,
}


def provider_key(stack: DeployedStack, options: argparse.Namespace) -> int:
    stored = stack.provider_secret()  # asked first: nobody types a key for a stack that is not there
    key = _typed("The provider's API key: ")
    if not key or len(key.split()) != 1 or not key.isprintable():
        what = "the key has blanks in it" if key else "no key was given"
        raise OperatorError(what, f"paste the key alone: make provider-key STAGE={stack.stage}")
    stack.store_provider_secret(provider_secret.with_key(stored, key))
    print(f"stored in {stack.outputs['ProviderKeySecret']}")
    print("It is used from the next task on; one that was stored before, for five minutes more.")
    print(f"next: make key STAGE={stack.stage} TENANT=demo")
    return 0


def webhook_secret(stack: DeployedStack, options: argparse.Namespace) -> int:
    stored = stack.provider_secret()
    given = _typed("The provider's webhook secret (while it is rotated both; none to remove it): ").split()
    wrong = [one for one in given if not provider_secret.is_webhook_secret(one)]
    if not given or (wrong and given != ["none"]):
        what = "that is no webhook secret" if given else "no webhook secret was given"
        raise OperatorError(
            what, f"paste it as the provider shows it, whsec_...: make webhook-secret STAGE={stack.stage}"
        )
    stack.store_provider_secret(provider_secret.with_webhook_secrets(stored, " ".join(given)))
    print("Callbacks that carry a signature are checked within five minutes from now.")
    print(f"next: make doctor STAGE={stack.stage}")
    return 0


def _typed(question: str) -> str:
    """A secret, from the terminal without echo or from standard input."""
    return (getpass.getpass(question) if sys.stdin.isatty() else sys.stdin.read()).strip()


def key(stack: DeployedStack, options: argparse.Namespace) -> int:
    wanted = {"label": options.label, "expires_in_days": options.days, "expires_at": options.until}
    if options.scopes is not None:
        wanted["scopes"] = options.scopes.replace(",", " ").split()
    issued = stack.operate("create_key", tenant=options.tenant, **wanted)
    print(f"A new key of tenant {options.tenant} (key id {issued['key_id']}). It is shown once: keep it now.\n")
    print(f"  api_key     {issued['api_key']}")
    print(f"  access_key  {issued['access_key']}      for clients that sign Kling's tokens: these two instead")
    print(f"  secret_key  {issued['secret_key']}")
    print(f"\nnext: give your client the base URL {stack.outputs['ApiUrl']} and the key")
    return 0


def keys(stack: DeployedStack, options: argparse.Namespace) -> int:
    listed = stack.operate("list_keys", tenant=options.tenant)["keys"]
    if not listed:
        print(f"tenant {options.tenant} has no keys\nnext: make key STAGE={stack.stage} TENANT={options.tenant}")
        return 0
    rows = [("key id", "state", "scopes", "created", "expires", "label")]
    for one in listed:
        dates = _day(one["created_at"]), _day(one["expires_at"])
        rows.append((one["key_id"], one["state"], ",".join(one["scopes"]), *dates, one["label"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def revoke(stack: DeployedStack, options: argparse.Namespace) -> int:
    given: str = options.key
    key_id = given.split("_")[1] if given.startswith("kr_") else given  # a whole key: its secret stays here
    if not stack.operate("revoke_key", key_id=key_id)["revoked"]:
        raise OperatorError(f"there is no key {key_id!r}", f"make keys STAGE={stack.stage} TENANT=... lists their ids")
    print(f"key {key_id} is revoked: from now on it is refused")
    return 0


def _day(ms: int | None) -> str:
    return "never" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"


def cap(stack: DeployedStack, options: argparse.Namespace) -> int:
    if options.units is None:
        month = stack.operate("spend", tenant=options.tenant)
    else:
        month = stack.operate("set_cap", tenant=options.tenant, units=_units(options.units))
    allowed = f"{month['cap_units']:g} units a month" if month["cap_units"] else "none"
    print(f"tenant     {options.tenant}")
    print(f"cap        {allowed}, {'its own' if month['own_cap'] else 'by the stack (MonthlyCapUnits)'}")
    print(f"committed  {month['committed_units']:g} units in {month['month']} (UTC), by tasks that came under a cap")
    return 0


def signing_secret(stack: DeployedStack, options: argparse.Namespace) -> int:
    answer = stack.operate("signing_secret", tenant=options.tenant, change=options.change)
    print(answer["secret"])
    if options.change:
        print("Webhooks carry the old signature too for seven days: give the new secret to the receivers until then.")
    return 0


def replay(stack: DeployedStack, options: argparse.Namespace) -> int:
    more = {} if options.sequence is None else {"sequence": options.sequence}
    sent = stack.operate("replay_notice", task_id=options.task, **more)["webhooks"]
    print(f"{sent} {'webhook goes' if sent == 1 else 'webhooks go'} out again, under the same ids")
    return 0


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _units(text: str) -> int | None:
    if text == "default":
        return None
    if not text.isdecimal():
        raise OperatorError(f"UNITS: a whole number, 0 for no cap, or 'default'; given: {text!r}", "correct it")
    return int(text)


def pause(stack: DeployedStack, options: argparse.Namespace) -> int:
    held = stack.operate("pause", reason=options.reason)
    because = f" ({held['reason']})" if held["reason"] else ""
    print(f"paused since {_time(held['since'])}{because}: nothing new is sent to the provider")
    print("What was sent goes on; new tasks are accepted and wait, up to their deadline.")
    print(f"next: make resume STAGE={stack.stage}")
    return 0


def resume(stack: DeployedStack, options: argparse.Namespace) -> int:
    resumed = stack.operate("resume")["resumed"]
    print("sending goes on: the sweeper starts what waits, every minute some" if resumed else "sending was not paused")
    return 0


def doctor_(stack: DeployedStack, options: argparse.Namespace) -> int:
    findings = doctor.examine(stack)
    for finding in findings:
        print(f"{'problem' if finding.problem else 'hint' if finding.hint else 'ok':<8} {finding.check}")
        if said := finding.problem or finding.hint:
            print(f"         {said}\n         -> {finding.remedy}")
        if finding.note:
            print(f"         {finding.note}")
    problems = sum(bool(finding.problem) for finding in findings)
    print(f"\n{problems} of {len(findings)} checks found a problem" if problems else f"\nall {len(findings)} are well")
    return 1 if problems else 0


def reconcile(stack: DeployedStack, options: argparse.Namespace) -> int:
    report = stack.operate("reconcile", **({} if options.days is None else {"days": options.days}))
    print("\n".join(reconciliation.lines(report)))
    return 0 if report["sound"] else 1


def smoke(stack: DeployedStack, options: argparse.Namespace) -> int:
    body = {"model_name": options.model, "mode": options.mode, "duration": options.duration}
    image = picture.as_base64(Path(options.image))
    if not stack.has_provider_key():
        raise OperatorError(
            "no provider key is stored: the task would wait for one", f"make provider-key STAGE={stack.stage}"
        )
    if not _agreed(options):
        print("nothing was sent")
        return 1
    issued = stack.operate("create_key", tenant="smoke")
    try:
        _send(
            client.Client(stack.base_url, issued["api_key"]),
            {**body, "image": image, "prompt": options.prompt},
            options,
        )
    except client.ClientError as exc:
        raise OperatorError(str(exc), f"make doctor STAGE={stack.stage}") from exc
    finally:
        stack.operate("revoke_key", key_id=issued["key_id"])
        print("its temporary key is revoked")
    return 0


def _agreed(options: argparse.Namespace) -> bool:
    """Whether the money may be spent. Without a terminal and without --yes it may not."""
    price = PRICES.get((options.model, options.mode))
    cost = "what your provider's price list says"
    if price is not None:
        cost = f"about ${price * float(options.duration):.2f} by Kling's list; a relay may charge otherwise"
    print(f"This sends one real task: {options.model}, {options.mode}, {options.duration} s. Cost: {cost}.")
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise OperatorError("nobody is there to agree", "run it on a terminal, or add --yes")
    return input("Send it? [y/N] ").strip().lower() in ("y", "yes")


def _send(api: client.Client, body: dict[str, Any], options: argparse.Namespace) -> None:
    began, shown = time.monotonic(), ""

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    def look(task: dict[str, Any]) -> None:
        nonlocal shown
        if task["task_status"] != shown:
            shown = task["task_status"]
            tell(f"{shown:<10}  {task['task_status_msg']}".rstrip())

    task = api.send(KIND, body)
    tell(f"task {task['task_id']}")
    task = api.follow(KIND, task, look, every=options.every)
    path = api.download(task, packaging.STATE / "videos" / f"{task['task_id']}.mp4")
    seconds = client.seconds_of_video(path)
    tell(f"downloaded and decoded: {path.stat().st_size} bytes, {seconds:.1f} s of video")
    print(f"video: {path}")


COMMANDS: dict[str, Callable[[DeployedStack, argparse.Namespace], int]] = {
    "provider-key": provider_key,
    "webhook-secret": webhook_secret,
    "delivery-key": delivery_key,
    "key": key,
    "keys": keys,
    "revoke": revoke,
    "cap": cap,
    "signing-secret": signing_secret,
    "replay": replay,
    "pause": pause,
    "resume": resume,
    "doctor": doctor_,
    "reconcile": reconcile,
    "smoke": smoke,
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
