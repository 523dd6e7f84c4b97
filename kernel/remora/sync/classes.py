"""Classes that exist in the notebook alone: taken apart once, the same class again wherever they come back to.

Law: a skeleton that exists before its contents (so that methods may refer to the class), then contents, which are applied
only when they are newer than what the receiver has. Library metaclasses run, the notebook's own metaclasses and
`__init_subclass__` do not run a second time. Sending side and receiving side of one format stand together here.
"""

from __future__ import annotations

import abc
import enum
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

from remora.sync.registry import REGISTRY

# What Python makes by itself for every class, or sets through the skeleton.
OWN = frozenset({"__dict__", "__weakref__", "__module__", "__slots__", "__orig_bases__", "__classcell__"})
CACHES = frozenset({"__slotnames__", "__annotations_cache__", "_abc_impl"})
ENUM_OWN = frozenset({"_ignore_", "_missing_", "_generate_next_value_", "_order_"})
MEMBER_OWN = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
MADE_BY_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)

_muting = threading.RLock()
_applied: list[type] = []


def skeleton_of(cls: type) -> tuple[Any, ...]:
    """Return what `make_class` needs besides the id: metaclass, name, bases, first namespace, members of an Enum."""
    first = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    for name in ("__slots__", "__orig_bases__"):
        if name in vars(cls):
            first[name] = vars(cls)[name]
    members = None
    if isinstance(cls, enum.EnumMeta):
        members = {name: member.value for name, member in _members(cls)}
    return type(cls), cls.__name__, cls.__bases__, first, members


def contents_of(cls: type) -> dict[str, Any]:
    """Return what `set_class` gives a class, in a stable order."""
    names = sorted(name for name in vars(cls) if _travels(cls, name))
    state: dict[str, Any] = {"attributes": {name: vars(cls)[name] for name in names}}
    if isinstance(cls, abc.ABCMeta):
        state["registered"] = sorted(_virtual_subclasses(cls), key=lambda sub: sub.__qualname__)
    if isinstance(cls, enum.EnumMeta):
        state["members"] = {name: _member_state(member) for name, member in _members(cls)}
    return state


def _members(cls: Any) -> list[tuple[str, Any]]:
    return list(cls.__members__.items())


def _travels(cls: type, name: str) -> bool:
    if name in OWN or name in CACHES:
        return False
    if isinstance(cls, enum.EnumMeta) and (name in cls.__members__ or _made_by_enum(cls, name)):
        return False
    value = vars(cls)[name]
    if name == "__annotations__" and not value:
        return False  # Python makes an empty one when it is asked for
    return not (isinstance(value, MADE_BY_SLOTS) and getattr(value, "__objclass__", None) is cls)


def _made_by_enum(cls: type, name: str) -> bool:
    sunder = name.startswith("_") and name.endswith("_") and not name.startswith("__")
    return (sunder and name not in ENUM_OWN) or name in ("__new__", "__new_member__")


def _member_state(member: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if name not in MEMBER_OWN}


def _virtual_subclasses(cls: Any) -> list[type]:
    inner = import_module("_abc")  # what the module abc is made on; it alone lists them
    return [reference() for reference in inner._get_dump(cls)[0] if reference() is not None]


def find_class(identity: str, digest: bytes = b"") -> type:
    """Return a class that is known by its id; only marks refer to classes this way."""
    del digest
    found: Any = REGISTRY.find(identity)
    return cast(type, found)


def make_class(identity: str, meta: type, name: str, bases: tuple[type, ...], first: dict[str, Any], members: Any) -> type:
    """Return the class of an id, made empty if it was never here."""
    known = REGISTRY.find(identity)
    if known is not None:
        return cast(type, known)
    with _muted(bases):
        made = _build_enum(meta, name, bases, first, members) if members is not None else _build(meta, name, bases, first)
    REGISTRY.adopt(made, identity)
    return made


def _build(meta: type, name: str, bases: tuple[type, ...], first: dict[str, Any]) -> type:
    # The notebook's own metaclasses have done their work where the class was made; a library's must see the class.
    maker = next(base for base in meta.__mro__ if not REGISTRY.knows(base))
    if maker.__name__ == "_TypedDictMeta":
        maker = type
    if maker is meta:
        namespace = dict(meta.__prepare__(name, bases))
        namespace.update(first)
        return cast(type, meta(name, bases, namespace))
    return maker.__new__(meta, name, bases, dict(first))


def _build_enum(meta: Any, name: str, bases: tuple[type, ...], first: dict[str, Any], members: dict[str, Any]) -> type:
    namespace = meta.__prepare__(name, bases)
    for key, value in (first | members).items():
        namespace[key] = value
    maker = next(base for base in meta.__mro__ if not REGISTRY.knows(base))
    return cast(type, maker.__new__(meta, name, bases, namespace))


@contextmanager
def _muted(bases: tuple[type, ...]) -> Iterator[None]:
    """Keep `__init_subclass__` of notebook classes from running again while a class is made."""
    owners = {cls for base in bases for cls in base.__mro__ if REGISTRY.knows(cls) and "__init_subclass__" in vars(cls)}
    with _muting:
        kept = {cls: vars(cls)["__init_subclass__"] for cls in owners}
        try:
            for cls in owners:
                type.__setattr__(cls, "__init_subclass__", classmethod(lambda cls, **options: None))
            yield
        finally:
            for cls, original in kept.items():
                type.__setattr__(cls, "__init_subclass__", original)


def set_class(cls: type, state: dict[str, Any]) -> None:
    """Give a class its contents, unless what is here is as new."""
    record = REGISTRY.record(cls)
    if state["revision"] <= record.revision:
        return
    record.revision = state["revision"]
    attributes = state["attributes"]
    for name in [name for name in vars(cls) if name not in attributes and _travels(cls, name)]:
        type.__delattr__(cls, name)
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    for registered in state.get("registered", ()):
        cast(abc.ABCMeta, cls).register(registered)
    for name, values in state.get("members", {}).items():
        cast(Any, cls).__members__[name].__dict__.update(values)
    _applied.append(cls)


def take_applied() -> list[type]:
    """Return the classes whose contents were applied since the last call."""
    taken = _applied[:]
    _applied.clear()
    return taken
