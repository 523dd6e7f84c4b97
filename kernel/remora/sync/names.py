"""Which global names a cell or a function touches, found from its text or bytecode alone, without running it.

Law: reads may be a superset of what is really read, never less (but for what is named `dynamic`); writes and deletes are hints.
A name that the cell certainly binds before its first use is not a read. Standard library, and IPython's input transformer
inside a function.
"""

from __future__ import annotations

import dis
import re
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType

from remora.sync.flow import DYNAMIC, Flow, transformed

__all__ = ["DYNAMIC", "CellNames", "analyse", "code_reads", "function_reads", "hidden"]
HIDDEN = frozenset({"In", "Out", "get_ipython", "exit", "quit", "_ih", "_oh", "_dh", "_exit_code", "_sh", "open"})
HISTORY = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|__\w+__")


@dataclass(frozen=True)
class CellNames:
    """What a cell reads before it binds it, what it binds and deletes, and whether it may touch names its text does not show."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    deletes: frozenset[str] = frozenset()
    dynamic: bool = False


def hidden(name: str) -> bool:
    """Tell whether a name belongs to IPython or Python and travels only when the user names it himself."""
    return name in HIDDEN or HISTORY.fullmatch(name) is not None


@lru_cache(maxsize=256)
def analyse(code: str) -> CellNames:
    """Return the names that the text of an IPython cell touches; a cell with a syntax error touches none."""
    flow = Flow()
    try:
        flow.text(transformed(code))
    except (SyntaxError, ValueError, RecursionError):
        return CellNames()
    return CellNames(frozenset(flow.reads), frozenset(flow.writes), frozenset(flow.deletes), flow.dynamic)


def function_reads(function: FunctionType) -> frozenset[str]:
    """Return the global names that a function uses, its nested functions and classes included."""
    return code_reads(function.__code__)


@lru_cache(maxsize=4096)
def code_reads(code: CodeType) -> frozenset[str]:
    """Return the global names that a code object uses, with those of the code objects inside it."""
    found = {step.argval for step in dis.get_instructions(code) if _by_name(step.opname)}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= code_reads(constant)
    return frozenset(name for name in found if isinstance(name, str)) - {"__name__", "__module__", "__qualname__"}


def _by_name(opname: str) -> bool:
    # The last two are how class bodies inside functions read names.
    return opname.endswith(("_GLOBAL", "_NAME")) or opname in ("LOAD_FROM_DICT_OR_GLOBALS", "LOAD_CLASSDEREF")
