"""Archives: a tar or a wheel goes straight into the store, nothing is written anywhere else first.

Law: an archive is hostile until it has been read. Nothing in it chooses where anything is written; each way of meaning harm (a
path or link that leads out, a device, setuid, a bomb, content that is not as its RECORD says) is refused with its own reason.
"""

from __future__ import annotations

import contextlib
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from remora.errors import StoreRefused

from .objects import CHUNK, expect, hash_file
from .paths import check_path
from .store import Store
from .streams import Bound, Forward
from .tree import Entry, File, Folder, Gone, Link, Tree
from .wheel_record import read_record

LIMIT, RATIO = 64 << 30, 200
_MOST_ENTRIES = 2_000_000
_SET_BITS = stat.S_ISUID | stat.S_ISGID
_BAD = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,  # a way of compressing that zipfile does not know
    RuntimeError,  # an encrypted file
)


def tar(store: Store, source: Path | IO[bytes], system: bool = False, *, limit: int = LIMIT, ratio: int = RATIO) -> Tree:
    """Take in a tar archive (plain, gz, xz; zst on Python 3.14) and return its tree, which is not saved yet.

    With `system` absolute links are taken, setuid bits dropped and the whiteouts of a container image read as Gone. StoreRefused
    with the reason; `limit` bounds the bytes that come out, `ratio` how many for each byte that went in.
    """
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        stack.enter_context(_malformed())
        bound = Bound(limit, ratio)
        forward = stack.enter_context(Forward(raw, bound))
        archive = stack.enter_context(tarfile.open(fileobj=forward, mode="r:", encoding="utf-8", errors="surrogateescape"))
        return _Tar(store, archive, forward, bound, system).take()


class _Tar:
    """One archive on its way in."""

    def __init__(self, store: Store, archive: tarfile.TarFile, forward: Forward, bound: Bound, system: bool) -> None:
        self._store, self._archive, self._forward, self._bound, self._system = store, archive, forward, bound, system
        self._found: dict[tuple[str, bool], Entry] = {}
        self._sparse = 0

    def take(self) -> Tree:
        """Take in every member; of two with one path the later one counts."""
        for count, member in enumerate(self._archive):
            if count >= _MOST_ENTRIES:
                raise StoreRefused(f"the archive has more than {_MOST_ENTRIES} entries", reason="too-large")
            path = member.name.removeprefix("./").rstrip("/")
            if not (member.isdir() and path in ("", ".")):
                self._add(self._entry(check_path(path), member))
        leaves = {path for (path, gone), entry in self._found.items() if not gone and not isinstance(entry, Folder)}
        entries = [entry for (path, gone), entry in self._found.items() if not gone or path not in leaves]
        return Tree.of(entries, system=self._system)

    def _add(self, entry: Entry) -> None:
        self._found[entry.path, isinstance(entry, Gone)] = entry

    def _entry(self, path: str, member: tarfile.TarInfo) -> Entry:
        if member.isdir():
            return Folder(path)
        if member.issym():
            return Link(path, member.linkname)
        if member.islnk():
            return self._hard_link(path, member.linkname.removeprefix("./"))
        if not member.isfile():
            raise StoreRefused(f"{path!r} is a device or a pipe; take it out of the archive", reason="device-node")
        if member.mode & _SET_BITS and not self._system:
            raise StoreRefused(f"{path!r} is setuid or setgid; take the bit away, a sandbox has no use for it", reason="setuid")
        gone = self._whiteout(path) if self._system else None
        return gone or self._file(path, member)

    def _whiteout(self, path: str) -> Gone | None:
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            self._found.setdefault((check_path(folder), False), Folder(folder))
            return Gone(folder)
        if name.startswith(".wh."):
            return Gone(check_path(f"{folder}/{name[4:]}" if folder else name[4:]))
        return None

    def _hard_link(self, path: str, target: str) -> Entry:
        try:
            first = self._found.get((check_path(target), False))
        except StoreRefused as error:
            raise StoreRefused(
                f"the hard link {path!r} leads out of the archive, to {target!r}", reason="link-escapes"
            ) from error
        if isinstance(first, File):
            return File(path, first.digest, first.size, first.executable)
        if isinstance(first, Link):
            return Link(path, first.target)
        raise StoreRefused(f"the hard link {path!r} is to {target!r}, which did not come before it", reason="malformed")

    def _file(self, path: str, member: tarfile.TarInfo) -> File:
        if member.issparse():  # that can be large in no room at all
            self._sparse += member.size
            self._bound.check(self._sparse, self._forward.taken)
        content = self._archive.extractfile(member)
        if content is None:
            raise StoreRefused(f"{path!r} has no content; the archive is damaged", reason="malformed")
        executable = bool(member.mode & stat.S_IXUSR)
        with content:
            if member.size <= CHUNK:
                data = content.read()
                digest, size = self._store.put_bytes(_whole(path, data, member.size), executable=executable)
            else:
                digest, size = self._store.put_chunks(iter(lambda: content.read(CHUNK), b""), executable=executable)
        if size != member.size:
            raise EOFError
        return File(path, digest, size, executable)


def wheel(store: Store, path: Path, sha256: str | None = None, *, limit: int = LIMIT, ratio: int = RATIO) -> Tree:
    """Take in a wheel as it lies in its archive and return the tree, which is not saved yet.

    StoreRefused with "wrong-digest" if the archive has not that sha256 or a file in it is not as RECORD says; a file whose object
    is in the store already is not unpacked.
    """
    if sha256 is not None:
        expect(hash_file(path), sha256)
    with _malformed(), zipfile.ZipFile(path) as archive:
        members = [_plain(member) for member in archive.infolist() if not member.orig_filename.endswith("/")]
        went_in = path.stat().st_size
        Bound(limit, ratio).check(sum(member.file_size for member in members), went_in)
        if len(members) > _MOST_ENTRIES:
            raise StoreRefused(f"the archive has more than {_MOST_ENTRIES} entries", reason="too-large")
        promised = read_record(archive, members)
        return Tree.of([_unzip(store, archive, member, promised.get(member.filename)) for member in members])


def _plain(member: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return a member that is a file with a plain path."""
    check_path(member.orig_filename)
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        reason = "link-escapes" if stat.S_ISLNK(mode) else "device-node"
        raise StoreRefused(f"{member.filename!r} is no file; a wheel holds only files", reason=reason)
    if mode & _SET_BITS:
        raise StoreRefused(f"{member.filename!r} is setuid or setgid; take the bit away", reason="setuid")
    return member


def _unzip(store: Store, archive: zipfile.ZipFile, member: zipfile.ZipInfo, digest: str | None) -> File:
    executable = bool(member.external_attr >> 16 & stat.S_IXUSR)
    if digest is not None and store.objects.find(digest, executable) == member.file_size:
        return File(member.filename, digest, member.file_size, executable)
    with archive.open(member) as content:
        found, size = store.put_chunks(iter(lambda: content.read(CHUNK), b""), digest, executable)
    if size != member.file_size:
        raise EOFError
    return File(member.filename, found, size, executable)


def _whole(path: str, data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise StoreRefused(f"the archive ends in the middle of {path!r}; fetch it again", reason="malformed")
    return data


@contextlib.contextmanager
def _malformed() -> Iterator[None]:
    """Translate what the readers of archives say about damage."""
    try:
        yield
    except _BAD as error:
        raise StoreRefused(f"the archive is damaged ({error}); fetch it again", reason="malformed") from error
