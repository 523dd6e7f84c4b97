"""Building an image: its base and its steps in order, each found by its key or made once.

Law: a step is made under the lock of its key, so two builds of it are one; its record is written last, when the tree is in the
store. A build that dies leaves whole steps, and half-made things in the workshop, which the next build clears. A step that was
made costs the reading of its record.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from remora.errors import ImageFailed
from remora.images import Image
from remora.images.steps import METADATA, MirrorBase, Part

from ..built import Base, Built, Stack, keys_here, known_base, mirrored, resolve, whole
from ..lock import building
from ..records import Record, Records
from ..store import Store
from . import BASES, STEPS
from .work import Made, Task, Work, workplace

_HISTORY = 200  # records looked at to say how long a step may take
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Progress:
    """A word on what a build is doing; step 0 is the base."""

    stage: str
    text: str
    step: int
    of: int
    seconds: float
    """Since the build began."""
    expected: float = 0.0
    """Seconds that this step took the last time, or steps of its kind take; 0: not known."""


def build(image: Image, root: Path, say: Callable[[Progress], None], registry: Mapping[str, str] | None = None) -> Built:
    """Build an image, or find it built, in the store and records below `root`. Raises ImageFailed, StoreRefused.

    `registry`: who asks the registry that it begins with.
    """
    making = Build(image, root, say, registry or {})
    with building(root):
        return making.run()


class Build:
    """One build, from the base up."""

    def __init__(self, image: Image, root: Path, say: Callable[[Progress], None], registry: Mapping[str, str]) -> None:
        self._root, self._say, self._begun = root, say, time.monotonic()
        self._store, self._records = Store(root), Records(root)
        self._expected, self._registry = 0.0, registry
        self._image = resolve(image, self._records)
        self._keys = keys_here(self._image)

    def run(self) -> Built:
        """Make what is not there."""
        for part in (self._image.base, *self._image.steps):
            self._check_kind(part)
        base = self._base()
        stack = Stack.on(base)
        for number, step in enumerate(self._image.steps, 1):
            stack = stack.above(step, self._step(number, step, base, stack) if step.kind in STEPS else None)
        for tree in (*stack.trees, *stack.layers):
            self._store.farm(tree)
        for key in self._keys:  # what a long build stands on is not old when it ends
            self._records.touch(key)
        return Built.of(self._keys, base, stack)

    def _check_kind(self, part: Part) -> None:
        if part.kind not in {*BASES, *STEPS} and not isinstance(part, METADATA):
            text = f"this version of Remora cannot build {part.kind!r}; write it as from_registry(…) or debian_slim() with steps"
            raise ImageFailed(text, step=part.to_dict(), key=self._keys[0], log="")

    # ---- one thing

    def _base(self) -> Base:
        """Return what the base gives; which interpreter it is was written down when it was first looked for."""
        part, key = self._image.base, self._keys[0]
        if isinstance(part, MirrorBase) and os.access(part.executable, os.X_OK):
            return mirrored(part)
        if base := known_base(self._records, self._root, key):
            return base
        with self._lock(key, 0), self._work(Task(key, part), 0, Base("", ""), Stack()) as work:
            if base := known_base(self._records, self._root, key):
                return base
            self._store.work.clear_stale()
            base = _translated(work, lambda: BASES[part.kind](work, part))
            facts = part.to_dict() | {"found": asdict(base)}
            self._records.put(Record(key, facts, lock=base.python, log=self._log(key), layer=base.layer))
        return base

    def _step(self, number: int, step: Part, base: Base, below: Stack) -> Record:
        key = self._keys[number]
        if record := whole(self._records, self._root, key):
            return record
        with self._lock(key, number):
            return whole(self._records, self._root, key) or self._make(number, step, base, below)

    def _make(self, number: int, step: Part, base: Base, below: Stack) -> Record:
        key, begun = self._keys[number], time.monotonic()
        earlier = self._records.get(key)
        self._expected = earlier.seconds if earlier else self._usual(step.kind)
        self._store.work.clear_stale()
        task = Task(key, step, earlier.lock if earlier else None)
        with self._work(task, number, base, below) as work:
            record = _translated(work, lambda: self._record(number, step, STEPS[step.kind](work, step)))
        record = replace(record, seconds=time.monotonic() - begun)
        self._records.put(record)
        return record

    def _usual(self, kind: str) -> float:
        """Return how long steps of a kind have taken here."""
        took = sorted(record.seconds for record in self._records.all()[-_HISTORY:] if record.step["kind"] == kind)
        return took[len(took) // 2] if took else 0.0

    def _record(self, number: int, step: Part, made: Made) -> Record:
        """Save what a step made and return the record of it."""
        key, below = self._keys[number], self._keys[number - 1]
        tree, layer = (self._store.save_real(one) if one.entries else "" for one in (made.tree, made.layer))
        size = made.tree.size + made.layer.size
        return Record(key, step.to_dict(), below, tree, made.lock, self._log(key), size=size, layer=layer)

    # ---- what a step stands in

    @contextlib.contextmanager
    def _work(self, task: Task, number: int, base: Base, stack: Stack) -> Iterator[Work]:
        path = self._root / self._log(task.key)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.unlink(missing_ok=True)
        with workplace(self._store) as folder, path.open("ab") as log:  # commands in jails append to it, too
            tell = self._teller(task.part.kind, number)
            yield Work(self._root, self._store, self._records, base, stack, task, folder, log, tell, self._registry)

    @contextlib.contextmanager
    def _lock(self, key: str, number: int) -> Iterator[None]:
        """Hold the lock of a step; it is let go when the process ends, however it does."""
        folder = self._root / "builds"
        folder.mkdir(mode=0o700, exist_ok=True)
        with (folder / f"{key}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._teller("wait", number)("another build is making this step; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _teller(self, stage: str, number: int) -> Callable[[str], None]:
        of = len(self._image.steps)
        return lambda text: self._say(
            Progress(stage, text, number, of, round(time.monotonic() - self._begun, 3), round(self._expected, 1))
        )

    @staticmethod
    def _log(key: str) -> str:
        return f"logs/{key}.log"


def _translated(work: Work, make: Callable[[], _Made]) -> _Made:
    try:
        return make()
    except OSError as error:
        raise work.failed(f"{error.filename or ''}: {error.strerror}", "make room, or see who owns the folder") from error
