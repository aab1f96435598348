"""Name a task's videos in our bucket. Pure.

A name follows the identity of its video, never its position in the provider's list. No provider guarantees an order:
after a failed copy the provider is queried again, and it may list the same videos in another order. The identity is the
provider's file id, or host and path of the URL without the query, which only signs it. A name is a hash, so no text of
a provider gets into a key.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

_CHARACTERS = 16  # 64 bits of the hash, for at most eight videos of one task
# responses.py numbers the videos of a provider that names none, and some relays do the same. Such a number is a
# position, not an identity.
_POSITION = re.compile(r"[0-9]{1,2}")


def names(outputs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the name of each output: the one that `named` recorded, else (rows of an older version) a derived one."""
    recorded = [output.get("name") for output in outputs]
    return [name for name in recorded if name is not None] if all(recorded) else _derived(outputs)


def named(outputs: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `outputs`, each with its `name`. A video that is in `before`, the task's list so far, keeps its name.

    It keeps the name even if the provider states file ids in only one of the lists, so that an existing copy is found.
    """
    known = list(zip(before, names(before), strict=True))
    derived = _derived(outputs)
    kept = [_kept(output, known) or name for output, name in zip(outputs, derived, strict=True)]
    if len(set(kept)) < len(set(derived)):  # two videos would share a name, and one of them would be lost
        kept = derived
    return [{**output, "name": name} for output, name in zip(outputs, kept, strict=True)]


def _kept(output: dict[str, Any], known: list[tuple[dict[str, Any], str]]) -> str | None:
    """Return the one name that the same video had; None if there is none, or more than one."""
    names_before = {name for other, name in known if _same(output, other)}
    return names_before.pop() if len(names_before) == 1 else None


def _same(output: dict[str, Any], other: dict[str, Any]) -> bool:
    ids = _file_id(output), _file_id(other)
    return _path(output) == _path(other) if None in ids else ids[0] == ids[1]


def _derived(outputs: Sequence[dict[str, Any]]) -> list[str]:
    """Return names by the first identity that distinguishes all of `outputs`.

    The whole URL is the last one. It changes with each answer of the provider, so such a video may be copied twice, but
    is never mistaken for another.
    """
    identities: list[str | None] = []
    for identity in (_file_id, _path, _url):
        identities = [identity(output) for output in outputs]
        if None not in identities and len(set(identities)) == len(outputs):
            break
    return [hashlib.sha256(str(one).encode("utf-8", "replace")).hexdigest()[:_CHARACTERS] for one in identities]


def _file_id(output: dict[str, Any]) -> str | None:
    return None if _POSITION.fullmatch(output["id"]) else f"id {output['id']}"


def _path(output: dict[str, Any]) -> str:
    return "path " + re.split("[?#]", output["url"], maxsplit=1)[0].partition("://")[2]


def _url(output: dict[str, Any]) -> str:
    return f"url {output['url']}"
