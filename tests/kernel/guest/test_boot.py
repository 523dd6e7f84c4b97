"""Starting and ending: what is looked at, what is said, what is left."""

import subprocess
import sys

import pytest

NAMES = [
    "comm",
    "random",
    "remora",
    "IPython",
    "json",
    "service",
    "asyncio",
    "dill",
    "traitlets",
    "socket",
    "queue",
    "code",
    "token",
]


def test_users_files_shadow_nothing(start_guest, tmp_path):
    """Files of the notebook's folder named as modules of ours or Python's do not break the start."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text("raise RuntimeError('the wrong one')")
    (folder / "mine.py").write_text("x = 5")
    guest = start_guest()
    assert guest.run("import mine, sys\nprint(mine.x, repr(sys.path[0]))\nmine.x").plain() == "5"
    assert not any("remora/guest" in entry for entry in guest.run("import sys\nsys.path").plain().split())
    assert guest.run("import ipywidgets\nipywidgets.IntProgress(value=3).value", sync=False).plain() == "3"


def test_ready_tells_the_facts(guest):
    """The first message says which Python and packages are there."""
    assert guest.facts["python"] == ".".join(map(str, sys.version_info[:3])) and guest.facts["pid"] == guest.process.pid
    assert set(guest.facts["versions"]) == {"IPython", "dill"}


def test_guest_ends_with_its_supervisor(start_guest):
    """When the socket closes the guest ends at once, also in the middle of a cell."""
    guest = start_guest()
    guest.until(guest.cell("print('go')\nwhile True: pass"), lambda emit: True)
    guest.socket.close()
    assert guest.process.wait(5) == 0


def test_frames_of_another_protocol_end_it(start_guest):
    """Bytes that are no frame end the guest with a line in its log."""
    guest = start_guest()
    guest.socket.sendall(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n")
    assert guest.process.wait(5) == 70
    guest.log.seek(0)
    assert b"protocol" in guest.log.read()


def test_unknown_form_is_refused(guest):
    """A run of a kind that is not known ends with an error that says what to do."""
    assert guest.finish(guest.start("dance", {})).error["ename"] == "Refused"


def test_crash_is_in_the_log(start_guest):
    """A segmentation fault leaves the Python stack in the guest's log."""
    guest = start_guest()
    guest.cell("import ctypes\nctypes.string_at(0)")
    assert guest.process.wait(10) == -11
    guest.log.seek(0)
    assert b"Segmentation fault" in guest.log.read()


def test_many_ends_leave_no_process(start_guest):
    """Guests that are started and hung up leave no process behind."""
    pids = []
    for _ in range(3):
        guest = start_guest()
        pids.append(str(guest.process.pid))
        guest.close()
    assert subprocess.run(["ps", "-o", "pid=", "-p", ",".join(pids)], capture_output=True, check=False).stdout.strip() == b""


@pytest.mark.parametrize("module", ["IPython", "numpy", "dill", "comm"])
def test_start_imports_no_more_than_it_needs(guest, module):
    """What a call does not need is not imported before a call."""
    run = guest.call(f"def f():\n    import sys\n    return {module!r} in sys.modules")
    assert guest.finish(run).values == {"result": False}
