"""The shared libraries that a Python needs beside the C library, so that it runs on a machine that lacks some of them."""

from __future__ import annotations

from pathlib import Path

from .settling import elf

_OF_EVERY_MACHINE = ("ld-", "libc.", "libm.", "libdl.", "libpthread.", "librt.", "libresolv.", "libutil.", "libnsl.", "libmvec.")
"""What belongs to the loader, and has to fit it."""


def needed(python: Path, modules: Path) -> dict[str, Path]:
    """Return the libraries that an interpreter and the compiled modules of its standard library need: name → file. Blocks."""
    loader = elf.loader_of(python)
    if loader is None:
        return {}
    found: dict[str, Path] = {}
    for file in (python, *sorted(modules.glob("[!_]*.so")), *sorted(modules.glob("_[!t]*.so"))):  # all but _tkinter and _test…
        found |= elf.libraries(loader, file) or {}
    return {name: place for name, place in sorted(found.items()) if not name.startswith(_OF_EVERY_MACHINE)}
