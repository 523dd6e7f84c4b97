"""Exotic builtin types through dill's savers, one type at a time: dill says how to take it apart, our pickler does it.

Law: dill is imported on first need and its hooks into the standard `pickle` are taken out again, unless the user imported it
himself. A saver that writes bytes by itself instead of naming a constructor is not used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

# What dill does in a way of its own that we do differently or refuse.
NOT_THESE = frozenset({"function", "type", "module", "code", "cell", "dict", "method", "TextIOWrapper", "FileIO"})


class _WroteError(Exception):
    """A saver wrote to the stream instead of naming a constructor."""


class Capture:
    """Stands for dill's pickler towards one saver and keeps what it passes to `save_reduce`."""

    _byref = _recurse = _strictio = False
    _fmode = 0
    _session = False
    proto = 5

    def __init__(self) -> None:
        """Start with nothing captured."""
        self.reduced: tuple[Any, ...] | None = None
        self.memo: dict[int, Any] = {}
        self._postproc: dict[int, Any] = {}

    def save_reduce(self, func: Any, args: Any, state: Any = None, *items: Any, **rest: Any) -> None:
        """Keep the constructor, its arguments and its state."""
        listitems, dictitems = (*items, rest.get("listitems"), rest.get("dictitems"))[:2]
        self.reduced = (func, args, state, listitems, dictitems, rest.get("state_setter"))

    def write(self, data: bytes) -> None:
        """Raise: the saver is of no use to us."""
        raise _WroteError

    def save(self, value: Any, **options: Any) -> None:
        """Raise: the saver is of no use to us."""
        raise _WroteError


def savers() -> dict[type, Callable[[Any, Any], None]]:
    """Return dill's savers by type, leaving the standard pickle as it was."""
    ours = "dill" not in sys.modules
    import dill

    if ours:
        dill.extend(False)
    found: dict[type, Callable[[Any, Any], None]] = dill._dill.Pickler.dispatch
    return found


def borrowed(kind: type) -> Callable[[Any, Any], Any] | None:
    """Return a reducer made of dill's saver for a builtin type, or None."""
    if kind.__flags__ & (1 << 9) or kind.__module__ in ("numpy", "pandas") or kind.__name__ in NOT_THESE:
        return None  # classes made by a class statement pickle by themselves
    saver = savers().get(kind)
    if saver is None or not saver.__module__.startswith("dill"):
        return None

    def reduce(packer: Any, value: Any) -> Any:
        del packer
        capture = Capture()
        try:
            saver(capture, value)
        except _WroteError:
            return NotImplemented
        return capture.reduced or NotImplemented

    return reduce
