"""Count the external effects of a relay, so that a test can plan a fault for the n-th effect."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

_EFFECTS = {"update_item", "transact_write_items", "put_object", "start_execution", "send_task_success"}
_EFFECTS |= {"delete_objects"}

DEATHS = ("dies before", "dies after")
# The outcomes of a request of the AWS SDK: it repeats an unanswered request, and gives up after some attempts.
LOST = ("answer lost", "answers lost", "never arrives")
# Other functions act during a late request. Document: botocore repeats a request without an answer within the read
# timeout, which is 3 s for the table and 5 s for the rest (services.py). So a request may be delayed for that long.
LATE = ("repeated late", "arrives late")
PAID = "POST"  # not sent by the SDK: sent once


class Crash(BaseException):
    """The process has died. It is no Exception, so that no `except Exception` hides it."""


def planned(exc: BaseException | None) -> bool:
    """Return whether a planned fault raised `exc`, or the error that caused it."""
    while exc is not None:
        if isinstance(exc, Crash) or hasattr(exc, "planned"):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _fault(exc: Exception) -> Exception:
    exc.planned = True  # type: ignore[attr-defined]
    return exc


class Effects:
    """Run calls with planned faults.

    `names`: the effects so far. `plan`: number of an effect -> its fault. `fired`: the faults that occurred.
    `meanwhile`: the actions of other functions during a late request; their effects are not counted, and have no
    faults.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.plan: dict[int, str] = {}
        self.fired: list[str] = []
        self.pause: Callable[[str], None] = lambda name: None  # before each effect: a scheduler may run others first
        self.meanwhile: Callable[[], None] = lambda: None
        self._others_act = False

    def after(self, effects: int, fault: str) -> None:
        """Plan `fault` for the `effects`-th effect from now."""
        self.plan[len(self.names) + effects] = fault

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        if self._others_act:
            return call()
        self.pause(name)
        self.names.append(name)
        fault = self.plan.pop(len(self.names), "")
        if name == PAID and fault in (*LOST, "repeated late"):
            fault = ""
        if fault:
            self.fired.append(f"{fault}: {name} ({len(self.names)})")
        self._before(fault, name)
        return self._after(fault, name, call, call())

    def _before(self, fault: str, name: str) -> None:
        if fault == "dies before":
            raise Crash(name)
        if fault == "never arrives":
            raise _fault(EndpointConnectionError(endpoint_url="https://aws.example"))
        if fault == "arrives late":
            self._let_others_act()

    def _after(self, fault: str, name: str, call: Callable[[], Any], result: Any) -> Any:
        """Return the answer that the caller finally receives; `result` is that of the first request."""
        if fault == "dies after":
            raise Crash(name)
        if fault == "repeated late":
            self._let_others_act()
        if fault in ("answer lost", "repeated late"):
            return call()
        if fault == "answers lost":
            call()
            raise _fault(ReadTimeoutError(endpoint_url="https://aws.example"))
        return result

    def _let_others_act(self) -> None:
        self._others_act = True
        try:
            self.meanwhile()
        finally:
            self._others_act = False

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
