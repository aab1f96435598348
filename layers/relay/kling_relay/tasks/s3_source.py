"""Classify the S3 objects that create tasks: objects below inbox/ of the input bucket, and their lines. Pure."""

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
_LITTER = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"}  # files that macOS and Windows leave in folders


class Role(StrEnum):
    """The role of an object below inbox/, by its name."""

    IMAGE = "image"
    MANIFEST = "manifest"  # one whole request
    LINES = "lines"  # one whole request a line
    SIDECAR = "sidecar"  # settings of the image of the same name
    SETTINGS = "settings"  # of the images of its folder
    LITTER = "litter"  # of an operating system: not sent on purpose
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Source:
    """One version of an object; `line` (from 1) is set if the object is a list of requests."""

    bucket: str
    key: str
    version: str
    line: int = 0

    @classmethod
    def of_event(cls, detail: Mapping[str, Any]) -> "Source":
        """Build the source from an S3 event on EventBridge, whose keys are not encoded.

        Raises KeyError for an event of another kind, or of a bucket without versions.
        """
        return cls(detail["bucket"]["name"], detail["object"]["key"], detail["object"]["version-id"])

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}

    def task_id(self, keyring: Keyring) -> str:
        """Return the task id: the same at every event about this version, and impossible to guess."""
        text = json.dumps([self.bucket, self.key, self.version, self.line])
        return keyring.mac(keyring.oldest, "intake", text)[:16].hex()

    @property
    def tag(self) -> str:
        """Return the hash that replaces the object's key in logs and in the keys of rows."""
        return hashlib.sha256(json.dumps([self.bucket, self.key, self.version]).encode()).hexdigest()[:32]

    @property
    def folder(self) -> str:
        """The folder, with a slash at its end."""
        return self.key[: self.key.rfind("/") + 1]

    @property
    def name(self) -> str:
        return self.key[len(self.folder) :]

    @property
    def stem(self) -> str:
        """The name without its last dot and the text after it."""
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
        """The key of an image's own settings; None if it cannot have any."""
        name = f"{self.stem}.json"
        return None if name == SETTINGS else self.folder + name

    def result_key(self, *, superseded: bool = False) -> str:
        """Return the key of its result. `superseded`: a newer version of the object uses the plain key."""
        told = f"{self.key}.{self.version}" if superseded else self.key
        tail = f"/{self.line}.json" if self.line else ".json"
        if len(f"{RESULTS}{told}{tail}".encode()) > MAX_KEY_BYTES:
            told = f"sha256-{hashlib.sha256(told.encode()).hexdigest()}"
        return f"{RESULTS}{told}{tail}"


def spellings(key: str) -> list[str]:
    """Return a key as it is, and with its accents composed and decomposed.

    macOS writes names in one form, and most programs that write requests in the other.
    """
    at = key.rfind("/") + 1
    composed, decomposed = unicodedata.normalize("NFC", key[at:]), unicodedata.normalize("NFD", key[at:])
    folders = (key[:at], unicodedata.normalize("NFC", key[:at]), unicodedata.normalize("NFD", key[:at]))
    return list(dict.fromkeys([key, *(folder + name for folder in folders for name in (composed, decomposed))]))
