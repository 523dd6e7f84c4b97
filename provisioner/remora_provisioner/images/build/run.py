"""Building an image: its base and its steps in order, each found by its key or made once.

Law: a step is made under the lock of its key, so two builds of it are one; its record is written last, when the tree is in the
store. A build that dies leaves whole steps, and half-made things in the workshop, which the next build clears. A step that was
made costs the reading of its record.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

from remora.errors import ImageFailed
from remora.images import Image
from remora.images.steps import Env, NamedBase, Part, Workdir

from ..records import Record, Records
from ..store import Store
from ..tree import Tree
from . import BASES, STEPS
from .work import Base, Made, Task, Work, has_tree, workplace


@dataclass(frozen=True)
class Progress:
    """A word on what a build is doing; step 0 is the base."""

    stage: str
    text: str
    step: int
    of: int
    seconds: float
    """Since the build began."""


@dataclass(frozen=True)
class Built:
    """What an image has become on this machine."""

    trees: tuple[str, ...]
    """Digests, the lowest first; steps that changed no file are left out."""
    merged: str
    """The digest of all trees together; empty if there is none."""
    env: tuple[tuple[str, str], ...]
    workdir: str
    python: str
    """The interpreter, absolute."""
    version: str
    """Major and minor."""
    site: str
    """Where packages lie in a tree."""
    keys: tuple[str, ...]
    """Of the base and of each step."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Built:
        """Rebuild from `to_dict` after a way through JSON."""
        pairs = tuple((name, value) for name, value in data["env"])
        return cls(**data | {"env": pairs, "trees": tuple(data["trees"]), "keys": tuple(data["keys"])})


def build(image: Image, root: Path, say: Callable[[Progress], None]) -> Built:
    """Build an image, or find it built, in the store and records below `root`. Raises ImageFailed, StoreRefused."""
    return Build(image, root, say).run()


class Build:
    """One build, from the base up."""

    def __init__(self, image: Image, root: Path, say: Callable[[Progress], None]) -> None:
        self._root, self._say, self._begun = root, say, time.monotonic()
        self._store, self._records = Store(root), Records(root)
        self._image = self._named(image).built
        self._keys = self._image.keys

    def run(self) -> Built:
        """Make what is not there."""
        steps, trees = self._image.steps, list[str]()
        for part in (self._image.base, *steps):
            self._check_kind(part)
        base = self._base()
        for number, step in enumerate(steps, 1):
            if step.kind in STEPS:
                record = self._step(number, step, base, trees)
                trees += [record.tree] if record.tree else []
        return Built(
            trees=tuple(trees),
            merged=self._merged(trees),
            env=tuple(pair for step in steps if isinstance(step, Env) for pair in step.pairs),
            workdir=next((step.path for step in reversed(steps) if isinstance(step, Workdir)), ""),
            python=base.python,
            version=base.version,
            site=base.site,
            keys=self._keys,
        )

    def _named(self, image: Image) -> Image:
        """Return the image with a published one in place of its name."""
        if not isinstance(image.base, NamedBase):
            return image
        found = self._records.named(image.base.name)
        if found is None:
            known = ", ".join(self._records.names()) or "none"
            text = f"no image is published as {image.base.name!r} on this machine; published are: {known}"
            raise ImageFailed(text, step=image.base.to_dict(), key=image.keys[0], log="")
        lower = self._named(Image.from_dict(found))
        return lower.with_steps(image.steps)

    def _check_kind(self, part: Part) -> None:
        if part.kind not in {*BASES, *STEPS, Env.kind, Workdir.kind}:
            text = f"this version of Remora cannot build {part.kind!r}; build on mirror or python, with pip_install or uv_sync"
            raise ImageFailed(text, step=part.to_dict(), key=self._keys[0], log="")

    # ---- one thing

    def _base(self) -> Base:
        """Return what the base gives; which interpreter it is was written down when it was first looked for."""
        part, key = self._image.base, self._keys[0]
        record = self._records.get(key)
        if record is not None and os.access(record.lock, os.X_OK):
            return _base_from(record)
        with self._work(Task(key, part), 0, None, Tree()) as work:
            base = BASES[part.kind](work, part)
            self._records.put(Record(key, part.to_dict() | {"found": asdict(base)}, lock=base.python, log=self._log(key)))
        return base

    def _step(self, number: int, step: Part, base: Base, below: list[str]) -> Record:
        key = self._keys[number]
        if record := self._found(key):
            return record
        with self._lock(key, number):
            return self._found(key) or self._make(number, step, base, below)

    def _found(self, key: str) -> Record | None:
        """Return the record of a step whose tree is still there."""
        record = self._records.get(key)
        if record is None or (record.tree and not has_tree(self._store, record.tree)):
            return None
        self._records.touch(key)
        return record

    def _make(self, number: int, step: Part, base: Base, below: list[str]) -> Record:
        key, begun = self._keys[number], time.monotonic()
        earlier = self._records.get(key)
        self._store.work.clear_stale()
        task = Task(key, step, earlier.lock if earlier else None)
        with self._work(task, number, base, self._tree(below)) as work:
            try:
                made = STEPS[step.kind](work, step)
                digest = self._store.save(made.tree) if made.tree.entries else ""
            except OSError as error:
                raise work.failed(f"{error.filename or ''}: {error.strerror}", "make room, or see who owns the folder") from error
        record = self._record(number, step, made, digest)
        record = replace(record, seconds=time.monotonic() - begun)
        self._records.put(record)
        return record

    def _record(self, number: int, step: Part, made: Made, digest: str) -> Record:
        key, below = self._keys[number], self._keys[number - 1]
        return Record(key, step.to_dict(), below, digest, made.lock, self._log(key), size=made.tree.size)

    # ---- trees

    def _tree(self, digests: list[str]) -> Tree:
        return reduce(Tree.merged, (self._store.load(digest) for digest in digests), Tree())

    def _merged(self, digests: list[str]) -> str:
        """Return the digest of all trees together, which is written down so that it is computed once."""
        if len(digests) < 2:
            return digests[0] if digests else ""
        key = hashlib.sha256("\n".join(["merged", *digests]).encode()).hexdigest()
        if record := self._found(key):
            return record.tree
        tree = self._tree(digests)
        self._records.put(Record(key, {"kind": "merged"}, below=self._keys[-1], tree=self._store.save(tree), size=tree.size))
        return tree.digest

    # ---- what a step stands in

    @contextlib.contextmanager
    def _work(self, task: Task, number: int, base: Base | None, below: Tree) -> Iterator[Work]:
        path = self._root / self._log(task.key)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with workplace(self._store) as folder, path.open("wb") as log:
            tell = self._teller(task.part.kind, number)
            nobody = Base("", "")
            yield Work(self._root, self._store, self._records, base or nobody, below, task, folder, log, tell)

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
        return lambda text: self._say(Progress(stage, text, number, of, round(time.monotonic() - self._begun, 3)))

    @staticmethod
    def _log(key: str) -> str:
        return f"logs/{key}.log"


def _base_from(record: Record) -> Base:
    found = record.step["found"]
    return Base(found["python"], found["version"], tuple(found["sites"]))
