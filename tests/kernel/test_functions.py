"""Remote functions before anything is sent: options, what packing finds, where things run, and how results are handed out."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import pickle
import subprocess
import sys
import threading
import types

import pytest
import remora
from remora import packing, places
from remora.inbox import Inbox
from remora.options import CellOptions, build
from remora.sync.codec import decode, encode
from remora.twins import Twin

# ---- the decorator ---------------------------------------------------------------------------------------------------------


def plain(x, *, y=1):
    """Add."""
    return x + y


def test_decorated_function_is_the_function_here():
    """Called, it runs here; name, doc and signature are the function's own."""
    made = remora.function(plain)
    assert made(1) == made.local(1, y=1) == 2
    assert (made.__name__, made.__doc__, made.__module__) == ("plain", "Add.", __name__)
    assert inspect.signature(made) == inspect.signature(plain)
    assert "plain" in repr(remora.function(cpu=2)(plain)) and 'cpu="2"' in repr(remora.function(cpu=2)(plain))


def test_every_option():
    """All options are read by the same rules as those of a cell."""
    options = {
        "gpu": ["A100", "H100!"],
        "cpu": 4,
        "memory": "16GiB",
        "timeout": "30m",
        "idle": 90,
        "files": "ro",
        "jail": "process",
    }
    made = remora.function(**options, env={"A": "1"}, on="here", retries=3)(plain)
    chosen = made._options
    assert chosen == build(options | {"env": {"A": "1"}, "on": "here"})
    assert [str(gpu) for gpu in chosen.resources.gpu] == ["A100", "H100!"]
    assert (chosen.resources.memory, chosen.timeout, made._retries) == (16 << 30, 1800.0, 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": "not a name"}, "no name of an image"),
        ({"pip": "-U numpy"}, "no requirement"),
        ({"python": "2.7"}, "python=3.12"),
        ({"budget": 3}, "cannot do budget= yet"),
        ({"volume": "v"}, "cannot do volume= yet"),
        ({"volume": "v"}, "cannot do volume= yet"),
        ({"session": "main"}, "session= is for cells"),
        ({"detach": True}, "detach= is for cells"),
        ({"cpus": 2}, "did you mean cpu"),
        ({"memory": 16}, "with a unit"),
        ({"cpu": "lots"}, "no number of cores"),
        ({"retries": -1}, "no number of attempts"),
        ({"retries": "3"}, "no number of attempts"),
        ({"retries": True}, "no number of attempts"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, says):
    """Whatever is wrong is said where the function is defined."""
    with pytest.raises(remora.OptionError, match=says) as refused:
        remora.function(**options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("thing", "says"), [(4, "decorates functions"), (remora.function(plain), "a remora.function already")])
def test_only_functions_are_decorated(thing, says):
    """A number, or what is decorated already, is refused."""
    with pytest.raises(remora.OptionError, match=says):
        remora.function(thing)


def test_map_needs_inputs():
    """A map over nothing is a mistake, said at once."""
    with pytest.raises(TypeError, match="an iterable for each"):
        remora.function(plain).map()


def test_importing_remora_stays_light():
    """Importing remora imports nothing; a script that only decorates needs no IPython."""
    code = (
        "import sys, remora\nassert not [m for m in sys.modules if m.startswith('remora.')]\n"
        "remora.function(print)\nprint('IPython' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


# ---- packing ---------------------------------------------------------------------------------------------------------------


def notebook(code):
    """Return the namespace of a script or notebook after this code."""
    namespace = {"__name__": "__main__", "remora": remora}
    exec(code, namespace)
    return namespace


def arrived(cargo, namespace=None):
    """Return what a guest finds: the call and the namespace it runs in."""
    namespace = {} if namespace is None else namespace
    stream, *buffers = cargo.buffers
    namespace.update(decode(bytes(stream), buffers, namespace=namespace))
    return namespace.pop(cargo.body["entry"]), namespace


def run_there(cargo):
    """Run a cargo as a guest does."""
    (function, args, kwargs), _ = arrived(cargo)
    return function(*args, **kwargs)


def test_what_a_function_uses_goes_along():
    """Globals go with the function, those of its helpers too, and nothing else."""
    here = notebook("A = 2\nUNUSED = 3\ndef helper(x): return x * A\n@remora.function\ndef f(x): return helper(x)")
    cargo = here["f"]._pack().pack((4,), {})
    (function, args, _), there = arrived(cargo)
    assert sorted(there) == ["A", "helper"]
    assert function(*args) == 8
    assert cargo.name == "f"


def test_needs_are_looked_up_at_each_call():
    """A global that changes, and a helper that is redefined with other needs, are as they are at the call."""
    here = notebook("A = 1\ndef helper(): return A\n@remora.function\ndef f(): return helper()")
    assert run_there(here["f"]._pack().pack((), {})) == 1
    exec("A = 5\nB = 6\ndef helper(): return A * B", here)
    assert run_there(here["f"]._pack().pack((), {})) == 30


def test_a_global_called_call():
    """A global of the name under which the call travels is no trouble."""
    here = notebook("def call(): return 7\n@remora.function\ndef f(): return call()")
    assert run_there(here["f"]._pack().pack((), {})) == 7


def test_a_function_that_calls_itself_and_others():
    """Remote functions travel inside each other, with their options, and may be called there."""
    here = notebook(
        "@remora.function(cpu=2)\ndef f(n): return 1 if n < 2 else n * f.local(n - 1)\n@remora.function\ndef g(n): return f(n)"
    )
    assert run_there(here["g"]._pack().pack((5,), {})) == 120
    (function, _, _), there = arrived(here["g"]._pack().pack((5,), {}))
    assert there["f"]._options == here["f"]._options
    assert function(3) == 6


def test_closures_partials_and_methods():
    """Callables that are no plain functions travel too."""
    here = notebook("def make(n):\n    def inner(x): return x + n\n    return inner\nclass C:\n    def m(self, x): return -x")
    for raw, expected in ((here["make"](5), 6), (functools.partial(here["make"](1)), 2), (here["C"]().m, -1), (abs, 1)):
        assert run_there(packing.Packer(raw, CellOptions(), 0).pack((1,), {})) == expected


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((1, threading.current_thread()), {}, "argument 2 of f: "),
        ((), {"x": {"lock": (i for i in ())}}, r"argument 'x'\['lock'\] of f: generator"),
    ],
)
def test_what_cannot_travel_is_named(args, kwargs, says):
    """The argument is named by position or name, with the path inside."""
    here = notebook("@remora.function\ndef f(*args, **kwargs): pass")
    with pytest.raises(remora.SendError, match=says):
        here["f"]._pack().pack(args, kwargs)


def test_a_global_that_cannot_travel_is_named():
    """A global that the function uses and that cannot travel is named as such."""
    here = notebook("stuck = (i for i in ())\n@remora.function\ndef f(): return stuck")
    with pytest.raises(remora.SendError, match=r"^stuck: generator cannot be sent"):
        here["f"]._pack().pack((), {})


def test_timeout_goes_along():
    """A timeout is the supervisor's to keep, so it is in the body."""
    assert remora.function(timeout="2m")(abs)._pack().pack((1,), {}).body["timeout"] == 120.0
    assert "timeout" not in remora.function(abs)._pack().pack((1,), {}).body


# ---- modules that a sandbox cannot import ----------------------------------------------------------------------------------

MODULE = """
import json
STEP = 2
_lock_like = (i for i in ())
class Kept:
    def __init__(self, x): self.x = x
    def next(self): return Kept(self.x + STEP)
def helper(x): return Kept(x).next()
def work(x): return helper(x), json.dumps(x)
"""


@pytest.fixture
def module(tmp_path):
    """Give an imported module that is on no path that sandboxes import from."""
    (tmp_path / "far_away.py").write_text(MODULE)
    spec = importlib.util.spec_from_file_location("far_away", tmp_path / "far_away.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules["far_away"] = found
    spec.loader.exec_module(found)
    yield found
    del sys.modules["far_away"]


def test_which_modules_are_loose(module, tmp_path, monkeypatch):
    """A module that no sandbox can import is loose; it is none as soon as its folder is on the path."""
    assert "far_away" in places.loose_modules("rw")
    assert not {"remora", "json", "pytest", "remora.functions"} & places.loose_modules("rw")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "far_away" not in places.loose_modules("rw")
    monkeypatch.chdir(tmp_path)
    assert "far_away" not in places.loose_modules("rw")
    assert "far_away" in places.loose_modules("none")


def test_functions_of_loose_modules_go_by_value(module):
    """A function goes with what it uses of its module, nothing else of it; classes come back as themselves."""
    code = (
        "import sys, types\nfrom remora.sync.codec import decode, encode\n"
        "namespace = vars(types.ModuleType('__main__'))\nparts = eval(sys.stdin.read())\n"
        "f, x = decode(parts[0], parts[1:], namespace=namespace)['v']\n"
        "assert 'far_away' not in sys.modules and '_lock_like' not in f.__globals__\n"
        "back = encode({'r': f(x)}, namespace=namespace)\nassert not back.failures, back.failures\n"
        "print(repr([bytes(back.stream), *map(bytes, back.buffers)]))"
    )
    sent = encode({"v": (module.work, 5)}, namespace={}, loose=frozenset({"far_away"}))
    parts = repr([bytes(sent.stream), *map(bytes, sent.buffers)])
    done = subprocess.run([sys.executable, "-c", code], input=parts, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    stream, *buffers = eval(done.stdout)
    kept, text = decode(stream, buffers, namespace={})["r"]
    assert type(kept) is module.Kept and kept.x == 7 and text == "5"
    assert module.STEP == 2


def test_code_on_disk_is_part_of_the_place(tmp_path, monkeypatch):
    """When a module that sandboxes import is edited, other sandboxes are asked for; nothing else changes them."""
    (tmp_path / "edited_mod.py").write_text("A = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("edited_mod")
    try:
        first, again = (places.spec(CellOptions()) for _ in range(2))
        assert first == again
        with open(tmp_path / "edited_mod.py", "a") as file:
            file.write("\nB = 2")
        assert places.spec(CellOptions()) != first
    finally:
        del sys.modules["edited_mod"]


# ---- twins and inboxes -----------------------------------------------------------------------------------------------------


def test_twin_calls_both_ways():
    """A twin blocks when it is called, and has its async way beside it."""

    async def later(x):
        return -x

    twin = Twin(abs, later)
    assert twin(-3) == 3
    assert asyncio.run(twin.aio(3)) == -3
    assert "aio" in repr(twin)


def test_inbox_serves_threads_and_tasks():
    """Items come in order to a thread and to a task, also when they come while it waits; waiting too long is a TimeoutError."""
    inbox: Inbox[int] = Inbox()
    inbox.put(1)
    assert inbox.take() == 1
    with pytest.raises(TimeoutError):
        inbox.take(0.01)

    async def wait():
        with pytest.raises(TimeoutError):
            await inbox.take_aio(0.01)
        thread = threading.Thread(target=lambda: [inbox.put(x) for x in (2, 3)])
        waiting = asyncio.ensure_future(inbox.take_aio())
        await asyncio.sleep(0)
        thread.start()
        found = [await waiting, await inbox.take_aio()]
        thread.join()
        return found

    assert asyncio.run(wait()) == [2, 3]


def test_decorated_functions_pickle_by_name():
    """A decorated function of a module is pickled by plain pickle as any object of a module's class is."""
    made = remora.function(cpu=1)(abs)
    again = pickle.loads(pickle.dumps(made))
    assert again(-2) == 2 and again._options == made._options
    assert isinstance(again, types.BuiltinFunctionType) is False
