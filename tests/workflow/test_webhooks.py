"""Test webhooks to a real receiver over a real socket, and events on the bus, during a task's whole run."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook

from tests.workflow.driver import Driver, call, data_of, until


class Receiver(ThreadingHTTPServer):
    """`statuses`: what it answers, one after the other; 200 when there are no more."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []

    def times(self) -> Counter[str]:
        """How often each webhook-id has come."""
        return Counter(headers["webhook-id"] for headers, _ in list(self.got))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def operate(driver: Driver, **event: object) -> dict[str, object]:
    names = [one["FunctionName"] for one in driver.emulator.client("lambda").list_functions()["Functions"]]
    (function,) = [name for name in names if "OperateTasks" in name]
    answer = driver.emulator.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event))
    said: dict[str, object] = json.loads(answer["Payload"].read())
    return said


def test_a_receiver_is_told_of_every_change_and_can_prove_it(driver: Driver, receiver: Receiver) -> None:
    task_id = driver.post(callback_url=receiver.url)["task_id"]
    driver.delivered(task_id)
    until(lambda: len(receiver.times()) == 3)
    verified = Webhook(str(operate(driver, action="signing_secret", tenant="demo")["secret"]))
    got = {
        headers["webhook-id"]: verified.verify(body, headers) for headers, body in receiver.got
    }  # one may come twice
    told = sorted(got.values(), key=lambda one: one["sequence"])
    assert [one["task_status"] for one in told] == ["submitted", "processing", "succeed"]
    (video,) = told[-1]["task_result"]["videos"]
    assert call("GET", video["url"]).content[4:8] == b"ftyp"
    until(lambda: {one["state"] for one in data_of(driver.get(task_id))["callback"]} == {"delivered"})


def test_one_that_is_down_is_told_later_and_one_that_is_gone_never_again(driver: Driver, receiver: Receiver) -> None:
    """On a slow machine the repetition of the refused webhook may come before the replay: counted is by webhook-id."""
    receiver.statuses = [503]
    task_id = driver.post(callback_url=receiver.url, **{"prompt": "another one"})["task_id"]
    driver.delivered(task_id)
    first, second, third = (f"evt_{task_id}_{sequence}" for sequence in (1, 2, 3))
    until(lambda: set(receiver.times()) == {first, second, third})
    refused = receiver.got[0][0]["webhook-id"]
    before = receiver.times()[third]
    assert operate(driver, action="replay_notice", task_id=task_id, sequence=3)["webhooks"] == 1
    until(lambda: receiver.times()[third] > before)

    def states() -> dict[str, str]:
        return {f"evt_{task_id}_{one['sequence']}": one["state"] for one in data_of(driver.get(task_id))["callback"]}

    until(lambda: all(state == "delivered" for name, state in states().items() if name != refused))
    if receiver.times()[refused] == 1:
        assert states()[refused] == "due"
