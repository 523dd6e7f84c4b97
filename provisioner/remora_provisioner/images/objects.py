"""Objects: the contents of files, each once, named by digest and mode and never changed.

Law: an object is whole or not there: it is written in the workshop, hashed while it is written, made read-only, and linked to its
name; what is there already is never replaced. A source with other names (uv links from its cache) is copied, since whoever writes
through that other name would change the object, and making the object read-only would reach into the cache. The change time of an
object says when it was last put or found; a collection spares the young, so finding one makes it young.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

from remora.errors import StoreRefused

from .lock import StoreLock
from .paths import check_digest
from .work import Work

CHUNK = 1 << 20
_FRESH = 600.0  # seconds in which finding an object again need not make it younger
_UNLINKABLE = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES)


def object_name(digest: str, executable: bool) -> str:
    """Return where an object lies below the folder of objects."""
    return f"{digest[:2]}/{digest[2:]}.x" if executable else f"{digest[:2]}/{digest[2:]}"


def object_mode(executable: bool) -> int:
    """Return the permissions of an object."""
    return 0o555 if executable else 0o444


def read_chunks(path: str | Path) -> Generator[bytes, None, None]:
    """Yield the content of a regular file; a link is not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        while chunk := os.read(descriptor, CHUNK):
            yield chunk
    finally:
        os.close(descriptor)


def hash_file(path: str | Path) -> str:
    """Return the sha256 of a file in hex; the interpreter is free for others meanwhile."""
    hashed = hashlib.sha256()
    with contextlib.closing(read_chunks(path)) as chunks:
        for chunk in chunks:
            hashed.update(chunk)
    return hashed.hexdigest()


class Objects:
    """The folder of objects. The lock is held while something is found or named, not while it is read, which can take long."""

    def __init__(self, root: Path, work: Work, lock: StoreLock) -> None:
        self.root, self._work, self.lock = root, work, lock

    def place(self, digest: str, executable: bool) -> str:
        """Return the path of an object, whether it is there or not."""
        return f"{self.root}/{object_name(digest, executable)}"

    def find(self, digest: str, executable: bool) -> int | None:
        """Return the size of an object and make it young again; None if it is not there."""
        with self.lock.shared():
            return self.find_locked(digest, executable, time.time())

    def find_locked(self, digest: str, executable: bool, now: float) -> int | None:
        """Do the same for whoever holds the lock, and perhaps looks for thousands."""
        place = self.place(digest, executable)
        try:
            facts = os.stat(place)
        except FileNotFoundError:
            return None
        if now - facts.st_ctime > _FRESH:
            os.chmod(place, object_mode(executable))
        return facts.st_size

    def write(self, chunks: Iterable[bytes], digest: str | None, executable: bool) -> tuple[str, int]:
        """Store what comes, unless it proves to be something else than `digest`; return its digest and size."""
        hashed, size = hashlib.sha256(), 0
        with self._work.file() as path:
            with open(path, "xb", buffering=0) as file:
                for chunk in chunks:
                    hashed.update(chunk)
                    size += len(chunk)
                    _write_all(file.fileno(), chunk)
                os.fchmod(file.fileno(), object_mode(executable))
            found = expect(hashed.hexdigest(), digest)
            self._publish(path, found, executable)
        return found, size

    def write_bytes(self, data: bytes, digest: str | None, executable: bool) -> tuple[str, int]:
        """Store a few bytes; nothing is written if they are there already."""
        found = expect(hashlib.sha256(data).hexdigest(), digest)
        if self.find(found, executable) is None:
            self.write((data,), found, executable)
        return found, len(data)

    def take(self, source: str, digest: str | None, executable: bool, link: bool) -> tuple[str, int]:
        """Store a regular file by a hard link, if wanted and safe, or else by a copy; return its digest and size."""
        facts = os.lstat(source)
        if digest is not None and (size := self.find(digest, executable)) is not None:
            return digest, size
        link = link and facts.st_nlink == 1 and facts.st_uid == os.geteuid() and stat.S_ISREG(facts.st_mode)
        if digest is not None and not link:
            return self._copy(source, digest, executable)
        found = expect(hash_file(source), digest)
        if self.find(found, executable) is not None or (link and self._link(source, found, executable)):
            return found, facts.st_size
        return self._copy(source, found, executable)

    def _copy(self, source: str, digest: str, executable: bool) -> tuple[str, int]:
        with contextlib.closing(read_chunks(source)) as chunks:
            return self.write(chunks, digest, executable)

    def _link(self, source: str, digest: str, executable: bool) -> bool:
        try:
            os.chmod(source, object_mode(executable))
            self._publish(source, digest, executable)
        except OSError as error:
            if error.errno not in _UNLINKABLE:
                raise
            return False
        return True

    def _publish(self, path: str, digest: str, executable: bool) -> None:
        """Give what is whole its name; somebody else may have been faster, with the same content."""
        place = self.place(digest, executable)
        with self.lock.shared(), contextlib.suppress(FileExistsError):
            try:
                os.link(path, place, follow_symlinks=False)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
                os.link(path, place, follow_symlinks=False)

    def every(self) -> Iterator[tuple[str, bool, os.stat_result]]:
        """Yield the digest, mode and facts of each object."""
        for shard in sorted(os.listdir(self.root)):
            with os.scandir(self.root / shard) as listed:
                for entry in listed:
                    rest = entry.name.removesuffix(".x")
                    yield shard + rest, rest != entry.name, entry.stat(follow_symlinks=False)

    def faults(self) -> Iterator[str]:
        """Re-hash every object and yield a line for each that is not what its name says."""
        for digest, executable, facts in self.every():
            place = self.place(digest, executable)
            if not stat.S_ISREG(facts.st_mode) or stat.S_IMODE(facts.st_mode) != object_mode(executable):
                yield f"object {digest}: mode {facts.st_mode:o} instead of {object_mode(executable):o}"
            elif hash_file(place) != digest:
                yield f"object {digest}: its content is something else"


def expect(found: str, digest: str | None) -> str:
    """Return the digest that was found; StoreRefused with "wrong-digest" if another one was promised."""
    if digest is not None and found != check_digest(digest):
        raise StoreRefused(
            f"content with the digest {found[:12]}… came where {digest[:12]}… was promised; do not trust its source",
            reason="wrong-digest",
        )
    return found


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
