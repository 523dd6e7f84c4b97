"""What a step of a build gets to work with: the store, the base, what lies below, a log, a throw-away folder, and `run`.

Law: a command runs in a process group of its own that ends with us, and all that it says is in the step's log. Nothing is made
outside `folder`, which goes when the step ends, well or not; what a killed build leaves is cleared by the next one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from remora.errors import ImageFailed
from remora.images.steps import Part

from ..built import Base, Stack
from ..records import Records
from ..store import Store
from ..tree import Tree
from ..work import remove

LINES = 40  # of the log that an error carries
SHOWN = 15  # of them in its text
_DROPPED = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON", "UV_PYTHON")
_SECRET = re.compile(r"://[^/@\s]+@")
"""Who asks an index, in its address; not for a log."""
_WATCH = ("/bin/sh", "-c", "read -r _; kill -9 0")
"""Leads a command's group and ends it when our end of its pipe closes: a signal at our death would spare its children."""


@dataclass(frozen=True)
class Made:
    """What a step made."""

    tree: Tree
    """Packages for Python, laid out like a prefix."""
    lock: str = ""
    layer: Tree = field(default_factory=Tree)
    """What it changed of the system, laid out like a root."""


@dataclass(frozen=True)
class Task:
    """One step to be made: its key, what the recipe says, and the lock of an earlier time, if there is one."""

    key: str
    part: Part
    lock: str | None = None


@dataclass(frozen=True)
class Work:
    """What a step gets; see the module. Used inside `opened`."""

    root: Path
    store: Store
    records: Records
    base: Base
    stack: Stack
    """What the steps below made."""
    task: Task
    folder: Path
    """Empty, on the store's file system, gone when the step ends."""
    log: IO[bytes]
    tell: Callable[[str], None]
    registry: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Who asks the registry that the image begins with."""

    def say(self, text: str) -> None:
        """Tell whoever waits what is going on, and write it down."""
        self.log.write(f"# {text}\n".encode())
        self.log.flush()
        self.tell(text)

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None, advice: str = "") -> str:
        """Run a command and return what it wrote to its standard output; raises ImageFailed if it fails.

        `env` is added to our own environment, without what points to another Python. `advice` says what to do about a failure.
        """
        status, output = self._run(argv, env or {})
        if status:
            raise self.failed(f"{os.path.basename(argv[0])} ended with {_ending(status)}", advice)
        return output.decode("utf-8", "replace")

    def attempt(self, argv: Sequence[str]) -> bool:
        """Run a command that may fail, and say whether it did not."""
        return self._run(argv, {})[0] == 0

    def _run(self, argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, bytes]:
        words = [os.path.basename(argv[0]), *argv[1:]]
        self.log.write(_SECRET.sub("://…@", f"$ {' '.join(words)}\n").encode("utf-8", "replace"))
        self.log.flush()
        environment = {name: value for name, value in os.environ.items() if name not in _DROPPED} | dict(env)
        status, output = _run(argv, environment, self.folder, self.log)
        self.log.write(output)
        self.log.flush()
        return status, output

    def failed(self, what: str, advice: str = "") -> ImageFailed:
        """Return the error for this step, with the end of its log."""
        kind, lines = self.task.part.kind, last_lines(Path(self.log.name))
        text = f"the image's step {kind!r} failed: {what}; {advice or 'change the step and build again'}"
        told = [*_of_last_command(lines)[-SHOWN:], f"The whole log: remora image logs {self.task.key[:12]}"]
        facts: dict[str, Any] = {"step": self.task.part.to_dict(), "key": self.task.key, "log": "\n".join(lines)}
        return ImageFailed("\n  ".join([text, *told]), **facts)


@contextlib.contextmanager
def workplace(store: Store) -> Iterator[Path]:
    """Give an empty folder in the store's workshop that goes afterwards, however things end."""
    folder = Path(store.work.place())
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        remove(folder)


def has_tree(store: Store, digest: str) -> bool:
    """Say whether a tree is in the store, without reading it."""
    return (store.root / "trees" / digest).is_file()


def last_lines(path: Path) -> list[str]:
    """Return the end of a log."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 32_768))
        return file.read().decode("utf-8", "replace").splitlines()[-LINES:]
    return []


def _of_last_command(lines: Sequence[str]) -> Sequence[str]:
    """Return what the last command wrote."""
    starts = [place for place, line in enumerate(lines) if line.startswith("$ ")]
    return lines[starts[-1] + 1 :] if starts else lines


def _run(argv: Sequence[str], environment: Mapping[str, str], folder: Path, log: IO[bytes]) -> tuple[int, bytes]:
    """Run a command to its end; its whole group is gone when this returns or raises, or when we are killed."""
    with (
        subprocess.Popen(_WATCH, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0) as watch,
        subprocess.Popen(
            argv,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            process_group=watch.pid,
        ) as process,
    ):
        try:
            output, _ = process.communicate()
            return process.returncode, output
        finally:
            os.killpg(watch.pid, signal.SIGKILL)


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
