"""Exceptions travel with type, arguments, attributes, notes and chain; tracebacks stay where they are.

Law: an exception's `__init__` never runs again, since its arguments are not known. One that reduces itself in its own way
(a library's `__reduce__`) keeps that way.
"""

from __future__ import annotations

import types
from typing import Any

from remora.sync import receiving

# AttributeError.obj is the whole object that lacked an attribute; the others are made from the arguments.
LEFT_OUT = frozenset({"obj", "characters_written", "exceptions", "message"})


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
    """Return what an exception keeps outside its `__dict__`: slots, and members of C such as `OSError.filename`."""
    found: dict[str, Any] = {}
    for base in type(error).__mro__:
        names = {name for name, member in vars(base).items() if isinstance(member, types.MemberDescriptorType)}
        present = {name: getattr(error, name) for name in sorted(names - LEFT_OUT) if hasattr(error, name)}
        # C shows None for what is not set, and would print it if it were set.
        from_c = base.__module__ == "builtins"
        found |= {name: value for name, value in present.items() if not name.startswith("__") and not (from_c and value is None)}
    return found
