"""Serve the files of a folder as a public page, with a strict content policy."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class StaticSite:
    """The files of `folder` and of its folders `folders`, by name. Any other name gets a 404."""

    def __init__(self, folder: Path, *folders: str) -> None:
        self._paths = (folder, *(folder / name for name in folders))

    @cached_property
    def files(self) -> dict[str, str]:
        paths = [path for folder in self._paths for path in folder.iterdir() if path.suffix in {*_TYPES, ".txt"}]
        return {path.name: path.read_text("utf-8") for path in paths}

    @cached_property
    def version(self) -> str:
        """A hash of all files: a URL with it may be cached forever."""
        return hashlib.sha256("".join(text for _, text in sorted(self.files.items())).encode()).hexdigest()[:12]

    def response(self, status: int, suffix: str, body: str, *, for_ever: bool = False) -> dict[str, Any]:
        """Build API Gateway's response with `body`, whose type follows from `suffix`."""
        kind = _TYPES.get(suffix, "text/plain")
        cached = "public, max-age=31536000, immutable" if for_ever else "no-cache"
        headers = {**_HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Cache-Control": cached}
        return {"statusCode": status, "headers": headers, "body": body}
