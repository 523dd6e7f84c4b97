"""Programs of the system that a cell's image brings along, in a real kernel."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from journeys.driving import Notebook, Place
from provisioner.images.systems import debian

from provisioner import needs

pytestmark = [needs.namespaces, debian]


@pytest.fixture(scope="module")
def shared(place: Place) -> Notebook:
    """Give the tests one kernel, with an image that a package and a command have changed."""
    notebook = place.start("remora")
    made = "import remora\nimage = remora.Image.mirror().apt_install('hello').run_commands('mkdir /data; hello > /data/said')"
    assert notebook.run(made).ok
    assert notebook.remote("pass").ok
    return notebook


@pytest.fixture
def session(notebook: Notebook) -> Iterator[str]:
    """Give a test a session of its own, without a sandbox at the end."""
    name = f"s{time.monotonic_ns()}"
    yield name
    assert notebook.run(f"%remote stop {name}").ok


def test_a_cell_has_what_its_image_changed(notebook: Notebook, session: str) -> None:
    """The program and the file are there, in the notebook's folder, beside the kernel's own packages."""
    code = "import subprocess, tornado\nopen('made', 'w').close()\n[subprocess.getoutput('hello'), open('/data/said').read()]"
    ran = notebook.remote(code, f"image={{image}} session={session}")
    assert ran.result == "['Hello, world!', 'Hello, world!\\n']", ran.error
    assert (notebook.folder / "made").exists()


def test_a_living_session_is_told_to_restart(notebook: Notebook, session: str) -> None:
    """What is changed of the system cannot be given to a sandbox that lives; the error says what to do."""
    assert notebook.remote("kept = 1", f"session={session}").ok
    ran = notebook.remote("kept", f"image={{image}} session={session}")
    assert "restart the session" in str(ran.error)
    assert notebook.remote("kept", f"session={session}").result == "1"
