"""Deaths around remote functions: the backend is killed while calls run and wait, and every call comes to its own end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import remora
from journeys.calling import backend, calling, warm_up
from journeys.driving import STOP


@remora.function(cpu=1)
def nap(seconds):
    """Say so, and sleep."""
    print("asleep")
    time.sleep(seconds)
    return seconds


@pytest.fixture(scope="module", autouse=True)
def _warm_up() -> None:
    """Start once what this process keeps."""
    warm_up()


@pytest.fixture(autouse=True)
def _calling() -> Iterator[None]:
    """Give each test a backend of its own to kill."""
    with calling():
        yield


def test_backend_is_killed_and_the_run_found_again(capsys):
    """A run outlives the backend: who waits is served by the next one, and so is who asks by id; each line comes once."""
    run = nap.spawn(3.0)
    waiting = remora.Run.from_id(run.id)
    with pytest.raises(TimeoutError):
        waiting.get(timeout=0.5)
    os.kill(backend(), signal.SIGKILL)
    assert waiting.get(timeout=60) == 3.0
    assert capsys.readouterr().out == "asleep\n"
    assert remora.Run.from_id(run.id).get(timeout=60) == 3.0
    assert capsys.readouterr().out == "asleep\n"
    assert nap.remote(0) == 0


def test_queued_calls_outlive_the_backend():
    """What was queued when the backend was killed is run by the next one."""
    runs = [nap.spawn(0.3) for _ in range(8)]
    os.kill(backend(), signal.SIGKILL)
    assert [run.get(timeout=100) for run in runs] == [0.3] * 8


def test_a_map_goes_on_when_the_backend_is_killed():
    """A map that waits for its results gets all of them, in order."""
    seconds = [0.1 * (x % 3) for x in range(20)]
    results = nap.map(seconds)
    found = [next(results)]
    os.kill(backend(), signal.SIGKILL)
    assert found + list(results) == seconds


def test_two_handles_of_one_run():
    """Two handles in one process both get the run's value, whichever asks first."""
    run = nap.spawn(1.0)
    other = remora.Run.from_id(run.id)
    with pytest.raises(TimeoutError):
        run.get(timeout=0.2)
    assert other.get(timeout=60) == 1.0
    assert run.get(timeout=60) == 1.0


def test_stop_ends_what_waits():
    """Ending everything ends calls that somebody waits for, begun or not, with its reason; the next call starts it all again."""
    run = nap.spawn(60)
    with pytest.raises(TimeoutError):
        run.get(timeout=0.5)
    opening = remora.function(cpu=0.5)(time.sleep).spawn(60)  # its sandbox is another one
    subprocess.run([sys.executable, "-c", STOP], check=True, timeout=60)
    for one in (run, opening):
        with pytest.raises(remora.RunEnded) as ended:
            one.get(timeout=60)
        assert ended.value.reason == "stopped"
    assert nap.remote(0) == 0
