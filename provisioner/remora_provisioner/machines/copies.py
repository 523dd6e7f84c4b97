"""The copies of notebook folders that a machine elsewhere has: one for each folder of a backend, shared by its sandboxes.

Law: a copy that is given to a sandbox is young, so that nobody takes it for one that is not used any more.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from threading import Lock

from remora.errors import Refused
from remora.resources import SandboxSpec

from ..images.fitting import Fitting
from ..order import Order
from ..view import shared_folder

FOLDER = "folders"
FILES, AGREED, TOKEN = "files", "agreed", "token"
"""Names in the place of a copy."""


class Copies:
    """The copies of one agent."""

    def __init__(self, state: Path) -> None:
        """Keep them below `state`."""
        self._state = state
        self.giving = Lock()
        """Held while one is given to a sandbox."""

    def given(self, backend: str, spec: SandboxSpec, fitting: Fitting) -> Fitting:
        """Return the fitting with the copy of the folder that a sandbox by this spec shares, if it shares one."""
        folder, _ = shared_folder(spec, self._state)
        if folder is None:
            return fitting
        name = hashlib.sha256(f"{backend} {folder}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
        place = self._state / FOLDER / name
        with self.giving:
            (place / FILES).mkdir(mode=0o700, parents=True, exist_ok=True)
            os.utime(place)
        return replace(fitting, places=(*fitting.places, (folder, str(place / FILES))))

    def used(self, directory: Path) -> Path:
        """Return the place of the copy that the sandbox of this directory uses, and make it young. Refused if there is none."""
        order = Order.load(directory)
        for source, target, _ in order.mounts:
            if target == order.folder and Path(source).name == FILES:
                place = Path(source).parent
                os.utime(place)
                return place
        raise Refused("the notebook's folder is not there", reason="no-folder")
