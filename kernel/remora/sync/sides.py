"""What the two sides must have in common before anything is unpickled.

Law: a small dictionary of plain values; another Python minor version is an error in one line, other package versions a warning.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

from remora.errors import SendError

PACKAGES = ("dill", "numpy", "pandas")


def interpreter() -> dict[str, Any]:
    """Return Python's version and the kind of its bytecode, as every stream says them."""
    return {"python": list(sys.version_info[:2]), "magic": importlib.util.MAGIC_NUMBER.hex()}


def sides() -> dict[str, Any]:
    """Return what this side is: Python, bytecode, and the versions of the packages whose pickles differ."""
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    return interpreter() | {"packages": versions}


def same_dill(other: Mapping[str, Any] | None) -> bool:
    """Tell whether what dill alone can rebuild may be sent; nothing known of the other side says yes."""
    return other is None or (other.get("packages") or {}).get("dill") == _version("dill")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check(other: Mapping[str, Any]) -> None:
    """Raise SendError if the other side's bytecode cannot run here."""
    here = interpreter()
    if (other.get("python"), other.get("magic")) != (here["python"], here["magic"]):
        theirs, ours = (".".join(map(str, side.get("python", "?"))) for side in (other, here))
        text = f"Python {theirs} there and Python {ours} here: variables cannot travel between them; use python={ours}"
        raise SendError(text, reason="python-mismatch", there=theirs, here=ours)


def differences(other: Mapping[str, Any]) -> list[str]:
    """Return one short text for each package whose version differs."""
    here, there = sides()["packages"], other.get("packages", {})
    both = sorted(here.keys() & there.keys())
    return [f"{name} {there[name]} there, {here[name]} here" for name in both if here[name] != there[name]]
