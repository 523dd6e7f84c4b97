"""What a machine elsewhere needs of us, packed: made once for each Python and each version of our code, then kept.

Law: a part is named by the SHA-256 of its content, so that whoever has it already is not sent it again. A file in the store is
whole under its name or not there.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from remora.errors import StateError

from . import contents
from .contents import Entry

PIECE = 256 * 1024
"""Bytes after which what has arrived of a transfer counts, should it be cut."""
_KEPT_SECONDS = 30 * 24 * 3600.0
_LEVEL = 6


@dataclass(frozen=True)
class Piece:
    """What is sent at once, named by its SHA-256."""

    digest: str
    data: bytes


@dataclass(frozen=True)
class Part:
    """An archive: for each file a line of mode, size and path, then its bytes. `digest` and `size` are of all of it."""

    name: str
    digest: str
    size: int
    file: Path
    """Where it lies, compressed by gzip."""

    def pieces(self, compressed: bool) -> list[Piece]:
        """Return what is to be sent, in order. StateError if the file is gone."""
        try:
            data = self.file.read_bytes() if compressed else gzip.decompress(self.file.read_bytes())
        except OSError as error:
            raise StateError(f"{self.file} cannot be read ({error.strerror}); try again") from error
        slices = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
        return [Piece(hashlib.sha256(one).hexdigest(), one) for one in slices]


@dataclass(frozen=True)
class Bundle:
    """A Python and our code for machines of one architecture, in the words of `uname -m`."""

    architecture: str
    python: Part
    code: Part

    @property
    def digest(self) -> str:
        """Return what this bundle is known by."""
        return hashlib.sha256(f"{self.architecture} {self.python.digest} {self.code.digest}".encode()).hexdigest()


def prepare(store: Path) -> Bundle:
    """Return the bundle of the Python and the code that run here, made if the store does not have it.

    It blocks, for some seconds when it is made. StateError if the store cannot be written, Unavailable if this Python cannot go
    to another machine.
    """
    try:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        code = archive(contents.code())
        bundle = Bundle(platform.machine(), _python(store), _keep(store, "code", "", code))
        _forget_old(store)
    except OSError as error:
        told = f"{store} cannot be used ({error.strerror}); free space or set REMORA_STATE_DIR"
        raise StateError(told) from error
    return bundle


def archive(entries: Iterable[Entry]) -> bytes:
    """Return files as one: for each a line of mode, size and path, then its bytes."""
    parts = []
    for entry in entries:
        parts += [f"{755 if entry.executable else 644} {len(entry.data)} {entry.path}\n".encode(), entry.data]
    return b"".join(parts)


def _python(store: Path) -> Part:
    known_by = hashlib.sha256(contents.state_of_python().encode()).hexdigest()[:32]
    for file in store.glob(f"python-{known_by}-*.gz"):
        _, _, digest, size = file.stem.split("-")
        os.utime(file)
        return Part("python", digest, int(size), file)
    return _keep(store, "python", known_by, archive(contents.python()))


def _keep(store: Path, name: str, known_by: str, data: bytes) -> Part:
    digest = hashlib.sha256(data).hexdigest()
    file = store / f"{name}-{known_by}-{digest}-{len(data)}.gz"
    if file.exists():
        os.utime(file)
    else:
        with tempfile.NamedTemporaryFile(dir=store, prefix=".", delete=False) as aside:
            aside.write(gzip.compress(data, _LEVEL, mtime=0))
            aside.flush()
            os.fsync(aside.fileno())
        os.replace(aside.name, file)
    return Part(name, digest, len(data), file)


def _forget_old(store: Path) -> None:
    for file in store.iterdir():
        if file.stat().st_mtime < time.time() - _KEPT_SECONDS:
            file.unlink(missing_ok=True)
