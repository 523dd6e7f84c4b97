"""`with image.imports():` lets code import what only the image has.

Law: a module that is missing here becomes a stand-in that travels as an import by name; using it here says where it is.
"""

from __future__ import annotations

import ast
import importlib
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any


class ModuleElsewhere(ModuleType):
    """Stands for a module, or for a name in one, that is not installed here."""

    def __init__(self, module: str, name: str = "") -> None:
        """Stand for the module, or for what `from module import name` gives."""
        super().__init__(module)
        self.__dict__["_elsewhere"] = (module, name)

    def __getattr__(self, attribute: str) -> Any:
        """Say that it is not here."""
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        module, name = self.__dict__["_elsewhere"]
        whole = f"{module}.{name}" if name else module
        raise ModuleNotFoundError(f"{whole} is in the image only; code that runs in a sandbox can use it", name=module)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as what it stands for."""
        return found_there, self.__dict__["_elsewhere"]

    def __repr__(self) -> str:
        """Name what it stands for."""
        return f"<{'.'.join(filter(None, self.__dict__['_elsewhere']))}, in the image only>"


def found_there(module: str, name: str = "") -> Any:
    """Return what a stand-in stands for, where it is installed; the stand-in where it is not."""
    try:
        found = importlib.import_module(module)
        if name and not hasattr(found, name):
            return importlib.import_module(f"{module}.{name}")
    except ImportError:
        return ModuleElsewhere(module, name)
    return getattr(found, name) if name else found


@contextmanager
def imports_elsewhere() -> Iterator[None]:
    """Pass over an ImportError of the block, and bind stand-ins to the names that its imports would have bound."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__") in (__name__, "contextlib", f"{__package__}.recipe"):
        assert frame.f_back is not None
        frame = frame.f_back
    try:
        yield
    except ImportError as error:
        for name, (module, attribute) in _bindings(frame, error).items():
            if name not in frame.f_globals:
                frame.f_globals[name] = found_there(module, attribute)


def _bindings(frame: FrameType, error: ImportError) -> dict[str, tuple[str, str]]:
    """Return what the imports of the block around the frame's line bind: name → module, and a name in it."""
    lines = linecache.getlines(frame.f_code.co_filename, frame.f_globals)
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:  # magics beside the block: without its source nothing can be stood in for
        raise error from None
    trace = error.__traceback__
    line = trace.tb_lineno if trace is not None and trace.tb_frame is frame else frame.f_lineno
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.With) and n.lineno <= line <= (n.end_lineno or n.lineno)]
    if not blocks:
        raise error
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(blocks[-1]):
        if isinstance(node, ast.Import):
            for item in node.names:
                top = item.name if item.asname else item.name.split(".")[0]
                found[item.asname or top] = (top, "")
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update((item.asname or item.name, (node.module, item.name)) for item in node.names)
    return found
