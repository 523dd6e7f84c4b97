"""What a local name is bound to when its value cannot come home: it says where the value lives and cannot be mistaken for it.

Law: knows a name, a type and a short text, never the value; every use but printing and naming raises `SendError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from remora.errors import SendError

REPR_LIMIT = 1024  # characters
OPERATORS = (
    "call", "getitem", "setitem", "delitem", "len", "iter", "next", "contains", "bool", "int", "float", "complex", "index",
    "enter", "exit", "await", "aiter", "anext", "add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "matmul",
    "rmatmul", "imatmul", "truediv", "rtruediv", "itruediv", "floordiv", "rfloordiv", "ifloordiv", "mod", "rmod", "imod",
    "divmod", "rdivmod", "pow", "rpow", "ipow", "lshift", "rlshift", "rshift", "rrshift", "and", "rand", "iand", "or", "ror",
    "ior", "xor", "rxor", "ixor", "neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil", "lt", "le", "gt", "ge",
    "eq", "ne", "reversed", "array", "array_ufunc", "fspath", "bytes", "buffer",
)  # fmt: skip


class RemoteValue:
    """Stands for a value that stays in a session's sandbox."""

    __slots__ = ("__weakref__", "_remora_facts")
    __hash__ = object.__hash__

    def __init__(self, name: str, type_name: str, text: str, session: str, why: str = "") -> None:
        """Keep the variable's name, its type, a short text of it, its session, and why it stays there."""
        object.__setattr__(self, "_remora_facts", (name, type_name, text[:REPR_LIMIT], session, why))

    def __repr__(self) -> str:
        """Return one line that says where the value is."""
        name, kind, text, session, _ = facts_of(self)
        line = " ".join(text.split())
        shown = line if len(line) <= 120 else line[:117] + "..."
        return f"<{name}: {kind} in sandbox {session!r}: {shown}>"

    def __getattr__(self, attribute: str) -> Any:
        """Raise SendError; names that only inspectors ask for are missing instead."""
        special = attribute.startswith("__") and attribute.endswith("__")
        if special or attribute.startswith(("_repr_", "_ipython_")):
            raise AttributeError(attribute)
        _refuse(self)

    def __setattr__(self, attribute: str, value: Any) -> None:
        """Raise SendError."""
        _refuse(self)

    def __delattr__(self, attribute: str) -> None:
        """Raise SendError."""
        _refuse(self)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Raise SendError: inside another value it cannot go back to where it lives."""
        _refuse(self)


def facts_of(value: RemoteValue) -> tuple[str, str, str, str, str]:
    """Return name, type name, short text, session, and why the value stays there."""
    facts: tuple[str, str, str, str, str] = object.__getattribute__(value, "_remora_facts")
    return facts


def lives_in(value: object) -> str | None:
    """Return the session whose sandbox holds a value, None for a value that is here."""
    return facts_of(value)[3] if type(value) is RemoteValue else None


def _refuse(value: RemoteValue) -> NoReturn:
    name, kind, _, session, why = facts_of(value)
    because = f" ({why})" if why else ""
    where = f"lives in sandbox {session!r} and could not come here{because}"
    what = "use it in remote cells of that session"
    text = f"{name} ({kind}) {where}; {what}"
    raise SendError(text, reason="remote-only", name=name, session=session, type=kind, why=f"it {where}", instead=what)


def _operator(name: str) -> Callable[..., Any]:
    def refuse(self: RemoteValue, *operands: Any) -> Any:
        _refuse(self)

    refuse.__name__ = refuse.__qualname__ = f"__{name}__"
    return refuse


for _name in OPERATORS:
    setattr(RemoteValue, f"__{_name}__", _operator(_name))
type.__setattr__(RemoteValue, "__hash__", object.__hash__)  # comparing refuses, keeping it in a set does not
