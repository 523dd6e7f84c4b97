"""How what came back is bound: a variable that was changed in place stays the same object here too, where that is possible.

Law: names that were bound anew are bound anew. An object that was changed in place takes over the new contents, so that all who
hold it see them; where it cannot, every name that was bound to it is bound to its successor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from remora.sync.aliases import nodes


def bind(
    values: Mapping[str, object], namespace: dict[str, Any], *, mutated: Collection[str] = (), deletes: Iterable[str] = ()
) -> None:
    """Bind values to their names, and remove the names to be deleted."""
    for name in deletes:
        namespace.pop(name, None)
    before = dict(namespace)
    namespace.update(values)
    for name in sorted(set(mutated) & values.keys() & before.keys()):
        _keep_identity(before[name], values[name], values, namespace)


def _keep_identity(old: Any, new: Any, values: Mapping[str, object], namespace: dict[str, Any]) -> None:
    take_over = _way(old, new)
    if take_over is not None and id(new) in nodes([value for value in values.values() if value is not new], namespace):
        take_over = None  # others hold the successor itself
    if take_over is not None:
        take_over()
    stays, goes = (new, old) if take_over is None else (old, new)
    for name in [name for name, value in namespace.items() if value is goes]:
        namespace[name] = stays


def _way(old: Any, new: Any) -> Callable[[], object] | None:
    """Return what gives an object the contents of another of its type; None where that cannot be done safely."""
    kind = type(old)
    if kind is not type(new):
        return None
    if kind in (list, bytearray):
        return lambda: old.__setitem__(slice(None), new)
    if kind in (dict, set):
        return lambda: (old.clear(), old.update(new))
    if kind.__name__ == "ndarray" and _same_layout(old, new):
        return lambda: old.__setitem__(..., new)
    if _plain(kind):
        return lambda: (vars(old).clear(), vars(old).update(vars(new)))
    return None


def _same_layout(old: Any, new: Any) -> bool:
    return bool(old.flags.writeable and old.shape == new.shape and old.dtype == new.dtype and not old.dtype.hasobject)


def _plain(kind: type) -> bool:
    """Tell whether instances keep all that they are in their `__dict__`."""
    bases = [base for base in kind.__mro__ if base is not object]
    custom = {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__slots__", "__getnewargs__", "__getnewargs_ex__"}
    python_made = all(base.__flags__ & (1 << 9) for base in bases)
    return python_made and all(custom.isdisjoint(vars(base)) for base in bases)
