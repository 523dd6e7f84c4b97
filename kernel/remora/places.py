"""Where a function runs: the sandbox that its options and this process ask for, and which modules that sandbox can import.

Law: looks at this process (environment, folder, imported modules) and starts nothing. A module of the project goes by reference
where the sandbox can import it, since its folder is there, and by value where it cannot.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import lru_cache
from types import ModuleType

from . import images, specs
from .options import CellOptions
from .resources import SandboxSpec
from .sync.receiving import loose_names


def spec(options: CellOptions) -> SandboxSpec:
    """Return the sandbox for a function with these options: this environment, this folder, the code as it is on disk now."""
    shared = None if options.files == "none" else os.getcwd()
    image = specs.recipe(options, _image(tuple(sys.path), os.getcwd()))
    return specs.spec(options, image.to_spec() | {"code": _stamp(shared)})


def loose_modules(files: str) -> frozenset[str]:
    """Return the imported modules that a sandbox cannot import, so that what is defined in them goes by value."""
    shared = None if files == "none" else os.getcwd()
    return _project(len(sys.modules), tuple(sys.path), shared)[0] | loose_names()


@lru_cache(maxsize=4)
def _image(path: tuple[str, ...], folder: str) -> images.Image:
    del path, folder  # they only say when to look again
    return images.Image()


def _stamp(shared: str | None) -> int:
    """Return when code that sandboxes import was last changed: those that have imported it as it was before are not for us."""
    newest = 0
    for file in _project(len(sys.modules), tuple(sys.path), shared)[1]:
        try:
            newest = max(newest, os.stat(file).st_mtime_ns)
        except OSError:
            continue  # removed meanwhile; importing it there says so
    return newest


@lru_cache(maxsize=4)
def _project(count: int, path: tuple[str, ...], shared: str | None) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the names of loose modules, and the files of those that sandboxes import from the project."""
    del count, path  # they only say when to look again
    loose, files = set(), []
    for name, module in list(sys.modules.items()):
        file = _file(module)
        if file is None or name == "__main__" or file.startswith(_environment()):
            continue
        if any(_found_below(entry, name, file) for entry in _entries(shared)):
            files.append(file)
        else:
            loose.add(name)
    return frozenset(loose), tuple(files)


def _file(module: ModuleType) -> str | None:
    """Return the source file of a module that was imported from one."""
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    return origin if isinstance(origin, str) and origin.endswith(".py") else None


@lru_cache(maxsize=1)
def _environment() -> tuple[str, ...]:
    """Return the folders of the Python environment, which every sandbox has."""
    paths = sysconfig.get_paths()
    known = {sys.prefix, sys.base_prefix, *(paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")), "/usr"}
    sites = (p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages"))
    return tuple(f"{os.path.abspath(p)}{os.sep}" for p in (*known, *sites))


def _entries(shared: str | None) -> list[str]:
    """Return the folders of the project that a sandbox sees and imports from."""
    never = {"/", "/tmp", "/var/tmp", "/home", os.path.expanduser("~")}
    here = {os.path.abspath(entry) for entry in sys.path}
    return [p for p in here if p not in never and (p != os.getcwd() or shared is not None)]


def _found_below(entry: str, name: str, file: str) -> bool:
    stem = os.path.join(entry, *name.split("."))
    return file in (f"{stem}.py", os.path.join(stem, "__init__.py"))
