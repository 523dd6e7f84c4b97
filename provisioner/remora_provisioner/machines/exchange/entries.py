"""What a folder holds, as values: one entry a path; and their form as bytes, on the wire and on the disk.

Law: pure. Paths are bytes, relative, as the disk has them. What comes from elsewhere is read by `unpacked`, which lets no path or
link pass that leads out of its folder.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Mapping
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import NamedTuple

from blake3 import blake3
from remora.errors import ProtocolError

DIGEST = 32
"""Bytes of a digest."""
SMALL = 1 << 19
"""Bytes up to which a file is whole in a letter, and its digest may be in there too."""
_NAME_BYTES, _PATH_BYTES = 255, 3500
_COUNTS = struct.Struct("<II")


class Kind(IntEnum):
    """What is at a path."""

    FILE = 0
    PROGRAM = 1
    """A file that may be executed."""
    LINK = 2
    FOLDER = 3
    HELD = 4
    """Something that stays where it is, with all below it, and is not compared."""
    GONE = 5
    """Nothing any more; in what is kept between exchanges only."""


class Entry(NamedTuple):
    """One path: its size in bytes, and the BLAKE3 digest of a file, the target of a link, or why something is held.

    A file whose digest goes with its content has none here (`SMALL`).
    """

    kind: int
    size: int = 0
    content: bytes = b""

    @property
    def is_file(self) -> bool:
        """Whether it has content."""
        return self.kind <= Kind.PROGRAM

    @property
    def may_be_late(self) -> bool:
        """Whether it is a file that is whole in a letter, which has room for its digest, too."""
        return self.is_file and 0 < self.size <= SMALL


Entries = dict[bytes, Entry]
FOLDER = Entry(Kind.FOLDER)
GONE = Entry(Kind.GONE)


def shown(path: bytes) -> str:
    """Return a path as a person can read it, on one line."""
    text = path.decode("utf-8", "replace")
    return text if text.isprintable() and "�" not in text else repr(path)[1:]


def is_plain(path: bytes) -> bool:
    """Tell whether a path stays inside whatever folder it is joined to, and fits on a disk."""
    parts = path.split(b"/")
    plain = b"\0" not in path and b"" not in parts and b"." not in parts and b".." not in parts
    return plain and len(path) <= _PATH_BYTES and (len(path) <= _NAME_BYTES or max(map(len, parts)) <= _NAME_BYTES)


def leads_inside(path: bytes, target: bytes) -> bool:
    """Tell whether a link at `path` leads to something in its folder, whatever other links there are on the way.

    Only the first parts may be "..": behind a name it could belong to a folder elsewhere, if the name is a link itself.
    """
    parts = target.split(b"/")
    up = 0
    while up < len(parts) and parts[up] in (b"..", b"."):
        up += 1
    climbs = parts[:up].count(b"..")
    return bool(target) and not target.startswith(b"/") and climbs <= path.count(b"/") and b".." not in parts[up:]


def parents(path: bytes) -> list[bytes]:
    """Return the folders above a path, the nearest first, without the top one."""
    found = []
    at = path.rfind(b"/")
    while at > 0:
        found.append(path[:at])
        at = path.rfind(b"/", 0, at)
    return found


def by_folder(entries: Mapping[bytes, Entry]) -> dict[bytes, bytes]:
    """Return a digest for each folder of what lies directly in it; folders by their path with a slash behind it."""
    lines = defaultdict[bytes, list[bytes]](list)
    for path, (kind, size, content) in entries.items():
        lines[path[: path.rfind(b"/") + 1]].append(b"%b\0%d %d %b\0" % (path, kind, size, content))
    return {folder: blake3(b"".join(sorted(found))).digest() for folder, found in lines.items()}


def whole(folders: Mapping[bytes, bytes]) -> bytes:
    """Return one digest for all the folders' digests."""
    return blake3(b"".join(digest + folder + b"\0" for folder, digest in sorted(folders.items()))).digest()


_ARRIVING = re.compile(rb"(?:.*/)?\.remora-[0-9a-f]{32}\.part", re.DOTALL)
_WRITTEN = re.compile(rb"(?:.*/)?\.remora-[0-9a-f]{8}-[^/]*\.new", re.DOTALL)


def arriving(folder: bytes, content: bytes, number: int = 0) -> bytes:
    """Return the path of a file that is on its way into a folder (b"" or with a slash behind it), by its digest."""
    return b"%b.remora-%b%08x.part" % (folder, content[:12].hex().encode(), number)


def is_arriving(path: bytes) -> bool:
    """Tell whether a path is one of `arriving`: such a file never travels."""
    return _ARRIVING.fullmatch(path) is not None


def is_being_written(path: bytes) -> bool:
    """Tell whether a path is that of an output notebook on its way to the disk (`remora.headless.paper`), which never travels."""
    return _WRITTEN.fullmatch(path) is not None


# ---- as bytes ----------------------------------------------------------------------------------------------------------------


def packed(entries: Mapping[bytes, Entry]) -> bytes:
    """Return entries as bytes: paths, kinds, sizes and contents, each in a row."""
    paths = b"\0".join(entries)
    rows = list(entries.values())
    kinds = bytes([row[0] for row in rows])
    sizes = struct.pack(f"<{len(rows)}Q", *[row[1] for row in rows])
    contents = [row[2] for row in rows]
    lengths = struct.pack(f"<{len(rows)}H", *map(len, contents))
    return b"".join([_COUNTS.pack(len(rows), len(paths)), paths, kinds, sizes, lengths, *contents])


def unpacked(data: bytes, *, trusted: bool = False, late: bool = False) -> Entries:
    """Return the entries that were packed; ProtocolError for what is malformed and, unless `trusted`, for what leads outside.

    Digests may be `late` where contents are to follow.
    """
    try:
        entries = _rows(data)
    except (struct.error, ValueError, IndexError) as error:
        raise ProtocolError(f"a list of files cannot be read ({error}); use the same version of Remora on both sides") from error
    if not trusted:
        for path, entry in entries.items():
            _check(path, entry, late=late)
    return entries


def _rows(data: bytes) -> Entries:
    count, length = _COUNTS.unpack_from(data)
    at = _COUNTS.size
    paths = data[at : at + length].split(b"\0") if count else []
    at += length
    kinds = data[at : at + count]
    sizes = struct.unpack_from(f"<{count}Q", data, at + count)
    lengths = struct.unpack_from(f"<{count}H", data, at + 9 * count)
    at += 11 * count
    if len(paths) != count or at + sum(lengths) != len(data):
        raise ValueError("its parts do not fit together")
    ends = list(accumulate(lengths, initial=at))
    contents = [data[begin:end] for begin, end in pairwise(ends)]
    entries = dict(zip(paths, map(Entry._make, zip(kinds, sizes, contents, strict=True)), strict=True))
    if len(entries) != count:
        raise ValueError("a path comes twice")
    return entries


def _check(path: bytes, entry: Entry, *, late: bool) -> None:
    digested = len(entry.content) == DIGEST or (late and not entry.content and entry.may_be_late)
    known = entry.kind <= Kind.HELD and (not entry.is_file or digested) and entry.size < 1 << 62
    leads_out = entry.kind == Kind.LINK and (b"\0" in entry.content or not leads_inside(path, entry.content))
    if not is_plain(path) or leads_out or not known:
        raise ProtocolError(
            f"the other side names {shown(path)[:200]}, which leads out of the folder or is no file; nothing of it was taken",
            reason="path-escapes",
        )
