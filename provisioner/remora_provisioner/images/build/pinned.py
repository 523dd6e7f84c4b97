"""Digests that a requirement asks for, as pip has them: `six==1.16.0 --hash=sha256:…`, one or several of them allowed.

Law: what is asked for is checked against the lock before anything is fetched; that a file is what its lock says, uv checks.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any

from remora.errors import OptionError, StoreRefused

_HASH = re.compile(r"\s+--hash[= ](\w+):([0-9A-Fa-f]+)")
_WHEELS = re.compile(r"(?ms)^wheels = \[.*?\]\s*$")
_FILE = re.compile(r'\{[^{}]*hashes = \{ sha256 = "([0-9a-f]+)" \}[^{}]*\}\s*,?')
"""One wheel of a lock, as uv writes it."""
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


def check(head: str, parts: Iterable[str], allowed: dict[str, set[str]]) -> str:
    """Return a lock, given as its head and packages, with those files alone that were asked for.

    Raises StoreRefused for a package of which none is left.
    """
    return head + "".join(_checked(part, allowed) for part in parts)


def _checked(part: str, allowed: dict[str, set[str]]) -> str:
    package = tomllib.loads(part)["packages"][0]
    wanted = allowed.get(_project(package["name"]))
    if wanted is None:
        return part
    other = [file for key in ("sdist", "archive") if (file := package.get(key))]
    found = {_digest(file) for file in (*package.get("wheels", ()), *other)}
    kept = _WHEELS.sub(lambda wheels: _FILE.sub(lambda file: file[0] if file[1] in wanted else "", wheels[0]), part)
    if not tomllib.loads(kept)["packages"][0].get("wheels") and not wanted.intersection(map(_digest, other)):
        name, told = f"{package['name']} {package.get('version', '')}".strip(), ", ".join(sorted(found)) or "none that is known"
        raise StoreRefused(
            f"{name} is not what the requirement asks for: its sha256 is {told}; see who changed it, or correct --hash",
            reason="wrong-digest",
        )
    return kept


def _digest(file: dict[str, Any]) -> str:
    return str(file.get("hashes", {}).get("sha256", "none"))


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
