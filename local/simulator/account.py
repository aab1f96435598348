"""Hold the simulated provider account: its keys, its number of parallel tasks, and its handling of references."""

# ruff: noqa: RUF009 - each call makes a dataclass field, not a shared default
from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import threading
import time
from dataclasses import dataclass, field, fields
from typing import Any

from local.simulator.dialects import DIALECTS, RELAYS, Refusal


def each(value: Any, **others: Any) -> Any:
    """Create a setting with a value per dialect: `value`, except for the `others`."""
    return field(default_factory=lambda: {**dict.fromkeys(DIALECTS, value), **others})


CHOICES: dict[str, tuple[Any, ...]] = {
    "kling_path": RELAYS,
    "retired_models": ("served", "refused"),
    "duplicate_external_id": ("second_task", "refuse"),
    "dynamic_masks": ("array", "object", "either"),
    "pays_in": ("units", "cash"),
}


@dataclass
class Account:
    """Hold permanent settings (``POST /_sim/account``). All dialects share one account."""

    kling_path: str = "cometapi"
    """The relay under /kling/v1: cometapi, yutoai, powertokens, or relay for the new-api family."""
    key: str = "kling-simulator-key"
    """The API key that ``Authorization: Bearer`` must carry."""
    access_key: str = ""
    """The AK of a Kling AK/SK pair; "" = such tokens are refused."""
    secret_key: str = ""
    """The SK of that pair: signs tokens with HS256."""
    webhook_secret: str = ""
    """``whsec_<base64>``: signs the official dialect's callbacks (Standard Webhooks). "" = no signature headers."""
    slots: int = 0
    """Tasks that may be submitted or processing at once; one more is refused with 429, 1303. 0 = no limit."""
    render_seconds: float = 8.0
    """Seconds from submitted to the end of a task."""
    render_size: int = 1280
    """Longest side of a rendered video in pixels; a picture is never enlarged."""
    url_seconds: float = 30 * 86400.0
    """Lifetime of a result address in seconds (Kling: 30 days)."""
    extra_models: list[str] = field(default_factory=list)
    """Model names accepted in addition to the published ones, for every kind."""
    pays_in: str = "units"
    """units or cash: the payment that the official dialect reports for finished tasks (final_unit_deduction or
    final_balance_deduction)."""
    retired_models: dict[str, str] = each("served", official="refused")
    """served or refused (404, 1203): the models that Kling retired on 2026-09-15. Relays may serve them: a guess."""
    query_by_external_id: dict[str, bool] = each(True, yutoai=False, powertokens=False, relay=False)
    """Whether a query by external_task_id finds a task."""
    echo_external_id: dict[str, bool] = each(True, yutoai=False)
    """Whether answers and callbacks carry external_task_id in task_info."""
    states_units: dict[str, bool] = each(True, cometapi=False)
    """Whether a query of a finished task reports its cost (final_unit_deduction); CometAPI's captured ones do not."""
    duplicate_external_id: dict[str, str] = each("second_task", official="refuse")
    """The effect of a repeated external_task_id: second_task (accepted and billed again) or refuse (400, 1201; not
    billed). The official host refuses, across all kinds: a capture, with its ledger. After a failed original, and for
    two concurrent submits, that is a guess. second_task is a guess too: the worst that a relay can do."""
    dynamic_masks: dict[str, str] = each("either", official="array")
    """The accepted form: array, object or either; another one is refused (400, 1201)."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def set(self, **settings: Any) -> None:
        """Change settings, all or none. A setting per dialect takes one value for all, or ``{"cometapi": value}``."""
        with self._lock:
            self.__dict__.update({name: self._checked(name, value) for name, value in settings.items()})

    def _checked(self, name: str, value: Any) -> Any:
        if name not in {one.name for one in fields(self)}:
            raise ValueError(f"{name}: unknown setting")
        old = getattr(self, name)
        if isinstance(old, dict):
            new = {**old, **(value if isinstance(value, dict) else dict.fromkeys(old, value))}
            allowed = CHOICES.get(name, (True, False))
            if set(new) != set(old) or any(one not in allowed for one in new.values()):
                raise ValueError(f"{name}: must be one of {allowed} per dialect ({', '.join(old)}) (got {value!r})")
            return new
        if isinstance(old, float) and isinstance(value, int):
            value = float(value)
        if type(value) is not type(old) or value not in CHOICES.get(name, (value,)):
            raise ValueError(f"{name}: must be a {type(old).__name__} (got {value!r})")
        return value

    def shown(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def authorize(self, header: str | None) -> Refusal | None:
        """Return None for a valid Authorization header, otherwise Kling's refusal (401; 1000 to 1004)."""
        if not header:
            return Refusal(401, 1001, "Authorization is empty")
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self.key.encode()):
            return None
        if token.count(".") == 2 and self.access_key:
            return self._check_jwt(token.strip())
        return Refusal(401, 1002, "api key not found")

    def _check_jwt(self, token: str) -> Refusal | None:
        """Check Kling's AK/SK token: HS256, iss = access key, exp and nbf in seconds."""
        signed, _, signature = token.rpartition(".")
        try:
            claims = json.loads(_unb64(signed.split(".")[1]))
            given = _unb64(signature)
            issuer, ends, starts = claims["iss"], float(claims["exp"]), float(claims.get("nbf", 0))
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            return Refusal(401, 1000, "authentication failed")
        if issuer != self.access_key:
            return Refusal(401, 1002, "access key not found")
        if not hmac.compare_digest(hmac.new(self.secret_key.encode(), signed.encode(), hashlib.sha256).digest(), given):
            return Refusal(401, 1000, "signature is invalid")
        if starts > time.time():
            return Refusal(401, 1003, "authorization is not active yet")
        if ends <= time.time():
            return Refusal(401, 1004, "authorization is expired")
        return None


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
