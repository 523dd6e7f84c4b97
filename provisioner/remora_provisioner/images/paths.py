"""Paths and digests inside a tree: which ones are taken.

Law: pure; a path that passes stays inside whatever folder it is joined to, and is spelled as a disk gives it back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from remora.errors import StoreRefused

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME_BYTES, _PATH_BYTES = 255, 3500


def check_digest(digest: str) -> str:
    """Return a sha256 in hex; StoreRefused with "malformed" for anything else."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise StoreRefused(f"{digest!r} is not a sha256 in hex", reason="malformed")
    return digest


def check_path(path: str) -> str:
    """Return a path that stays inside its folder; StoreRefused with "path-escapes" or "malformed"."""
    check_text(path)
    parts = path.split("/")
    if "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
        raise StoreRefused(f"the path {path!r} leads out of its folder or is not plain", reason="path-escapes")
    if len(path) * 4 > _NAME_BYTES and _too_long(path, parts):
        raise StoreRefused(f"the path {path[:80]!r}… is too long for a disk", reason="malformed")
    return path


def check_text(text: str) -> str:
    """Return a text that survives the way to a disk and back; StoreRefused with "malformed" for anything else."""
    if not isinstance(text, str) or not (text.isascii() or _survives(text)):
        raise StoreRefused(f"{text!r} cannot be written as a path", reason="malformed")
    return text


def parents(path: str) -> Iterator[str]:
    """Yield the folders above a path, the nearest first."""
    at = path.rfind("/")
    while at > 0:
        yield path[:at]
        at = path.rfind("/", 0, at)


def _survives(text: str) -> bool:
    try:
        return os.fsdecode(os.fsencode(text)) == text
    except UnicodeError:
        return False


def _too_long(path: str, parts: list[str]) -> bool:
    return len(os.fsencode(path)) > _PATH_BYTES or any(len(os.fsencode(part)) > _NAME_BYTES for part in parts)
