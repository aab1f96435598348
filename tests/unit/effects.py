"""What a relay does to the outside, counted, so that a fault can be planned for the n-th effect."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

_EFFECTS = {"update_item", "transact_write_items", "put_object", "start_execution", "send_task_success"}
_EFFECTS |= {"delete_objects"}

DEATHS = ("dies before", "dies after")
# What can become of a request of the AWS SDK: it repeats what got no answer, and gives up after some tries.
LOST = ("answer lost", "answers lost", "never arrives")
PAID = "POST"  # not the SDK's: sent once


class Crash(BaseException):
    """The process is gone: nothing that catches Exception can hide it."""


class Effects:
    """`names`: what happened so far. `plan`: number of an effect -> its fault. `fired`: the faults that came true."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.plan: dict[int, str] = {}
        self.fired: list[str] = []
        self.pause: Callable[[str], None] = lambda name: None  # before each effect: a scheduler may let others go first

    def after(self, effects: int, fault: str) -> None:
        """Plan `fault` for the `effects`-th effect from here."""
        self.plan[len(self.names) + effects] = fault

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        self.pause(name)
        self.names.append(name)
        fault = self.plan.pop(len(self.names), "")
        if fault in LOST and name == PAID:
            fault = ""
        if fault:
            self.fired.append(f"{fault}: {name} ({len(self.names)})")
        if fault == "dies before":
            raise Crash(name)
        if fault == "never arrives":
            raise EndpointConnectionError(endpoint_url="https://aws.example")
        result = call()
        if fault == "dies after":
            raise Crash(name)
        if fault == "answer lost":
            return call()
        if fault == "answers lost":
            call()
            raise ReadTimeoutError(endpoint_url="https://aws.example")
        return result

    def watch(self, client: Any) -> Any:
        return _Watched(client, self)


class _Watched:
    def __init__(self, client: Any, effects: Effects) -> None:
        self._client, self._effects = client, effects

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in _EFFECTS:
            return method
        return lambda **options: self._effects.around(name, lambda: method(**options))
