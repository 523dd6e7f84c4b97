"""The stop button: what it ends, and that nothing else is harmed."""

import time

import pytest

SOON = 5.0  # seconds; far below what the cells would take, far above what a loaded machine needs


def interrupted(guest, code, **body):
    """Start a cell that says "go", stop it, and return how it ended and how long that took."""
    run = guest.cell(code, **body)
    ended = guest.until(run, lambda emit: "go" in str(emit.content))
    begun = time.monotonic()
    guest.interrupt(run)
    ended = guest.finish(run, ended)
    return ended, time.monotonic() - begun


@pytest.mark.parametrize(
    "code",
    [
        "print('go')\nwhile True: pass",
        "import time\nprint('go')\ntime.sleep(60)",
        "!echo go; sleep 60",
        "import subprocess\nprint('go')\nsubprocess.run(['sleep', '60'])",
        "import asyncio\nprint('go')\nawait asyncio.sleep(60)",
        "import asyncio, time\nawait asyncio.sleep(0)\nprint('go')\ntime.sleep(60)",
        "import asyncio\nprint('go')\nawait asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))",
        "import asyncio\nprint('go')\nwhile True: await asyncio.sleep(0)",
        "import threading\nprint('go')\nthreading.Event().wait()",
    ],
)
def test_cell_is_interrupted(guest, code):
    """A cell is stopped at once wherever it is, and the namespace stays."""
    guest.run("kept = 5")
    ended, seconds = interrupted(guest, code)
    if not code.startswith("!"):  # IPython hands the key press to the command, which ends without an error
        assert ended.error["ename"] == "KeyboardInterrupt"
        assert "interrupts.py" not in "".join(ended.error["traceback"])
    assert seconds < SOON
    assert guest.run("kept").plain() == "5"


def test_cell_may_handle_it(guest):
    """A cell that catches KeyboardInterrupt goes on."""
    ended, _ = interrupted(
        guest,
        ("import asyncio\ntry:\n    print('go')\n    await asyncio.sleep(60)\nexcept KeyboardInterrupt:\n    print('caught')"),
    )
    assert ended.result["ok"] and ended.text() == "go\ncaught\n"


@pytest.mark.parametrize("busy", ["await asyncio.sleep(60)", "time.sleep(60)"])
def test_tasks_that_a_cell_awaits_are_interrupted(guest, busy):
    """Tasks that a cell awaits end with it, whether they wait or are busy; nothing else is shown."""
    code = (
        "import asyncio, time\nasync def work():\n    try:\n        print('go')\n"
        f"        {busy}\n    finally:\n        print('cleaned')\nawait asyncio.gather(work(), work())"
    )
    ended, seconds = interrupted(guest, code)
    assert ended.error["ename"] == "KeyboardInterrupt" and seconds < SOON
    assert "cleaned" in ended.text() and ended.text("stderr") == ""
    assert guest.run("await asyncio.sleep(0)\n2").plain() == "2"


def test_child_processes_are_interrupted(guest):
    """Child processes of the cell get the signal, as from a terminal."""
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; print(\"go\", flush=True); time.sleep(60)'])\n"
        "p.wait()"
    )
    ended, seconds = interrupted(guest, code)
    assert ended.error["ename"] == "KeyboardInterrupt" and seconds < SOON
    assert guest.run("p.wait() is not None").plain() == "True"  # else it would go on sleeping for longer than this test waits


def test_interrupt_of_what_has_ended_is_ignored(guest):
    """A stop button that comes too late stops nothing else."""
    run = guest.cell("1")
    guest.finish(run)
    for _ in range(20):
        guest.interrupt(run)
        assert guest.run("2").plain() == "2"


def test_interrupt_that_comes_early_counts(guest):
    """A stop that arrives before the code has begun ends it when it begins."""
    guest.interrupt("run1")
    assert guest.run("while True: pass").error["ename"] == "KeyboardInterrupt"
    assert guest.run("2").plain() == "2"


def test_interrupts_at_any_moment_leave_the_guest_whole(guest):
    """Whenever it comes, there is one result, and the next cell runs."""
    for i in range(60):
        run = guest.cell("for i in range(100): print(i)\ni")
        for _ in range(i * 20):
            pass
        guest.interrupt(run)
        ended = guest.finish(run)
        assert ended.result["ok"] or ended.error["ename"] == "KeyboardInterrupt"
        assert guest.run("2").plain() == "2"


def test_code_of_the_users_own_handler_is_undone(guest):
    """A handler for SIGINT that a cell sets lasts for this cell."""
    guest.run("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN);")
    ended, seconds = interrupted(guest, "print('go')\nwhile True: pass")
    assert ended.error["ename"] == "KeyboardInterrupt" and seconds < SOON


@pytest.mark.parametrize("body", ["while True: pass", "import time; time.sleep(60)"])
def test_call_is_interrupted(guest, body):
    """A call is stopped as a cell is."""
    run = guest.call(f"def f():\n    print('go')\n    {body}")
    ended = guest.until(run, lambda emit: "go" in str(emit.content))
    guest.interrupt(run)
    assert guest.finish(run, ended).error["ename"] == "KeyboardInterrupt"


def test_async_call_is_interrupted(guest):
    """An async function is stopped at its await."""
    run = guest.call("async def f():\n    import asyncio\n    print('go')\n    await asyncio.sleep(60)")
    ended = guest.until(run, lambda emit: "go" in str(emit.content))
    guest.interrupt(run)
    assert guest.finish(run, ended).error["ename"] == "KeyboardInterrupt"


def test_handler_of_the_users_own_is_called_once(guest):
    """A cell that takes the signal itself gets it once for each stop."""
    code = "import signal, time\nseen = []\nsignal.signal(signal.SIGINT, lambda *_: seen.append(1))\nprint('go')\n"
    ended, _ = interrupted(guest, code + "end = time.time() + 0.6\nwhile time.time() < end: pass\nlen(seen)")
    assert ended.plain() == "1"


def test_interrupts_that_meet_the_start_of_a_wait_are_heard(guest):
    """A stop that comes at the very moment at which the main thread begins to wait for a lock ends the wait."""
    for _ in range(30):
        run = guest.cell("input()", allow_stdin=True)
        guest.until(run, lambda emit: emit.type == "input_request")
        guest.interrupt(run)
        assert guest.finish(run).error["ename"] == "KeyboardInterrupt"
