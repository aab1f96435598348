"""What a caller of `advance` knows beyond the row. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it optional.

    `must_end_by`: when this Lambda is killed (ms); who does not say it may not send anything. `fresh`: the client sends
    it this moment, so that those who wait come first. `images`: bytes of inline images by name. `hint`: the provider's
    task id as a callback's body names it, never believed by itself. `copied`: our videos, proved whole. `copy_failed`:
    why a copy failed, one word of s3_copy.py.
    """

    must_end_by: int | None = None
    fresh: bool = False
    images: Mapping[str, bytes] = field(default_factory=dict)
    hint: str | None = None
    copied: list[dict[str, Any]] | None = None
    copy_failed: str | None = None

    @property
    def polling(self) -> bool:
        """Whether a workflow asks because its wait is over: callbacks and copies have no time, clients are fresh."""
        return self.must_end_by is not None and not self.fresh


NOTHING = Facts()
