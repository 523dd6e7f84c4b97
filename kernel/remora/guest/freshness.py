"""Whether the project's own modules are still what was imported: an edited file counts only when it is imported anew.

Law: looks at the files of modules that lie outside of Python and its packages; reloads nothing.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_NAMED = 5


@dataclass
class _Known:
    """A module's file as it was when it was imported."""

    path: str
    spec: int
    """The identity of its spec: another one means that it was reloaded."""
    changed: int
    """When the file was changed, in nanoseconds."""


class Freshness:
    """The modules of the project that this process has imported."""

    def __init__(self) -> None:
        """Know of none; what Python and we brought along is not looked at."""
        paths = sysconfig.get_paths()
        ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._elsewhere = tuple(f"{path}{os.sep}" for path in {sys.prefix, paths["stdlib"], paths["platstdlib"], ours})
        self._known: dict[str, _Known] = {}
        self._seen: set[str] = set()

    def look(self) -> None:
        """Take note of what has been imported since."""
        if len(sys.modules) != len(self._seen):
            for name, module in [*sys.modules.items()]:
                if name not in self._seen:
                    self._note(name, module)
            self._seen = {*sys.modules}

    def _note(self, name: str, module: ModuleType) -> None:
        spec = getattr(module, "__spec__", None)
        origin = getattr(spec, "origin", None)
        if isinstance(origin, str) and origin.endswith(".py") and self._is_projects(origin) and (changed := _changed(origin)):
            self._known[name] = _Known(origin, id(spec), changed)

    def _is_projects(self, path: str) -> bool:
        return not path.startswith(self._elsewhere) and not any(part in path for part in _PACKAGES)

    def stale(self) -> list[str]:
        """Return the names of files that have changed since they were imported, each change once."""
        found = []
        for name, known in self._known.items():
            changed = _changed(known.path)
            if changed in (known.changed, 0):
                continue
            spec = id(getattr(sys.modules.get(name), "__spec__", None))
            if spec == known.spec:
                found.append(os.path.basename(known.path))
            known.changed, known.spec = changed, spec
        return sorted(set(found))


def tell(freshness: Freshness, shell: Any) -> None:
    """Say which of the project's files were edited since they were imported, unless IPython reloads them by itself."""
    stale = freshness.stale()
    autoreload = shell.magics_manager.registry.get("AutoreloadMagics")
    if not stale or (autoreload is not None and autoreload._reloader.enabled):
        return
    names = ", ".join(stale[:_NAMED]) + (f" and {len(stale) - _NAMED} more" if len(stale) > _NAMED else "")
    advice = "`%load_ext autoreload` with `%autoreload 2` reloads by itself, --fresh begins anew"
    print(f"Remora: {names} changed since the import here; {advice}", file=sys.stderr)


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
