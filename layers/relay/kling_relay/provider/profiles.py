"""Load the provider profiles of `profiles.json`, and translate a request into the provider's dialect."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kling_relay.settings import SettingsError
from kling_relay.transfer import ssrf_rules
from kling_relay.transfer.ssrf_rules import AddressError


@dataclass(frozen=True, slots=True)
class Profile:
    """One provider. `path` is the video path with {kind}; `default_model` is per kind.

    - `auth`: the secret holds an API key ("key") or a pair that signs tokens ("aksk").
    - `models`: a client's name of a model -> the provider's, if they differ.
    - `refuses_retired`: requests for models that Kling has retired are refused before anything is sent.
    - `masks`: dynamic_masks is sent as an "array" or as an "object".
    - `repeats_model`: `model` is sent beside `model_name`.
    - `drops`: per kind, fields that the provider does not support.
    - `image_form`: inline images are sent as "base64" or as a presigned "url" of our bucket.
    - `ask_by_reference`: a query finds a task by our own reference.
    - `unique_reference`: a second task with the same reference is refused.
    - `hides_reference`: its answers do not repeat our reference.
    - `lists`: it has a route that lists the account's tasks.
    - `maintenance_refuses`: HTTP 503 with code 5001 guarantees that no task was made; a relay may have tried another
      account before it answers so.
    - `settle_seconds`: minimum time from a POST in doubt until a denial counts.
    - `denial_gap_seconds`: minimum time between two denials that count as two.
    - `result_hosts`: the usual hosts of its videos, beside its own host; each name includes its subdomains.
    """

    name: str
    base_url: str
    path: str
    default_model: dict[str, str]
    ask_by_reference: bool
    unique_reference: bool
    hides_reference: bool
    auth: Literal["key", "aksk"] = "key"
    models: dict[str, str] = field(default_factory=dict)
    refuses_retired: bool = False
    masks: Literal["array", "object"] = "array"
    repeats_model: bool = False
    drops: dict[str, list[str]] = field(default_factory=dict)
    image_form: Literal["base64", "url"] = "base64"
    result_hosts: list[str] = field(default_factory=list)
    lists: bool = False
    maintenance_refuses: bool = False
    settle_seconds: float = 120.0
    denial_gap_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Account:
    """The account that pays for a task: the profile, the base URL, and the operator's label for the account.

    A new key under the same label is a rotation; another label is another account.
    """

    profile: str
    base_url: str
    label: str = "1"

    def __str__(self) -> str:
        return f"{self.space}#{self.label}"

    @property
    def space(self) -> str:
        """The scope in which the provider's task ids are unique: the same for all accounts at one base URL."""
        return f"{self.profile}@{self.base_url}"

    @classmethod
    def read(cls, text: str) -> "Account":
        """Parse the text that `str` wrote. Raises SettingsError for another text."""
        name, _, rest = text.partition("@")
        base_url, _, label = rest.rpartition("#")
        if not (name and base_url and label):
            raise SettingsError(f"account: must be profile@address#label (got {text[:120]!r})")
        return cls(name, base_url, label)


@cache
def _profiles() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "profiles.json").read_text())
    return loaded


def profile(name: str, base_url: str = "") -> Profile:
    """Return the profile `name`, at the operator's `base_url` if there is one.

    Raises SettingsError for an unknown name, and if neither the operator nor the profile names a host.
    """
    if name not in _profiles():
        raise SettingsError(f"PROVIDER: must be one of {', '.join(_profiles())} (got {name!r})")
    row = _profiles()[name]
    chosen = (base_url or row["base_url"]).rstrip("/")
    if not chosen:
        raise SettingsError(f"KLING_BASE_URL: is required for {name}; set it to https://host")
    try:
        ssrf_rules.parse(chosen)
    except AddressError:
        raise SettingsError("KLING_BASE_URL: must be http(s)://host, without spaces and userinfo") from None
    return Profile(name=name, **{**row, "base_url": chosen})


def in_dialect(profile: Profile, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return `body`, which names its model, in the provider's dialect; `body` itself does not change."""
    dropped = profile.drops.get(kind, [])
    translated = {name: value for name, value in body.items() if name not in dropped}
    translated["model_name"] = profile.models.get(body["model_name"], body["model_name"])
    if profile.repeats_model:
        translated["model"] = translated["model_name"]
    masks = translated.get("dynamic_masks")
    if profile.masks == "object" and masks and len(masks) == 1:  # no page shows an object for several masks
        translated["dynamic_masks"] = masks[0]
    return translated
