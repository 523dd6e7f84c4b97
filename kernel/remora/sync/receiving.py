"""What a stream calls while it is unpickled: one constructor or setter for each kind of object that `reducers` takes apart.

Law: these names are part of the stream's format, so they are never renamed; functions bind to the namespace that is
receiving just now. Objects that may refer to themselves are made empty first and filled by a setter afterwards.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import linecache
import marshal
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class _Receiving(threading.local):
    namespace: dict[str, Any] | None = None


_receiving = _Receiving()


@contextmanager
def into(namespace: dict[str, Any]) -> Iterator[None]:
    """Bind what is unpickled inside to this namespace."""
    before, _receiving.namespace = _receiving.namespace, namespace
    try:
        yield
    finally:
        _receiving.namespace = before


def live_namespace() -> dict[str, Any]:
    """Return the namespace that is receiving."""
    return _receiving.namespace if _receiving.namespace is not None else {}


def make_code(data: bytes, filename: str, source: str | None) -> types.CodeType:
    """Rebuild a code object; its source goes to `linecache`, so that tracebacks and `inspect` show it."""
    if source is not None and filename not in linecache.cache:
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    code: types.CodeType = marshal.loads(data)
    return code


_loose: dict[str, dict[str, Any]] = {}
"""Globals of modules that cannot be imported here: as much of them as has arrived with functions."""


def loose_names() -> frozenset[str]:
    """Return the names of modules that are here only in part."""
    return frozenset(_loose)


def is_loose(scope: dict[str, Any]) -> bool:
    """Tell whether these are the globals of a module that is here only in part."""
    return _loose.get(str(scope.get("__name__"))) is scope


def _loose_scope(name: str) -> dict[str, Any]:
    """Return the globals of a module that only one side can import: its own where it is, else what has arrived of them."""
    module = sys.modules.get(name)
    if module is not None:
        return vars(module)
    return _loose.setdefault(name, {"__name__": name, "__builtins__": builtins})


def make_function(code: types.CodeType, name: str, closure: tuple[types.CellType, ...] | None, scope: Any) -> types.FunctionType:
    """Make a function without its state.

    `scope` is None for the live namespace, a module's name, the name of a loose module in a tuple, or a dictionary.
    """
    if scope is None:
        scope = live_namespace()
    elif isinstance(scope, tuple):
        scope = _loose_scope(*scope)
    elif isinstance(scope, str):
        scope = vars(importlib.import_module(scope))
    return types.FunctionType(code, scope, name, None, closure)


def set_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    """Give a function its defaults, annotations and attributes."""
    function.__dict__.update(state.pop("__dict__", {}))
    needs = state.pop("__globals__", None)
    if needs and is_loose(function.__globals__):
        function.__globals__.update(needs)
    for name, value in state.items():
        setattr(function, name, value)


def make_cell() -> types.CellType:
    """Make an empty closure cell."""
    return types.CellType()


def set_cell(cell: types.CellType, contents: tuple[Any, ...]) -> None:
    """Fill a closure cell; no contents leaves it empty."""
    if contents:
        cell.cell_contents = contents[0]


def set_dictionary(target: dict[Any, Any], items: dict[Any, Any]) -> None:
    """Fill a dictionary."""
    target.update(items)


def make_module(name: str) -> types.ModuleType:
    """Import a module by its name."""
    return importlib.import_module(name)


def make_loose_module(name: str) -> types.ModuleType:
    """Make a module that cannot be imported anywhere."""
    return types.ModuleType(name)


def set_module(module: types.ModuleType, items: dict[str, Any]) -> None:
    """Fill a module that cannot be imported anywhere."""
    vars(module).update(items)


def make_method(function: Callable[..., Any], owner: Any) -> types.MethodType:
    """Bind a function to its object."""
    return types.MethodType(function, owner)


def make_descriptor(owner: type, name: str) -> Any:
    """Return a slot wrapper, method or member of a class as the class holds it."""
    return vars(owner)[name]


def make_named(module: str, name: str) -> Any:
    """Return a module's attribute that does not pickle by itself, such as `dataclasses.MISSING`."""
    return getattr(importlib.import_module(module), name)


def make_cached(wrapped: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Wrap a function in an empty `lru_cache`."""
    return functools.lru_cache(maxsize, typed)(wrapped)


def set_attributes(target: Any, items: dict[str, Any]) -> None:
    """Update an object's `__dict__`."""
    vars(target).update(items)


def make_proxy(mapping: dict[Any, Any]) -> types.MappingProxyType[Any, Any]:
    """Make a read-only view of a dictionary."""
    return types.MappingProxyType(mapping)


class _Gone:
    """Stands for an object that had died before its weak reference travelled."""


def make_weak(target: Any) -> weakref.ReferenceType[Any]:
    """Make a weak reference; one whose target had died is dead here too."""
    return weakref.ref(_Gone() if target is None else target)


def make_lock() -> Any:
    """Make a free lock."""
    return threading.Lock()


def make_rlock() -> Any:
    """Make a free re-entrant lock."""
    return threading.RLock()


def make_exception(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Make an exception without running its class's `__init__`, whose arguments nobody knows."""
    made = kind.__new__(kind, *args)
    made.args = args
    return made


def set_exception(made: BaseException, state: dict[str, Any]) -> None:
    """Give an exception its attributes, notes and chain."""
    vars(made).update(state["attributes"])
    for name, value in state["members"].items():
        setattr(made, name, value)
    made.__cause__ = state["cause"]
    made.__context__ = state["context"]
    made.__suppress_context__ = state["suppress"]
