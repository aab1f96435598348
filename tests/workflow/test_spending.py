"""Test a cap and the kill switch, with the real functions on the emulator and a provider that states its price."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.workflow.driver import BODY, Driver, data_of, refusal_of, until

VOICE = {"model_name": "kling-v3", "mode": "pro", "sound": "on", "voice_list": [{"voice_id": "v"}]}  # 7 units; billed 6
PLAIN = {"model_name": "kling-v3"}  # 3 units


def operate(driver: Driver, action: str, **more: Any) -> dict[str, Any]:
    (name,) = [
        one["FunctionName"] for one in driver.lambdas.list_functions()["Functions"] if "Operate" in one["FunctionName"]
    ]
    answer = driver.lambdas.invoke(FunctionName=name, Payload=json.dumps({"action": action, "tenant": "demo", **more}))
    said: dict[str, Any] = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, said
    return said


def test_what_was_reserved_is_settled_with_what_was_billed(kling: Driver) -> None:
    operate(kling, "set_cap", units=10)
    kling.account(render_seconds=6.0)  # a slow machine has to look before the end
    task_id = kling.post(**VOICE)["task_id"]
    assert operate(kling, "spend")["committed_units"] == 7
    assert refusal_of(kling.send({**BODY, **VOICE}))[:2] == (429, 1102)
    kling.delivered(task_id)
    assert kling.paid(task_id)["units"] == "6"
    assert operate(kling, "spend")["committed_units"] == 6
    row = kling.row(task_id)
    assert (row["reserved"], row["settled"]) == (7000, 6000)
    operate(kling, "set_cap", units=21)
    assert refusal_of(kling.send({**BODY, "model_name": "kling-v9"}))[:2] == (404, 1203)  # 15 units, if it were one
    assert operate(kling, "spend")["committed_units"] == 6, "a refused task gives back what it reserved"


def test_many_at_once_at_the_cap(kling: Driver) -> None:
    """Twelve at once, room for three: three are recorded, three are paid."""
    operate(kling, "set_cap", units=11)
    with ThreadPoolExecutor(3) as threads:  # each costs the machine a cold start
        answers = list(threads.map(lambda _: kling.send({**BODY, **PLAIN}), range(12)))
    good = [data_of(answer)["task_id"] for answer in answers if answer.status_code == 200]
    others = {refusal_of(answer)[:2] for answer in answers if answer.status_code != 200}
    assert len(good) == 3 and others == {(429, 1102)}
    rows = kling.keys()
    assert len([pk for pk in rows if pk.startswith("task#")]) == 3
    for task_id in good:
        kling.delivered(task_id)
    assert kling.ledger()["billed_units"] == "9" and operate(kling, "spend")["committed_units"] == 9


def test_a_pause_stops_the_next_claim_and_nothing_else(kling: Driver) -> None:
    kling.account(render_seconds=1.0)
    before = kling.post()["task_id"]
    operate(kling, "pause", reason="the bill")
    after = kling.post()["task_id"]
    kling.delivered(before)
    assert kling.sweep()["waiting"] == 0
    row = kling.row(after)
    assert (row["phase"], row["queue"], row["waits_for"]) == (
        "accepted",
        "waiting",
        "paused by the operator (the bill)",
    )
    assert kling.posts(after) == []
    operate(kling, "resume")
    until(lambda: kling.sweep()["waiting"])
    kling.delivered(after)
    assert kling.posts(after) == ["accepted"]
