"""Every part killed in the middle of a cell: what goes on, what is said, and that nothing is left.

Each test has a place of its own, so that the leak check sees the whole life of kernel, backend, supervisor and sandbox.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from journeys.driving import Message, Notebook, Place, Ran
from remora.wire import PROTOCOL

COUNT = "import time\nfor i in range(5):\n    print('line', i, flush=True)\n    time.sleep(0.4)\ncounted = 5"
LINES = "".join(f"line {i}\n" for i in range(5))


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a test a place of its own."""
    place = Place()
    try:
        yield place
    finally:
        place.close()


@pytest.fixture
def notebook(place: Place) -> Notebook:
    """Give a test a kernel whose session has a sandbox."""
    notebook = place.start()
    assert notebook.remote("pass").ok
    return notebook


def kill_at(text: str, pids: list[int]) -> tuple[object, list[float]]:
    """Return what to do with each message, so that these processes are killed when a text is printed, and when that was."""
    killed: list[float] = []

    def on(message: Message) -> None:
        if not killed and text in message["content"].get("text", ""):
            killed.append(time.monotonic())
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

    return on, killed


def run_of(place: Place, name: str) -> Message:
    """Return the newest run whose first line of code is this."""
    code = (
        "import json; from remora.client import client; from remora.wire import ListAll; c = client();"
        "print(json.dumps(c.run(c.request(ListAll())).result['runs']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=place.environment, check=True, capture_output=True, text=True, timeout=60
    )
    return next(run for run in json.loads(done.stdout) if run["name"] == name)


def test_killed_backend(place: Place, notebook: Notebook) -> None:
    """The run goes on without the backend and its agent, each line is there once, and a new backend takes the session up."""
    (backend,) = place.processes("remora_backend")
    on, killed = kill_at("line 1", [backend])
    ran = notebook.remote(COUNT, on=on)
    assert killed
    assert ran.ok
    assert ran.stdout == LINES
    assert not place.processes("remora_backend")
    assert run_of(place, "import time")["state"] == "done"
    assert place.processes("remora_backend") != [backend]
    assert notebook.remote("print(counted + 1)").stdout == "6\n"
    assert notebook.run("print(counted)").stdout == "5\n"


def test_backend_that_is_just_ending(place: Place) -> None:
    """While one ends, which no longer listens and still has the lock, the next one waits for it and serves."""
    directory = place.state / f"backend-{PROTOCOL}"
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    with (directory / "lock").open("w") as ending:
        fcntl.flock(ending, fcntl.LOCK_EX)
        notebook = place.start()
        sent = notebook.send("%%remote\nprint(6 * 7)")
        deadline = time.monotonic() + 60
        while not (waiting := place.processes("remora_backend")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(waiting) == 1
    assert notebook.collect(sent)[0].stdout == "42\n"
    assert place.processes("remora_backend") == waiting


def test_backend_killed_while_detached(place: Place, notebook: Notebook) -> None:
    """A detached cell goes on without the backend, and attaching afterwards shows each line once."""
    notebook.remote(COUNT, "--detach")
    os.kill(place.processes("remora_backend")[0], signal.SIGKILL)
    run = run_of(place, "import time")["id"]
    assert notebook.run(f"%remote attach {run}").stdout == LINES


def test_killed_kernel(place: Place, notebook: Notebook) -> None:
    """The run goes on without its kernel; a new kernel that attaches has each line once, the variables and the session."""
    notebook.send(f"%%remote\n{COUNT}")
    notebook.until(lambda message: "line 1" in message["content"].get("text", ""))
    notebook.manager.provisioner.process.kill()
    other = place.start(folder=notebook.folder)
    run = run_of(place, "import time")["id"]
    attached = other.run(f"%remote attach {run}")
    assert attached.ok
    assert attached.stdout == LINES
    assert other.run("counted").result == "5"
    assert other.remote("counted += 1").ok
    assert other.run("counted").result == "6"


def test_attaching_leaves_what_is_bound(place: Place, notebook: Notebook) -> None:
    """A name that is bound in the new kernel is left alone; the handle has what the run made."""
    assert notebook.remote("model = 'theirs'").ok
    run = run_of(place, "model = 'theirs'")["id"]
    other = place.start(folder=notebook.folder)
    other.run("model = 'mine'")
    attached = other.run(f"%remote attach {run}")
    assert "model is bound here already" in attached.stderr
    assert other.run("model").result == "'mine'"


@pytest.mark.parametrize("module", ["remora_provisioner.supervise", "sandbox"])
def test_killed_sandbox(place: Place, notebook: Notebook, module: str) -> None:
    """A killed supervisor or sandbox is a crash within a second, nothing of it is left, and the kernel stays usable."""
    pids = place.processes(module) if "." in module else [_sandbox_pid(place)]
    on, killed = kill_at("line 1", pids)
    ran = notebook.remote(COUNT, on=on)
    assert not ran.ok
    assert "crashed (signal 9" in ran.error
    assert ran.took() - (killed[0] - ran.began) < 1.0
    assert ran.stdout.startswith("line 0\nline 1\n")
    assert notebook.run("1 + 1").result == "2"
    assert notebook.remote("print('again')").stdout == "again\n"
    assert len(list((place.state / f"backend-{PROTOCOL}" / "sandboxes").iterdir())) == 1


def _sandbox_pid(place: Place) -> int:
    code = (
        "from remora.client import client; from remora.wire import ListAll; c = client();"
        "print(c.run(c.request(ListAll())).result['sandboxes'][0]['pid'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=place.environment, check=True, capture_output=True, text=True, timeout=60
    )
    return int(done.stdout)


def _out_of_memory(ran: Ran) -> None:
    assert not ran.ok
    assert "out of memory (peak " in ran.error
    assert "limit 256.0 MiB" in ran.error


def test_out_of_memory(notebook: Notebook) -> None:
    """A cell that takes more than memory= is ended as out of memory, with peak and limit, and the next one runs."""
    _out_of_memory(notebook.remote("hog = bytearray(10**9)", "session=small memory=256MiB"))
    assert notebook.remote("print('again')", "session=small memory=256MiB").stdout == "again\n"
    assert notebook.run("import numpy; big = numpy.ones(5 * 10**7)").ok
    _out_of_memory(notebook.remote("big.sum()", "session=small memory=256MiB"))


def test_out_of_memory_without_control_groups(place: Place) -> None:
    """The same where no control groups can be had."""
    notebook = place.start(REMORA_LIMITS="watching")
    _out_of_memory(notebook.remote("hog = bytearray(10**9)\nimport time; time.sleep(60)", "memory=256MiB"))
    assert notebook.remote("print('again')", "memory=256MiB").stdout == "again\n"


def test_memory_error_is_said_and_the_session_lives(notebook: Notebook) -> None:
    """A MemoryError of Python itself ends the cell, not the session."""
    assert notebook.remote("kept = 1").ok
    ran = notebook.remote("x = bytearray(2**60)")
    assert "MemoryError" in ran.error
    assert notebook.remote("print(kept)").stdout == "1\n"


def test_timeout(notebook: Notebook) -> None:
    """A cell that takes longer than timeout= ends with that reason; the session keeps its variables."""
    assert notebook.remote("kept = 1").ok
    ran = notebook.remote("import time; time.sleep(60)", "timeout=2s")
    assert "timeout after 2 s" in ran.error
    assert 2 <= ran.took() < 4
    assert notebook.remote("print(kept)").stdout == "1\n"


def test_timeout_of_code_that_does_not_react(notebook: Notebook) -> None:
    """Code outside of Python is ended with its sandbox, soon after the timeout."""
    ran = notebook.remote("sum(range(10**11))", "timeout=2s")
    assert "timeout" in ran.error
    assert ran.took() < 5
    assert notebook.remote("print('again')").stdout == "again\n"
