"""Why a variable cannot travel: the path to the part that is in the way, found after the fact over the same reductions.

Law: costs nothing while all goes well; breadth first, so that the shortest path is named; gives up after a bounded time and
then says what pickle said.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from remora.errors import SendError
from remora.sync import receiving
from remora.sync.packer import Explorer
from remora.sync.refusals import type_name

SECONDS = 5.0
ATOMS = (int, float, complex, str, bytes, bool, type(None), bytearray)
WAY_OUT = "create it inside the remote cell, leave {name!r} out with -i, or drop it in __getstate__"


def explain(name: str, value: object, error: Exception, *, namespace: dict[str, Any]) -> SendError:
    """Return the error for a variable: its path, type and reason, and what to do."""
    if isinstance(error, RecursionError):
        text = f"{name}: {type_name(type(value))} is nested too deeply to be sent; flatten it, for example into a list"
        return SendError(text, name=name, path=name, type=type_name(type(value)))
    path, kind, cause = _culprit(name, value, namespace) or (name, type_name(type(value)), error)
    facts = cause.facts if isinstance(cause, SendError) else {}
    why = facts.get("why") or _said(cause, kind)
    instead = facts.get("instead") or WAY_OUT.format(name=name)
    reason = f": {why}" if why else ""
    text = f"{path}: {kind} cannot be sent{reason}; {instead}"
    return SendError(text, name=name, path=path, type=kind, why=why, instead=instead)


def _said(error: Exception, kind: str) -> str:
    text = str(error).strip()
    obvious = text.startswith("cannot pickle") and kind.rpartition(".")[2] in text
    return "" if obvious else f"{type(error).__name__}: {text}" if text else type(error).__name__


def _culprit(name: str, value: object, namespace: dict[str, Any]) -> tuple[str, str, Exception] | None:
    packer = Explorer(io.BytesIO(), namespace, None)
    waiting: deque[tuple[str, Any]] = deque([(name, value)])
    seen: dict[int, Any] = {}
    end = time.monotonic() + SECONDS
    while waiting and time.monotonic() < end:
        path, part = waiting.popleft()
        if id(part) in seen or type(part) in ATOMS:
            continue
        seen[id(part)] = part  # kept alive, so that no other object gets its id
        try:
            inside = list(_parts(packer, part))
            if not inside:
                Explorer(io.BytesIO(), namespace, lambda buffer: None).dump(part)
        except Exception as error:  # whatever it raised when it was sent, it raises here again
            return path, type_name(type(part)), error
        waiting.extend((path + step, inner) for step, inner in inside)
    return None


def _parts(packer: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value is made of, with the step that leads there; raise what its reduction raises."""
    if isinstance(value, dict) and type(value) is dict:
        yield from _items(value.items())
    elif type(value) in (list, tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif type(value) in (set, frozenset):
        yield from ((".<item>", item) for item in value)
    else:
        yield from _reduced(value, _reduction(packer, value))


def _items(pairs: Any) -> Iterator[tuple[str, Any]]:
    for key, item in pairs:
        yield f"[{key!r:.60}]", item
        if type(key) not in ATOMS:
            yield ".<key>", key


def _reduction(packer: Any, value: Any) -> Any:
    reduced = packer.reducer_override(value)
    if reduced is not NotImplemented:
        return reduced
    return "" if isinstance(value, type) or _is_function(value) else value.__reduce_ex__(5)


def _is_function(value: Any) -> bool:
    return type(value).__name__ in ("function", "builtin_function_or_method") and getattr(value, "__self__", None) is None


def _reduced(value: Any, reduced: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(reduced, str):
        return
    whole: list[Any] = [*reduced, None, None, None]
    make, arguments, state, items, pairs = whole[:5]
    if make is receiving.make_function:
        yield from _function_parts(value, state)
        return
    yield from _state_parts(state)
    fields = getattr(value, "_fields", ())
    if fields and isinstance(value, tuple):
        yield from ((f".{field}", item) for field, item in zip(fields, value, strict=False))
        arguments = arguments[:1]
    yield from ((_argument_step(value, item), item) for item in arguments)
    yield from ((f"[{index}]", item) for index, item in enumerate(items or ()))
    yield from _items(pairs or ())


def _argument_step(value: Any, item: Any) -> str:
    return ".__class__" if item is type(value) else ".__func__" if item is getattr(value, "__func__", None) else ""


def _state_parts(state: Any) -> Iterator[tuple[str, Any]]:
    for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if isinstance(part, dict):
            inner = part.get("attributes") if "revision" in part else part
            yield from ((f".{name}", item) for name, item in (inner or part).items())
        elif part is not None:
            yield "", part


def _function_parts(function: Any, state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".<closure {name}>", cell.cell_contents
        except ValueError:
            continue
    defaults = function.__defaults__ or ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount][-len(defaults) :] if defaults else ()
    yield from ((f".<default {name}>", item) for name, item in zip(names, defaults, strict=False))
    yield from ((f".<default {name}>", item) for name, item in (function.__kwdefaults__ or {}).items())
    yield from ((f".{name}", item) for name, item in state.get("__dict__", {}).items())
    yield from ((f".<annotation {name}>", item) for name, item in state.get("__annotations__", {}).items())
