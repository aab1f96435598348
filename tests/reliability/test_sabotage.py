"""Test the campaigns themselves: each protection is removed in turn, and a campaign fails."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import Phase as Generate
from kling_relay.dynamodb import ConflictError, Rows, new_token
from kling_relay.lifecycle import advance, archive, confirm, evidence, submit, sweep
from kling_relay.lifecycle.step import AdvanceInput, Step
from kling_relay.provider import responses
from kling_relay.provider.outcomes import NotSent, Outcome, Unknown
from kling_relay.provider.responses import ProviderTask
from kling_relay.services import Services
from kling_relay.tasks import idempotency, task_row
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import MOVES, Phase, Task

from tests.reliability import test_deaths, test_dynamo, test_executions, test_histories, test_interleavings, test_pairs
from tests.reliability.campaign import Campaign
from tests.support import dynamodb_expressions
from tests.support.fake_dynamodb import FakeDynamoDB
from tests.support.stack_in_memory import Cloud, FakeStepFunctions

Patch = pytest.MonkeyPatch


def always(part: str, condition: str) -> str:
    """The condition with `part` made true."""
    return re.sub(part, lambda match: f"({match[0]} OR attribute_exists(pk))", condition)


def weaken(patch: Patch, part: str) -> None:
    as_it_was = Rows.expression

    def expression(self: Rows, pk: str, update: str, condition: str, **values: Any) -> dict[str, Any]:
        return as_it_was(self, pk, update, always(part, condition), **values)

    patch.setattr(Rows, "expression", expression)


def no_phase_condition(patch: Patch) -> None:
    """With what protects an end as well: it is told once, and so is its price."""
    weaken(patch, r"#phase IN \([^)]*\)|attribute_not_exists\(#(notice_\d+|units)\)")


def no_attempt_fence(patch: Patch) -> None:
    weaken(patch, "#attempt = :seen")


def no_wake_seq(patch: Patch) -> None:
    """A workflow falls asleep whatever has happened since it looked."""
    as_it_was = FakeStepFunctions.__init__

    def init(self: FakeStepFunctions, world: Any) -> None:
        as_it_was(self, world)
        condition = always("#wake_seq = :wake_seq", self.wait["ConditionExpression"])
        self.wait = {**self.wait, "ConditionExpression": condition}

    patch.setattr(FakeStepFunctions, "__init__", init)


def no_pointer_condition(patch: Patch) -> None:
    """The same Idempotency-Key makes a second task."""
    as_it_was = Rows.put_new

    def put_new(self: Rows, item: dict[str, Any]) -> dict[str, Any]:
        put = as_it_was(self, item)
        put["Put"]["ConditionExpression"] += " OR attribute_exists(pk)"
        return put

    patch.setattr(Rows, "put_new", put_new)


def no_claim(patch: Patch) -> None:
    """The POST goes out before anything says so."""
    patch.setattr(TaskTable, "claim", lambda self, task, **changes: task)


def no_doubt(patch: Patch) -> None:
    """A POST whose outcome is unknown counts as one that was not sent."""
    as_it_was = submit._Sender._record

    def record(self: submit._Sender, task: Task, outcome: Outcome) -> Any:
        return as_it_was(self, task, NotSent("sabotage") if isinstance(outcome, Unknown) else outcome)

    patch.setattr(submit._Sender, "_record", record)


def doubt_is_forgotten(patch: Patch) -> None:
    """The claim of a repetition takes the doubt from the row."""
    as_it_was = TaskTable.claim

    def claim(self: TaskTable, task: Task, **changes: Any) -> Task:
        return as_it_was(self, task, **{**changes, "unsure_since": None})

    patch.setattr(TaskTable, "claim", claim)


def no_own_token(patch: Patch) -> None:
    """The repetition of our own write looks like somebody else's."""

    def update(self: Rows, expression: dict[str, Any]) -> dict[str, Any]:
        try:
            item: dict[str, Any] = self.client.update_item(**expression, ReturnValues="ALL_NEW")["Attributes"]
        except ClientError as exc:
            raise ConflictError from exc
        return item

    patch.setattr(Rows, "update", update)


def no_end(patch: Patch) -> None:
    """What comes late writes into the row of a task that has ended."""

    def write(services: Services, task: Task, inputs: AdvanceInput) -> Step:
        return Step(services.table.move(task, None, reason="late", updated_at=services.clock.now_ms()), "done")

    for phase in (Phase.SUCCEEDED, Phase.FAILED):
        patch.setitem(advance._HANDLERS, phase, write)


def no_sweeper(patch: Patch) -> None:
    patch.setattr(sweep, "sweep", lambda *_: {})


def no_second_copy(patch: Patch) -> None:
    """A copy that is lost is never tried again."""
    patch.setattr(archive, "_next_copy", lambda services, task, copies: 2**52)


def told_before_it_is_won(patch: Patch) -> None:
    """A move is measured when it is tried."""
    as_it_was = TaskTable.move

    def move(self: TaskTable, task: Task, to: Phase | None, **changes: Any) -> Task:
        self.on_move(task, task_row.changed(task, to, changes))
        with patch.context() as silent:
            silent.setattr(self, "on_move", lambda before, after: None)
            return as_it_was(self, task, to, **changes)

    patch.setattr(TaskTable, "move", move)


def any_phase(patch: Patch) -> None:
    """A move holds from every phase that its target may follow, whatever the decision was made on."""
    as_it_was = TaskTable._moving

    def moving(self: TaskTable, task: Task, to: Phase | None, also: Any, changes: dict[str, Any]) -> dict[str, Any]:
        return as_it_was(self, task, to, also if to is None else MOVES[to], changes)

    patch.setattr(TaskTable, "_moving", moving)


def no_mark_of_claims(patch: Patch) -> None:
    """A claimer recognises its claim by the token that every write of the row replaces."""
    as_it_was = Rows.update
    patch.setattr(Rows, "update", lambda self, expression, mark="write": as_it_was(self, expression))


def any_answer_is_ours(patch: Patch) -> None:
    patch.setattr(ProviderTask, "is_about", lambda self, upstream_id: True)


def errors_name_nothing(patch: Patch) -> None:
    patch.setattr(responses, "names_task", lambda answer: False)


def hints_are_dropped(patch: Patch) -> None:
    patch.setattr(TaskTable, "keep_hint", lambda self, task, upstream_id: None)


def the_account_of_today(patch: Patch) -> None:
    """A task is asked for where new ones are sent."""
    patch.setattr(Services, "account_of", lambda self, task: self.account)


def every_denial_proves(patch: Patch) -> None:
    patch.setattr(evidence, "proven", lambda services, task: True)


def an_hour_of_proof(patch: Patch) -> None:
    """A control that was found is not asked for again."""

    def proven(services: Services, task: Task) -> bool:
        control = services.controls.get(evidence._pk(services, task))
        return control.found_at > control.missed_at

    patch.setattr(evidence, "proven", proven)


def proof_is_ignored(patch: Patch) -> None:
    """A look-up that finds nothing counts, though the provider has refused a second task of the same reference."""

    def on_unconfirmed(services: Services, task: Task, inputs: AdvanceInput) -> Task | Step:
        return confirm.on_unconfirmed(services, replace(task, proved_at=None), inputs)

    patch.setitem(advance._HANDLERS, Phase.UNCONFIRMED, on_unconfirmed)


def try_again_after_all(patch: Patch) -> None:
    """The client of a task of which it is not known whether it was recorded sends it again."""

    def record(table: TaskTable, task: Task, *, clock: Any, body_hash: str, **more: Any) -> Task:
        key, budget = more.get("idempotency_key"), more.get("budget")
        return idempotency._record(table, task, body_hash, key, budget, new_token())

    patch.setattr(idempotency, "record", record)


SABOTAGES: list[tuple[Callable[[Patch], None], Callable[..., None], tuple[Any, ...]]] = [
    (no_phase_condition, test_interleavings.test_interleavings, ("falling_asleep",)),
    (no_attempt_fence, test_interleavings.test_interleavings, ("zombie",)),
    (no_wake_seq, test_interleavings.test_interleavings, ("falling_asleep",)),
    (no_pointer_condition, test_interleavings.test_interleavings, ("two_clients",)),
    (no_claim, test_deaths.test_deaths, ("accepts",)),
    (no_claim, test_deaths.test_deaths_under_clocks_that_differ, ("accepts",)),
    (no_doubt, test_deaths.test_deaths, ("answer_lost",)),
    (no_doubt, test_histories.play, (0, Generate.generate)),
    (doubt_is_forgotten, test_deaths.test_deaths, ("drops_retry",)),
    (no_end, test_histories.play, (0, Generate.generate)),
    (no_own_token, test_deaths.test_lost_answers, ("accepts",)),
    (no_sweeper, test_deaths.test_deaths, ("accepts",)),
    (no_sweeper, test_pairs.test_pairs_of_faults, ()),
    (no_sweeper, test_executions.test_killed_executions, ("accepts",)),
    (no_second_copy, test_deaths.test_deaths, ("copy_fails",)),
    (any_phase, test_deaths.test_late_requests, ("denies_fail",)),
    (no_mark_of_claims, test_deaths.test_late_requests, ("accepts",)),
    (any_answer_is_ours, test_deaths.test_deaths, ("mixed_hidden",)),
    (errors_name_nothing, test_deaths.test_lost_answers, ("named_full",)),
    (errors_name_nothing, test_pairs.test_pairs_of_faults, ()),
    (errors_name_nothing, test_histories.play, (0, Generate.generate)),
    (hints_are_dropped, test_deaths.test_deaths, ("blind",)),
    (the_account_of_today, test_deaths.test_lost_answers, ("switched",)),
    (every_denial_proves, test_deaths.test_lost_answers, ("denies_auto",)),
    (an_hour_of_proof, test_deaths.test_lost_answers, ("denies_auto",)),
    (proof_is_ignored, test_deaths.test_deaths, ("official_lags",)),
    (try_again_after_all, test_deaths.test_lost_answers, ("accepts",)),
    (told_before_it_is_won, test_deaths.test_deaths, ("accepts",)),
    (told_before_it_is_won, test_interleavings.test_interleavings, ("falling_asleep",)),
]


@pytest.mark.parametrize(
    ("take_away", "campaign_of", "variant"),
    SABOTAGES,
    ids=[f"{take_away.__name__}-{test.__name__.removeprefix('test_')}" for take_away, test, _ in SABOTAGES],
)
def test_sabotage(
    campaign: Campaign,
    monkeypatch: Patch,
    take_away: Callable[[Patch], None],
    campaign_of: Callable[..., None],
    variant: tuple[Any, ...],
) -> None:
    campaign.thorough = True
    take_away(monkeypatch)
    with pytest.raises(AssertionError):
        campaign_of(campaign, *variant)


def test_a_table_that_reads_conditions_wrongly_is_noticed(campaign: Campaign, cloud: Cloud, monkeypatch: Patch) -> None:
    monkeypatch.setattr(dynamodb_expressions, "_compare", lambda left, sign, right: True)
    with pytest.raises(AssertionError):
        test_dynamo.test_whole_lives(campaign, test_dynamo.Both(FakeDynamoDB(), cloud.dynamodb), "no_room")
