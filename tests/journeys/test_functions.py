"""Remote functions as users meet them: from pytest itself, scripts, notebooks and inside sandboxes; and what goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import remora
from journeys.calling import calling, unfinished
from journeys.driving import Notebook, Place
from remora.states import RunState

FACTOR = 10


class Refusal(Exception):
    """An exception that only this module knows."""


@dataclass
class Point:
    """A value of a class that no sandbox can import."""

    x: int
    y: int = 0


def scaled(x):
    """Return what a global and a helper of this module make of it."""
    return x * FACTOR


@remora.function(cpu=1)
def double(x, also=0):
    """Return twice as much."""
    return 2 * x + also


@remora.function
def refuse(x):
    """Raise an exception of this module's own."""
    raise Refusal("no", x)


@remora.function
def move(point):
    """Return a point further on, by the help of this module."""
    return Point(point.x + 1, scaled(point.y))


@remora.function
def nap(seconds):
    """Sleep."""
    time.sleep(seconds)
    return seconds


@remora.function
def spread(x):
    """Call another function from inside the sandbox, and one locally."""
    return double.remote(x) + double.local(x) + double(x)


@remora.function
def die(x):
    """Kill the sandbox for one input."""
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Give this process, as a caller, a state directory of its own, with a backend that runs."""
    with calling() as place:
        double.remote(0)
        yield place


@pytest.fixture(autouse=True)
def _calling(place: Place) -> None:
    """Have a backend for every test."""


# ---- from pytest, whose modules no sandbox can import ----------------------------------------------------------------------


def test_value_comes_back():
    """A call returns the value; arguments go by position and by name."""
    assert double.remote(4) == 8
    assert double.remote(4, also=1) == 9
    assert double.local(4) == double(4) == 8


def test_classes_keep_their_identity():
    """A class that only the caller's module has is the same class when its instance returns."""
    moved = move.remote(Point(1, 2))
    assert type(moved) is Point
    assert moved == Point(2, 20)


def test_closures_and_lambdas_travel():
    """A nested function goes with its closure."""
    step = 5
    assert remora.function(lambda x: x + step).remote(1) == 6


def test_exception_has_its_type_and_its_traceback():
    """What is raised there is caught here by its own type, and shows the line there."""
    with pytest.raises(Refusal) as caught:
        refuse.remote(3)
    assert caught.value.args == ("no", 3)
    (note,) = caught.value.__notes__
    assert note.startswith("In the sandbox:") and 'raise Refusal("no", x)' in note and "remora/guest" not in note


def test_prints_come_out_here(capsys):
    """What a call prints is on the caller's streams."""

    @remora.function
    def talk():
        print("out")
        print("err", file=sys.stderr)

    assert talk.remote() is None
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("out\n", "err\n")


def test_coroutine_functions_are_awaited_there():
    """An async function's value is what it returns."""

    @remora.function
    async def later(x):
        await asyncio.sleep(0)
        return x

    assert later.remote(3) == 3


def test_from_inside_a_sandbox():
    """A remote function calls others: remotely, locally, directly."""
    assert spread.remote(1) == 6


def test_nested_calls_never_wait_for_their_own_callers_place():
    """As many callers as there are cores, each of which waits for a call of its own, come to an end."""
    assert list(spread.map(range(2 * (os.cpu_count() or 1)))) == [6 * x for x in range(2 * (os.cpu_count() or 1))]


def test_what_cannot_be_sent_is_named():
    """An argument that cannot travel is named before anything goes; so is a result."""
    stuck = (i for i in ())
    with pytest.raises(remora.SendError, match="argument 'also' of double: generator cannot be sent"):
        double.remote(1, also=stuck)
    with pytest.raises(remora.SendError, match="result: generator cannot be sent"):
        remora.function(lambda: (i for i in ())).remote()


def test_nobody_has_such_a_device():
    """A GPU that is not there is said at once, with what there is."""
    with pytest.raises(remora.Unavailable, match=r"no machine has gpu=Z9000\. There is"):
        remora.function(gpu="Z9000")(scaled).remote(1)


# ---- map -------------------------------------------------------------------------------------------------------------------


def test_map_in_order():
    """Results come in the order of the inputs, one iterable for each argument."""
    assert list(double.map([1, 2, 3], [10, 20, 30])) == [12, 24, 36]
    assert list(double.map([1, 2], kwargs={"also": 5})) == [7, 9]
    assert list(double.map([])) == []


def test_map_as_they_come():
    """Without order a quick result does not wait for a slow one."""
    assert list(nap.map([1.5, 0.0], order_outputs=False)) == [0.0, 1.5]


def test_map_is_lazy():
    """Inputs without end are taken a window at a time, and closing the generator cancels the rest."""
    taken = 0

    def inputs():
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = double.map(inputs())
    assert taken == 0
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    assert 3 <= taken <= 70
    results.close()
    assert unfinished() == []


def test_map_raises_or_keeps_exceptions():
    """The first exception ends a map and cancels the rest, unless exceptions are results."""
    with pytest.raises(Refusal):
        list(refuse.map([1, 2, 3]))
    assert unfinished() == []
    kept = list(refuse.map([1, 2], return_exceptions=True))
    assert [type(error) for error in kept] == [Refusal, Refusal]
    assert [error.args[1] for error in kept] == [1, 2]


def test_one_that_kills_its_sandbox_harms_no_other():
    """A crash is the failure of its own input alone."""
    found = list(die.map(range(6), return_exceptions=True))
    assert [x for x in found if isinstance(x, int)] == [0, 1, 3, 4, 5]
    assert isinstance(found[2], remora.RunEnded) and found[2].reason == "crashed"


# ---- runs ------------------------------------------------------------------------------------------------------------------


def test_spawn_and_the_handle():
    """A spawned call goes on by itself; waiting for too short leaves it alone; the handle is found again by its id."""
    run = nap.spawn(1.0)
    with pytest.raises(TimeoutError, match=f"run {run.id} is not over after 0.1 s"):
        run.get(timeout=0.1)
    assert run.get() == run.get() == 1.0
    assert run.state is RunState.DONE
    again = remora.Run.from_id(run.id)
    assert again.get() == again["result"] == 1.0
    assert run.id in repr(run) and "nap" in repr(again)


def test_cancel():
    """A cancelled run ends with that reason, and cancelling it again is harmless."""
    run = nap.spawn(60)
    run.cancel()
    with pytest.raises(remora.RunEnded) as ended:
        run.get()
    assert ended.value.reason == "cancelled"
    assert run.state is RunState.ENDED
    run.cancel()


def test_unknown_run():
    """An id that nobody has is refused in a line."""
    with pytest.raises(remora.RemoraError, match="no run is called 'zzz'"):
        remora.Run.from_id("zzz")


def test_timeout():
    """A call that takes too long ends with the reason timeout, and is not tried again."""
    began = time.monotonic()
    with pytest.raises(remora.RunEnded) as ended:
        remora.function(timeout=0.5, retries=3)(nap.local).remote(60)
    assert ended.value.reason == "timeout"
    assert time.monotonic() - began < 20


def test_retries(tmp_path):
    """A call that raises, and then one that crashes, is tried again as a new run; exceptions come out when no attempt is left."""
    file = str(tmp_path / "attempts")

    @remora.function(retries=2, env={"FILE": file})
    def flaky(path):
        attempts.append(len(attempts))
        with open(path, "a") as log:
            log.write("+")
        if os.path.getsize(path) == 1:
            raise ValueError("the first")
        if os.path.getsize(path) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.path.getsize(path)

    attempts: list[int] = []
    os.chdir(tmp_path)
    try:
        assert flaky.remote(file) == 3
    finally:
        os.chdir(Path(__file__).parents[2])
    assert Path(file).read_text() == "+++"


def test_interrupt_cancels_and_raises_at_once():
    """Ctrl-C in a blocking wait cancels the call and raises KeyboardInterrupt, in remote, get and map alike."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it starts in the background
    for wait in (lambda: nap.remote(60), lambda: nap.spawn(60).get(), lambda: list(nap.map([60, 60, 60]))):
        threading.Timer(1.0, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            wait()
        assert time.monotonic() - began < 3
        assert unfinished() == []


# ---- await -----------------------------------------------------------------------------------------------------------------


def test_async_twins():
    """Every blocking name can be awaited, many at once, with inputs that come asynchronously."""

    async def inputs():
        for x in range(3):
            await asyncio.sleep(0)
            yield x

    async def all_of_them():
        run = await double.spawn.aio(1)
        await run.cancel.aio()
        return (
            await asyncio.gather(*(double.remote.aio(x) for x in range(3))),
            await (await double.spawn.aio(4)).get.aio(timeout=60),
            [value async for value in double.map.aio(inputs(), [1, 1, 1])],
        )

    assert asyncio.run(all_of_them()) == ([0, 2, 4], 8, [1, 3, 5])


def test_blocking_names_work_in_a_running_loop():
    """The blocking names work where a loop runs already."""

    async def blocking():
        return double.remote(1), list(double.map([1, 2]))

    assert asyncio.run(blocking()) == (2, [2, 4])


def test_cancelled_task_cancels_its_call():
    """A task that is given up takes its call with it; a wait for a handle that is given up leaves the run alone."""

    async def given_up():
        run = await nap.spawn.aio(0.6)
        for waiting in (nap.remote.aio(60), run.get.aio()):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting, 0.3)
        return await run.get.aio()

    assert asyncio.run(given_up()) == 0.6
    assert unfinished() == []


# ---- scripts ---------------------------------------------------------------------------------------------------------------

HELPER = """
LIMIT = {limit}
class TooMuch(Exception): pass
def check(x):
    if x > LIMIT: raise TooMuch(x)
    return LIMIT
"""
SCRIPT = """
import remora
from helper import TooMuch, check
SCALE = 3
class Pair:
    def __init__(self, x): self.x = x
@remora.function
def work(x):
    import helper
    assert helper.check is check
    print("working on", x)
    return Pair(check(x) * SCALE)
made = work.remote(1)
print(type(made) is Pair, made.x)
try:
    work.remote(100)
except TooMuch as error:
    print("caught", error.args)
"""


def run_script(place: Place, folder: Path, **options) -> str:
    """Run the folder's script and return what it printed."""
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=place.environment, capture_output=True, text=True, timeout=100, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_script_with_a_module_beside_it(place, tmp_path):
    """A script's functions go by value, the module beside it by name; an edited module is used as it is now, not as it was."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    for limit in (5, 77):  # Python takes a file that is as long and of the same second for the same
        (folder / "helper.py").write_text(HELPER.format(limit=limit))
        expected = f"working on 1\nTrue {3 * limit}\nworking on 100\ncaught (100,)\n"
        assert run_script(place, folder) == expected


def test_script_without_its_folder(place, tmp_path):
    """Where the sandbox does not see the project, what its modules define goes by value."""
    (tmp_path / "helper.py").write_text(HELPER.format(limit=5))
    text = SCRIPT.replace("@remora.function\n", '@remora.function(files="none")\n')
    text = text.replace("    import helper\n    assert helper.check is check\n", "")
    (tmp_path / "script.py").write_text(f"import os\nos.chdir({str(tmp_path)!r})\n" + text)
    (tmp_path / "elsewhere").mkdir()
    assert run_script(place, tmp_path) == "working on 1\nTrue 15\nworking on 100\ncaught (100,)\n"


def test_script_that_fails_shows_both_tracebacks(place, tmp_path):
    """An exception that nobody catches shows the line here and the line there."""
    (tmp_path / "script.py").write_text("import remora\n@remora.function\ndef f(x):\n    return 1 / x\nf.remote(0)\n")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=place.environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert "f.remote(0)" in done.stderr and "In the sandbox:" in done.stderr and "return 1 / x" in done.stderr
    assert done.stderr.index("ZeroDivisionError") > 0


# ---- notebooks -------------------------------------------------------------------------------------------------------------

CELL = """
import remora
from dataclasses import dataclass
BASE = 40
@dataclass
class Box:
    value: int
def helper(box): return Box(box.value + BASE)
@remora.function
def f(box):
    print("in there")
    return helper(box)
"""


@pytest.fixture(scope="module", params=["remora", "plain"])
def kernel(request: pytest.FixtureRequest, place: Place) -> Notebook:
    """Give kernel `remora`, and a plain one without the extension."""
    notebook = place.start(request.param)
    assert notebook.run(CELL).ok
    return notebook


def test_notebook_functions(kernel):
    """A notebook's function goes with the functions and classes that it uses; output appears under the calling cell."""
    ran = kernel.run("made = f.remote(Box(2)); type(made) is Box, made")
    assert ran.result == "(True, Box(value=42))"
    assert ran.stdout == "in there\n"


def test_redefined_helper_is_used(kernel):
    """What a function uses is as it is when it is called."""
    kernel.run("BASE = 1")
    assert kernel.run("f.remote(Box(1))").result == "Box(value=2)"
    kernel.run("BASE = 40")


def test_displays_of_a_call(kernel):
    """What a call displays is displayed under the calling cell."""
    ran = kernel.run(
        "from IPython.display import HTML, display\n@remora.function\ndef show():\n    display(HTML('<b>x</b>'))\nshow.remote()"
    )
    assert [content["data"].get("text/html") for content in ran.of("display_data")] == ["<b>x</b>"]


def test_plain_cells_block_and_await(kernel):
    """Blocking and async names both work in a cell, where a loop runs."""
    assert kernel.run("list(f.map([Box(1), Box(2)]))").result == "[Box(value=41), Box(value=42)]"
    assert kernel.run("await f.remote.aio(Box(3))").result == "Box(value=43)"
    assert kernel.run("[b.value async for b in f.map.aio([Box(1)])]").result == "[41]"


def test_error_in_a_notebook(kernel):
    """An exception shows the line there."""
    ran = kernel.run("@remora.function\ndef fail(x):\n    return 1 / x\nfail.remote(0)")
    assert ran.reply["ename"] == "ZeroDivisionError"
    assert "fail.remote(0)" in ran.error and "return 1 / x" in ran.error


def test_interrupt_in_a_notebook(kernel):
    """The stop button ends the wait and the call within a second or two, and the next cell runs."""
    code = "import time\n@remora.function\ndef long():\n    print('begun')\n    time.sleep(60)\nlong.remote()"
    ran = kernel.run(code, on=lambda message: message["msg_type"] == "stream" and kernel.manager.interrupt_kernel())
    assert ran.reply["ename"] == "KeyboardInterrupt"
    assert ran.took() < 30
    assert kernel.run("f.remote(Box(0))").result == "Box(value=40)"


def test_function_in_a_remote_cell(kernel):
    """A remote cell calls remote functions."""
    if kernel.run("'remora' in get_ipython().magics_manager.magics['cell']").result == "False":
        kernel.run("%load_ext remora")
    ran = kernel.remote("total = f.remote(Box(1)).value + f.local(Box(0)).value\ntotal")
    assert ran.result == "81"
    assert kernel.run("%remote stop").ok
