"""What a program of Linux is made of: its loader, the shared libraries that it needs, and the part of its file that is loaded.

Law: reads files, and asks the loader of this very machine where it would find libraries; knows nothing of what they are for.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"\x7fELF"
_INTERPRETER = 3


@dataclass(frozen=True)
class _Layout:
    """Where the fields of a file of 32 or 64 bits lie: (offset, format) each, and within a program header."""

    header: int
    programs: tuple[int, str]
    sections: tuple[int, str]
    counts: tuple[int, str]
    """Size and number of program headers, then size, number and index of sections."""
    offset: tuple[int, str]
    size: tuple[int, str]


_LAYOUTS = {
    1: _Layout(52, (28, "I"), (32, "I"), (42, "5H"), (4, "I"), (16, "I")),
    2: _Layout(64, (32, "Q"), (40, "Q"), (54, "5H"), (8, "Q"), (32, "Q")),
}


class _Image:
    """One file's bytes, understood as far as is needed here."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.layout = _LAYOUTS[data[4]]
        self.order = "<" if data[5] == 1 else ">"

    def get(self, place: tuple[int, str], base: int = 0) -> tuple[int, ...]:
        return struct.unpack_from(self.order + place[1], self.data, base + place[0])

    def segments(self) -> Iterator[tuple[int, int, int]]:
        """Yield kind, offset and size of each."""
        (start,) = self.get(self.layout.programs)
        each, count, *_ = self.get(self.layout.counts)
        for base in range(start, start + each * count, each):
            (kind,), (offset,), (size,) = (self.get(p, base) for p in ((0, "I"), self.layout.offset, self.layout.size))
            yield kind, offset, size


def is_elf(data: bytes) -> bool:
    """Say whether these bytes begin a program or a shared library."""
    return data[:4] == _MAGIC and len(data) > _LAYOUTS[2].header


def loader_of(program: Path) -> Path | None:
    """Return the loader that a program names; None if it needs none."""
    data = program.read_bytes()
    if not is_elf(data):
        return None
    for kind, offset, size in _Image(data).segments():
        if kind == _INTERPRETER:
            return Path(data[offset : offset + size].rstrip(b"\0").decode())
    return None


def lean(data: bytes) -> bytes:
    """Return a program or library without what is never loaded: symbols for debuggers, notes, the table of sections."""
    image = _Image(data)
    (start,) = image.get(image.layout.programs)
    each, count, *_ = image.get(image.layout.counts)
    ends = [offset + size for _, offset, size in image.segments()]
    kept = bytearray(data[: max(start + each * count, *ends)])
    struct.pack_into(image.order + image.layout.sections[1], kept, image.layout.sections[0], 0)
    struct.pack_into(image.order + "3H", kept, image.layout.counts[0] + 4, 0, 0, 0)
    return bytes(kept)


def libraries(loader: Path, file: Path) -> dict[str, Path] | None:
    """Return where this machine finds the libraries that a file needs, by name; None if one of them is missing."""
    asked = subprocess.run([loader, "--list", file], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if asked.returncode or "not found" in asked.stdout + asked.stderr:
        return None
    found = (line.split(" => ") for line in asked.stdout.splitlines() if " => " in line)
    places = ((name.strip(), Path(place.rpartition(" (")[0])) for name, place in found)
    return {name: place for name, place in places if name != loader.name and place.is_absolute()}


def help_of(loader: Path) -> str:
    """Return what a loader says of its own options."""
    asked = subprocess.run([loader, "--help"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return asked.stdout + asked.stderr
