"""How each kind of object that pickle does not know, or does not know well, is taken apart: one table, one look-up a type.

Law: a reducer takes (packer, object) and returns what `reducer_override` may return. It never opens, closes or changes the
object. What a module offers under its own name goes by name; what the notebook made goes by value, bound to the receiver's
live namespace. Extended by adding a row.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import linecache
import marshal
import sys
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any

from remora.sync import arrays, classes, exceptions, receiving, refusals, tensors
from remora.sync.borrowed import borrowed
from remora.sync.names import code_reads
from remora.sync.registry import REGISTRY

Reducer = Callable[[Any, Any], Any]
FUNCTION_STATE = ("__defaults__", "__kwdefaults__", "__doc__", "__annotations__", "__type_params__")
# marshal's bytes depend on reference counts, so that they are made once for each code object.
_marshalled: dict[int, tuple[weakref.ref[Any], bytes]] = {}


def by_name(packer: Any, thing: Any, module: str | None, qualname: str) -> bool:
    """Tell whether the receiver finds the same thing under its name in a module that it can import."""
    owner: Any = sys.modules.get(module or "")
    if owner is None or module in packer.homes or module in packer.loose:
        return False
    if vars(owner) is packer.namespace or getattr(owner, "__spec__", None) is None:
        return False
    for part in qualname.split("."):
        owner = getattr(owner, part, None)
    return owner is thing


def reduce_function(packer: Any, function: types.FunctionType) -> Any:
    """Send a module's function by name, any other by its code."""
    if by_name(packer, function, function.__module__, function.__qualname__):
        return NotImplemented
    scope, state = _scope(packer, function.__globals__), _function_state(function)
    if scope is None:
        packer.deps |= code_reads(function.__code__)
    elif function.__globals__.get("__name__") in packer.loose:
        state["__globals__"] = _needs(function)
    return (
        receiving.make_function, (function.__code__, function.__name__, function.__closure__, scope),
        state, None, None, receiving.set_function,
    )  # fmt: skip


def _needs(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function of a loose module uses of it."""
    scope = function.__globals__
    return {name: scope[name] for name in sorted(code_reads(function.__code__)) if name in scope}


def _function_state(function: types.FunctionType) -> dict[str, Any]:
    state: dict[str, Any] = {"__qualname__": function.__qualname__, "__module__": function.__module__}
    for name in FUNCTION_STATE:
        try:
            value = getattr(function, name, None)
        except NameError:
            continue  # annotations that Python evaluates when they are asked for, and that name nothing
        if value:
            state[name] = value
    if function.__dict__:
        state["__dict__"] = dict(function.__dict__)
    return state


def _scope(packer: Any, scope: dict[str, Any]) -> Any:
    """Return how a function's globals travel: None for the notebook's, a module's name, a loose one's in a tuple, or a copy."""
    name = scope.get("__name__")
    if scope is packer.namespace or (name == "__main__" and scope is vars(sys.modules["__main__"])):
        return None
    if name in packer.loose or receiving.is_loose(scope):
        return (name,)
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is not None and vars(module) is scope and module.__spec__ is not None:
        return name
    return packer.box(scope)


class Box:
    """Stands for a dictionary of globals that belongs to no module, without Python's builtins in it."""

    def __init__(self, scope: dict[str, Any]) -> None:
        """Keep the dictionary."""
        self.scope = scope


def reduce_box(packer: Any, box: Box) -> Any:
    """Send the dictionary itself, filled after the functions that live in it."""
    del packer
    items = {name: value for name, value in box.scope.items() if name != "__builtins__"}
    return dict, (), items, None, None, receiving.set_dictionary


def reduce_code(packer: Any, code: types.CodeType) -> Any:
    """Send bytecode; its source goes along where no file holds it."""
    source = None if packer.marking else _source(code.co_filename)
    packer.bytecode = True
    return receiving.make_code, (_bytecode(code), code.co_filename, source)


def _source(filename: str) -> str | None:
    entry = linecache.cache.get(filename)
    # An entry without a time of change was not read from a file: IPython put it there for a cell.
    return "".join(entry[2]) if entry is not None and len(entry) == 4 and entry[1] is None else None


def _bytecode(code: types.CodeType) -> bytes:
    known = _marshalled.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    number = id(code)
    data = marshal.dumps(code)
    _marshalled[number] = (weakref.ref(code, lambda _: _marshalled.pop(number, None)), data)
    return data


def reduce_cell(packer: Any, cell: types.CellType) -> Any:
    """Send a closure's cell so that closures that shared it share it again."""
    del packer
    try:
        contents: tuple[Any, ...] = (cell.cell_contents,)
    except ValueError:
        contents = ()
    return receiving.make_cell, (), contents, None, None, receiving.set_cell


def reduce_class(packer: Any, cls: type) -> Any:
    """Send a module's class by name, a class of the notebook by its contents."""
    if cls.__module__ == "builtins" or by_name(packer, cls, cls.__module__, cls.__qualname__):
        return NotImplemented
    if packer.marking:
        packer.met.append(cls)
        return classes.find_class, (REGISTRY.record(cls).id,)
    record = REGISTRY.revise(cls, packer.digest(cls))
    state = classes.contents_of(cls) | {"revision": record.revision}
    return classes.make_class, (record.id, *classes.skeleton_of(cls)), state, None, None, classes.set_class


def reduce_module(packer: Any, module: types.ModuleType) -> Any:
    """Send a module by name; one that cannot be imported anywhere by its contents."""
    if module.__name__ in packer.homes:
        return receiving.make_module, ("__main__",)
    known = sys.modules.get(module.__name__) is module and module.__name__ not in packer.loose
    if known and module.__spec__ is not None:
        return receiving.make_module, (module.__name__,)
    items = {name: value for name, value in vars(module).items() if name not in ("__builtins__", "__loader__", "__spec__")}
    return receiving.make_loose_module, (module.__name__,), items, None, None, receiving.set_module


def reduce_method(packer: Any, method: types.MethodType) -> Any:
    """Send a bound method as its function and its object."""
    del packer
    return receiving.make_method, (method.__func__, method.__self__)


def reduce_wrapper(packer: Any, wrapper: Any) -> Any:
    """Send a static or class method as what it wraps."""
    del packer
    return type(wrapper), (wrapper.__func__,)


def reduce_property(packer: Any, thing: property) -> Any:
    """Send a property as its functions."""
    del packer
    return type(thing), (thing.fget, thing.fset, thing.fdel, thing.__doc__)


def reduce_descriptor(packer: Any, thing: Any) -> Any:
    """Send a slot wrapper, method or member by the class that holds it."""
    del packer
    return receiving.make_descriptor, (thing.__objclass__, thing.__name__)


def reduce_cached(packer: Any, cached: Any) -> Any:
    """Send a function under `lru_cache` with an empty cache."""
    if by_name(packer, cached, getattr(cached, "__module__", None), getattr(cached, "__qualname__", "")):
        return NotImplemented
    options = cached.cache_parameters()
    attributes = {name: value for name, value in vars(cached).items() if name != "cache_parameters"}
    arguments = (cached.__wrapped__, options["maxsize"], options["typed"])
    return receiving.make_cached, arguments, attributes, None, None, receiving.set_attributes


def reduce_proxy(packer: Any, proxy: types.MappingProxyType[Any, Any]) -> Any:
    """Send a read-only view of a dictionary with a dictionary of its own."""
    del packer
    return receiving.make_proxy, (dict(proxy),)


def reduce_weak(packer: Any, reference: weakref.ReferenceType[Any]) -> Any:
    """Send a weak reference with its target."""
    del packer
    return receiving.make_weak, (reference(),)


def reduce_lock(packer: Any, lock: Any) -> Any:
    """Send a free lock as a new one."""
    refusals.check_free(packer, lock)
    return receiving.make_lock, ()


def reduce_rlock(packer: Any, lock: Any) -> Any:
    """Send a free re-entrant lock as a new one."""
    refusals.check_free(packer, lock)
    return receiving.make_rlock, ()


def reduce_named(packer: Any, thing: Any) -> Any:
    """Send one of the markers of `dataclasses` or `inspect` by its name, since it is compared by identity."""
    del packer
    module = sys.modules[type(thing).__module__]
    name = next((name for name, value in vars(module).items() if value is thing), None)
    return NotImplemented if name is None else (receiving.make_named, (module.__name__, name))


def reduce_typevar(packer: Any, variable: Any) -> Any:
    """Send a type variable of the notebook by value, the same one again for the same id."""
    if by_name(packer, variable, variable.__module__, variable.__name__):
        return NotImplemented
    options = {name: getattr(variable, f"__{name}__") for name in ("bound", "covariant", "contravariant")}
    return make_typevar, (REGISTRY.record(variable).id, variable.__name__, variable.__constraints__, options)


def make_typevar(identity: str, name: str, constraints: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return the type variable of an id."""
    known = REGISTRY.find(identity)
    if known is None:
        make: Any = typing.TypeVar  # mypy wants every type variable to be written down
        known = make(name, *constraints, **options)
        REGISTRY.adopt(known, identity)
    return known


def reduce_newtype(packer: Any, kind: Any) -> Any:
    """Send a `NewType` of the notebook by value."""
    if by_name(packer, kind, kind.__module__, kind.__qualname__):
        return NotImplemented
    return typing.NewType, (kind.__name__, kind.__supertype__)


TABLE: dict[type, Reducer | None] = {
    types.FunctionType: reduce_function, types.CodeType: reduce_code, types.CellType: reduce_cell, type: reduce_class,
    types.ModuleType: reduce_module, types.MethodType: reduce_method, staticmethod: reduce_wrapper, classmethod: reduce_wrapper,
    property: reduce_property, types.WrapperDescriptorType: reduce_descriptor, types.MethodDescriptorType: reduce_descriptor,
    types.ClassMethodDescriptorType: reduce_descriptor, types.GetSetDescriptorType: reduce_descriptor,
    types.MemberDescriptorType: reduce_descriptor, functools._lru_cache_wrapper: reduce_cached,
    types.MappingProxyType: reduce_proxy, weakref.ReferenceType: reduce_weak, Box: reduce_box,
    typing.TypeVar: reduce_typevar, typing.NewType: reduce_newtype,
    type(__import__("threading").Lock()): reduce_lock, type(__import__("threading").RLock()): reduce_rlock,
    type(dataclasses.MISSING): reduce_named, type(dataclasses.KW_ONLY): reduce_named,
    **{type(vars(dataclasses)[name]): reduce_named for name in ("_FIELD", "_HAS_DEFAULT_FACTORY")},
}  # fmt: skip
# Along the `__mro__`, by name, so that no library is imported for it.
FAMILIES: dict[tuple[str, str], Reducer] = {
    ("builtins", "type"): reduce_class,
    ("builtins", "BaseException"): exceptions.reduce_exception,
    ("torch", "Tensor"): tensors.reduce_tensor,
}
EXACT: dict[tuple[str, str], Reducer] = {
    ("numpy", "ndarray"): arrays.reduce_array,
    ("numpy", "memmap"): arrays.reduce_memmap,
}


def reducer_for(kind: type, borrows: bool = True) -> Reducer | None:
    """Return the reducer of a type that stands in no table row itself; None leaves it to pickle."""
    exact = EXACT.get((kind.__module__, kind.__qualname__))
    if exact is not None:
        return exact
    if refusals.is_refused(kind):
        return refusals.refuse_by_table
    for base in kind.__mro__:
        family = FAMILIES.get((base.__module__, base.__qualname__))
        if family is not None:
            return family
    if issubclass(kind, (staticmethod, classmethod, property)):
        return None if inspect.isabstract(kind) else TABLE[next(base for base in kind.__mro__ if base in TABLE)]
    return borrowed(kind) if borrows else None
