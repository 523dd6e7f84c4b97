"""The fixture that finds what a test leaves behind finds it: each kind of leak is made for real, seen, and removed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import leaks
import pytest

_DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
os.close(1), os.close(2)
sys.stdin.read()
"""


@pytest.fixture
def session() -> Path:
    """Return the folder of this test session."""
    return Path(os.environ[leaks.MARK])


def test_nothing_is_found_where_nothing_is_left(session: Path) -> None:
    """A process that was started and waited for is no leak."""
    before = leaks.take(session)
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert leaks.settle(before, session) == {}


def test_a_daemon_is_found_though_it_is_nobodys_child(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has left the family is found by the session's mark, and ended."""
    monkeypatch.setattr(leaks, "GRACE", 0.1)
    read, write = os.pipe()
    before = leaks.take(session)
    try:
        done = subprocess.run([sys.executable, "-c", _DAEMON], stdin=read, capture_output=True, text=True, check=True)
        pid = int(done.stdout)
        assert pid in leaks.settle(before, session)["processes"]
        leaks.end([pid])
        monkeypatch.setattr(leaks, "GRACE", 5.0)
        assert leaks.settle(before, session) == {}
    finally:
        os.close(read)
        os.close(write)


def test_a_thread_a_descriptor_and_a_folder_are_found(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three is named, and gone once it is closed."""
    monkeypatch.setattr(leaks, "GRACE", 0.1)
    before = leaks.take(session)
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="left-alone")
    thread.start()
    folder = session / "left-alone"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    grown = leaks.settle(before, session)
    assert "left-alone" in grown["threads"].values()
    assert any(text.endswith(str(folder)) for text in grown["files"].values())
    assert "left-alone" in grown["folders"]
    os.close(descriptor)
    folder.rmdir()
    done.set()
    thread.join()
    assert leaks.settle(before, session) == {}
