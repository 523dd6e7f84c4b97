"""What the two sides must have in common before anything is unpickled.

Law: plain values; a stream says what reading it needs, and whoever reads it looks before the first byte is interpreted. What does
no harm is passed over in silence, the rest is an error in one line with the names, both versions and what to do.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from remora.errors import SendError

_OURS = frozenset({"builtins", "__main__", "remora", *sys.stdlib_module_names})


def needs(kinds: Iterable[type], bytecode: bool) -> dict[str, Any]:
    """Return what reading a stream needs: of types in it their packages' versions, and for bytecode the kind of it."""
    tops = {str(getattr(kind, "__module__", "")).partition(".")[0] for kind in kinds if not _is_plain(kind)}
    versions = {top: version for top in sorted(tops - _OURS) if (version := _version(top))}
    magic = {"magic": importlib.util.MAGIC_NUMBER.hex()} if bytecode else {}
    return {"python": list(sys.version_info[:2]), "packages": versions} | magic


def check(needed: Mapping[str, Any]) -> None:
    """Raise SendError if a stream's bytecode or types are not for this side.

    Bytecode is for one minor version of Python alone; a package is held to read what its own major version (before 1.0 its minor
    version) has written, since libraries that promise something promise that.
    """
    here = needs((), bytecode=True)
    if needed.get("magic", here["magic"]) != here["magic"]:
        theirs, ours = (".".join(map(str, side.get("python", "?"))) for side in (needed, here))
        text = (
            f"Python {theirs} there and Python {ours} here: data can travel between them, functions and classes of the notebook"
        )
        text += f" cannot; use python={ours}"
        raise SendError(text, reason="python-mismatch", there=theirs, here=ours)
    for name, theirs in dict(needed.get("packages") or {}).items():
        own = _version(name)
        if own is not None and _generation(own) != _generation(theirs):
            text = f"{name} {theirs} there and {name} {own} here: what one has made may mean something else to the other"
            raise SendError(
                f'{text}; make them equal, with pip="{name}=={own}"', reason="package-mismatch", there=theirs, here=own
            )


def same_dill(packages: Mapping[str, str] | None) -> bool:
    """Tell whether what dill alone can rebuild may be sent; nothing known of the other side's packages says yes."""
    return packages is None or packages.get("dill") == _version("dill")


def _is_plain(kind: type) -> bool:
    """Tell whether a type is an array of plain numbers or a part of one: we send those in our own way, the same for all."""
    return kind.__module__ in ("numpy", "numpy.dtypes") and (
        kind.__module__ == "numpy.dtypes" or kind.__name__.partition("[")[0] in ("ndarray", "memmap", "dtype", "_DTypeMeta")
    )


def _version(top: str) -> str | None:
    """Return the version of the package with this module: of the one that is imported, else of the one that would be."""
    version = getattr(sys.modules.get(top), "__version__", None)
    return version if isinstance(version, str) else _installed(top)


@cache
def _installed(top: str) -> str | None:
    try:
        return importlib.metadata.version(top)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def _generation(version: str) -> tuple[str, ...]:
    numbers = re.findall(r"\d+", version)
    return tuple(numbers[:1] if numbers[:1] != ["0"] else numbers[:2])
