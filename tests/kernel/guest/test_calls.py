"""Calls: functions that run without a shell."""

import sys
from pathlib import Path

import pytest
from remora.errors import SendError


def finished(guest, source, *args, **kwargs):
    """Run a call to its end."""
    return guest.finish(guest.call(source, *args, **kwargs))


def test_result_comes_home(guest):
    """A call's result is its value."""
    ended = finished(guest, "def f(x, y=1): return x + y", 40, y=2)
    assert ended.result["ok"] and ended.values == {"result": 42}


def test_async_function(guest):
    """A coroutine function is awaited."""
    assert finished(guest, ("async def f(x):\n    import asyncio\n    await asyncio.sleep(0)\n    return x"), 5).values == {
        "result": 5
    }


def test_what_it_prints_is_output(guest):
    """Text of a call streams as a cell's."""
    assert finished(guest, "def f():\n    print('hello')").text() == "hello\n"


def test_error_has_the_users_frames_alone(guest):
    """The exception comes home with a traceback that shows nothing of ours."""
    ended = finished(guest, "def f(): raise ValueError('bad', 2)")
    assert ended.error["ename"] == "ValueError" and ended.exception.args == ("bad", 2)
    assert "remora" not in "\n".join(ended.error["traceback"]) and "in f" in "\n".join(ended.error["traceback"])


@pytest.mark.parametrize("how", ["raise SystemExit(3)", "raise KeyboardInterrupt", "return 1 / 0", "raise MemoryError"])
def test_call_that_ends_badly_ends_nothing_else(guest, how):
    """Whatever a call raises is its error, and the next one runs."""
    assert not finished(guest, f"def f(): {how}").result["ok"]
    assert finished(guest, "def f(): return 1").values == {"result": 1}


def test_result_that_cannot_travel_is_named(guest):
    """A result that cannot be sent is an error that says why."""
    ended = finished(guest, "def f():\n    return {'steps': [(i for i in ())]}")
    assert isinstance(ended.exception, SendError) and "result" in ended.error["evalue"]


def test_call_names_nothing(guest):
    """A call leaves no name behind but what its function needs."""
    finished(guest, "def f(): return 1")
    assert "call" not in guest.ask("names").result


def test_call_starts_no_shell(guest):
    """Calls do not pay for IPython."""
    source = "def f():\n    import sys\n    return 'IPython' in sys.modules"
    assert finished(guest, source).values == {"result": False}


def test_large_result_comes_as_buffers(guest):
    """Bulk bytes of a result travel beside the JSON."""
    ended = finished(guest, "def f():\n    import numpy\n    return numpy.arange(1_000_000)")
    assert ended.values["result"].sum() == 499999500000 and len(ended.emits[-1].buffers) == 2


def test_bare_python_runs_calls_and_refuses_cells(start_guest):
    """Without IPython functions run, and a cell is refused in one line that says what to do."""
    bare = Path("/usr/bin/python3.11")
    if not bare.exists() or sys.version_info[:2] != (3, 11):
        pytest.skip("needs /usr/bin/python3.11 without IPython")
    guest = start_guest(python=str(bare))
    assert finished(guest, "def f(x): return x * 2", 21).values == {"result": 42}
    error = guest.run("1").error
    assert error["ename"] == "Refused" and "IPython" in error["evalue"] and len(error["traceback"]) == 1
