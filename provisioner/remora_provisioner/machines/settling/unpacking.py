"""Run on the other machine by the Python that was just brought there: unpacks our code, and has all of it written to the disk.

Law: a script that stands alone, with nothing but the standard library. What it makes is given its name by installing.sh, when it
is whole, so that a machine that loses its power has all of it or nothing.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO


def unpack(archive: BinaryIO, folder: str) -> None:
    """Make the files of an archive (see bundle.archive) below a folder."""
    while line := archive.readline():
        mode, size, path = line.decode().rstrip("\n").split(" ", 2)
        place = os.path.join(folder, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(archive.read(int(size)))
            os.fchmod(file.fileno(), int(mode, 8))


def write_through(folder: str) -> None:
    """Return when every file below the folder is on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            file = os.open(os.path.join(place, name), os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as _archive:
        unpack(_archive, sys.argv[2])
    for _folder in sys.argv[2:]:
        write_through(_folder)
