"""Words of a command line as arguments of a function: by its signature and type hints.

Law: pure; whatever the function does not take is an OptionError that says what it takes.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import OptionError

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def arguments(function: Callable[..., Any], words: list[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and named arguments; OptionError for what the function does not take."""
    signature = inspect.signature(function)
    hints = _hints(function)
    args, kwargs = _split(words, signature, hints)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise OptionError(f"{function.__name__}{signature} cannot be called so: {error}") from None
    for name, value in bound.arguments.items():
        bound.arguments[name] = _read_all(name, value, hints.get(name, inspect.Parameter.empty))
    return bound.args, bound.kwargs


def _read_all(name: str, value: Any, kind: Any) -> Any:
    """Read one word, or all that a parameter such as *names or **options takes."""
    if isinstance(value, tuple):
        return tuple(read(name, one, kind) for one in value)
    if isinstance(value, dict):
        return {key: read(key, one, kind) for key, one in value.items()}
    return read(name, value, kind)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # annotations are expressions of the user's, and may raise anything
        return {}


def _split(words: list[str], signature: inspect.Signature, hints: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    args: list[str] = []
    kwargs: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return args + left, kwargs
        if not word.startswith("--"):
            args.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if equals:
            kwargs[name] = value
        elif _is_flag(name, signature, hints) and (not left or left[0].lower() not in _FLAGS):
            kwargs[name.removeprefix("no_") if name not in signature.parameters else name] = name in signature.parameters
        elif not left:
            raise OptionError(f"--{name} has no value; write --{name} VALUE")
        else:
            kwargs[name] = left.pop(0)
    return args, kwargs


def _is_flag(name: str, signature: inspect.Signature, hints: dict[str, Any]) -> bool:
    plain = name if name in signature.parameters else name.removeprefix("no_")
    return hints.get(plain) is bool or isinstance(getattr(signature.parameters.get(plain), "default", None), bool)


def read(name: str, value: Any, kind: Any) -> Any:
    """Return a word as the type that the function wants; without a type, by what it looks like."""
    if not isinstance(value, str):
        return value
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return _one_of(name, value, typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return _either(name, value, typing.get_args(kind))
    if origin in (list, tuple, dict, set) or kind in (list, tuple, dict, set):
        return _collection(name, value, kind)
    return _plain_value(name, value, kind)


def _plain_value(name: str, value: str, kind: Any) -> Any:
    if kind is inspect.Parameter.empty or kind is Any:
        from ..headless.parameters import typed

        return typed(value)
    if kind is bool:
        if value.lower() not in _FLAGS:
            raise OptionError(f"--{name} {value} is neither true nor false")
        return _FLAGS[value.lower()]
    if kind in (int, float, complex, Path):
        try:
            return kind(value)
        except ValueError:
            raise OptionError(f"--{name} {value} is no {kind.__name__}") from None
    return value


def _one_of(name: str, value: str, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if str(choice) == value:
            return choice
    raise OptionError(f"--{name} {value} is none of {', '.join(map(str, choices))}")


def _either(name: str, value: str, kinds: tuple[Any, ...]) -> Any:
    if type(None) in kinds and value in ("None", "none", ""):
        return None
    trouble: OptionError | None = None
    for kind in sorted((k for k in kinds if k is not type(None)), key=lambda k: k is str):
        try:
            return read(name, value, kind)
        except OptionError as error:
            trouble = error
    raise trouble or OptionError(f"--{name} {value} is not understood")


def _collection(name: str, value: str, kind: Any) -> Any:
    """Return a JSON value, or words with commas for a list."""
    origin = typing.get_origin(kind) or kind
    inner = next(iter(typing.get_args(kind)), inspect.Parameter.empty)
    try:
        found = json.loads(value)
    except ValueError:
        if origin is dict:
            raise OptionError(f"--{name} {value} is no JSON object; write it like '{{\"a\": 1}}'") from None
        found = [read(name, part.strip(), inner) for part in value.split(",")]
    if not isinstance(found, dict if origin is dict else list):
        found = [found]
    return origin(found)
