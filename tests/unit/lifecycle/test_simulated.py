"""Test the lifecycle with the real provider client and the real copier, against the simulator on loopback."""

import time

import pytest
from kling_relay.lifecycle import archive
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.tasks.task import Phase, Task

from local.simulator import Simulator
from tests.support.provider_calls import provider_at
from tests.support.stack_in_memory import ROOT, World
from tests.unit.api.test_create import b64

pytestmark = pytest.mark.enable_socket
BODY = {"image": b64((ROOT / "local" / "stack" / "sample.jpg").read_bytes()), "model_name": "kling-v2-5-turbo"}


@pytest.fixture(params=["kling", "cometapi"], autouse=True)
def real(sim: Simulator, world: World, request: pytest.FixtureRequest) -> None:
    """The relay's own provider client and copier."""
    world.services.provider = provider_at(sim.url, name=request.param)
    world.cloud.apps["archive_video"].copy_outputs = archive.copy_outputs  # type: ignore[attr-defined]


def finished(world: World, sim: Simulator, task: Task) -> Task:
    while (task := world.task(task.id)).phase is not Phase.SUCCEEDED:
        world.clock.tick(31)
        if (
            advance(world.services, task.id, AdvanceInput("poll", must_end_by=world.clock.now + 60_000)).next
            == "archive"
        ):
            world.archive(task)
        time.sleep(0.1)
    return task


@pytest.mark.parametrize("fault", [{}, {"drop_after": 1}, {"garbage_answer": {"value": "html", "times": 1}}])
@pytest.mark.parametrize("later", [{}, {"expired_url": 1}, {"truncate": {"value": 0.5, "times": 1}}])
def test_one_payment_one_video(world: World, sim: Simulator, fault: dict, later: dict) -> None:
    sim.faults.set(**fault, **later)
    task = finished(world, sim, world.create(BODY))
    (entry,) = sim.ledger.entries.values()
    assert entry.external_task_id == task.id and entry.billed
    stored = world.s3.get_object(Bucket="videos", Key=task.videos[0]["key"])["Body"].read()
    assert len(stored) == task.videos[0]["size"] and stored[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("fault", "phase"), [("no_room", Phase.ACCEPTED), ("arrears", Phase.ACCEPTED), ("drop_before", Phase.UNCONFIRMED)]
)
def test_what_was_not_sold(world: World, sim: Simulator, fault: str, phase: Phase) -> None:
    sim.faults.set(**{fault: 1})
    assert world.create(BODY).phase is phase
    assert not sim.ledger.entries
