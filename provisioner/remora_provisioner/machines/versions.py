"""Which version of Remora this is, which of two is the newer one, and where those that understand each other keep what they have.

Law: pure, but for looking up what this is; standard library only.
"""

from __future__ import annotations

import functools
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from remora.wire import PROTOCOL

_VERSION = re.compile(r"v?(?P<release>\d{1,9}(?:\.\d{1,9}){0,9})(?P<rest>[A-Za-z0-9.+_-]{0,60})")
_BEFORE = re.compile(r"[._-]?(a|b|c|rc|alpha|beta|pre|preview|dev)[._-]?(\d{0,9})")
_ORDER = ("dev", "a", "alpha", "b", "beta", "c", "rc", "pre", "preview")


@functools.cache
def ours() -> str:
    """Return the version of the code that runs here; "0" if nobody knows."""
    try:
        return version("remora")
    except PackageNotFoundError:
        return "0"


def newer(one: str, other: str) -> bool:
    """Say whether the first of two versions is the newer one; what is no version is older than any."""
    return _rank(one) > _rank(other)


def state_of(place: Path) -> Path:
    """Return where agents of this protocol keep all that they have, below our folder on a machine."""
    return place / f"state-{PROTOCOL}"


def _rank(text: str) -> tuple[tuple[int, ...], int, int]:
    found = _VERSION.fullmatch(text)
    if found is None:
        return (), 0, 0
    numbers = [int(number) for number in found["release"].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    before = _BEFORE.match(found["rest"])
    stage = _ORDER.index(before[1]) if before else len(_ORDER)
    return tuple(numbers), stage, int(before[2] or 0) if before else 0
