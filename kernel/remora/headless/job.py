"""One notebook run as its followers know it: what is run, and where the result goes. Kept beside the run's log.

Law: written before the run starts, never changed; so whoever follows later, in whatever process, writes the same notebook.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat

from .. import launch, settings
from ..errors import StateError
from ..wire import RunId
from .document import Notebook

_FILE, _LOCK, FOLLOWER_LOG = "notebook.json", "notebook.lock", "follower.log"


@dataclass(frozen=True)
class Job:
    """A prepared notebook and its output's absolute path, "-" for standard output."""

    run: str
    out: str
    notebook: dict[str, Any]
    where: dict[str, Any]
    """What the cells' metadata says of the place they run in."""
    pause: float | None = 0.5
    """Seconds between two writes while a cell runs; None: after each cell only."""
    steps: bool = True
    """Whether the output is written before the end at all."""

    @property
    def folder(self) -> Path:
        """Return the folder of the run."""
        return folder(RunId(self.run))

    @property
    def lock(self) -> Path:
        """Return the file that is locked by whoever writes the output as it goes."""
        return self.folder / _LOCK

    def prepared(self) -> Notebook:
        """Return the notebook, fresh and ready to be filled in."""
        notebook: Notebook = nbformat.from_dict(self.notebook)
        return notebook

    def save(self) -> None:
        """Write the job down. StateError if there is no room for it; inside a sandbox there is nowhere to."""
        if settings.UPLINK.text:
            return
        path = self.folder / _FILE
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.with_suffix(".new").write_text(json.dumps(asdict(self)))
            os.replace(path.with_suffix(".new"), path)
        except OSError as error:
            raise StateError(f"{path.parent} cannot be written ({error.strerror}); free space or set REMORA_STATE_DIR") from error

    def forget(self) -> None:
        """Take away what was written of a job that did not start."""
        for name in (_FILE, _LOCK):
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def folder(run: RunId) -> Path:
    """Return the folder of a run."""
    return launch.backend_directory() / "runs" / run


def load(run: RunId) -> Job | None:
    """Return the job of a run; None if it is not known on this machine."""
    try:
        return Job(**json.loads((folder(run) / _FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
