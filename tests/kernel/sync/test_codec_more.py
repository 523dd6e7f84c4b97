"""Less common things that notebooks hold: each is made in one process, carried over, checked there, and checked again at home."""

from __future__ import annotations

import pytest
from peer import Peer, carry

CASES: dict[str, tuple[str, str]] = {
    "context manager": (
        "import contextlib\n@contextlib.contextmanager\ndef x():\n    yield 5",
        "x().__enter__() == 5",
    ),
    "singledispatch": (
        "import functools\n@functools.singledispatch\ndef x(a): return 'any'\n@x.register\ndef _(a: int): return 'int'",
        "x(1) == 'int' and x('a') == 'any'",
    ),
    "nested classes": (
        "class A:\n    class B:\n        v = 1\n    def make(self): return self.B()\nx = A()",
        "x.make().v == 1 and type(x.make()).__qualname__ == 'A.B'",
    ),
    "dataclass inheritance": (
        "import dataclasses as d\n@d.dataclass\nclass A:\n    a: int = 1\n@d.dataclass\nclass B(A):\n    b: int = 2\nx = B()",
        "(x.a, x.b) == (1, 2) and x == type(x)() and repr(x) == 'B(a=1, b=2)'",
    ),
    "dataclass with post init": (
        "import dataclasses as d\n@d.dataclass\nclass A:\n    a: d.InitVar[int]\n    b: int = d.field(init=False)\n"
        "    def __post_init__(self, a): self.b = a + 1\nx = A(1)",
        "x.b == 2 and type(x)(5).b == 6",
    ),
    "generic dataclass": (
        "import dataclasses as d, typing as t\nT = t.TypeVar('T', bound=int)\n@d.dataclass\n"
        "class A(t.Generic[T]):\n    v: T\nx = A(1)",
        "x.v == 1 and type(x).__parameters__[0].__bound__ is int",
    ),
    "descriptor with a name": (
        "class D:\n    def __set_name__(self, owner, name): self.name = name\n"
        "    def __get__(self, obj, kind): return self.name\n"
        "class A: field = D()\nx = A()",
        "x.field == 'field'",
    ),
    "class decorator": (
        "def mark(cls):\n    cls.marked = True\n    return cls\n@mark\nclass A: pass\nx = A()",
        "x.marked",
    ),
    "multiple inheritance": (
        "class A:\n    def f(self): return ['A']\nclass B(A):\n    def f(self): return ['B', *super().f()]\n"
        "class C(A):\n    def f(self): return ['C', *super().f()]\nclass D(B, C): pass\nx = D()",
        "x.f() == ['B', 'C', 'A']",
    ),
    "operators": (
        "class V:\n    def __init__(self, a): self.a = a\n    def __add__(self, o): return V(self.a + o.a)\n"
        "    def __eq__(self, o): return self.a == o.a\n"
        "    __hash__ = None\nx = V(1)",
        "(x + x).a == 2 and x == type(x)(1) and type(x).__hash__ is None",
    ),
    "getattr magic": (
        "class A:\n    def __getattr__(self, name):\n"
        "        if name.startswith('__'): raise AttributeError(name)\n        return name\nx = A()",
        "x.anything == 'anything'",
    ),
    "reduce of its own": (
        "class A:\n    def __init__(self, a): self.a = a\n    def __reduce__(self): return A, (self.a + 1,)\nx = A(1)",
        "x.a >= 2",
    ),
    "singleton by new": (
        "class A:\n    one = None\n    def __new__(cls):\n        cls.one = cls.one or super().__new__(cls)\n"
        "        return cls.one\nx = A()",
        "type(x)() is x",
    ),
    "abstract property": (
        "import abc\nclass A(abc.ABC):\n    @property\n    @abc.abstractmethod\n    def p(self): ...\n"
        "class B(A):\n    p = 3\nx = [A, B()]",
        "x[1].p == 3 and x[0].__abstractmethods__ == {'p'}",
    ),
    "enum with its own new": (
        "import enum\nclass E(enum.Enum):\n    A = ('a', 1)\n    def __new__(cls, text, weight):\n"
        "        made = object.__new__(cls)\n"
        "        made._value_, made.weight = text, weight\n        return made\nx = E.A",
        "x.weight == 1 and x.value == 'a' and x is type(x)('a')",
    ),
    "enum with auto and missing": (
        "import enum\nclass E(enum.Enum):\n    A = enum.auto()\n    B = enum.auto()\n    @classmethod\n"
        "    def _missing_(cls, value): return cls.B\nx = E",
        "x.A.value == 1 and x('nothing') is x.B",
    ),
    "new type": ("import typing\nx = typing.NewType('UserId', int)", "x(3) == 3 and x.__name__ == 'UserId'"),
    "generic alias": ("x = [list[int], dict[str, 'A'], int | None]", "x[0].__args__ == (int,) and x[2] == (int | None)"),
    "async generator function": (
        "async def x():\n    yield 1",
        "__import__('asyncio').run(x().__anext__()) == 1",
    ),
    "default that is changed": ("def x(a, seen=[]):\n    seen.append(a)\n    return seen\nx(1)", "x(2)[0] == 1"),
    "function attribute cycle": ("def x(): return x.me\nx.me = x", "x() is x"),
    "closure over class": (
        "def make():\n    class A: v = 1\n    def f(): return A().v\n    return f, A\nx = make()",
        "x[0]() == 1 and isinstance(x[1](), x[1])",
    ),
    "two closures over one list": (
        "def make():\n    kept = []\n    return kept.append, lambda: kept\nx = make()",
        "x[0](7) is None and x[1]()[-1] == 7",
    ),
    "partial method": (
        "import functools\nclass A:\n    def f(self, a, b): return a - b\n    g = functools.partialmethod(f, b=1)\nx = A()",
        "x.g(3) == 2",
    ),
    "total ordering": (
        "import functools\n@functools.total_ordering\nclass A:\n    def __init__(self, v): self.v = v\n"
        "    def __eq__(self, o): return self.v == o.v\n"
        "    def __lt__(self, o): return self.v < o.v\nx = [A(2), A(1)]",
        "x[0] >= x[1] and sorted(x)[0].v == 1",
    ),
    "cached method": (
        "import functools\nclass A:\n    @functools.lru_cache\n    def f(self, a): return a + 1\nx = A()",
        "x.f(1) == 2 and type(x).f.cache_info().misses >= 1",
    ),
    "queue and barrier parts": ("import queue\nx = queue.Queue()\nx.put(1)", "x.put(2) is None and x.queue[-1] == 2"),
    "exception group of a kind": (
        "class Bad(Exception):\n    def __init__(self, *, code): self.code = code\nx = [Bad(code=3)]",
        "x[0].code == 3",
    ),
    "exception with slots": (
        "class Bad(Exception):\n    __slots__ = ('code',)\nx = Bad('t')\nx.code = 4",
        "x.code == 4 and x.args == ('t',)",
    ),
    "array in an object and beside it": (
        "import numpy as np\nclass A: pass\na = A()\na.w = np.zeros(5000)\nx = {'a': a, 'w': a.w}",
        "x['a'].w is x['w']",
    ),
    "structured view": (
        "import numpy as np\nt = np.zeros(2000, dtype=[('p', 'f8'), ('q', 'i4')])\nx = [t, t['p']]",
        "x[0].__setitem__(3, (7.0, 1)) is None and x[1][3] == 7",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_arrives_and_comes_home_right(name: str, pair: tuple[Peer, Peer]) -> None:
    """The check holds after one way, and here again after the way back."""
    here, there = pair
    source, check = CASES[name]
    here.run(source)
    assert carry(here, there, "x") == {}
    assert there.value(f"bool({check})")
    assert carry(there, here, "x") == {}
    assert here.value(f"bool({check})")
