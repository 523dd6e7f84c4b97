"""A function as a script of its own: its source, with what it uses of its module, so that it means the same everywhere.

Law: text only, the same for the same function in whatever process; what cannot be written down as text is an error that names it.
"""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ..errors import OptionError


def script_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return a script that calls a function.

    Raises OptionError for what the function uses, or gets, that is no module, function or plain value.
    """
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType) or function.__closure__:
        raise OptionError(f"run_function takes a plain function that encloses nothing, not {function!r}")
    parts: dict[str, str] = {}
    _gather(function, parts)
    given = [_literal(value, f"argument {place}") for place, value in enumerate(args, 1)]
    given += [f"{name}={_literal(value, f'argument {name}')}" for name, value in kwargs.items()]
    return "\n\n".join([*parts.values(), f"{function.__name__}({', '.join(given)})"]) + "\n"


def _gather(function: FunctionType, parts: dict[str, str]) -> None:
    """Write down a function, behind what it uses."""
    name = function.__name__
    parts[name] = ""  # a function that calls itself is being written already
    for used in _globals(function.__code__):
        if used in parts or used not in function.__globals__:
            continue
        value = function.__globals__[used]
        if isinstance(value, ModuleType):
            parts[used] = f"import {value.__name__}" + ("" if value.__name__ == used else f" as {used}")
        elif isinstance(value, FunctionType) and value.__name__ == used and not value.__closure__:
            _gather(value, parts)
        else:
            parts[used] = f"{used} = {_literal(value, f'{used}, which {name} uses,')}"
    parts[name] = parts.pop(name) or _source(function)


def _globals(code: CodeType) -> Iterator[str]:
    yield from (step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals(constant)


def _source(function: FunctionType) -> str:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise OptionError(
            f"the source of {function.__name__} cannot be had ({error}); define it with def in a cell or file"
        ) from None
    (definition,) = tree.body
    if not isinstance(definition, ast.FunctionDef):
        raise OptionError(f"run_function takes a function that was defined with def, not {function.__name__}")
    definition.decorator_list = []
    return ast.unparse(definition)


def _literal(value: Any, what: str) -> str:
    text = repr(value)
    try:
        if ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise OptionError(f"{what} is a {type(value).__name__}; an image's function can use modules, functions and plain values")
