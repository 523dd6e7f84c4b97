"""The output notebook's file: whole at every moment, written as the run goes.

Law: a reader sees either the notebook before or the notebook after, never half of one; what is not a plain file (a pipe, a
device, standard output) is written once, at the end. Of several that follow one run, one writes. What is not the last of it bears
a mark, by which the exchange of folders leaves it where it is (`remora_provisioner.machines.exchange.folderindex`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import nbformat

from ..errors import InputError
from .document import Notebook

UNFINISHED = "user.remora.unfinished"
"""The extended attribute of a notebook that will be written again: its time, so that another's writing makes it void."""
PAUSE = 0.5  # seconds between two writes while output streams in
_SHARE = 4  # a write may take this part of the time, so that a large notebook is written more seldom


class Paper:
    """One output notebook; `close` is safe twice."""

    def __init__(self, path: str, document: Callable[[], Notebook], lock: Path | None = None, pause: float = PAUSE) -> None:
        """Write what `document` returns to this path, "-" for standard output; `lock` says who writes as it goes.

        `pause`: seconds between two writes while a cell runs.
        """
        self.path = path
        self._document, self._lock_path = document, lock
        self._target = Path(os.path.realpath(path)) if path != "-" else None
        self._lock: int | None = None
        self._wanted = False
        self._pause = pause
        self._soonest = self._next = 0.0

    def check(self) -> None:
        """Raise InputError if the notebook cannot be written there, before anything has run."""
        target = self._target
        if target is None:
            return
        if "://" in self.path:
            raise InputError(f"the output notebook {self.path} is not on this machine; write a file, or - for standard output")
        if target.is_dir():
            raise InputError(f"the output notebook {self.path} is a folder; give a file's name")
        if not target.parent.is_dir():
            raise InputError(f"the folder {target.parent} for the output notebook is not there; make it first")
        if not os.access(target if target.exists() else target.parent, os.W_OK) or not self._has_room(target):
            raise InputError(f"the output notebook {self.path} cannot be written; give another place, or free space there")

    def _has_room(self, target: Path) -> bool:
        if not self._in_steps:
            return True
        trial = self._beside(target)
        try:
            trial.write_bytes(b" ")
        except OSError:
            return False
        trial.unlink()
        return True

    @property
    def _in_steps(self) -> bool:
        """True for a plain file, which is written as the run goes."""
        return self._target is not None and (not self._target.exists() or stat.S_ISREG(self._target.stat().st_mode))

    @property
    def due(self) -> float | None:
        """Return the monotonic time at which `save_if_due` has something to do; None if it has nothing."""
        return self._next if self._wanted and self._in_steps else None

    def changed(self) -> None:
        """Have the notebook written, when the last time is long enough ago."""
        self._wanted = True

    def save_if_due(self, at_once: bool = False) -> None:
        """Write what has changed, unless it was written just now or somebody else writes; `at_once`: a cell is over."""
        began = time.monotonic()
        if not self._wanted or not self._in_steps or began < (self._soonest if at_once else self._next):
            return
        if self._mine():
            self._wanted = False
            self._write(unfinished=True)
        now = time.monotonic()
        self._soonest = now + _SHARE * (now - began)
        self._next = max(self._soonest, now + self._pause)

    def _mine(self) -> bool:
        if self._lock_path is None or self._lock is not None:
            return True
        try:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # nowhere to agree with others, as inside a sandbox
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def finish(self) -> None:
        """Write the notebook for the last time, whoever else did."""
        self._write()

    def _write(self, *, unfinished: bool = False) -> None:
        text = _text(self._document())
        if self._target is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        try:
            self._put(self._target, text, unfinished=unfinished)
        except OSError as error:
            raise InputError(
                f"the output notebook {self.path} cannot be written any more: {error.strerror}; "
                "the run goes on, and `remora attach` writes it once there is room"
            ) from error

    def _put(self, target: Path, text: str, *, unfinished: bool) -> None:
        if not self._in_steps:
            target.write_text(text, encoding="utf-8")
            return
        new = self._beside(target)
        try:
            new.write_text(text, encoding="utf-8")
            if unfinished:
                _mark(new)
            if target.exists():
                new.chmod(stat.S_IMODE(target.stat().st_mode))
            os.replace(new, target)
        finally:
            new.unlink(missing_ok=True)

    def _beside(self, target: Path) -> Path:
        return target.with_name(f".remora-{secrets.token_hex(4)}-{target.name[:100]}.new")  # it stays on this machine

    def close(self) -> None:
        """Let somebody else write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _mark(path: Path) -> None:
    """Mark a file; one on a system that knows no such marks goes without, and travels as it is."""
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(path, UNFINISHED, b"%d" % path.stat().st_mtime_ns)


def _text(notebook: Notebook) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f"{nbformat.writes(notebook, version=nbformat.NO_CONVERT)}\n"
