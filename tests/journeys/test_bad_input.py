"""Bad input in a notebook: one clear line that says what to do, the reply says error, nothing is lost, the kernel goes on.

Law: each case is something a user writes or a state a machine can be in; no process is stubbed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys.driving import Notebook, Place, Ran


def _one_line(ran: Ran) -> str:
    """Return the only line that a refused cell shows; of its progress nothing stays."""
    assert ran.reply["status"] == "error"
    assert [kind for kind in ran.order if not kind.startswith("comm_")] == ["error"], ran.order
    (line,) = ran.error.splitlines()
    return line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("speed=fast", ["speed", "%remote?"]),
        ("memry=1GiB", ["memry", "did you mean memory"]),
        ("gpu=Z9000", ["Z9000", "here"]),
        ("gpu=A100", ["A100", "no GPU", "cores", "leave gpu="]),
        ("memory=lots", ["lots", "16GiB"]),
        ("memory=16", ["16", "16GiB"]),
        ("cpu=many", ["many", "cpu"]),
        ("timeout=soon", ["soon", "timeout", "30m"]),
        ("files=all", ["all", "rw, ro, none"]),
        ("on=moon", ["moon", "here"]),
        ("env='A=1", ["quote is not closed"]),
        ("gpu=", ["gpu has no value"]),
        ("detach", ["--detach"]),
        ("pip=a>=b=c", ["no requirement", "transformers[torch]"]),
        ("budget=3", ["budget", "timeout="]),
        ("cpu=1 cpu=2", ["cpu", "twice"]),
    ],
)
def test_wrong_option(notebook: Notebook, line: str, words: list[str]):
    """A wrong option is refused in one line that says what to write; the code does not run and the session is untouched."""
    notebook.remote("untouched = 1", "--no-sync")
    said = _one_line(notebook.remote("untouched = 2", f"{line} --no-sync"))
    assert all(word in said for word in words), said
    assert notebook.remote("untouched").result == "1"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("frobnicate", ["frobnicate", "%remote?"]),
        ("stop no_such_session", ["no_such_session", "%remote"]),
        ("attach nothing", ["nothing"]),
        ("cancel nothing", ["nothing"]),
        ("pull 3x", ["3x"]),
        ("memory=1GiB", ["%%remote memory=1GiB", "%remote default"]),
        ("port 6006x", ["6006x", "such as 6006"]),
    ],
)
def test_wrong_command(notebook: Notebook, line: str, words: list[str]):
    """A wrong `%remote` command is refused in one line."""
    said = _one_line(notebook.run(f"%remote {line}"))
    assert all(word in said for word in words), said


def test_unpicklable_variable_is_named(notebook: Notebook):
    """A variable that cannot travel is named with the path to what is in its way, and with what to do."""
    assert notebook.run("import threading, sys\ndeep = {'a': [1, {'lock': sys._getframe()}]}\nfine = 1").ok
    said = _one_line(notebook.remote("deep, fine"))
    assert "deep['a'][1]['lock']" in said and "frame" in said
    assert notebook.run("deep['a'][0], fine").result == "(1, 1)"
    assert notebook.remote("fine").result == "1"


def test_value_that_cannot_come_home_is_named(notebook: Notebook):
    """A value that cannot come home stays there and is usable there; using it here says so in one line."""
    assert notebook.remote("import sys\nframe = sys._getframe()\nother = 2").ok
    assert notebook.run("other").result == "2"
    said = notebook.run("frame.f_lineno")
    assert not said.ok and "frame" in said.error.splitlines()[-1]
    assert notebook.remote("frame.f_lineno > 0").result == "True"


def test_error_in_the_code_of_an_option(notebook: Notebook):
    """An expression in an option that fails says which one and how."""
    said = _one_line(notebook.remote("1", "cpu={1 / 0}"))
    assert "cpu" in said and "ZeroDivisionError" in said


# ---- the state directory -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(place: Place) -> Iterator[Path]:
    """Give a state directory on a file system of 1 MiB that is full."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder = place.root / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def _refused_then_well(place: Place, broken: dict[str, str], words: list[str], mend: str) -> None:
    """Hold that a kernel with these variables refuses a remote cell, runs local ones, and is well once it is mended."""
    notebook = place.start(**broken)
    try:
        assert notebook.run("local = 1").ok
        said = _one_line(notebook.remote("local"))
        assert all(word in said for word in words), said
        assert notebook.run("local").result == "1"
        assert notebook.run(mend).ok
        again = notebook.remote("local")
        assert again.ok and again.result == "1", again.error
    finally:
        place.end(notebook)


def _elsewhere(place: Place) -> str:
    return f"import os\nos.environ['REMORA_STATE_DIR'] = {str(place.state)!r}"


def test_full_disk(place: Place, shared: Notebook, small_disk: Path):
    """A state directory whose disk is full is said to be, with what to do; with room again the same kernel works."""
    with (small_disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    words = [str(small_disk), "No space left", "REMORA_STATE_DIR"]
    mend = f"import os\nos.unlink({str(small_disk / 'filler')!r})"
    try:
        _refused_then_well(place, {"REMORA_STATE_DIR": str(small_disk)}, words, mend)
    finally:
        place.stop_all(small_disk)


def test_state_directory_that_cannot_be_made(place: Place, shared: Notebook):
    """A state directory in the place of a file cannot be used, for nobody; the line names it and what to do."""
    file = place.root / "file"
    file.touch()
    words = [str(file), "REMORA_STATE_DIR"]
    _refused_then_well(place, {"REMORA_STATE_DIR": str(file / "state")}, words, _elsewhere(place))


def test_state_directory_that_cannot_be_written(place: Place, shared: Notebook):
    """A state directory on a read-only file system (as root), or without permission (as anybody else), is said to be."""
    folder = place.root / "locked"
    folder.mkdir(mode=0o500)
    root = os.getuid() == 0
    if root:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], check=True)
    try:
        words = [str(folder), "Read-only" if root else "Permission denied", "REMORA_STATE_DIR"]
        _refused_then_well(place, {"REMORA_STATE_DIR": str(folder)}, words, _elsewhere(place))
    finally:
        if root:
            subprocess.run(["umount", "--lazy", folder], check=True)


def test_disk_that_fills_up_under_a_session(place: Place, shared: Notebook, small_disk: Path):
    """When the disk fills up in the middle of a session, the cell that hits it says so, and loses nothing."""
    subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
    notebook = place.start(REMORA_STATE_DIR=str(small_disk))
    try:
        assert notebook.remote("came = 1\n'before'").result == "'before'"
        ran = notebook.remote("for i in range(64):\n    print('x' * (1 << 20))")
        assert ran.ok and len(ran.stdout) == 64 * ((1 << 20) + 1)
        assert ran.stderr.count("No space left on device") == 1
        assert notebook.remote("came + 1").result == "2"
    finally:
        place.end(notebook)
        place.stop_all(small_disk)
