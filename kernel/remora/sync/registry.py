"""Who is who among the classes that travel by value: one id for a class on every side, and who changed it last.

Law: an id is given at first sight and kept as long as the class lives. `revision` counts changes of the content, whoever made
them: a side that finds its class changed since the last exchange adds one, and the other applies what is newer and nothing else.
"""

from __future__ import annotations

import uuid
import weakref
from dataclasses import dataclass
from typing import Any


@dataclass
class Record:
    """What is known of one class or type variable: its id, its revision, and the digest of the content at that revision."""

    id: str
    revision: int = 0
    digest: bytes | None = None


class Registry:
    """Ids in both directions; objects are held weakly."""

    def __init__(self) -> None:
        """Start knowing nobody."""
        self._objects: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._records: weakref.WeakKeyDictionary[Any, Record] = weakref.WeakKeyDictionary()

    def record(self, thing: Any) -> Record:
        """Return what is known of a thing, with a fresh id at first sight."""
        if thing not in self._records:
            self.adopt(thing, uuid.uuid4().hex)
        return self._records[thing]

    def adopt(self, thing: Any, identity: str, revision: int = 0) -> None:
        """Take over the id that the other side gave."""
        self._records[thing] = Record(identity, revision)
        self._objects[identity] = thing

    def find(self, identity: str) -> Any | None:
        """Return the living thing of an id."""
        return self._objects.get(identity)

    def knows(self, thing: Any) -> bool:
        """Tell whether a thing has travelled by value."""
        return thing in self._records

    def revise(self, thing: Any, digest: bytes) -> Record:
        """Return the record of a thing that is about to travel, one revision on if its content changed."""
        record = self.record(thing)
        if record.digest != digest:
            record.revision += 1
            record.digest = digest
        return record


REGISTRY = Registry()
