"""Show one task to its operator: its timeline, its failure, its cost, and the event that it waits for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from kling_relay.kinds.fields import default_mode
from kling_relay.operations.failure_advice import ADVICE, kind_of
from kling_relay.operations.safe_html import Content, Html, tag, together
from kling_relay.operations.widget_parts import (
    WidgetRequest,
    act,
    ago,
    badge,
    lasting,
    note,
    size,
    table,
    unbroken,
    utc,
)
from kling_relay.tasks.task import CLOSED, TASK_STATUS, Task, copy_can_be_repeated

_TONES = {"succeed": "good", "failed": "bad", "processing": "busy", "submitted": ""}
_WEBHOOKS = {"due": "busy", "delivered": "good", "given_up": "bad", "gone": "warn"}


@dataclass(frozen=True, slots=True)
class Moment:
    """An event of a task at `at` (ms)."""

    at: int
    what: str
    detail: str = ""


def moments(task: Task) -> list[Moment]:
    """List the events that the row records, in order. Of repeated attempts only the number is stored."""
    notified_at = {notice.status: notice.at for notice in task.notices}
    arrived = task.upstream_id is not None or task.unsure_since is not None or task.refusal_code is not None
    found = [
        Moment(task.created_at, "accepted", _origin(task)),
        Moment(task.claimed_at or 0, "sent to the provider" if arrived else "not taken", _attempt(task)),
        Moment(task.unsure_since or 0, "its submission was in doubt", "looked up since then, not repeated blindly"),
        Moment(task.parked_at or 0, "parked", "looking it up had led nowhere"),
        Moment(notified_at.get("processing", 0), "under way at the provider", task.upstream_id or ""),
        Moment(task.rendered_at or 0, "rendered", "the provider has its video"),
        Moment(notified_at.get("succeed", 0), "copied into your bucket", _copied(task)),
        Moment(task.expired_at or 0, "given up for its client", "still watched for a late video"),
        Moment(0 if task.expired_at else notified_at.get("failed", 0), "failed", task.reason),
        Moment(task.deleted_at or 0, "deleted by its owner"),
    ]
    return sorted((moment for moment in found if moment.at), key=lambda moment: moment.at)


def story(
    asked: WidgetRequest, task: Task, *, urls: Mapping[str, str], posters: Mapping[str, str], machine: str
) -> Html:
    """Build the view of one task.

    `urls`: URLs of the task's videos, by key. `posters`: URLs of its images, by key. `machine`: the ARN of the state
    machine.
    """
    status = TASK_STATUS[task.phase]
    title = tag("h3", badge(status, _TONES[status]), " ", task.kind, " ", tag("code", task.id))
    return together(
        title,
        _why(task),
        _now(asked, task),
        _buttons(asked, task),
        _facts(task),
        tag("h4", "What happened"),
        table(["after", "what", "detail", "when"], list(_lines(asked, task)), extra=["when"]),
        _webhooks(asked, task),
        _videos(task, urls),
        _request(task, posters),
        _further(task, machine),
    )


def _why(task: Task) -> Html | None:
    """Show the reason in full, its meaning, and the remedy."""
    kind = kind_of(task)
    if kind is None:
        return None
    advice = ADVICE[kind]
    code = "" if task.refusal_code is None else f" (code {task.refusal_code})"
    tone = "warn" if not advice.ours or task.due_at else ""
    said = tag("pre", task.reason or "no reason was given")
    return tag("div", tag("b", advice.title, code), said, tag("p", advice.remedy), class_=f"box {tone}".strip())


def _now(asked: WidgetRequest, task: Task) -> Html | None:
    if task.phase in CLOSED and (task.deleted_at or not task.due_at):
        return None
    waits = f"waits for {task.waits_for or 'the provider'}"
    again = () if task.retry_at is None else ("; the next try is ", ago(asked, task.retry_at))
    return note(tag("b", task.phase), ": ", waits, again)


def _buttons(asked: WidgetRequest, task: Task) -> list[Html]:
    buttons = []
    if copy_can_be_repeated(task):
        buttons.append(act(asked, "Copy again now", "Copy its video again, now?", "retry_archive", task_id=task.id))
    if any(notice.webhook != "none" for notice in task.notices):
        question = "Send all webhooks of this task once more? The ids stay the same."
        buttons.append(act(asked, "Send webhooks again", question, "replay_notice", task_id=task.id))
    return buttons


def _facts(task: Task) -> Html:
    request = task.request
    render = (request.get("mode", default_mode(task.kind)), f"{request.get('duration', '5')} s")
    inputs: list[tuple[str, Content]] = [
        ("tenant", task.tenant),
        ("external id", task.external_task_id),
        ("model", f"{request.get('model_name', 'the default')}, {', '.join(render)}"),
        ("at the provider", task.upstream_id),
        ("cost", _cost(task)),
        ("copies", f"{task.copies} begun" if task.copies else None),
    ]
    return tag("dl", [(tag("dt", name), tag("dd", value)) for name, value in inputs if value])


def _cost(task: Task) -> str:
    if task.units is not None:
        cost = f"{task.units} units, as the provider states"
    elif task.cash is not None:
        cost = f"{task.cash} of the account's balance of money, as the provider states"
    elif task.cost_nothing:
        cost = "nothing: it never reached the provider"
    else:
        cost = "not stated by the provider"
    if task.spend_month is not None:
        cost += f"; {Decimal(task.committed) / 1000:f} units count towards the cap of {task.spend_month}"
    return cost


def _lines(asked: WidgetRequest, task: Task) -> list[list[Content]]:
    return [
        [unbroken(f"+ {lasting(one.at - task.created_at)}"), one.what, one.detail, unbroken(utc(one.at))]
        for one in moments(task)
    ]


def _webhooks(asked: WidgetRequest, task: Task) -> Html | None:
    with_webhook = [one for one in task.notices if one.webhook != "none"]
    if not with_webhook:
        return None
    heads = ["webhook", "state", "tries", "last answer", "next try"]
    rows: list[list[Content]] = [
        [
            f"{one.number} ({one.status})",
            badge(one.webhook.replace("_", " "), _WEBHOOKS[one.webhook]),
            one.tries,
            one.answer or "-",
            ago(asked, one.next_at) if one.webhook == "due" else "-",
        ]
        for one in with_webhook
    ]
    return together(tag("h4", "Webhooks to its client"), table(heads, rows, extra=["next try"]))


def _videos(task: Task, urls: Mapping[str, str]) -> Html | None:
    if not task.videos or task.deleted_at:
        return None
    rows: list[list[Content]] = [
        [watch(urls.get(video["key"]), video["key"]), f"{video['duration']} s", size(video["size"])]
        for video in task.videos
    ]
    return together(tag("h4", "Videos"), table(["video", "length", "size"], rows))


def watch(url: str | None, label: str) -> Html:
    """Build a link to a video in a new window, without a referrer."""
    return tag("a", label, href=url, target="_blank", rel="noopener noreferrer") if url else tag("span", label)


def _request(task: Task, posters: Mapping[str, str]) -> Html | None:
    if not task.request:
        return None
    images = [tag("img", src=url, alt=name, loading="lazy", width=160) for name, url in posters.items()]
    prompt = task.request.get("prompt")
    said = tag("pre", prompt) if prompt else note("no prompt")
    return together(tag("h4", "Request"), said, tag("p", images) if images else None)


def _further(task: Task, machine: str) -> Html:
    query = f'fields @timestamp, message | filter task_id = "{task.id}" | sort @timestamp'
    return together(
        tag("h4", "Further"),
        note("Its log lines, in Logs Insights over this stack's log groups:"),
        tag("pre", query),
        _workflow(task, machine),
    )


def _workflow(task: Task, machine: str) -> Html | None:
    """Build a link to the task's newest execution in the console."""
    parts = machine.split(":")
    if len(parts) != 7 or parts[1] != "aws":
        return None
    arn = ":".join([*parts[:5], "execution", parts[6], task.execution])
    address = f"https://{parts[3]}.console.aws.amazon.com/states/home?region={parts[3]}#/v2/executions/details/{arn}"
    return tag("p", tag("a", "Its workflow", href=address, target="_blank", rel="noopener noreferrer"))


def _origin(task: Task) -> str:
    if task.source is None:
        return "by the API"
    line = f", line {task.source['line']}" if task.source.get("line") else ""
    return f"dropped: {task.source['key']}{line}"


def _attempt(task: Task) -> str:
    return "" if task.attempt < 2 else f"at try {task.attempt}"


def _copied(task: Task) -> str:
    several = "" if task.copies < 2 else f", at try {task.copies}"
    return f"{size(sum(video['size'] for video in task.videos))}{several}"
