"""From a lock to a tree: each wheel is one tree, found by its hash, and what a lock names is the union of its wheels' trees.

Law: what is in the store already is not unpacked again. A tree of a wheel does not depend on where it was unpacked: programs look
for their Python on the path, and compiled modules name no folder of the build. What belongs to a wheel is what its RECORD lists.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remora.errors import ImageFailed

from ..records import Record
from ..tree import Entry, Folder, Tree
from .resolver import Resolver
from .unpacked import Unpacked
from .work import Work, has_tree

_PACKAGE = re.compile(r"(?m)^(?=\[\[packages\]\]\s*$)")


@dataclass(frozen=True)
class Wheel:
    """A package that a lock names; the key is the same for the same file and the same kind of Python."""

    name: str
    version: str
    text: str
    """Its part of the lock."""
    key: str


def split_lock(lock: str) -> tuple[str, list[str]]:
    """Return a lock's head and the text of each package."""
    head, *parts = _PACKAGE.split(lock)
    return head, parts


def read_lock(lock: str, python: str, salt: str = "") -> tuple[str, list[Wheel]]:
    """Return a lock's head and its packages; `salt` goes into the keys of those that no hash describes, such as folders."""
    head, parts = split_lock(lock)
    return head, [_wheel(part, python, salt) for part in parts]


def tree_of(resolver: Resolver, lock: str) -> Tree:
    """Return the tree for a lock, unpacking only what the store does not have. Raises ImageFailed."""
    work = resolver.work
    head, wheels = read_lock(lock, work.base.version, work.task.key)
    trees = {wheel.name: tree for wheel in wheels if (tree := _stored(work, wheel)) is not None}
    new = [wheel for wheel in wheels if wheel.name not in trees]
    if new:
        work.say(f"installing {_several(new)}" + (f"; {len(trees)} are here already" if trees else ""))
        trees |= _unpack(resolver, head, new)
    return Tree.union([trees[wheel.name] for wheel in wheels])


def _wheel(text: str, python: str, salt: str) -> Wheel:
    package: dict[str, Any] = tomllib.loads(text)["packages"][0]
    hashes = sorted(file["hashes"]["sha256"] for file in package.get("wheels", ()) if "sha256" in file.get("hashes", {}))
    source = hashes or [json.dumps(package, sort_keys=True, default=str), "" if "hashes" in text else salt]
    kind = [f"cp{python}", platform.machine(), *platform.libc_ver()[:1]]
    key = hashlib.sha256(json.dumps(["wheel", kind, source]).encode()).hexdigest()
    return Wheel(package["name"], str(package.get("version", "")), text, key)


def _stored(work: Work, wheel: Wheel) -> Tree | None:
    record = work.records.get(wheel.key)
    if record is None or not has_tree(work.store, record.tree):
        return None
    work.records.touch(wheel.key)
    return work.store.load(record.tree)


def _unpack(resolver: Resolver, head: str, wheels: Sequence[Wheel]) -> dict[str, Tree]:
    """Unpack wheels together, those that share a path with another one by itself; take them in and write them down."""
    begun = time.monotonic()
    whole, files = _take_in(resolver, head, wheels, "all")
    shared = {path for path, times in Counter(path for paths in files.values() for path in paths).items() if times > 1}
    found: dict[str, Tree] = {}
    for wheel in wheels:
        own, tree = files.get(wheel.name), whole
        if own is None:
            raise resolver.work.failed(f"{wheel.name} was installed, but nothing of it is there")
        if own & shared:
            tree, alone = _take_in(resolver, head, [wheel], wheel.key[:12])
            own = alone[wheel.name]
        found[wheel.name] = _part(tree, own)
    seconds = (time.monotonic() - begun) / len(wheels)
    for wheel in wheels:
        _keep(resolver.work, wheel, found[wheel.name], seconds)
    return found


def _take_in(resolver: Resolver, head: str, wheels: Sequence[Wheel], name: str) -> tuple[Tree, dict[str, set[str]]]:
    """Unpack wheels into one folder; return its tree, and the paths of each wheel by the wheel's name."""
    work, folder = resolver.work, resolver.work.folder / name
    _fetch(resolver, head + "".join(wheel.text for wheel in wheels), folder)
    unpacked = Unpacked(folder, work.base.site)
    unpacked.free_programs(resolver.environment())
    unpacked.compile(work, resolver.environment())
    files, known = unpacked.owned(work.base.version)
    return work.store.scan(folder, known), files


def _fetch(resolver: Resolver, lock: str, folder: Path) -> None:
    """Unpack a lock; one of an earlier time from what uv still has, and from its addresses only if that is not all there."""
    if resolver.work.task.lock:
        try:
            resolver.unpack(lock, folder, offline=True)
            return
        except ImageFailed:
            resolver.work.say("not all of it is in uv's cache; fetching the rest")
            folder.rename(folder.with_name(f"{folder.name}.partial"))
    resolver.unpack(lock, folder, offline=False)


def _part(tree: Tree, paths: set[str]) -> Tree:
    kept: list[Entry] = [entry for entry in tree.entries if entry.path in paths and not isinstance(entry, Folder)]
    return Tree.of(kept)


def _keep(work: Work, wheel: Wheel, tree: Tree, seconds: float) -> None:
    step = {"kind": "wheel", "name": wheel.name, "version": wheel.version}
    digest = work.store.save(tree)
    work.records.put(Record(wheel.key, step, tree=digest, lock=wheel.text, seconds=seconds, size=tree.size))


def _several(wheels: Sequence[Wheel]) -> str:
    names = [f"{wheel.name} {wheel.version}".strip() for wheel in wheels]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
