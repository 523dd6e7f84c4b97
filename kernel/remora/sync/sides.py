"""What the two sides must have in common before anything is unpickled.

Law: a small dictionary of plain values; another Python minor version is an error in one line, other package versions a warning.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from remora.errors import SendError

PACKAGES = ("dill", "numpy", "pandas")


def sides() -> dict[str, Any]:
    """Return what this side is: Python, bytecode, and the versions of packages it has imported."""
    versions = {name: getattr(sys.modules[name], "__version__", "?") for name in PACKAGES if name in sys.modules}
    return {"python": list(sys.version_info[:2]), "magic": importlib.util.MAGIC_NUMBER.hex(), "packages": versions}


def check(other: dict[str, Any]) -> None:
    """Raise SendError if the other side's bytecode cannot run here."""
    here = sides()
    if (other.get("python"), other.get("magic")) != (here["python"], here["magic"]):
        theirs, ours = (".".join(map(str, side.get("python", "?"))) for side in (other, here))
        text = f"Python {theirs} there and Python {ours} here: variables cannot travel between them; use python={ours}"
        raise SendError(text, reason="python-mismatch", there=theirs, here=ours)


def differences(other: dict[str, Any]) -> list[str]:
    """Return one short text for each package whose version differs."""
    here, there = sides()["packages"], other.get("packages", {})
    both = sorted(here.keys() & there.keys())
    return [f"{name} {there[name]} there, {here[name]} here" for name in both if here[name] != there[name]]
