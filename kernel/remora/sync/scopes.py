"""Small questions to a cell's syntax tree and symbol tables, asked by `flow`.

Law: pure; scoping rules come from `symtable`, with one rule of our own: a class body that binds a name may still read the global.
"""

from __future__ import annotations

import ast
import symtable

COMPREHENSIONS: dict[type, str] = {
    ast.ListComp: "listcomp", ast.SetComp: "setcomp", ast.DictComp: "dictcomp", ast.GeneratorExp: "genexpr",
}  # fmt: skip


def is_shell(node: ast.AST) -> bool:
    """Tell whether an expression is IPython's shell."""
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython"
    return called or (isinstance(node, ast.Name) and node.id == "ip")


def swallows(node: ast.AST) -> bool:
    """Tell whether a context manager may swallow an exception of its body."""
    names = {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node)}
    return any(word in name for name in names for word in ("suppress", "raises"))


def index(table: symtable.SymbolTable, into: dict[tuple[str, int], list[symtable.SymbolTable]]) -> None:
    """Collect all nested symbol tables by name and line."""
    for child in table.get_children():
        into.setdefault((child.get_name(), child.get_lineno()), []).append(child)
        index(child, into)


def globals_of(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Return the globals that a scope, with those inside it, reads and declares to write."""
    in_class = table.get_type() == "class"
    reads, writes = set(), set()
    for symbol in table.get_symbols():
        name = symbol.get_name()
        if symbol.is_referenced() and (symbol.is_global() or (in_class and symbol.is_assigned())):
            reads.add(name)
        if symbol.is_declared_global() and (symbol.is_assigned() or symbol.is_imported()):
            writes.add(name)
    for child in table.get_children():
        more_reads, more_writes = globals_of(child)
        reads |= more_reads
        writes |= more_writes
    return reads, writes
