"""One walk over the text of a cell in the order of evaluation, which knows what is certainly bound so far.

Law: only the walk; what the names mean for sync is said in `names`. A nested scope is taken from `symtable`, not re-implemented.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from remora.sync.magics import effect_of
from remora.sync.scopes import COMPREHENSIONS, globals_of, index, is_shell, swallows

DYNAMIC = frozenset({"exec", "eval", "globals", "locals", "vars", "__main__"})
SHELL_STATE = frozenset({"user_ns", "user_global_ns", "ex", "ev", "push", "run_cell", "run_code", "run_cell_async"})
NESTED = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def transformed(code: str) -> str:
    """Return plain Python for the text of an IPython cell; raises SyntaxError."""
    from IPython.core.inputtransformer2 import TransformerManager

    manager: Any = TransformerManager  # untyped
    return str(manager().transform_cell(code))


class Flow(ast.NodeVisitor):
    """One walk over a cell in the order of evaluation, which knows what is certainly bound so far."""

    def __init__(self) -> None:
        """Start with nothing bound."""
        self.bound: set[str] = set()
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        self.deletes: set[str] = set()
        self.dynamic = False
        self._scopes: dict[tuple[str, int], list[symtable.SymbolTable]] = {}

    def text(self, code: str) -> None:
        """Walk over plain Python text; raises SyntaxError."""
        tree = ast.parse(code)
        outer, self._scopes = self._scopes, {}
        index(symtable.symtable(code, "<cell>", "exec"), self._scopes)
        self.statements(tree.body)
        self._scopes = outer

    def statements(self, body: Iterable[ast.AST]) -> None:
        """Walk over nodes in their order."""
        for node in body:
            self.visit(node)

    @contextmanager
    def maybe(self) -> Iterator[set[str]]:
        """Walk over something that may not run: what it binds is written, but not certainly bound afterwards."""
        before = set(self.bound)
        inside: set[str] = set()
        yield inside
        inside |= self.bound
        self.bound = before

    def branches(self, *bodies: Iterable[ast.AST]) -> None:
        """Walk over branches of which exactly one runs to its end; what all of them bind is bound."""
        ends = []
        for body in bodies:
            nodes = list(body)
            with self.maybe() as inside:
                self.statements(nodes)
            if not (nodes and isinstance(nodes[-1], (ast.Raise, ast.Return))):
                ends.append(inside)
        if ends:
            self.bound |= set.intersection(*ends)

    def read(self, names: Iterable[str]) -> None:
        """Note names that are read here."""
        names = set(names)
        self.dynamic = self.dynamic or not DYNAMIC.isdisjoint(names)
        self.reads |= names - self.bound

    def write(self, names: Iterable[str]) -> None:
        """Note names that are bound here."""
        self.writes |= set(names)
        self.bound |= set(names)

    def visit_Name(self, node: ast.Name) -> None:
        """Read, bind or delete a name."""
        if isinstance(node.ctx, ast.Store):
            self.write([node.id])
            return
        self.read([node.id])
        if isinstance(node.ctx, ast.Del):
            self.deletes.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Read the object; IPython's own state makes the cell dynamic."""
        self.dynamic = self.dynamic or (node.attr in SHELL_STATE and is_shell(node.value))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Follow calls of IPython's machinery, which the input transformer makes of magics and shell lines."""
        if not (isinstance(node.func, ast.Attribute) and is_shell(node.func.value)):
            self.generic_visit(node)
            return
        words = (argument.value for argument in node.args if isinstance(argument, ast.Constant))
        self._magic(node.func.attr, tuple(word for word in words if isinstance(word, str)))

    def _magic(self, method: str, words: tuple[str, ...]) -> None:
        effect = effect_of(method, words)
        self.read(effect.reads)
        for code in effect.code:
            self._inner(code)
        for code in effect.isolated:
            writes = set(self.writes)
            with self.maybe():
                self._inner(code)
            self.writes = writes
        self.write(effect.writes)
        self.read(effect.deletes)
        self.deletes |= effect.deletes
        self.dynamic = self.dynamic or effect.dynamic

    def _inner(self, code: str) -> None:
        try:
            self.text(transformed(code))
        except SyntaxError:
            self.dynamic = True  # a magic may understand what Python does not

    def visit_Assign(self, node: ast.Assign) -> None:
        """Read the value before the targets are bound."""
        self.visit(node.value)
        self.statements(node.targets)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Read the target too."""
        if isinstance(node.target, ast.Name):
            self.read([node.target.id])
        self.visit(node.value)
        self.visit(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Read annotation and value; without a value nothing is bound."""
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)
        elif not isinstance(node.target, ast.Name):
            self.visit(node.target)

    def visit_Import(self, node: ast.Import) -> None:
        """Bind the modules' first names or their aliases."""
        self.write([item.asname or item.name.split(".")[0] for item in node.names])
        self.dynamic = self.dynamic or any(item.name == "__main__" for item in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Bind what is imported; a star binds names that the text does not show."""
        self.write([item.asname or item.name for item in node.names if item.name != "*"])
        self.dynamic = self.dynamic or any(item.name == "*" for item in node.names)
        if node.module == "__main__":
            self.read(item.name for item in node.names)

    def visit_If(self, node: ast.If) -> None:
        """Bind what both branches bind."""
        self.visit(node.test)
        self.branches(node.body, node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Bind what both branches bind."""
        self.visit(node.test)
        self.branches([node.body], [node.orelse])

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Bind only what the first operand binds."""
        self.visit(node.values[0])
        with self.maybe():
            self.statements(node.values[1:])

    def visit_Compare(self, node: ast.Compare) -> None:
        """Bind only what the first comparison binds."""
        self.statements([node.left, node.comparators[0]])
        with self.maybe():
            self.statements(node.comparators[1:])

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        """Bind the target for the body, nothing afterwards: there may be no turn."""
        self.visit(node.iter)
        with self.maybe():
            self.visit(node.target)
            self.statements(node.body)
        with self.maybe():
            self.statements(node.orelse)

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        """Bind what the test binds, nothing afterwards: there may be no turn."""
        self.visit(node.test)
        for body in (node.body, node.orelse):
            with self.maybe():
                self.statements(body)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        """Bind the targets; the body may be left early by an exception that the manager swallows."""
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self.visit(item.optional_vars)
        with self.maybe() as inside:
            self.statements(node.body)
        if not any(swallows(item.context_expr) for item in node.items):
            self.bound |= inside

    visit_AsyncWith = visit_With

    def visit_Try(self, node: ast.Try) -> None:
        """Bind what the body and every handler bind."""
        self.branches([*node.body, *node.orelse], *([handler] for handler in node.handlers))
        self.statements(node.finalbody)

    def visit_TryStar(self, node: Any) -> None:
        """Bind what the body and every handler bind."""
        self.visit_Try(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """Bind the exception's name inside the handler, where Python deletes it at the end."""
        if node.type is not None:
            self.visit(node.type)
        fresh = {node.name} - self.bound if node.name else set()
        if node.name:
            self.bound.add(node.name)
        self.statements(node.body)
        self.bound -= fresh

    def visit_Match(self, node: ast.Match) -> None:
        """Bind captures inside their case."""
        self.visit(node.subject)
        for case in node.cases:
            with self.maybe():
                self.visit(case)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        """Bind a capture."""
        self.generic_visit(node)
        self.write([node.name] if node.name else [])

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        """Bind the rest of a sequence."""
        self.write([node.name] if node.name else [])

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        """Bind the rest of a mapping."""
        self.generic_visit(node)
        self.write([node.rest] if node.rest else [])

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Read decorators, defaults and annotations now; the body's globals when it is called, its own name bound by then."""
        self.statements(node.decorator_list)
        self.visit(node.args)
        if node.returns is not None:
            self.visit(node.returns)
        if not node.decorator_list:
            self.write([node.name])
        self._scope(node.name, node.lineno)
        self._dynamic_inside(node)
        self.write([node.name])

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Read decorators, bases and what the body reads, which runs now."""
        self.statements([*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)])
        self._scope(node.name, node.lineno)
        self._dynamic_inside(node)
        self.write([node.name])

    def visit_arg(self, node: ast.arg) -> None:
        """Read the annotation; the argument's name is the function's own."""
        if node.annotation is not None:
            self.visit(node.annotation)

    def generic_visit(self, node: ast.AST) -> None:
        """Treat lambdas and comprehensions as the scopes that they are, all else by its children."""
        if isinstance(node, NESTED):
            self._nested(node)
        else:
            super().generic_visit(node)

    def _nested(self, node: Any) -> None:
        name = "lambda" if isinstance(node, ast.Lambda) else COMPREHENSIONS[type(node)]
        if isinstance(node, ast.Lambda):
            self.visit(node.args)
        else:
            self.visit(node.generators[0].iter)
        self._scope(name, node.lineno)
        self._dynamic_inside(node)

    def _scope(self, name: str, line: int) -> None:
        # A table is found by name and line; two of one line are both taken, which can only add names.
        for table in self._scopes.get((name, line), []):
            reads, writes = globals_of(table)
            self.read(reads)
            self.writes |= writes

    def _dynamic_inside(self, node: ast.AST) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute) and inner.attr in SHELL_STATE and is_shell(inner.value):
                self.dynamic = True
