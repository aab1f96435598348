"""What sets one provider apart from another, as `profiles.json` has it, and a request in the provider's dialect."""

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

    `auth`: what the secret holds, an API key ("key") or a pair that signs tokens ("aksk").
    `models`: a client's name of a model -> the provider's, where they differ.
    `refuses_retired`: models that Kling has retired are refused before anything is sent there.
    `masks`: whether dynamic_masks goes out as the array that it is or as an "object".
    `repeats_model`: `model` is sent beside `model_name`. `drops`: per kind, fields that the provider does not know.
    `image_form`: how inline images go out, as "base64" or as a presigned "url" of ours.
    `ask_by_reference`: a query finds a task by our own reference. `unique_reference`: a second task with the same
    reference is refused. `hides_reference`: its answers do not repeat our reference. `lists`: it has a route that lists
    the account's tasks. `maintenance_refuses`: HTTP 503 with code 5001 is a promise that no task was made; a relay may
    have tried another account before it answers so.
    `settle_seconds`: a denial is believed this long after a POST in doubt at the soonest. `denial_gap_seconds`: two
    denials count as two only this far apart.
    `result_hosts`: where its videos usually lie, beside its own host: each name stands for everything below it, too.
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
    """Who is paid for a task: the profile, the address, and the operator's label for the account behind the key. A new
    key under the same label is a rotation; another label is another account."""

    profile: str
    base_url: str
    label: str = "1"

    def __str__(self) -> str:
        return f"{self.space}#{self.label}"

    @property
    def space(self) -> str:
        """Where the provider's task ids are unique: the same for all accounts at one address."""
        return f"{self.profile}@{self.base_url}"

    @classmethod
    def read(cls, text: str) -> "Account":
        """The account that `str` wrote; raises SettingsError for another text."""
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
    """The profile `name`, at `base_url` where the operator gave one; raises SettingsError for an unknown name, and
    where neither the operator nor the profile names a host."""
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
    """`body`, which names its model, as the provider takes it; `body` itself stays as it is."""
    dropped = profile.drops.get(kind, [])
    spoken = {name: value for name, value in body.items() if name not in dropped}
    spoken["model_name"] = profile.models.get(body["model_name"], body["model_name"])
    if profile.repeats_model:
        spoken["model"] = spoken["model_name"]
    masks = spoken.get("dynamic_masks")
    if profile.masks == "object" and masks and len(masks) == 1:  # no page shows how an object would hold several
        spoken["dynamic_masks"] = masks[0]
    return spoken
