"""Find this user's backend, or start it. Two who start it at once start one.

Law: the backend is only ever started as a process, never imported. Its directory bears the protocol's number, so another
version of Remora that speaks another protocol has a backend of its own beside this one.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import settings, streams
from .errors import BackendError, StateError, Unavailable
from .wire import PROTOCOL

_PATIENCE = 60.0
"""Seconds that a backend may take until it serves: far more than any machine needs, short of hanging for ever."""

_started: list[subprocess.Popen[bytes]] = []
"""The backends that this process has started: they outlive it, so nobody waits for them, and Python would mind."""


def backend_directory() -> Path:
    """Return where the backend of this protocol keeps all that it has: socket, lock, log, database, sandboxes and run logs."""
    return settings.state_directory() / f"backend-{PROTOCOL}"


def backend_socket() -> Path:
    """Return the path of the backend's socket."""
    return backend_directory() / "socket"


def ensure_backend() -> None:
    """Return when a backend serves. Blocks for as long as it takes to start one.

    Raises StateError when the state directory cannot be used, BackendError when the backend does not come up, Unavailable in a
    sandbox from which none can be reached.
    """
    if settings.UPLINK.text == settings.NO_UPLINK:
        words = "code on another machine cannot call functions or open sandboxes; have a cell on the notebook's own machine do it"
        raise Unavailable(words)
    if settings.UPLINK.text or _serves():
        return
    directory = _make(backend_directory())
    with (directory / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _serves():
            _start(directory)


def _serves() -> bool:
    try:
        streams.dial(backend_socket()).close()
    except OSError:
        return False
    return True


def _make(directory: Path) -> Path:
    state = settings.state_directory()
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if why := _not_mine(state):
            raise _unusable(state, why)
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)  # whatever it was copied from, and with what umask
        (directory / "start.lock").touch()
    except OSError as error:
        raise _unusable(state, error.strerror or str(error)) from error
    return directory


def _not_mine(state: Path) -> str:
    """Return why others could put something in the place of what is kept in the state directory; empty if they cannot."""
    itself, facts = state.lstat(), state.stat()
    if itself.st_uid not in (os.getuid(), 0) or facts.st_uid != os.getuid():
        return "it belongs to another user"
    return "others may write there" if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX else ""


def _unusable(state: Path, why: str) -> StateError:
    return StateError(
        f"the state directory {state} cannot be used: {why}. Free space or mend its permissions, or set REMORA_STATE_DIR"
    )


def _start(directory: Path) -> None:
    if find_spec("remora_backend") is None:
        raise BackendError(
            "this installation of Remora has no backend; on Linux, `pip install --force-reinstall remora` brings it"
        )
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "remora_backend", str(directory), str(writing)]
    try:
        with (directory / "backend.log").open("ab") as log:
            options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": "/"}
            started = subprocess.Popen(command, pass_fds=[writing], start_new_session=True, **options)
        _started[:] = [one for one in (*_started, started) if one.poll() is None]
    except OSError as error:
        os.close(reading)
        raise _unusable(settings.state_directory(), error.strerror or str(error)) from error
    finally:
        os.close(writing)
    with open(reading, "rb", buffering=0) as answers:
        line = answers.readline().decode() if select.select([answers], [], [], _PATIENCE)[0] else ""
    if not line.startswith("ready"):
        raise _failure(directory, line.removeprefix("error").strip())


def _failure(directory: Path, said: str) -> BackendError | StateError:
    log = directory / "backend.log"
    if any(word in said for word in ("No space left", "disk is full", "Read-only", "Permission denied")):
        return _unusable(settings.state_directory(), said)
    return BackendError(f"the backend did not start: {said or 'it said nothing'}. Its log is {log}")
