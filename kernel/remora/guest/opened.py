"""Which files of its image a sandbox opens at first: what a machine that does not have them all would have to fetch first.

Law: looks only, and only until the first run has ended. Files that other processes of the sandbox open are not seen.
"""

from __future__ import annotations

import os
import sys
from typing import Any


class Opened:
    """The files below one folder that this process has opened."""

    def __init__(self, folder: str) -> None:
        """Begin to look."""
        self._folder = folder.rstrip(os.sep) + os.sep
        self._paths: set[str] = set()
        self._over = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and not self._over and isinstance(details[0], str) and details[0].startswith(self._folder):
            self._paths.add(details[0])

    def take(self) -> list[str]:
        """Return their paths below the folder, with those of libraries that are mapped; and look no more."""
        self._over = True
        found = {path.removeprefix(self._folder) for path in self._paths | self._mapped()}
        return sorted(path for path in found if os.path.isfile(self._folder + path))

    def _mapped(self) -> set[str]:
        try:
            with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
                return {path for line in maps if (path := line[line.find("/") :].rstrip("\n")).startswith(self._folder)}
        except OSError:
            return set()
