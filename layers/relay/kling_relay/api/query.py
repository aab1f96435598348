"""Query one task, a page of tasks, or the account. Some clients use the latter to check their key."""

from collections.abc import Mapping
from typing import Any

from kling_relay.errors import KlingError, bad_parameter
from kling_relay.kinds.fields import KINDS
from kling_relay.services import Services
from kling_relay.tasks.task import Task

COSTS: dict[str, Any] = {
    "code": 0,
    "msg": "success",
    "resource_pack_subscribe_infos": [],
}  # the provider manages resource packs


def find(services: Services, tenant: str, kind: str, reference: str) -> Task:
    """Return the tenant's task by either id, for any kind in the path: some clients always use the same one.

    Raises KlingError 1203 if there is none.
    """
    _known(kind)
    task = services.table.find(tenant, reference)
    if task is None or task.is_expired(services.clock.now_ms()):
        raise KlingError(1203, "task not found")
    return task


def page(services: Services, tenant: str, kind: str, asked: Mapping[str, str]) -> list[Task]:
    """Return the tasks of one kind on the page that the query string `asked` names, newest first."""
    _known(kind)
    number = _whole(asked, "pageNum", default=1, maximum=1000)
    size = _whole(asked, "pageSize", default=30, maximum=500)
    tasks = services.table.page(tenant, kind, skip=(number - 1) * size, size=size)
    return [task for task in tasks if not task.is_expired(services.clock.now_ms())]


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise KlingError(1202, f"kind: must be one of {', '.join(KINDS)} (got {kind[:64]!r})")


def _whole(asked: Mapping[str, str], name: str, *, default: int, maximum: int) -> int:
    text = (asked.get(name) or "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= maximum):
        raise bad_parameter(name, f"must be a whole number from 1 to {maximum}", repr(text[:32]))
    return int(text)
