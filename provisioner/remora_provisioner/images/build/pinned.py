"""Digests that a requirement asks for, as pip has them: `six==1.16.0 --hash=sha256:…`, one or several of them allowed.

Law: what is asked for is checked against the lock before anything is fetched; that a file is what its lock says, uv checks.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable

from remora.errors import OptionError, StoreRefused

_HASH = re.compile(r"\s+--hash[= ](\w+):([0-9A-Fa-f]+)")
_PROJECT = re.compile(r"[A-Za-z0-9._-]+")
_MISMATCH = re.compile(r"(?s)Hash mismatch for `([^`]+)`.*?Computed:\s+(\S+)")


def split(requirements: Iterable[str]) -> tuple[list[str], dict[str, set[str]]]:
    """Return the requirements without digests, and the digests that each project may have. OptionError for another kind."""
    plain: list[str] = []
    allowed: dict[str, set[str]] = {}
    for text in requirements:
        digests = _HASH.findall(text)
        if any(kind != "sha256" for kind, _ in digests):
            raise OptionError(f"{text[:60]!r}: digests are given as --hash=sha256:…")
        plain.append(_HASH.sub("", text))
        if digests:
            allowed.setdefault(_project(text), set()).update(digest.lower() for _, digest in digests)
    return plain, allowed


def check(lock: str, allowed: dict[str, set[str]]) -> None:
    """Raise StoreRefused if a package of the lock has another digest than was asked for."""
    for package in tomllib.loads(lock).get("packages", ()) if allowed else ():
        wanted = allowed.get(_project(package["name"]))
        files = package.get("wheels") or [file for key in ("sdist", "archive") if (file := package.get(key))]
        found = {str(file.get("hashes", {}).get("sha256", "none")) for file in files}
        if wanted is not None and not found <= wanted:
            name = f"{package['name']} {package.get('version', '')}".strip()
            raise StoreRefused(
                f"{name} is not what the requirement asks for: its sha256 is {', '.join(sorted(found - wanted))}; "
                "see who changed it, or correct --hash",
                reason="wrong-digest",
            )


def mismatch(log: str) -> StoreRefused | None:
    """Return what to raise if uv says in a log that a file is not what its lock says."""
    found = _MISMATCH.search(log)
    if found is None:
        return None
    text = f"{found[1]} is not what its index promised: its digest is {found[2]}; see who changed it, or build with force_build"
    return StoreRefused(text, reason="wrong-digest")


def _project(text: str) -> str:
    named = _PROJECT.match(text)
    return re.sub(r"[-_.]+", "-", named[0]).lower() if named else ""
