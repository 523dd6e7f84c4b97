"""What travels arrives right: each case is made in one process, checked there, carried over and checked in another."""

from __future__ import annotations

import pytest
from peer import Peer, carry

CASES: dict[str, tuple[str, str]] = {
    "numbers": ("x = [1, -2**70, 1.5, 2j, True, None, float('inf')]", "x == [1, -2**70, 1.5, 2j, True, None, float('inf')]"),
    "text": (
        "x = ['ä\\u2028\\U0001F40D', b'\\x00\\xff', bytearray(b'ab')]",
        "x[0][0] == 'ä' and x[1] == b'\\x00\\xff' and type(x[2]) is bytearray",
    ),
    "containers": (
        "x = {'a': (1, [2]), frozenset({3}): {4, 5}, None: range(3)}",
        "x == {'a': (1, [2]), frozenset({3}): {4, 5}, None: range(3)}",
    ),
    "singletons": (
        "x = [..., NotImplemented, int, type(None), slice(1, 2)]",
        "x == [..., NotImplemented, int, type(None), slice(1, 2)]",
    ),
    "collections": (
        "import collections as c\nx = [c.OrderedDict(b=1, a=2), c.deque([1], 3), c.Counter('aab'), c.defaultdict(list, a=[1])]",
        "x[0].popitem()[0] == 'a' and x[1].maxlen == 3 and x[2]['a'] == 2 and x[3]['z'] == []",
    ),
    "standard library values": (
        "import datetime, decimal, fractions, pathlib, re, uuid\n"
        "x = [datetime.date(2020, 1, 2), decimal.Decimal('1.10'), fractions.Fraction(1, 3), "
        "pathlib.PurePosixPath('/a'), re.compile('a+')]",
        "str(x[1]) == '1.10' and x[4].match('aaa') and x[0].year == 2020",
    ),
    "shared list": ("a = [1]\nx = {'p': a, 'q': a}", "x['p'] is x['q']"),
    "cycle": ("x = [1]\nx.append(x)", "x[1] is x"),
    "module": ("import os.path as x", "x.join('a', 'b') == 'a/b'"),
    "library function": ("from json import dumps as x", "x is __import__('json').dumps"),
    "library class": ("from collections import OrderedDict as x", "x is __import__('collections').OrderedDict"),
    "builtin function": ("x = [len, print, [].append, 'a,b'.split]", "x[0] is len and x[3](',') == ['a', 'b']"),
    "lambda": ("x = lambda a, b=2, *c, d=4: a + b + d", "x(1) == 7 and x.__defaults__ == (2,) and x.__kwdefaults__ == {'d': 4}"),
    "function with state": (
        "def x(a: int = 1) -> str:\n    'doc'\nx.mark = [1]",
        "x.__doc__ == 'doc' and x.mark == [1] and x.__annotations__ == {'a': int, 'return': str} and x.__module__ == '__main__'",
    ),
    "function uses functions": ("def low(n): return n + 1\ndef mid(n): return low(n) * 2\ndef x(n): return mid(n)", "x(1) == 4"),
    "recursion": ("def x(n): return 1 if n < 2 else n * x(n - 1)", "x(5) == 120"),
    "mutual recursion": ("def x(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and x(n - 1)", "x(10) and not x(7)"),
    "recursive closure": (
        "def make():\n    def x(n): return 1 if n < 2 else n * x(n - 1)\n    return x\nx = make()",
        "x(5) == 120",
    ),
    "shared cell": (
        "def make():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n    def get(): return n\n"
        "    return up, get\nx = make()",
        "(x[0](), x[0](), x[1]())[2] == 2",
    ),
    "empty cell": (
        "def make():\n    def f(): return later\n    if f is None: later = 1\n    return f\nx = make()",
        "x.__closure__[0] is not None",
    ),
    "live globals": (
        "y = 1\ndef x(): return y",
        "x() == 1 and globals().update(y=5) is None and x() == 5 and x.__globals__ is globals()",
    ),
    "global write": ("y = 1\ndef x():\n    global y\n    y = 7", "x() is None and y == 7"),
    "decorated": (
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def inner(*a): return f(*a) * 2\n"
        "    return inner\n@twice\ndef x(a): return a + 1",
        "x(1) == 4 and x.__name__ == 'x' and x.__wrapped__(1) == 2",
    ),
    "partial": ("import functools\ndef f(a, b): return a - b\nx = functools.partial(f, b=1)", "x(3) == 2"),
    "lru_cache": (
        "import functools\n@functools.lru_cache(maxsize=7)\ndef x(n): return n + 1",
        "x(1) == 2 and x.cache_info().maxsize == 7",
    ),
    "generator function": ("def x(n):\n    yield from range(n)", "list(x(3)) == [0, 1, 2]"),
    "coroutine function": ("async def x(): return 3", "__import__('asyncio').run(x()) == 3"),
    "function of a loose namespace": ("space = {'k': 3}\nexec('def f(): return k', space)\nx = space['f']", "x() == 3"),
    "source goes along": (
        "import linecache\ntext = 'def x():\\n    return 1\\n'\n"
        "linecache.cache['<cell 9>'] = (len(text), None, text.splitlines(True), '<cell 9>')\n"
        "exec(compile(text, '<cell 9>', 'exec'))",
        "__import__('inspect').getsource(x).endswith('return 1\\n')",
    ),
    "class": (
        "class x:\n    'doc'\n    n = [1]\n    def get(self): return self.n",
        "x().get() == [1] and x.__doc__ == 'doc' and x.__module__ == '__main__'",
    ),
    "instance": (
        "class C:\n    def __init__(self): self.a = 1\n    def up(self): return self.a + 1\nx = C()",
        "x.up() == 2 and type(x).__name__ == 'C'",
    ),
    "instances share class": ("class C: pass\nx = [C(), C()]", "type(x[0]) is type(x[1])"),
    "class with super": (
        "class A:\n    def f(self): return 1\nclass B(A):\n    def f(self): return super().f() + 1\nx = B()",
        "x.f() == 2 and type(x).__mro__[1].__name__ == 'A'",
    ),
    "class refers to itself": (
        "class C:\n    def same(self): return C()\nC.one = C()\nx = C",
        "type(x().same()) is x and type(x.one) is x",
    ),
    "class uses globals": ("rate = 3\nclass C:\n    def f(self): return rate\nx = C()", "x.f() == 3"),
    "local class": ("def make():\n    class C:\n        def f(self): return 4\n    return C\nx = make()()", "x.f() == 4"),
    "slots": (
        "class C:\n    __slots__ = ('a', '__b')\n    def __init__(self): self.a = 1\nx = C()",
        "x.a == 1 and not hasattr(x, '__dict__')",
    ),
    "slots and dict": ("class A:\n    __slots__ = ('a',)\nclass B(A): pass\nx = B()\nx.a = 1\nx.b = 2", "(x.a, x.b) == (1, 2)"),
    "properties": (
        "class C:\n    @property\n    def p(self): return self._p\n    @p.setter\n    def p(self, v): self._p = v\n"
        "    @staticmethod\n    def s(): return 1\n    @classmethod\n    def c(cls): return cls\nx = C()\nx.p = 5",
        "x.p == 5 and x.s() == 1 and x.c() is type(x)",
    ),
    "cached property": (
        "import functools\nclass C:\n    @functools.cached_property\n    def p(self): return [1]\nx = C()",
        "x.p is x.p",
    ),
    "dataclass": (
        "import dataclasses\n@dataclasses.dataclass(order=True)\nclass D:\n    a: int\n"
        "    b: list = dataclasses.field(default_factory=list)\nx = D(1)",
        "x == type(x)(1) and x.b == [] and __import__('dataclasses').asdict(x) == {'a': 1, 'b': []} and x < type(x)(2)",
    ),
    "frozen dataclass with slots": (
        "import dataclasses\n@dataclasses.dataclass(frozen=True, slots=True)\nclass D:\n    a: int = 3\nx = D(4)",
        "x.a == 4 and type(x)().a == 3 and hash(x) == hash(type(x)(4))",
    ),
    "namedtuple": (
        "import collections\nP = collections.namedtuple('P', 'a b', defaults=[2])\nx = P(1)",
        "x == (1, 2) and x._replace(a=3).a == 3",
    ),
    "typing namedtuple": (
        "import typing\nclass P(typing.NamedTuple):\n    a: int\n    b: int = 2\nx = P(1)",
        "x.b == 2 and type(x)(5).a == 5",
    ),
    "enum": (
        "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 'b'\n    C = 1\n"
        "    def low(self): return self.name.lower()\nx = [E.A, E.B, E]",
        "x[0] is x[2](1) and x[2].C is x[0] and x[1].low() == 'b' and [m.name for m in x[2]] == ['A', 'B']",
    ),
    "enum with state": (
        "import enum\nclass E(enum.Enum):\n    A = (1, 2)\n    def __init__(self, a, b): self.total = a + b\nx = E.A",
        "x.total == 3 and x.value == (1, 2)",
    ),
    "flag": (
        "import enum\nclass F(enum.IntFlag):\n    R = 1\n    W = 2\nx = F.R | F.W",
        "x == 3 and type(x)(1).name == 'R' and type(x).W in x",
    ),
    "str enum": ("import enum\nclass E(str, enum.Enum):\n    A = 'a'\nx = E.A", "x == 'a' and x is type(x)('a')"),
    "abc": (
        "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\nclass B(A):\n    def f(self): return 1\n"
        "class V: pass\nA.register(V)\nx = [A, B(), V()]",
        "isinstance(x[1], x[0]) and isinstance(x[2], x[0]) and x[0].__abstractmethods__ == {'f'} and x[1].f() == 1",
    ),
    "init_subclass": (
        "class A:\n    seen = []\n    def __init_subclass__(cls, key=None): cls.seen.append(cls.__name__)\n"
        "class B(A, key=1): pass\nx = B",
        "x.seen == ['B'] and type('C', (x,), {}) and x.seen == ['B', 'C']",
    ),
    "metaclass": (
        "class M(type):\n    made = []\n    def __new__(m, name, bases, space, **k):\n"
        "        m.made.append(name)\n        return super().__new__(m, name, bases, space)\n"
        "    def hello(cls): return cls.__name__\nclass C(metaclass=M): pass\nx = C",
        "x.hello() == 'C' and type(x).made == ['C'] and type(x).__name__ == 'M'",
    ),
    "generic": (
        "import typing\nT = typing.TypeVar('T')\nclass Box(typing.Generic[T]):\n"
        "    def __init__(self, v: T): self.v = v\nx = Box[int](3)",
        "x.v == 3 and type(x)[str] and type(x).__parameters__[0].__name__ == 'T'",
    ),
    "typed dict": (
        "import typing\nclass x(typing.TypedDict):\n    a: int",
        "x(a=1) == {'a': 1} and x.__annotations__ == {'a': int}",
    ),
    "protocol": (
        "import typing\n@typing.runtime_checkable\nclass P(typing.Protocol):\n    def f(self): ...\n"
        "class C:\n    def f(self): ...\nx = [P, C()]",
        "isinstance(x[1], x[0]) and not isinstance(1, x[0])",
    ),
    "subclass of builtins": (
        "class L(list):\n    def total(self): return sum(self)\nclass D(dict): pass\nx = [L([1, 2]), D(a=1)]\nx[0].tag = 'q'",
        "x[0].total() == 3 and x[0].tag == 'q' and x[1]['a'] == 1",
    ),
    "getstate": (
        "class C:\n    def __init__(self): self.a, self.f = 1, open('/dev/null')\n"
        "    def __getstate__(self): return {'a': self.a}\nx = C()",
        "x.a == 1 and not hasattr(x, 'f')",
    ),
    "bound method": (
        "class C:\n    def __init__(self): self.a = 5\n    def f(self): return self.a\nc = C()\nx = c.f",
        "x() == 5",
    ),
    "own callback": ("class C:\n    def f(self): return self\nx = C()\nx.callback = x.f", "x.callback() is x"),
    "free locks": (
        "import threading\nx = [threading.Lock(), threading.RLock(), threading.Condition(), threading.Event()]",
        "x[0].acquire(False) and x[1].acquire(False)",
    ),
    "weak reference": ("import weakref\nclass C: pass\nc = C()\nx = [c, weakref.ref(c)]", "x[1]() is x[0]"),
    "mapping proxy": ("import types\nx = types.MappingProxyType({'a': 1})", "x['a'] == 1 and type(x).__name__ == 'mappingproxy'"),
    "dictionary views": ("d = {'a': 1}\nx = [d.keys(), d.items()]", "list(x[0]) == ['a'] and list(x[1]) == [('a', 1)]"),
    "descriptors": (
        "x = [str.upper, list.__len__, dict.fromkeys]",
        "x[0]('a') == 'A' and x[1]([1]) == 1 and x[2]('a') == {'a': None}",
    ),
    "iterators": (
        "x = [iter([1, 2]), enumerate('ab'), zip('a', 'b')]\nnext(x[0])",
        "list(x[0]) == [2] and list(x[1]) == [(0, 'a'), (1, 'b')]",
    ),
    "in-memory files": (
        "import io\nx = [io.BytesIO(b'abc'), io.StringIO('q')]\nx[0].read(1)",
        "x[0].read() == b'bc' and x[1].getvalue() == 'q'",
    ),
    "loose module": ("import types\nx = types.ModuleType('loose')\nx.a = 1", "x.a == 1 and x.__name__ == 'loose'"),
    "copy of globals": (
        "k = [1]\nx = dict(globals())\nx.pop('__builtins__', None), x.pop('__spec__', None)",
        "x['k'] == [1] and x is not globals()",
    ),
    "simple namespace": ("import types\nx = types.SimpleNamespace(a=1)", "x.a == 1"),
    "logger": ("import logging\nx = logging.getLogger('a.b')", "x is __import__('logging').getLogger('a.b')"),
    "random state": (
        "import random\nx = random.Random(3)\nexpected = random.Random(3).random()",
        "x.random() == 0.23796462709189137",
    ),
    "array": (
        "import numpy as np\nx = np.arange(6000.).reshape(2, -1)",
        "x.sum() == 17997000 and x.flags.writeable and x.shape == (2, 3000)",
    ),
    "array order": (
        "import numpy as np\nx = np.asfortranarray(np.arange(6000).reshape(60, 100))",
        "x.flags.f_contiguous and not x.flags.c_contiguous and x[1, 0] == 100",
    ),
    "read-only array": (
        "import numpy as np\nx = np.arange(6000)\nx.flags.writeable = False",
        "not x.flags.writeable and x[-1] == 5999",
    ),
    "small and empty arrays": (
        "import numpy as np\nx = [np.array(3.5), np.zeros((0, 3)), np.arange(3)]",
        "x[0] == 3.5 and x[1].shape == (0, 3) and x[2].flags.writeable",
    ),
    "views share memory": (
        "import numpy as np\na = np.arange(6000)\nx = [a, a[10:20], a[::-1]]",
        "x[0].__setitem__(10, -1) is None and x[1][0] == -1 and x[2][-11] == -1",
    ),
    "view of Fortran order": (
        "import numpy as np\na = np.asfortranarray(np.arange(6000).reshape(60, 100))\nx = [a, a[1:, 2:]]",
        "x[1][0, 0] == 102 and x[0].__setitem__((1, 2), 7) is None and x[1][0, 0] == 7",
    ),
    "small view is copied": (
        "import numpy as np\nx = np.zeros(10**6)[5:8]",
        "x.base is None or x.base.__class__.__name__ != 'ndarray'",
    ),
    "special arrays": (
        "import numpy as np\nx = [np.array(['2020-01-01'], 'M8[D]'), np.array([('a', 1)], dtype=[('n', "
        "'U4'), ('k', 'i4')]), np.array([{}, 'x'], object), np.ma.masked_array([1, 2], [0, 1])]",
        "str(x[0][0]) == '2020-01-01' and x[1]['k'][0] == 1 and x[2][1] == 'x' and x[3].sum() == 1",
    ),
    "broadcast array": (
        "import numpy as np\nx = np.broadcast_to(np.arange(3), (2000, 3))",
        "x.shape == (2000, 3) and (x[1999] == [0, 1, 2]).all()",
    ),
    "numpy parts": (
        "import numpy as np\nx = [np.float32(1.5), np.dtype('f4'), np.random.default_rng(1), np.sin]",
        "x[0] == 1.5 and x[1].itemsize == 4 and x[3](0) == 0",
    ),
    "data frame": (
        "import pandas as pd\nx = pd.DataFrame({'a': range(2000), 'b': ['q', 'r'] * 1000})",
        "x.a.sum() == 1999000 and x.b[1] == 'r' and x.assign(a=1).a[0] == 1",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_arrives_right(name: str, pair: tuple[Peer, Peer]) -> None:
    """A value made in one process is right in another, with the functions and classes that it needs."""
    here, there = pair
    source, check = CASES[name]
    here.run(source)
    failures = carry(here, there, "x")
    assert failures == {}
    assert there.value(f"bool({check})")


@pytest.mark.parametrize("name", CASES)
def test_comes_home_right(name: str, pair: tuple[Peer, Peer]) -> None:
    """A value that went there and came back is still right."""
    here, there = pair
    source, check = CASES[name]
    here.run(source)
    assert carry(here, there, "x") == {}
    assert carry(there, here, "x") == {}
    assert here.value(f"bool({check})")
