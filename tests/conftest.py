"""What holds for every test: a home of its own for the session, nothing left behind, no silent skip.

Law: fixtures that only one component needs live beside its tests, not here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import leaks
import pytest
import skips
import zmq
from remora import launch

# Tests below these folders start processes, so each is held to leave none behind.
_WATCHED = {"backend", "journeys", "provisioner"}
_LONG = {"test_kinds.py", "test_lid.py", "test_corpus.py"}
_HERE = Path(__file__).parent
_SESSION = pytest.StashKey[Path]()
_KEEP = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let journeys be made to another machine, unchanged: `make test TESTS="--elsewhere tests/journeys"`."""
    parser.addoption("--elsewhere", action="store_true", help="run every remote cell of tests/journeys on another machine")


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a home of its own: a test never meets the backend, settings or temporary files of the person."""
    _remove_kept()
    hypothesis.settings.register_profile("any speed", deadline=None)
    hypothesis.settings.load_profile("any speed")
    session = Path(tempfile.mkdtemp(prefix=f"rt-{os.getpid()}-"))
    config.stash[_SESSION] = session
    home = session / ".home"
    home.mkdir(0o700)
    config.option.basetemp = str(session / ".t")  # short, for sockets lie below it
    tempfile.tempdir = str(session)
    os.environ |= {
        leaks.MARK: str(session),
        "TMPDIR": str(session),
        "XDG_STATE_HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "XDG_CONFIG_HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
    }


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the session's folder after a failure, for a look; the next session removes it."""
    if exitstatus in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERNAL_ERROR}:
        session.config.stash[_KEEP] = True


def pytest_unconfigure(config: pytest.Config) -> None:
    """Have the session's folder removed, those of workers with it."""
    if not config.stash.get(_KEEP, False) and not hasattr(config, "workerinput"):
        _remove(config.stash[_SESSION])


def _remove_kept() -> None:
    for folder in Path(tempfile.gettempdir()).glob("rt-*-*"):
        owner = folder.name.split("-")[1]
        with contextlib.suppress(FileNotFoundError):  # another session removes it at the same time
            if folder.stat().st_uid == os.getuid() and not Path("/proc", owner).exists():
                _remove(folder)


def _remove(folder: Path) -> None:
    """Have a folder removed; what images leave takes a minute, so nobody waits for that."""
    subprocess.run(["sh", "-c", 'rm -rf -- "$1" 2>/dev/null &', "sh", folder], check=True, start_new_session=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take longest be begun first: at the end, one would run alone."""
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Judge the skip of a test."""
    report = yield
    skips.judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """Judge the skip of a whole file."""
    report = yield
    skips.judge(report)
    return report


@pytest.fixture(scope="session", autouse=True)
def _warm() -> None:
    """Start what a library starts once in a process and keeps, so that the first test is not blamed for it."""
    zmq.Context.instance().socket(zmq.PAIR).close()
    gc.collect()
    gc.freeze()  # thousands of collected tests stay to the end: going through them at each look for leaks took most of the time


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, _warm: None) -> Iterator[None]:
    """Fail a test that leaks a process, thread, descriptor, mount, control group or temporary folder."""
    place: Any = request.path.relative_to(_HERE).parts[0] if request.path.is_relative_to(_HERE) else ""
    if place not in _WATCHED:
        started = list(launch._started)
        yield
        assert launch._started == started, "a test of this folder has started a backend"
        return
    session = request.config.stash[_SESSION]
    before = leaks.take(session)
    yield
    grown = leaks.settle(before, session)
    leaks.end([pid for pid in grown.get("processes", {}) if isinstance(pid, int)])
    if grown:
        lines = [f"{kind}: {text}" for kind, things in grown.items() for text in things.values()]
        pytest.fail("left behind\n  " + "\n  ".join(lines), pytrace=False)
