"""Records: what was built, under the key that says how; and the names under which images are published.

Law: a record is one small file, whole or not there; finding one costs the same however many there are. Records know trees by
digest only: whether a tree is still in the store is for whoever uses the record to see.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Record:
    """One thing that was built: a base, a step, a wheel, or what trees make together."""

    key: str
    step: dict[str, Any]
    """The recipe's own words for it, with its `kind`."""
    below: str = ""
    """The key of what it stands on; empty for the lowest."""
    tree: str = ""
    """The digest of its tree of packages; empty if it has none."""
    lock: str = ""
    """What was chosen, exactly: for packages versions, addresses and hashes; for a base its interpreter."""
    log: str = ""
    """Where the log is, relative to the root of images; empty if there is none."""
    seconds: float = 0.0
    made: float = field(default_factory=time.time)
    """Unix time."""
    size: int = 0
    """Bytes of the trees' files."""
    layer: str = ""
    """The digest of the tree of what it changed of the system; empty if that is nothing."""

    @property
    def made_of(self) -> tuple[str, ...]:
        """Return the digests of its trees."""
        return tuple(filter(None, (self.tree, self.layer)))


class Records:
    """The records below `root`, for as many processes as like."""

    def __init__(self, root: Path) -> None:
        """Use, or make, the folders records/ and names/."""
        self._records, self._names = root / "records", root / "names"
        for folder in (self._records, self._names):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, key: str) -> Record | None:
        """Return the record with this key; None if there is no whole one of this version. ValueError for what is no key."""
        path = self._path(key)
        try:
            return Record(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def put(self, record: Record) -> None:
        """Write a record, over an earlier one with its key."""
        _write(self._path(record.key), asdict(record))

    def all(self) -> list[Record]:
        """Return every record, the one used longest ago first."""
        found = [
            (facts, record) for path in self._records.glob("*.json") if (facts := _used(path)) and (record := self.get(path.stem))
        ]
        return [record for _, record in sorted(found, key=lambda item: item[0])]

    def used(self, key: str) -> float:
        """Return the Unix time at which a record was last used or written; 0 if there is none."""
        return _used(self._path(key))

    def touch(self, key: str) -> None:
        """Say that a record is used; nothing happens if there is none."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path(key))

    def remove(self, key: str) -> None:
        """Forget a record; nothing happens if there is none."""
        self._path(key).unlink(missing_ok=True)

    # ---- names

    def publish(self, name: str, image: Mapping[str, Any]) -> None:
        """Let a name stand for an image, given as plain JSON values; a later one takes the name over."""
        _write(self._name(name), {"name": name, "image": dict(image), "published": time.time()})

    def unpublish(self, name: str) -> None:
        """Let a name stand for nothing; nothing happens if it does."""
        self._name(name).unlink(missing_ok=True)

    def named(self, name: str) -> dict[str, Any] | None:
        """Return the image that a name stands for; None if it stands for none."""
        try:
            image = json.loads(self._name(name).read_text())["image"]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return image if isinstance(image, dict) else None

    def names(self) -> list[str]:
        """Return all names, sorted."""
        found: list[str] = []
        for path in self._names.glob("*.json"):
            with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
                found.append(str(json.loads(path.read_text())["name"]))
        return sorted(found)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key; keys are sha256 in hex")
        return self._records / f"{key}.json"

    def _name(self, name: str) -> Path:
        return self._names / f"{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}.json"


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _write(path: Path, values: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(values).encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; each process writes beside it under a name of its own."""
    aside = path.with_name(f".{path.stem}.{os.getpid()}.new")
    aside.write_bytes(data)
    os.replace(aside, path)
