"""What the text of a cell says about the names that it reads, binds and deletes."""

from __future__ import annotations

import builtins

import pytest
from remora.sync import analyse, function_reads, hidden

# cell -> reads, writes, deletes (builtins left out)
CELLS: dict[str, tuple[str, str, str]] = {
    "x = a + 1": ("a", "x", ""),
    "x = 1\nprint(x)": ("", "x", ""),
    "x += 1": ("x", "x", ""),
    "x.append(1)": ("x", "", ""),
    "x[0] = y": ("x y", "", ""),
    "x.a = y": ("x y", "", ""),
    "a, (b, *c) = v": ("v", "a b c", ""),
    "(n := len(v)) > 2 and n": ("v", "n", ""),
    "a and (b := 1)\nb": ("a b", "b", ""),
    "(b := 1) if a else 2\nb": ("a b", "b", ""),
    "0 < a < (b := 3)\nb": ("a b", "b", ""),
    "[y * z for y in ys if y > w]": ("ys z w", "", ""),
    "{k: v for k, v in d.items()}": ("d", "", ""),
    "[[i + j + q for j in r[i]] for i in r]": ("r q", "", ""),
    "[last := i for i in v]": ("v", "last", ""),
    "sum(i for i in v)": ("v", "", ""),
    "for i in v: t += i": ("v t", "i t", ""),
    "for i in v: pass\ni": ("v i", "i", ""),
    "while n: n -= 1": ("n", "n", ""),
    "if a: b = 1\nelse: b = 2\nb": ("a", "b", ""),
    "if a: b = 1\nb": ("a b", "b", ""),
    "try:\n    import a\nexcept ImportError:\n    a = None\na": ("", "a", ""),
    "try:\n    a = f()\nexcept E as e:\n    print(e)\nfinally:\n    g()\na": ("f E g a", "a", ""),
    "with o(p) as f: d = f.read()\nd": ("o p", "f d", ""),
    "import contextlib\nwith contextlib.suppress(E): d = f()\nd": ("E f d", "contextlib d", ""),
    "match v:\n    case {'a': b, **r}: print(b)\n    case [c, *d] if c > q: pass\n    case P(x=y): y\n"
    "    case _: b": ("v q P b", "b r c d y", ""),
    "def f(a, b=q, *c: ann, **k): return a + b + g": ("q ann g", "f", ""),
    "def f(n): return f(n - 1)": ("", "f", ""),
    "@dec(arg)\ndef f(): pass": ("dec arg", "f", ""),
    "def f():\n    global g\n    g = h": ("h", "f g", ""),
    "def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = y\n    return g": ("y", "f", ""),
    "lambda q=d: q + w": ("d w", "", ""),
    "class C(B, metaclass=M):\n    a = b\n    def f(self): return c": ("B M b c", "C", ""),
    "class C:\n    x = x": ("x", "C", ""),
    "def f():\n    class C:\n        x = x\n    return C": ("x", "f", ""),
    "async def f():\n    async with a as b: return [c async for c in b]": ("a", "f", ""),
    "r = await f(x)": ("f x", "r", ""),
    "[y async for y in g()]": ("g", "", ""),
    "f'{a!r:>{w}} {b.c}'": ("a w b", "", ""),
    "x: T": ("T", "", ""),
    "x: T = v": ("T v", "x", ""),
    "import a.b as c, d.e\nfrom f import g as h": ("", "c d h", ""),
    "del a, b[0]": ("a b", "", "a"),
    "a = 1\ndel a": ("", "a", "a"),
    "x = (": ("", "", ""),
    "": ("", "", ""),
    "# only a comment": ("", "", ""),
    "%time z = f(k)": ("f k", "z", ""),
    "z = %time f(k)": ("f k", "z", ""),
    "%timeit -n 3 f(k)": ("f k", "", ""),
    "%%time\nz = f(k)": ("f k", "z", ""),
    "%%timeit -n 3 s = a\nq(s)": ("a q", "", ""),
    "%%capture out --no-stderr\nprint(v)": ("v", "out", ""),
    "%%time\n%%capture out\nz = v": ("v", "out z", ""),
    "!ls $d {x.y} $$HOME '{z[0]}'": ("d x z", "", ""),
    "files = !ls $d": ("d", "files", ""),
    "for f in fs:\n    !cat $f {g}": ("fs g", "f", ""),
    "!awk '{ print $1 ' $name": ("name", "", ""),
    "%%bash --out res\necho $x": ("", "res", ""),
    "%cd $folder": ("folder", "", ""),
    "v?": ("v", "", ""),
    "v.method??": ("v", "", ""),
    "%pip list": ("", "", ""),
    "%xdel v": ("v", "", "v"),
    "%%writefile x.py\na = b": ("", "", ""),
}  # fmt: skip

HIDES = [
    "exec(s)", "eval('a')", "globals()['a']", "vars()['a']", "locals()", "from m import *", "%run a.py", "import __main__",
    "get_ipython().user_ns['a']", "%unknown_magic a", "%%unknown_magic\na", "def f(): exec(s)", "[eval(c) for c in cs]",
    "%reset -f", "def f(): return get_ipython().user_ns",
]  # fmt: skip


def _plain(names: frozenset[str]) -> set[str]:
    return {name for name in names if not hasattr(builtins, name)}


@pytest.mark.parametrize("cell", CELLS)
def test_names_of_a_cell(cell: str) -> None:
    """Reads, writes and deletes are what a reader of the cell would say."""
    names = analyse(cell)
    reads, writes, deletes = (set(words.split()) for words in CELLS[cell])
    assert _plain(names.reads) - {"get_ipython"} == reads
    assert names.writes == writes
    assert names.deletes == deletes
    assert not names.dynamic


@pytest.mark.parametrize("cell", HIDES)
def test_cells_that_hide_their_names(cell: str) -> None:
    """A cell that may touch names its text does not show says so."""
    assert analyse(cell).dynamic


def test_an_overridden_builtin_is_a_read() -> None:
    """The user's own `sum` must travel, so builtins are listed too."""
    assert "sum" in analyse("sum(v)").reads


def test_reads_of_a_function() -> None:
    """Globals of a function, its nested functions and classes, and no attributes."""
    code = """
def outer(a):
    class Inner:
        value = class_level
        def get(self):
            return deep.attribute
    return [item + comprehended for item in a], Inner
"""
    namespace: dict = {}
    exec(code, namespace)
    outer = namespace["outer"]
    assert function_reads(outer) >= {"class_level", "deep", "comprehended"}
    assert not {"attribute", "a", "item", "Inner"} & function_reads(outer)


@pytest.mark.parametrize("name", ["In", "Out", "_", "___", "_i", "_12", "_i3", "_oh", "get_ipython", "exit", "quit", "__name__"])
def test_hidden_names(name: str) -> None:
    """IPython's and Python's own names are hidden."""
    assert hidden(name)


@pytest.mark.parametrize("name", ["_helper", "__private", "i", "_x1", "_ipython", "In2"])
def test_names_of_the_user_are_not_hidden(name: str) -> None:
    """A leading underscore alone does not make a name IPython's."""
    assert not hidden(name)


def test_analysis_runs_nothing() -> None:
    """The text is read, not run."""
    assert analyse("raise SystemExit").reads == {"SystemExit"}
