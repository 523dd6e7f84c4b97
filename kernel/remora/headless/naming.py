"""Which machines a notebook's remote cells name, so that its run may use them: as they are written, or by a parameter.

Law: pure; nothing of the notebook is run. What only its code can say is not found, and refused when it asks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import OptionError
from ..jupyter import header, options
from ..jupyter.kept import default_of
from .document import Notebook, declared

_NONE = ("", "here")
"""What names no machine elsewhere: nothing said, and this one."""


def machines(notebook: Notebook, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the machines elsewhere that remote cells name, in order; `given` are parameters, by name."""
    known = {one.name: _literal(one.default) for one in declared(notebook)} | dict(given)
    found = [default_of(notebook.metadata).on, *(name for line in _lines(notebook) for name in _named(line, known))]
    return tuple(name for name in dict.fromkeys(found) if name not in _NONE)


def _lines(notebook: Notebook) -> Iterator[str]:
    """Yield the options of each remote cell, and those that a line makes the default."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        head = header.split(cell.source)
        if head is not None and head.marker == "remote":
            yield head.line
        for line in cell.source.splitlines():
            words = line.split(None, 2)
            if words[:2] == ["%remote", "default"]:
                yield "".join(words[2:])


def _named(line: str, known: Mapping[str, Any]) -> Iterator[str]:
    try:
        name = options.value(line, "on", lambda expression: known[expression.strip()])
    except OptionError:  # the cell says so itself
        return
    if isinstance(name, str):
        yield name


def _literal(code: str) -> Any:
    try:
        return ast.literal_eval(code)
    except (ValueError, SyntaxError):
        return None
