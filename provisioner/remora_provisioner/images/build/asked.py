"""When the indexes were asked about which packages: what one has said lately is believed, so that nobody waits for it.

Law: believed for as long as the Python Package Index itself lets caches believe it (`Cache-Control: max-age=600`). Whoever needs
one package more than was asked about asks about all.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..records import write_whole

BELIEVED = 600.0


class Asked:
    """What was asked of the indexes that these options, and the environment, name."""

    def __init__(self, root: Path, options: Sequence[str]) -> None:
        """Keep it below `root`."""
        places = [*options, *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("UV_"))]
        self._path = root / "asked" / hashlib.sha256("\n".join(places).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def lately(self) -> bool:
        """Say whether anything was asked lately."""
        return any(self._fresh().values())

    def about(self, names: Iterable[str]) -> bool:
        """Say whether all of these were asked about lately."""
        return self._fresh().keys() >= set(names)

    def note(self, names: Iterable[str]) -> None:
        """Take note that these were asked about now."""
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(self._path, json.dumps(self._fresh() | dict.fromkeys(names, time.time())).encode())

    def _fresh(self) -> dict[str, float]:
        try:
            told = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return {name: moment for name, moment in told.items() if 0 <= time.time() - moment < BELIEVED}
