"""A living sandbox is given more: secrets, and packages, whose folders are put on the path before the old ones.

Law: what is imported by now stays as it is; whoever asks is told which packages that concerns.
"""

from __future__ import annotations

import importlib
import os
import site
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..wire import Fields
from . import kept

if TYPE_CHECKING:
    from .questions import Reply
    from .service import Guest

_NAMED = 5


def extend(_guest: Guest, args: Fields) -> Reply:
    """Take the image's folders, folders of programs and variables as they are now; answer lines for the user."""
    new = [folder for folder in args["folders"] if folder not in sys.path]
    for folder in new:
        site.addsitedir(folder)
    order = {folder: place for place, folder in enumerate(args["folders"])}
    known = sorted((entry for entry in sys.path if entry in order), key=order.__getitem__)
    places = [place for place, entry in enumerate(sys.path) if entry in order]
    for place, entry in zip(places, known, strict=True):
        sys.path[place] = entry
    importlib.invalidate_caches()
    _find_programs(args["programs"])
    os.environ.update(args["environment"])
    os.environ.update(args.get("secrets") or {})
    kept.add(args.get("secrets") or {})
    stale = sorted({name for folder in new for name in _imported_elsewhere(Path(folder))})
    if not stale:
        return {"notices": []}, ()
    names = ", ".join(stale[:_NAMED]) + (f" and {len(stale) - _NAMED} more" if len(stale) > _NAMED else "")
    return {"notices": [f"{names}: imported before, so the new version counts in the next sandbox; --fresh starts it now"]}, ()


def _find_programs(folders: list[str]) -> None:
    """Put folders on PATH behind the sandbox's own programs, in this order."""
    own, *rest = os.environ.get("PATH", "").split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(dict.fromkeys([own, *folders, *rest]))


def _imported_elsewhere(folder: Path) -> list[str]:
    """Return the packages of a folder that have been imported from another one."""
    found = []
    for name, module in [*sys.modules.items()]:
        if "." in name or name.startswith("_"):
            continue
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        there = (folder / name / "__init__.py").is_file() or (folder / f"{name}.py").is_file()
        if there and isinstance(origin, str) and not Path(origin).is_relative_to(folder):
            found.append(name)
    return found
