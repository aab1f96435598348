"""Read the stack's parameters once, from the environment that the template sets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


class SettingsError(Exception):
    """A variable is missing or has an unusable value; the text names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One field for each variable: `task_table` is read from `TASK_TABLE`. Units: seconds and days, as named.

    A function gets only the variables that it needs. Other fields are empty; using one fails.
    """

    stack_name: str = ""
    account_id: str = ""
    task_table: str = ""
    input_bucket: str = ""
    video_bucket: str = ""
    state_machine_arn: str = ""
    notify_function: str = ""
    operate_function: str = ""
    event_bus: str = ""
    relay_secret_id: str = ""
    provider_key_secret_id: str = ""
    delivery_key_secret_id: str = ""
    base_url_parameter: str = ""
    models_parameter: str = ""
    provider: str = "cometapi"
    kling_base_url: str = ""
    provider_account: str = "1"  # the operator's label for the account behind the key: provider.profiles.Account
    result_hosts: str = "warn"
    allowed_origins: str = "*"  # of web pages: one origin, or all
    intake_tenant: str = ""
    intake_queue_url: str = ""
    intake_dead_letters_url: str = ""
    intake_prompt: str = ""
    intake_mode: str = ""
    intake_duration: str = ""
    default_model_image2video: str = ""
    default_model_multi_image2video: str = ""
    default_model_text2video: str = ""
    default_model_omni_video: str = ""
    deadline_seconds: int = 86_400
    submit_timeout_seconds: int = 15
    settle_seconds: int = 0  # 0: the provider profile's value
    on_unconfirmed: str = "auto"
    unconfirmed_deadline_seconds: int = 3_600
    monthly_cap_units: int = 0
    require_webhook_signature: str = "off"
    allow_local_webhooks: str = ""  # on a laptop only: webhooks may go to loopback
    task_retention_days: int = 400
    wait_scale: float = 1.0

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Build the settings from `environment`. Raises SettingsError, which names the first bad variable."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            name = field.name.upper()
            text = environment.get(name, "")
            if not text:
                continue
            values[field.name] = text if field.type is str else _number(name, text, whole=field.type is int)
        return cls(**values)

    def need(self, name: str) -> str:
        """Return a required text setting. Raises SettingsError if the template did not set it."""
        value = str(getattr(self, name))
        if not value:
            raise SettingsError(f"{name.upper()} is not set for this function; check its Environment in template.yaml")
        return value

    def scaled_ms(self, seconds: float) -> int:
        """Return `seconds` of a wait or settle window in milliseconds, scaled by WAIT_SCALE for rehearsals."""
        return int(seconds * 1000 * self.wait_scale)


def _number(name: str, text: str, *, whole: bool) -> float:
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise SettingsError(f"{name}: must be a {'whole ' if whole else ''}number, 0 or more (got {text[:64]!r})")
    return number
