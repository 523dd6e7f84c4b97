"""Kernels for journeys: one place with one kernel for each file, its sandbox already there.

Law: what a file shares is started before its first test, so that each test's leak check sees only what the test itself starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys import differences, elsewhere
from journeys.driving import Notebook, Place
from jupyter_core.utils import ensure_event_loop
from provisioner.hosts import Host
from remora_provisioner.images.build.resolver import certificates, uv_binary

from provisioner import needs


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, with --elsewhere, what is different there."""
    for item in items if config.getoption("elsewhere") else ():
        if item.path.parent == Path(__file__).parent:
            item.add_marker(needs.hosts)
            if reason := differences.why(_files(item), item.name):
                item.add_marker(pytest.mark.skip(reason=f"differs elsewhere: {reason}"))


def _files(item: pytest.Item) -> list[str]:
    """Return the names of the files that have a test: some are written in one, and run in another, too."""
    written = inspect.getsourcefile(item.function) if isinstance(item, pytest.Function) else None
    return list(dict.fromkeys([item.path.name, Path(written or item.path).name]))


@pytest.fixture(scope="session", autouse=True)
def _loop() -> None:
    """Make the event loop that jupyter_client keeps, before the leak check of the first test looks."""
    ensure_event_loop()


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(pytestconfig: pytest.Config) -> Iterator[None]:
    """With --elsewhere, have all remote cells run on another machine."""
    with elsewhere.everything() if pytestconfig.getoption("elsewhere") else contextlib.nullcontext():
        yield


@pytest.fixture(scope="module")
def place(_elsewhere: None) -> Iterator[Place]:
    """Give a file's tests a place, closed after the last of them."""
    place = Place()
    try:
        yield place
    finally:
        place.close()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Give a file's tests a host, which nobody has been to."""
    with Host(name="box") as host:
        yield host


@pytest.fixture(scope="module")
def shared(place: Place) -> Notebook:
    """Give a file's tests one kernel `remora` whose session has a sandbox."""
    notebook = place.start()
    assert notebook.remote("pass").ok
    return notebook


@pytest.fixture
def notebook(shared: Notebook) -> Notebook:
    """Give a test the file's kernel, with nothing left over from the test before."""
    shared.seen.clear()
    return shared


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def python_with_ipykernel_6(pytestconfig: pytest.Config) -> str:
    """Give the Python of an environment with this tree and ipykernel 6, made once and kept in pytest's cache."""
    folder = pytestconfig.cache.mkdir("ipykernel-6")
    python, stamp = folder / "env" / "bin" / "python", folder / "made-for"
    wanted = (ROOT / "pyproject.toml").read_text()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            _make_environment(folder / "env", "-e", str(ROOT), "ipykernel>=6.29,<7")
            stamp.write_text(wanted)
    return str(python)


@pytest.fixture(scope="session")
def small_environment(pytestconfig: pytest.Config) -> str:
    """Give the Python of an environment with this tree and what it needs, and nothing else, made once and kept in pytest's cache.

    It is what goes to other machines in tests; the environment of the tests themselves is ten times as large.
    """
    folder = pytestconfig.cache.mkdir("small-environment")
    python, stamp = folder / "env" / "bin" / "python", folder / "made-for"
    wanted = (ROOT / "pyproject.toml").read_text() + "tqdm"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            _make_environment(folder / "env", "-e", f"{ROOT}[ssh]", "tqdm")
            stamp.write_text(wanted)
    return str(python)


def _make_environment(folder: Path, *packages: str) -> None:
    """Make an environment anew, with these packages."""
    shutil.rmtree(folder, ignore_errors=True)
    variables = os.environ | certificates()
    subprocess.run([uv_binary(), "venv", "-q", "--seed", "--python", sys.executable, folder], check=True, env=variables)
    command = [uv_binary(), "pip", "install", "-q", "--compile-bytecode", "--python", folder / "bin" / "python", *packages]
    subprocess.run(command, check=True, env=variables)
