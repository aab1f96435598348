"""Test webhooks and events: their content, time, signature and retries, and that none is sent without a change."""

import itertools
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from kling_relay.notifications import webhook_retry
from kling_relay.notifications.webhook_retry import SLOTS
from kling_relay.operations import actions
from kling_relay.tasks import notification
from kling_relay.tasks.notification import Notice
from kling_relay.tasks.task import Phase, Task
from kling_relay.transfer import fetch
from kling_relay.transfer.fetch import Receipt
from kling_relay.transfer.fetch_error import FetchError
from standardwebhooks import Webhook

from tests.support.printed_metrics import published_metrics
from tests.support.stack_in_memory import BODY, World

pytestmark = pytest.mark.slow

IN_MEMORY = True

HOOK = "https://client.example/hook?canary=1"
DAY = 86_400


@dataclass
class Receiver:
    """Stands where the client's server is. `answers`: one after the other, the last one for ever."""

    world: World
    answers: list[Any] = field(default_factory=lambda: [204])
    got: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)

    def __call__(self, url: str, body: bytes, headers: dict[str, str], **_: Any) -> Receipt:
        assert url == HOOK
        self.got.append((self.world.clock.now, headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, str):
            raise FetchError(answer)
        status, after = answer if isinstance(answer, tuple) else (answer, None)
        return Receipt(status, after)

    def told(self) -> list[tuple[str, str]]:
        return [(headers["webhook-id"], json.loads(body)["task_status"]) for _, headers, body in self.got]


@pytest.fixture
def receiver(world: World, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    made = Receiver(world)
    monkeypatch.setattr(fetch, "post", made)
    return made


def finished(world: World, **more: Any) -> Task:
    return world.until_closed(world.create({**BODY, "callback_url": HOOK, **more}).id)


def secret(world: World, tenant: str = "acme") -> str:
    answer: str = actions.signing_secret(world.services, {"tenant": tenant})["secret"]
    return answer


def test_every_change_is_told_once_in_its_order(world: World, receiver: Receiver) -> None:
    task = finished(world, external_task_id="order-1")
    assert receiver.told() == [
        (f"evt_{task.id}_{n}", word) for n, word in enumerate(("submitted", "processing", "succeed"), 1)
    ]
    assert "notify" not in world.row(f"task#{task.id}")
    assert [one.webhook for one in task.notices] == ["delivered"] * 3


def test_how_long_a_client_was_not_told_is_measured(
    world: World, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers = [204, 503, 204, 410]
    task = world.create({**BODY, "callback_url": HOOK})
    world.run_notifier()
    world.clock.tick(61)
    world.callback(task)
    world.run_notifier()
    assert published_metrics(capsys)["NoticeSeconds"] == [0]
    world.clock.tick(7)
    world.sweep()
    world.run_notifier()
    assert published_metrics(capsys)["NoticeSeconds"] == [7]
    world.states.run()
    assert published_metrics(capsys)["WebhooksFailed"] == [1]


def test_the_body_is_klings_callback(world: World, receiver: Receiver) -> None:
    task = finished(world, external_task_id="order-1")
    first, last = (json.loads(body) for _, _, body in (receiver.got[0], receiver.got[-1]))
    assert first["task_result"] == {"images": [], "videos": []} and "final_unit_deduction" not in first
    assert (first["task_id"], first["task_info"]) == (task.id, {"external_task_id": "order-1"})
    (video,) = last["task_result"]["videos"]
    assert set(video) == {"id", "url", "duration"} and task.videos[0]["key"] in video["url"]
    assert (last["task_status_msg"], last["final_unit_deduction"]) == ("", "1.5")
    assert [type(last[name]) for name in ("created_at", "updated_at", "sequence")] == [int, int, int]
    assert "code" not in last and "data" not in last


def test_a_failure_tells_its_reason(world: World, receiver: Receiver) -> None:
    world.provider.end = "failed"
    finished(world)
    assert json.loads(receiver.got[-1][2])["task_status_msg"] == "the picture is blocked"


def test_an_independent_library_verifies_every_signature(world: World, receiver: Receiver) -> None:
    finished(world)
    ours, theirs = Webhook(secret(world)), Webhook(secret(world, "umbrella"))
    for at, headers, body in receiver.got:
        world_time = str(at // 1000)
        assert headers["webhook-timestamp"] == world_time
        signed = ours.sign(headers["webhook-id"], _time(at), body.decode())
        assert signed in headers["webhook-signature"].split(" ")
        assert theirs.sign(headers["webhook-id"], _time(at), body.decode()) not in headers["webhook-signature"]


def _time(ms: int) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms // 1000, UTC)


def test_a_changed_secret_signs_beside_the_old_one_for_a_week(world: World, receiver: Receiver) -> None:
    old = secret(world)
    new = actions.signing_secret(world.services, {"tenant": "acme", "change": True})["secret"]
    assert new != old and new.startswith("whsec_")
    finished(world)
    at, headers, body = receiver.got[0]
    both = [Webhook(one).sign(headers["webhook-id"], _time(at), body.decode()) for one in (new, old)]
    assert headers["webhook-signature"].split(" ") == both
    world.clock.tick(8 * DAY)
    receiver.got.clear()
    finished(world)
    assert len(receiver.got[0][1]["webhook-signature"].split(" ")) == 1


def test_a_receiver_that_is_down_for_three_days_gets_every_webhook_in_the_slot_after_its_return(
    world: World, receiver: Receiver
) -> None:
    receiver.answers = ["network"]
    task = finished(world)
    world.run(72 * 3600, step=600)
    tries = [one.tries for one in world.task(task.id).notices]
    assert all(8 <= count <= 9 for count in tries), tries
    receiver.got.clear()
    receiver.answers = [200]
    world.run(SLOTS[-1] * 1.2 + 600, step=600)
    assert sorted(receiver.told()) == [
        (f"evt_{task.id}_{n}", word) for n, word in enumerate(("submitted", "processing", "succeed"), 1)
    ]
    assert "notify" not in world.row(f"task#{task.id}")


def test_ten_tries_and_then_no_more(world: World, receiver: Receiver) -> None:
    receiver.answers = [500]
    task = finished(world)
    world.run(120 * 3600, step=1200)
    assert [(one.webhook, one.tries) for one in world.task(task.id).notices] == [("given_up", 10)] * 3
    times = [at for at, headers, _ in receiver.got if headers["webhook-id"].endswith("_1")]
    gaps = [(after - before) / 1000 for before, after in itertools.pairwise(times)]
    for gap, slot in zip(gaps, SLOTS[1:], strict=True):
        assert slot <= gap <= 1.2 * slot + 1260, (gap, slot)


def test_gone_is_believed(world: World, receiver: Receiver) -> None:
    receiver.answers = [410]
    task = finished(world)
    world.run(DAY)
    assert len(receiver.got) == 1 and {one.webhook for one in world.task(task.id).notices} == {"gone"}


@pytest.mark.parametrize("answer", [301, 429, 503, (429, 7200), (503, 999_999), "tls", "timeout", "refused_address"])
def test_whatever_is_no_success_comes_again(world: World, receiver: Receiver, answer: Any) -> None:
    receiver.answers = [answer, 200]
    task = world.create({**BODY, "callback_url": HOOK})
    world.run_notifier()
    (notice,) = world.task(task.id).notices
    asked = min(answer[1], webhook_retry.MAX_RETRY_AFTER) if isinstance(answer, tuple) else 0
    assert (notice.webhook, notice.tries) == ("due", 1)
    assert notice.next_at - world.clock.now >= max(4, asked) * 1000
    assert notice.answer == str(answer[0] if isinstance(answer, tuple) else answer)


def test_an_event_for_every_change_without_a_receiver_too(world: World) -> None:
    task = world.until_closed(world.create().id)
    kinds = ["Kling Task Accepted", "Kling Task Processing", "Kling Task Succeeded"]
    assert [kind for kind, _ in world.events] == kinds
    detail = world.events[-1][1]
    assert detail["version"] == 1 and detail["id"] == f"evt_{task.id}_3" and detail["tenant"] == "acme"
    assert detail["videos"] == [
        {"id": task.videos[0]["id"], "bucket": "videos", "key": task.videos[0]["key"], "duration": "5", "size": 5}
    ]
    assert "canary" not in json.dumps(world.events) and "Signature" not in json.dumps(world.events)


def test_a_bus_that_refuses_keeps_no_webhook_back(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure"}]}
    monkeypatch.setattr(world.services.events, "put_events", lambda **_: refused)
    task = finished(world)
    assert len(receiver.got) == 3 and all(one.event for one in task.notices)
    monkeypatch.undo()
    monkeypatch.setattr(fetch, "post", receiver)
    world.run(120)
    assert len(world.events) == 3 and len(receiver.got) == 3


def test_a_move_while_a_webhook_is_under_way_repeats_nothing(world: World, receiver: Receiver) -> None:
    """The answer is noted although the row has got another notice meanwhile."""
    task = world.create({**BODY, "callback_url": HOOK})
    original = receiver.__class__.__call__
    moved: list[bool] = []

    def meanwhile(*given: Any, **named: Any) -> Receipt:
        if not moved:
            moved.append(True)
            row = world.task(task.id)
            world.table.move(row, Phase.PROCESSING, updated_at=world.clock.now)
        return original(receiver, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "post", meanwhile)
        world.run_notifier()
        world.run(3600)
    assert [word for _, word in receiver.told()] == ["submitted", "processing", "succeed"]


def test_slow_receivers_of_one_tenant_take_three_functions_and_no_webhook_of_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 tarpits. Whatever notify_client is invoked for while a webhook is under way runs at the same time."""
    under_way: list[str] = []
    maximum, told = list[int](), list[str]()
    slow = True

    def post(url: str, body: bytes, headers: dict[str, str], **_: Any) -> Receipt:
        if url == HOOK:
            told.append(json.loads(body)["task_id"])
            return Receipt(204, None)
        under_way.append(url)
        maximum.append(len(under_way))
        while world.notifier_calls:
            world.call("notify_client", {"task_id": world.notifier_calls.pop(0)}, left_ms=90_000)
        under_way.remove(url)
        if slow:
            raise FetchError("timeout")
        return Receipt(200, None)

    monkeypatch.setattr(fetch, "post", post)
    tasks = [world.create({**BODY, "callback_url": f"https://tarpit.example/{n}"}, tenant="globex") for n in range(24)]
    other = world.create({**BODY, "callback_url": HOOK}, tenant="acme")
    assert len(world.notifier_calls) == 25
    world.run_notifier()
    assert max(maximum) == len(maximum) == 3, "three are tried, and the others end at once"
    assert told == [other.id], "although three are under way"
    firsts = [world.task(task.id).notices[0] for task in tasks]
    assert sorted(one.tries for one in firsts) == [0] * 21 + [1] * 3
    assert all(one.webhook == "due" and one.next_at > world.clock.now for one in firsts)
    slow = False
    world.run(3 * 3600)
    assert max(maximum) == 3
    firsts = [world.task(task.id).notices[0] for task in tasks]
    assert all(one.webhook == "delivered" and one.tries in (1, 2) for one in firsts), "nothing is lost"


def test_a_webhook_that_cannot_be_noted_gives_its_permit_back(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = world.create({**BODY, "callback_url": HOOK})
    monkeypatch.setattr(fetch, "post", lambda *_, **__: 1 / 0)
    world.run_notifier()
    monkeypatch.setattr(fetch, "post", receiver)
    for _ in range(3):
        assert world.services.permits.take("webhooks#acme", 3, world.clock.now, world.clock.now + 1) is not None
    assert world.task(task.id).notices[0].tries == 1


def test_who_is_put_off_waits_longer_each_time_and_never_too_long() -> None:
    one = Notice(1, "succeed", 0, webhook="due", tries=2, answer="500")
    for age, low, high in ((0, 15, 18), (60, 15, 18), (3600, 900, 1080), (5 * DAY, 3600, 4320)):
        later = webhook_retry.postpone(one, age * 1000)
        assert low <= later.next_at / 1000 - age <= high
        assert replace(later, next_at=0) == one


def test_two_tellers_at_once_send_one(world: World, receiver: Receiver) -> None:
    task = world.create({**BODY, "callback_url": HOOK})
    read = world.table.get(task.id)
    assert read is not None
    world.run_notifier()
    assert len(receiver.got) == 1
    with pytest.MonkeyPatch.context() as patch:  # the second one has read the row before the first one wrote
        seen = iter([read])
        real = world.table.get
        patch.setattr(world.table, "get", lambda task_id: next(seen, None) or real(task_id))
        world.call("notify_client", {"task_id": task.id}, left_ms=90_000)
    assert len(receiver.got) == 1


def test_what_nobody_was_invoked_for_is_found_by_the_sweeper(world: World, receiver: Receiver) -> None:
    task = world.create({**BODY, "callback_url": HOOK})
    world.notifier_calls.clear()  # the asynchronous invocation is lost
    world.clock.tick(60)
    assert world.sweep()["notifications"] == 1
    world.run_notifier()
    assert receiver.told() == [(f"evt_{task.id}_1", "submitted")]


def test_a_task_that_expired_and_came_late_is_told_as_both(world: World, receiver: Receiver) -> None:
    world.provider.seconds = 2 * DAY
    task = finished(world)
    world.run(3 * DAY, step=1800)
    assert world.task(task.id).phase is Phase.SUCCEEDED
    assert [word for _, word in receiver.told()] == ["submitted", "processing", "failed", "succeed"]


def test_an_operator_sends_webhooks_again(world: World, receiver: Receiver) -> None:
    receiver.answers = [410]
    task = finished(world)
    receiver.answers = [200]
    receiver.got.clear()
    answer = world.call("operate_tasks", {"action": "replay_notice", "task_id": task.id, "sequence": 3})
    assert answer == {"task_id": task.id, "webhooks": 1}
    world.run_notifier()
    assert receiver.told() == [(f"evt_{task.id}_3", "succeed")]
    world.call("operate_tasks", {"action": "replay_notice", "task_id": task.id})
    world.run_notifier()
    assert len(receiver.got) == 4
    for wrong in ({"task_id": "none"}, {"task_id": task.id, "sequence": 9}):
        with pytest.raises(ValueError, match=next(reversed(wrong))):
            world.call("operate_tasks", {"action": "replay_notice", **wrong})


def test_a_deleted_task_is_not_told_of_to_its_client(in_moto: World, receiver: Receiver) -> None:
    receiver.answers = ["network"]
    task = finished(in_moto)
    receiver.got.clear()
    status, _ = in_moto.http("DELETE", f"/v1/videos/image2video/{task.id}", authorization=in_moto.key())
    assert status == 200
    in_moto.run(2 * DAY, step=1800)
    assert receiver.got == [] and "notify" not in in_moto.row(f"task#{task.id}")


@pytest.mark.parametrize(
    "url",
    [
        *("http://client.example/hook", "https://client.example:8443/", "https://127.0.0.1/", "https://10.0.0.1/x"),
        *("https://user@client.example/", "https://169.254.169.254/latest"),
    ],
)
def test_an_address_that_no_webhook_may_go_to_is_refused_before_anything_is_paid(world: World, url: str) -> None:
    status, answer = world.post({**BODY, "callback_url": url})
    assert (status, answer["code"]) == (400, 1201)
    assert answer["message"].startswith(
        "callback_url: must be an https:// URL with a public host and port 443 (got a URL of"
    )
    assert not world.provider.sold and not world.tasks()


def test_notices_read_back_as_they_were_written() -> None:
    one, two = Notice(1, "submitted", 5, webhook="due", tries=2, next_at=9, answer="500"), Notice(2, "failed", 6)
    row = {two.attribute: two.text(), "phase": "failed", one.attribute: one.text(), "notice_seq": 7}
    assert notification.read(row) == (one, two)
    assert notification.next_at((one, two)) == 5 and notification.next_at(()) is None
