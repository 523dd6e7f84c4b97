"""Exceptions travel with type, arguments, attributes, notes and chain; tracebacks stay where they are.

Law: an exception's `__init__` never runs again, since its arguments are not known. One that reduces itself in its own way
(a library's `__reduce__`) keeps that way.
"""

from __future__ import annotations

import types
from typing import Any

from remora.sync import receiving

BULKY = frozenset({"obj"})  # AttributeError.obj: the whole object that lacked an attribute


def reduce_exception(packer: Any, error: BaseException) -> Any:
    """Take an exception apart."""
    del packer
    kind = type(error)
    if _own_way(kind):
        return NotImplemented
    state = {
        "attributes": dict(vars(error)), "members": _members(error), "cause": error.__cause__,
        "context": error.__context__, "suppress": error.__suppress_context__,
    }  # fmt: skip
    return receiving.make_exception, (kind, error.args), state, None, None, receiving.set_exception


def _own_way(kind: type) -> bool:
    for name in ("__reduce__", "__reduce_ex__", "__getstate__"):
        owner = next(base for base in kind.__mro__ if name in vars(base) or base is object)
        if owner.__module__ != "builtins":
            return True
    return False


def _members(error: BaseException) -> dict[str, Any]:
    """Return what builtin exceptions keep outside their `__dict__`, such as `OSError.filename`."""
    found = {}
    for base in type(error).__mro__:
        for name, value in vars(base).items() if base.__module__ == "builtins" else ():
            if isinstance(value, types.MemberDescriptorType) and not name.startswith("__") and name not in BULKY:
                found[name] = getattr(error, name, None)
    return {name: value for name, value in found.items() if value is not None and name not in ("characters_written", "exceptions", "message")}
