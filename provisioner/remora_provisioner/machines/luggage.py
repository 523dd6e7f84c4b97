"""What a sandbox on another machine needs of this one: its image's trees, and the folders that it would see here.

Law: a folder is shown over there under the path that it has here, since environments and programs name it. What lies in the
system's own folders is not carried: a system of one's own is an image (`debian_slim`, `from_registry`).
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from remora.errors import PlaceError, RemoraError
from remora.resources import SandboxSpec

from ..images import transfer
from ..images.fitting import Fitting
from ..images.store import Store
from ..images.transfer import Shelf
from ..opening import Opening
from ..view import in_system
from . import libraries
from .folders import Folders, Skip
from .naming import naming

_LOG = logging.getLogger(__name__)
_PIECE = 1 << 16
_DULL = ("test", "idlelib", "tkinter", "turtledemo", "lib2to3")
"""What of a Python's own standard library no sandbox has a use for."""


@dataclass(frozen=True)
class Wanted:
    """A sandbox for which luggage is wanted."""

    spec: SandboxSpec
    fitting: Fitting
    """As it is here."""
    opening: Opening


@dataclass(frozen=True)
class Luggage:
    """Trees to be sent, and where they are shown."""

    fitting: Fitting
    """As it is here."""
    places: Mapping[str, str]
    """Path → digest of the tree that is seen there."""
    libraries: str
    """The digest of the tree with the interpreter's shared libraries; empty if it brings its own."""
    shelves: Mapping[str, Shelf]
    """Where each tree can be read."""
    farms: str
    """The folder of all farms here."""

    def is_same(self, other: Luggage) -> bool:
        """Say whether nothing else would be sent, and nothing be seen elsewhere."""
        return (self.places, self.libraries, [*self.shelves]) == (other.places, other.libraries, [*other.shelves])

    def fitting_for(self, farms: str) -> Fitting:
        """Return the fitting for a machine whose farms are in that folder."""
        fitting, own = self.fitting, f"{self.farms}/"

        def there(paths: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(f"{farms}/{path.removeprefix(own)}" if path.startswith(own) else path for path in paths)

        return replace(
            fitting,
            folders=there(fitting.folders),
            programs=there(fitting.programs),
            layers=there(fitting.layers),
            shown=(farms,),
            roots=(),
            inside=fitting.inside or os.path.realpath(fitting.executable),
            libraries=f"{farms}/{self.libraries}" if self.libraries else "",
            places=tuple((path, f"{farms}/{tree}") for path, tree in self.places.items()),
            trees=tuple(self.shelves),
        )

    def send(self, sock: socket.socket, trees: list[str], machine: str) -> None:
        """Send these trees to the store of a machine of this name, at the socket's other end; blocks. Raises Unavailable."""
        with naming(machine), sock, sock.makefile("rb") as reader, sock.makefile("wb", buffering=0) as writer:
            for tree in trees:
                transfer.send(self.shelves[tree], tree, reader, writer, lambda: select.select([sock], [], [], 0)[0])


def receive(store: Store, sock: socket.socket) -> None:
    """Take trees in and make them real, until the other side of the socket has no more; blocks."""
    with sock.makefile("rb") as reader, sock.makefile("wb") as writer:
        while reader.peek(1):
            try:
                transfer.receive(store, reader, writer, system=True, real=True)
            except RemoraError as error:
                _LOG.warning("a tree was not taken: %s", error)
                while reader.read(_PIECE):  # it was told, and stops when it hears of it
                    pass


def packed(spec: SandboxSpec, fitting: Fitting, root: Path, folders: Folders) -> Luggage:
    """Find what has to go along; `root` has the images of this machine. Raises PlaceError for what cannot go. Blocks."""
    store = Store(root)
    farms = str(root / "farms")
    trees: dict[str, Shelf] = dict.fromkeys((*fitting.trees, *map(os.path.basename, fitting.layers)), store)
    places: dict[str, str] = {}
    bare = "" if fitting.inside else os.path.realpath(fitting.executable)
    if bare and in_system(bare):
        raise PlaceError(
            f"the kernel's Python {bare} belongs to this machine's system and cannot be sent elsewhere; use an environment "
            "made by uv, conda or pyenv, or image=remora.Image.debian_slim()",
            reason="image-failed",
        )
    guest = str(Path(spec.image["guest"]).parents[2])
    wanted = [path for path in dict.fromkeys((*fitting.shown, *fitting.roots, guest)) if path != farms and os.path.isdir(path)]
    for path in wanted:
        if not in_system(path) and not any(_below(path, other) for other in wanted if other != path):
            tree = folders.tree(Path(path), _skip_of(path, bare, fitting.folders))
            places[path], trees[tree.digest] = tree.digest, folders
    needed = _libraries(folders, bare, fitting.version)
    trees |= dict.fromkeys(needed, folders)
    folders.keep()
    return Luggage(fitting, places, "".join(needed), trees, farms)


def _libraries(folders: Folders, python: str, version: str) -> list[str]:
    """Return the digest of the tree of what an interpreter of this machine needs, if there is one."""
    if not python:
        return []
    modules = Path(python).parents[1] / "lib" / f"python{version}" / "lib-dynload"
    return [folders.gathered(libraries.needed(Path(python), modules)).digest]


def _below(path: str, other: str) -> bool:
    return path.startswith(other.rstrip("/") + "/")


def _skip_of(folder: str, python: str, imported: tuple[str, ...]) -> Skip:
    """Return what of a folder stays here: of a Python, what nobody imports."""
    base = _below(python, folder)

    def skip(path: str) -> bool:
        if not base:
            return path == ".git"
        if path.endswith("/site-packages"):
            return f"{folder}/{path}" not in imported
        return path.endswith(".a") or (path.startswith("lib/python") and path.partition("/")[2].partition("/")[2] in _DULL)

    return skip
