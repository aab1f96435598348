"""What a task is made of when no client posted it: an object below inbox/ of the input bucket, or a line. Pure."""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from kling_relay.security.keyring import Keyring

INBOX = "inbox/"
RESULTS = "results/"
SETTINGS = "settings.json"
MAX_KEY_BYTES = 1024
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".png")
_LITTER = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"}  # what macOS and Windows leave in folders


class Role(StrEnum):
    """What an object below inbox/ is, by its name."""

    IMAGE = "image"
    MANIFEST = "manifest"  # one whole request
    LINES = "lines"  # one whole request a line
    SIDECAR = "sidecar"  # settings of the image of the same name
    SETTINGS = "settings"  # of the images of its folder
    LITTER = "litter"  # of an operating system: nobody meant to send it
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Source:
    """One version of an object, `line` (from 1) of it where that is a list of requests."""

    bucket: str
    key: str
    version: str
    line: int = 0

    @classmethod
    def of_event(cls, detail: Mapping[str, Any]) -> "Source":
        """From an event of S3 on EventBridge, whose keys are not encoded. Raises KeyError where it is none of a
        versioned bucket."""
        return cls(detail["bucket"]["name"], detail["object"]["key"], detail["object"]["version-id"])

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}

    def task_id(self, keyring: Keyring) -> str:
        """The same at every event about this version, and nothing that anybody else could guess."""
        text = json.dumps([self.bucket, self.key, self.version, self.line])
        return keyring.mac(keyring.oldest, "intake", text)[:16].hex()

    @property
    def tag(self) -> str:
        """What stands for the object in logs and in the keys of rows: no key gets there as it is."""
        return hashlib.sha256(json.dumps([self.bucket, self.key, self.version]).encode()).hexdigest()[:32]

    @property
    def folder(self) -> str:
        """With the slash at its end."""
        return self.key[: self.key.rfind("/") + 1]

    @property
    def name(self) -> str:
        return self.key[len(self.folder) :]

    @property
    def stem(self) -> str:
        """The name without what stands after its last dot."""
        return self.name.rpartition(".")[0]

    @property
    def role(self) -> Role:
        if self.name.lower() in _LITTER or self.name.startswith("._") or "/__MACOSX/" in self.key:
            return Role.LITTER
        if self.name == SETTINGS:
            return Role.SETTINGS
        endings = {".task.json": Role.MANIFEST, ".tasks.jsonl": Role.LINES, ".json": Role.SIDECAR}
        for ending, role in endings.items():
            if self.name.endswith(ending):
                return role
        return Role.IMAGE if self.name.lower().endswith(IMAGE_SUFFIXES) else Role.UNKNOWN

    @property
    def sidecar(self) -> str | None:
        """The key of an image's own settings, where there can be one."""
        name = f"{self.stem}.json"
        return None if name == SETTINGS else self.folder + name

    def result_key(self, *, superseded: bool = False) -> str:
        """Where its result goes: `superseded` by a newer version of the object, which has the place of that name."""
        told = f"{self.key}.{self.version}" if superseded else self.key
        tail = f"/{self.line}.json" if self.line else ".json"
        if len(f"{RESULTS}{told}{tail}".encode()) > MAX_KEY_BYTES:
            told = f"sha256-{hashlib.sha256(told.encode()).hexdigest()}"
        return f"{RESULTS}{told}{tail}"


def spellings(key: str) -> list[str]:
    """A key as it is, and with its accents composed and decomposed: macOS writes names in the one form, and most
    programs that write requests in the other."""
    at = key.rfind("/") + 1
    composed, decomposed = unicodedata.normalize("NFC", key[at:]), unicodedata.normalize("NFD", key[at:])
    folders = (key[:at], unicodedata.normalize("NFC", key[:at]), unicodedata.normalize("NFD", key[:at]))
    return list(dict.fromkeys([key, *(folder + name for folder in folders for name in (composed, decomposed))]))
