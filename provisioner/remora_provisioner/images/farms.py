"""Farms: trees made real, by hard links to the objects.

Law: a farm is whole or not there; it is made in the workshop and renamed. Nobody writes in it: its files are the objects.
Whiteouts are written as an overlay without privileges reads them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from remora.errors import StoreRefused

from .objects import Objects, object_mode, object_name
from .paths import parents
from .scanning import OPAQUE
from .tree import File, Folder, Gone, Link, Tree
from .work import Work

_MODE = 0o755


def make_farm(tree: Tree, objects: Objects, work: Work, farm: Path) -> None:
    """Make the tree real at `farm`; whoever else does so at the same time makes the same, and the first one stays.

    StoreRefused with "malformed" if an object is not there.
    """
    place = Path(work.place())
    place.mkdir()
    try:
        _fill(place, tree, objects)
        try:
            os.rename(place, farm)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    finally:
        if place.exists():
            shutil.rmtree(place)


def _fill(place: Path, tree: Tree, objects: Objects) -> None:
    with contextlib.ExitStack() as stack:
        source, target = (os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for folder in (objects.root, place))
        stack.callback(os.close, source)
        stack.callback(os.close, target)
        _make_folders(tree, target)
        link = os.link
        for entry in tree.entries:
            if isinstance(entry, File):
                try:
                    link(object_name(entry.digest, entry.executable), entry.path, src_dir_fd=source, dst_dir_fd=target)
                except FileNotFoundError:
                    text = f"{entry.path!r} is not in the store as promised; build the image again"
                    raise StoreRefused(text, reason="malformed") from None
                except OSError as error:
                    if error.errno != errno.EMLINK:
                        raise
                    _copy(objects.place(entry.digest, entry.executable), place / entry.path, entry.executable)
            elif isinstance(entry, Link):
                os.symlink(entry.target, entry.path, dir_fd=target)
            elif isinstance(entry, Gone):
                _hide(place / entry.path)


def _make_folders(tree: Tree, target: int) -> None:
    os.fchmod(target, _MODE)
    for path in _folders(tree):
        os.mkdir(path, _MODE, dir_fd=target)
        if os.stat(path, dir_fd=target).st_mode & 0o777 != _MODE:  # the umask took something away
            os.chmod(path, _MODE, dir_fd=target)


def _folders(tree: Tree) -> list[str]:
    found: set[str] = set()
    for entry in tree.entries:
        if isinstance(entry, Folder):
            found.add(entry.path)
        for above in parents(entry.path):
            if above in found:
                break
            found.add(above)
    return sorted(found)


def _hide(path: Path) -> None:
    """Hide what lies below a path: make a folder that is there opaque, or else a whiteout, which anybody may make."""
    if path.is_dir():
        os.setxattr(path, OPAQUE, b"y")
    else:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))


def _copy(source: str, target: Path, executable: bool) -> None:
    """Copy what has as many names as its file system allows (empty files reach that)."""
    shutil.copyfile(source, target)
    os.chmod(target, object_mode(executable))
