"""The operator's commands about tasks and money of a deployed stack; functions/operate_tasks does what they say."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from kling_relay_cli import doctor, reconcile_report
from kling_relay_cli.stack import DeployedStack, OperatorError


def replay(stack: DeployedStack, options: argparse.Namespace) -> int:
    more = {} if options.sequence is None else {"sequence": options.sequence}
    sent = stack.operate("replay_notice", task_id=options.task, **more)["webhooks"]
    print(f"{sent} {'webhook goes' if sent == 1 else 'webhooks go'} out again, under the same ids")
    return 0


def retry_archive(stack: DeployedStack, options: argparse.Namespace) -> int:
    if stack.operate("retry_archive", task_id=options.task)["begun"]:
        print(f"the video of task {options.task} is copied again now")
    else:
        print(f"a copy of task {options.task} is already running")
    print("next: GET the task, or open it in the dashboard")
    return 0


def redrive(stack: DeployedStack, options: argparse.Namespace) -> int:
    done = stack.operate("redrive", queue=options.queue)
    print(f"{done['moved']} {'message goes' if done['moved'] == 1 else 'messages go'} back from {done['queue']}")
    if done["left"]:
        print(f"about {done['left']} are left\nnext: make redrive STAGE={stack.stage} QUEUE={done['queue']}")
    return 0


def export(stack: DeployedStack, options: argparse.Namespace) -> int:
    wanted = {"since": options.since, "until": options.until, "tenant": options.tenant}
    answer = stack.operate("export", **{name: given for name, given in wanted.items() if given})
    path = Path(options.out)
    try:
        _write(path, answer)
    except OSError as exc:  # requests' own are among them
        remedy = f"choose another OUT, or retry: make export STAGE={stack.stage}"
        raise OperatorError(f"the tasks could not be written to {path}: {type(exc).__name__}", remedy) from exc
    print(f"{answer['rows']} tasks: {path}")
    return 0


def _write(path: Path, answer: dict[str, Any]) -> None:
    if "csv" in answer:
        path.write_bytes(answer["csv"].encode())
        return
    with requests.get(answer["url"], stream=True, timeout=60) as response, path.open("wb") as file:
        response.raise_for_status()
        for piece in response.iter_content(65_536):
            file.write(piece)


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


def _units(text: str) -> int | None:
    if text == "default":
        return None
    if not text.isdecimal():
        raise OperatorError(
            f"UNITS: must be a whole number, 0 for no cap, or 'default' (got {text!r})", "correct the value"
        )
    return int(text)


def pause(stack: DeployedStack, options: argparse.Namespace) -> int:
    held = stack.operate("pause", reason=options.reason)
    because = f" ({held['reason']})" if held["reason"] else ""
    print(f"paused since {_time(held['since'])}{because}: no new task is sent to the provider")
    print("Running tasks continue. New tasks are accepted and wait, up to their deadline.")
    print(f"next: make resume STAGE={stack.stage}")
    return 0


def resume(stack: DeployedStack, options: argparse.Namespace) -> int:
    resumed = stack.operate("resume")["resumed"]
    print("sending resumed: the sweeper starts waiting tasks every minute" if resumed else "sending was not paused")
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
    print(
        f"\n{problems} of {len(findings)} checks found a problem"
        if problems
        else f"\nall {len(findings)} checks passed"
    )
    return 1 if problems else 0


def reconcile(stack: DeployedStack, options: argparse.Namespace) -> int:
    report = stack.operate("reconcile", **({} if options.days is None else {"days": options.days}))
    print("\n".join(reconcile_report.lines(report)))
    return 0 if report["sound"] else 1


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
