"""What tells one state of local files from another, without reading them."""

from __future__ import annotations

import hashlib
import os

from ..errors import InputError

MOST = 200_000
"""Files of one step: beyond that it is a mistake."""


def state_of(source: str) -> str:
    """Return a digest of the names, sizes and times of a file, or of all below a folder.

    Raises InputError if it is not there, or is more than an image should hold.
    """
    told = hashlib.sha256()
    count = 0
    for path in _paths(source):
        try:
            facts = os.lstat(path)
        except FileNotFoundError:
            if path == source:
                raise InputError(f"{source} is not there any more; the image adds it") from None
            continue  # it went while we looked
        told.update(f"{path}\0{facts.st_mode}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        count += 1
        if count > MOST:
            raise InputError(f"{source} has more than {MOST} files; add a smaller folder, or leave some out with ignore=")
    return told.hexdigest()


def _paths(source: str) -> list[str]:
    found = [source]
    for top, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", ".git"))
        found += [os.path.join(top, name) for name in (*folders, *sorted(files))]
        if len(found) > MOST:
            break
    return found
