"""A hash that a pickler can write to: xxh3_128 where it is installed, else what Python has.

Law: digests never leave the side that made them, so that both sides may use different ones.
"""

from __future__ import annotations

import hashlib
from pickle import PickleBuffer
from typing import Any


def new_hash() -> Any:
    """Return a fast 128-bit hash."""
    try:
        import xxhash
    except ImportError:  # a bare guest
        return hashlib.blake2b(digest_size=16)
    return xxhash.xxh3_128()


class Hasher:
    """A file object that keeps only the hash of what is written."""

    def __init__(self) -> None:
        """Start empty."""
        self._hash = new_hash()

    def write(self, data: Any) -> int:
        """Take bytes."""
        self._hash.update(data)
        return len(data)

    def buffer(self, buffer: PickleBuffer) -> None:
        """Take memory that does not go through the stream."""
        view = buffer.raw()
        self._hash.update(str(view.nbytes).encode())
        self._hash.update(view)

    def digest(self) -> bytes:
        """Return the hash of all that was written."""
        digest: bytes = self._hash.digest()
        return digest
