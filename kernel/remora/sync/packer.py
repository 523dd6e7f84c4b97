"""The pickler itself: C pickle with our reducers, for sending, for looking, and for taking a digest.

Law: one dictionary look-up for each object that pickle does not know by itself; everything else stays at C speed.
"""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from remora.sync import classes
from remora.sync.marks import Hasher
from remora.sync.reducers import TABLE, Box, reducer_for
from remora.sync.registry import REGISTRY


class Packer(pickle.Pickler):
    """The C pickler with our reducers, looked up once for each type."""

    marking = False

    borrows = True

    def __init__(self, file: Any, namespace: dict[str, Any], buffers: Callable[[pickle.PickleBuffer], Any] | None) -> None:
        """Write to a file object; functions of `namespace` bind to the receiver's."""
        super().__init__(file, 5, buffer_callback=buffers)
        self.namespace = namespace
        self.homes = {"__main__", str(namespace.get("__name__", "__main__"))}
        self.loose: frozenset[str] = frozenset()
        self.deps: set[str] = set()
        self.roots: set[int] = set()
        self.met: list[type] = []
        self.bytecode = False
        """Whether there is some in the stream."""
        self._table = dict(TABLE)
        self._boxes: dict[int, Box] = {}

    @property
    def kinds(self) -> list[type]:
        """Return the types met that have no row in our table."""
        return list(self._table)[len(TABLE) :]

    def reducer_override(self, value: Any) -> Any:
        """Take a value apart by the table's row for its type."""
        kind = type(value)
        try:
            reduce = self._table[kind]
        except KeyError:
            reduce = self._table[kind] = reducer_for(kind, self.borrows)
        return NotImplemented if reduce is None else reduce(self, value)

    def box(self, scope: dict[str, Any]) -> Box:
        """Return the one stand-in of a dictionary of globals in this batch."""
        return self._boxes.setdefault(id(scope), Box(scope))

    def digest(self, cls: type) -> bytes:
        """Return the digest of a class's own contents."""
        return class_digest(cls, self.namespace)


class Explorer(Packer):
    """A packer that only looks: a class is taken apart without its digest, which may be what fails."""

    def digest(self, cls: type) -> bytes:
        """Return what is known."""
        return REGISTRY.record(cls).digest or b""


class Marker(Packer):
    """A packer into a hash: sources and other sides' needs are left out, classes are met by their id."""

    marking = True


def class_digest(cls: type, namespace: dict[str, Any]) -> bytes:
    """Return a digest of the contents of one class; other classes in it count by their id."""
    hasher = Hasher()
    Marker(hasher, namespace, hasher.buffer).dump(classes.contents_of(cls))
    return hasher.digest()


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Suspend the cyclic collector: it walks over all that is being made, again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
