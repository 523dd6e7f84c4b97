"""Which variables share something that can change, so that they have to travel together to go on sharing it.

Law: looks and never changes or keeps; what cannot change (numbers, text, classes, values that hash by their content) links
nothing. Walks in batches at the speed of `gc.get_referents`.
"""

from __future__ import annotations

import enum
import gc
import types
from collections.abc import Iterable, Mapping, Set
from typing import Any

from remora.sync.arrays import root_of

ATOMS = (int, float, complex, str, bytes, bool, type(None), range, slice, types.CodeType, types.BuiltinFunctionType)
CLOSED = (type, types.ModuleType, enum.Enum)  # nothing behind these is the variable's own
THROUGH = (tuple, frozenset, types.FunctionType, types.MethodType, types.MappingProxyType, property, staticmethod, classmethod)
CONTAINERS = (list, dict, set, bytearray, types.CellType)


def linked(moving: Iterable[str], others: Iterable[str], namespace: Mapping[str, Any]) -> set[str]:
    """Return those of `others` that share a changeable object with `moving`, or with one that does."""
    rest = list(others)
    reached = nodes([namespace[name] for name in moving], namespace) if rest else set()
    apart: dict[str, set[int]] = {}
    found: set[str] = set()
    for name in rest if reached else ():
        own = nodes([namespace[name]], namespace, reached)
        if own.isdisjoint(reached):
            apart[name] = own
        else:
            found.add(name)
            reached |= own
    while near := [name for name, own in apart.items() if not own.isdisjoint(reached)]:
        for name in near:
            reached |= apart.pop(name)
        found.update(near)
    return found


def nodes(values: Iterable[Any], namespace: Mapping[str, Any], known: Set[int] = frozenset()) -> set[int]:
    """Return the ids of all changeable objects that the values lead to, but for those behind known ones."""
    found: set[int] = set()
    seen: set[int] = {id(namespace)}
    layer = list(values)
    while layer:
        fresh = []
        for item in layer:
            kind = type(item)
            if kind in ATOMS or id(item) in seen:
                continue
            seen.add(id(item))
            if isinstance(item, CLOSED):
                continue
            if kind.__name__ == "ndarray":
                item = root_of(item)
            if _changes(item):
                found.add(id(item))
            if id(item) not in known:
                fresh.append(item)
        layer = [inner for item in fresh if type(item) is types.FunctionType for inner in _function_parts(item)]
        layer += gc.get_referents(*(item for item in fresh if type(item) is not types.FunctionType))
        layer += [inner for item in fresh if _holds_objects(item) for inner in item.flat]
    return found


def _changes(value: Any) -> bool:
    if isinstance(value, CONTAINERS):
        return True
    kind = type(value)
    own_hash: Any = kind.__hash__
    by_content = own_hash not in (None, object.__hash__)
    return not isinstance(value, THROUGH) and not by_content


def _function_parts(function: types.FunctionType) -> list[Any]:
    return [function.__closure__, function.__defaults__, function.__kwdefaults__, function.__dict__ or None]


def _holds_objects(value: Any) -> bool:
    return type(value).__name__ == "ndarray" and type(value).__module__ == "numpy" and value.dtype.hasobject
