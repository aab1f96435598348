"""Draw the widgets of the operations dashboard, one function for each view. Read-only.

Reads are bounded: indexes by page (1 MB) or by the number of displayed tasks, rows by key, never a scan. The most
expensive view is `account`, with at most twenty pages of an index that holds keys and units.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from kling_relay import client_view
from kling_relay.kinds.image_places import image_places
from kling_relay.operations import dead_letter_queue
from kling_relay.operations.failure_advice import ADVICE, Kind, kind_of
from kling_relay.operations.safe_html import Content, Html, tag, together
from kling_relay.operations.widget_parts import (
    WidgetRequest,
    act,
    ago,
    badge,
    bar,
    cut,
    lasting,
    look,
    note,
    page,
    search,
    size,
    table,
    unbroken,
)
from kling_relay.operations.widget_task import story, watch
from kling_relay.provider.admission import Admission
from kling_relay.services import Services
from kling_relay.tasks.queries import ENDS
from kling_relay.tasks.spend_cap import in_units, month_of
from kling_relay.tasks.task import Phase, Task, copy_can_be_repeated

_FAILURES_READ = 100
_MAX_TENANTS = 20
_LONGEST_NAME = 64  # of our task ids, and of tenants
_POSTER_SECONDS = 3600
_POSTER_KEPT_MS = 1_800_000  # a poster keeps its URL for so long, and the browser need not fetch it again


def show(services: Services, asked: WidgetRequest) -> str:
    """Return the HTML of the requested view, or the list of views for an unknown one."""
    view = VIEWS.get(asked.show)
    if view is None:
        return page(asked, note(f"show: must be one of {', '.join(VIEWS)} (got {cut(asked.show)!r})"))
    return page(asked, view(services, asked))


def open_tasks(services: Services, asked: WidgetRequest) -> Html:
    """Show the oldest open tasks, each with the used share of its deadline and the event that it waits for."""
    limit = asked.number("limit", default=25, maximum=100)
    tasks = services.table.read(services.backlog.oldest_open(limit))
    counts = _numbers(
        ("open", services.backlog.open()),
        ("wait for room", services.backlog.waiting()),
        ("parked", services.backlog.parked()),
    )
    if not tasks:
        return together(counts, note("Nothing is open: every task has come to its end."))
    heads = ["time used", "age", "task", "tenant", "phase", "waits for"]
    rows = [_open_row(services, asked, task) for task in tasks]
    return together(counts, table(heads, rows, extra=["tenant", "phase"]))


def _open_row(services: Services, asked: WidgetRequest, task: Task) -> list[Content]:
    allowed = services.settings.deadline_seconds * 1000
    # A rendered task has as long again for its copy.
    part = (asked.now - (task.rendered_at or task.created_at)) / allowed
    tone = "bad" if part >= 0.9 else "warn" if part >= 0.5 else ""
    waits = task.waits_for or ("its first try" if task.phase is Phase.ACCEPTED else "the provider")
    used = bar(part, tone, f"{part:.0%} of {lasting(allowed)}")
    age = unbroken(lasting(asked.now - task.created_at))
    return [used, age, _link(asked, task), task.tenant, unbroken(task.phase), waits]


def one_task(services: Services, asked: WidgetRequest) -> Html:
    """Show a task by our id, or by a tenant's external id."""
    wanted, tenant = asked.text("task"), asked.text("tenant")[:_LONGEST_NAME]
    fields = tag(
        "form",
        tag("input", name="task", value=cut(wanted), placeholder="task id, or external id", size=38),
        tag("input", name="tenant", value=cut(tenant), placeholder="tenant, for an external id", size=20),
    )
    form = together(fields, search(asked, "Find", "task"))
    if not wanted:
        return together(form, note("Enter a task's id, as a client or a log line has it."))
    task = services.table.find(tenant, wanted) if tenant else services.table.get(wanted[:_LONGEST_NAME])
    if task is None and tenant:
        task = services.table.get(wanted[:_LONGEST_NAME])  # our id, with a tenant left in the field
    if task is None:
        hint = f"tenant {cut(tenant)} has none" if tenant else "if it is an external id, name its tenant as well"
        return together(form, note(f"There is no task {cut(wanted)}: {hint}.", tone="bad"))
    urls, machine = client_view.video_urls(services, task), services.settings.state_machine_arn
    posters = {name: _signed(services, key, _poster_slot(asked)) for name, key in _images(task)}
    return together(form, story(asked, task, urls=urls, posters=posters, machine=machine))


def failures(services: Services, asked: WidgetRequest) -> Html:
    """Show the failures of the dashboard's time range by kind, each with its remedy, and the newest of them."""
    ended = {end: services.ended.count(end, asked.since, asked.until) for end in ENDS}
    numbers = [(f"{end}{'' if whole else ' (at least)'}", count) for end, (count, whole) in ended.items()]
    ids = services.ended.newest("failed", asked.since, asked.until, _FAILURES_READ)
    head: Content = _numbers(*numbers)
    if not ids:  # a viewer on a later day need not guess the range
        ids = services.ended.newest("failed", 0, asked.until, 10)
        head = together(
            head, note("None in the time range of the dashboard. The newest before it:" if ids else "None.")
        )
    tasks = [(kind, task) for task in services.table.read(ids) if (kind := kind_of(task)) is not None]
    if not tasks:
        return together(head)
    newest = asked.number("limit", default=20, maximum=_FAILURES_READ)
    heads = ["when", "task", "tenant", "why", "the reason", ""]
    rows = [_failure_row(asked, kind, task) for kind, task in tasks[:newest]]
    by_kind = _kinds([kind for kind, _ in tasks], whole=ended["failed"][0] <= len(tasks))
    return together(head, by_kind, tag("h4", "The newest"), table(heads, rows, extra=["tenant", "why"]))


def _kinds(kinds: list[Kind], *, whole: bool) -> Html:
    counts = {kind: kinds.count(kind) for kind in ADVICE if kind in kinds}
    groups = [
        tag(
            "div",
            tag("div", tag("b", f"{count} × {ADVICE[kind].title}"), bar(count / len(kinds), _tone(kind))),
            tag("div", ADVICE[kind].remedy),
            class_="kind",
        )
        for kind, count in sorted(counts.items(), key=lambda pair: -pair[1])
    ]
    return together(groups, None if whole else note(f"Of the newest {len(kinds)}."))


def _tone(kind: Kind) -> str:
    """Return the tone of a kind. A failure without a task for the operator is not an alarm."""
    return "bad" if ADVICE[kind].ours else "plain"


def _failure_row(asked: WidgetRequest, kind: Kind, task: Task) -> list[Content]:
    button: Content = None
    if copy_can_be_repeated(task):
        button = act(asked, "Copy again", "Copy its video again, now?", "retry_archive", task_id=task.id)
    ended = task.notices[-1].at if task.notices else task.updated_at
    return [ago(asked, ended), _link(asked, task), task.tenant, ADVICE[kind].title, cut(task.reason), button]


def videos(services: Services, asked: WidgetRequest) -> Html:
    """Show the newest videos up to the end of the dashboard's time range, with their input images."""
    limit = asked.number("limit", default=8, maximum=24)
    tasks = services.table.read(services.ended.newest("succeed", 0, asked.until, limit))
    cards = [_card(services, asked, task) for task in tasks if task.videos and not task.deleted_at]
    return tag("div", cards, class_="cards") if cards else note("There are no videos yet.")


def _card(services: Services, asked: WidgetRequest, task: Task) -> Html:
    urls = client_view.video_urls(services, task)
    links = [watch(urls[video["key"]], f"▶ {video['duration']} s, {size(video['size'])}") for video in task.videos]
    ended = task.notices[-1].at if task.notices else task.updated_at
    caption = (
        [tag("p", link) for link in links],
        _link(asked, task),
        " ",
        tag("small", task.tenant, ", ", ago(asked, ended)),
    )
    return tag("div", _poster(services, asked, task), tag("div", caption), class_="card")


def _poster(services: Services, asked: WidgetRequest, task: Task) -> Html:
    key = next((key for _, key in _images(task)), None)
    if key is None:
        return tag("span", "no stored image", class_="poster")
    return tag(
        "img", src=_signed(services, key, _poster_slot(asked)), alt="input image", loading="lazy", class_="poster"
    )


def account(services: Services, asked: WidgetRequest) -> Html:
    """Show whether tasks are sent to the provider, the number of waiting tasks, and the tenants' costs this month."""
    admission = services.admissions.get(services.account)
    counts = _numbers(("open", services.backlog.open()), ("wait for room", services.backlog.waiting()))
    return together(counts, _gate(services, asked, admission), _switch(asked, admission), _spending(services, asked))


def _gate(services: Services, asked: WidgetRequest, admission: Admission) -> Html:
    provider = tag("b", services.settings.provider)
    until = ago(asked, admission.not_before)
    said: tuple[Content, ...] = (provider, " takes tasks.")
    tone = "good"
    if admission.pause is not None:
        why = f" ({admission.pause.reason})" if admission.pause.reason else ""
        said, tone = (f"Sending is paused by an operator{why} since ", ago(asked, admission.pause.since), "."), ""
    elif admission.account_trouble:
        said = (provider, f" refuses this account: {admission.reason}. New tasks wait. The next try: ", until, ".")
        tone = ""
    elif admission.not_before > asked.now:
        why = "is in maintenance" if admission.cause == "maintenance" else "has no room"
        said, tone = (provider, f" {why}: {admission.reason}. New tasks wait; next try ", until, "."), "warn"
    return tag("div", said, class_=f"box {tone}".strip())


def _switch(asked: WidgetRequest, admission: Admission) -> Html:
    if admission.pause is not None:
        return act(asked, "Resume sending", "Send new tasks to the provider again?", "resume")
    question = "Send nothing new to the provider? What it has goes on, and new tasks wait."
    return act(asked, "Pause sending", question, "pause", reason="from the dashboard")


def _spending(services: Services, asked: WidgetRequest) -> Html:
    month = month_of(asked.now)
    begins = int(datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).timestamp() * 1000)
    spent = services.ended.spent(begins, asked.now + 1)
    tenants = sorted(spent.units, key=lambda tenant: (-spent.units[tenant], tenant))
    rows: list[list[Content]] = []
    for tenant in tenants[:_MAX_TENANTS]:
        cap, _ = services.spending.cap(tenant)
        committed = services.spending.committed(tenant, month) if cap else 0
        used: Content = "no cap"
        if cap:
            tone = "bad" if committed >= cap * 0.9 else "plain"
            used = [f"{in_units(committed)} of {in_units(cap)}", bar(committed / cap, tone)]
        rows.append([tenant, spent.tasks[tenant], in_units(spent.units[tenant]), used])
    heading = tag("h4", f"Spent in {month} (UTC) by tasks that have ended, estimated where the provider states nothing")
    if not rows:
        return together(heading, note("No task has ended in this month."))
    left_off = f"{len(tenants) - len(rows)} more tenants are left off. " if len(tenants) > len(rows) else ""
    partly = "" if spent.whole else "There are more tasks than one look adds up: all figures are at least so high."
    listed = table(["tenant", "tasks", "units", "of its cap"], rows)
    return together(heading, listed, note(left_off, partly) if left_off or partly else None)


def letters(services: Services, asked: WidgetRequest) -> Html:
    """Show the messages of the dead-letter queues, with a redrive button."""
    return together(
        [_queue_view(asked, name, dead_letter_queue.look(services, url)) for name, (url, _) in _queues(services)]
    )


def _queues(services: Services) -> list[tuple[str, tuple[str, str]]]:
    return sorted(dead_letter_queue.queues(services).items())


def _queue_view(asked: WidgetRequest, name: str, pile: dead_letter_queue.QueuePeek) -> Html:
    state = (
        badge("empty", "good")
        if not pile.count
        else badge(f"{pile.count} {'message' if pile.count == 1 else 'messages'}", "bad")
    )
    head = tag("h3", name, " ", state)
    if not pile.count:
        return together(head, note(f"{pile.in_hand} are being read.") if pile.in_hand else None)
    rows: list[list[Content]] = [[ago(asked, one.at), one.about, one.receives] for one in pile.letters]
    oldest = note("Ten at most are shown; dropped files have their reason in results/… of the input bucket.")
    again = act(asked, "Redrive", f"Send the messages of {name} back to its queue?", "redrive", queue=name)
    return together(head, table(["sent", "about", "times received"], rows, extra=["times received"]), oldest, again)


def _numbers(*figures: tuple[str, int]) -> Html:
    pairs = ((tag("span", f"{figure:,}", class_="number"), name) for name, figure in figures)
    return tag("p", [tag("span", pair, class_="figure") for pair in pairs])


def _link(asked: WidgetRequest, task: Task) -> Html:
    return look(asked, f"{task.id[:8]}…", "task", task=task.id)


def _images(task: Task) -> list[tuple[str, str]]:
    """Return name and key of the task's images in our input bucket; images at other hosts are not fetched."""
    locations = [(name, holder[key]) for name, holder, key in image_places(task.request)]
    return [(name, image["s3"]) for name, image in locations if isinstance(image, dict) and "s3" in image]


def _poster_slot(asked: WidgetRequest) -> int:
    return asked.now // _POSTER_KEPT_MS


@lru_cache(maxsize=256)
def _signed(services: Services, key: str, slot: int) -> str:
    """Return a presigned URL of an image, the same for one `slot`."""
    target = {"Bucket": services.settings.need("input_bucket"), "Key": key}
    url: str = services.s3.generate_presigned_url("get_object", Params=target, ExpiresIn=_POSTER_SECONDS)
    return url


VIEWS: dict[str, Callable[[Services, WidgetRequest], Html]] = {
    "open_tasks": open_tasks,
    "task": one_task,
    "failures": failures,
    "videos": videos,
    "account": account,
    "dead_letters": letters,
}
