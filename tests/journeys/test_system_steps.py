"""Programs of the system that a cell's image brings along, in a real kernel."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from journeys.driving import Notebook, Place
from provisioner.images.systems import debian, mmdebstrap

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


def test_another_system_is_another_sandbox(notebook: Notebook, session: str) -> None:
    """The system below a living sandbox cannot be changed: the session gets another one, and a line says what stays behind."""
    assert notebook.remote("kept = 1; here_only = lambda: 2", f"session={session}").ok
    ran = notebook.remote("import subprocess; [kept, subprocess.getoutput('hello')]", f"apt=hello session={session}")
    assert ran.result == "[1, 'Hello, world!']", ran.error
    (old,) = re.findall(r"gets another sandbox; what sandbox (\w+) holds stays behind", ran.stderr)
    stop = (
        f"from remora.client import client as c; from remora.wire import StopSandboxes as S; c().run(c().request(S([{old!r}])))"
    )
    assert notebook.run(stop).ok


@mmdebstrap
def test_a_system_of_its_own(notebook: Notebook, session: str) -> None:
    """A Debian with its own Python: variables and files go both ways, its packages grow, nothing of the machine's is seen."""
    line = f"session={session} image={{remora.Image.debian_slim().apt_install('hello')}}"
    code = "import os, platform, subprocess\nx.append(os.path.exists('/usr/bin/git'))\nopen('from-debian', 'w').close()"
    assert notebook.run("import remora; x = [1]").ok
    ran = notebook.remote(code, line, timeout=240)
    if not ran.ok and "Failed to fetch" in ran.error:
        pytest.skip("needs a package index, and none can be reached")
    assert ran.ok, ran.error
    assert notebook.run("x").result == "[1, False]"
    assert (notebook.folder / "from-debian").exists()
    assert notebook.remote("sorted(x), platform.freedesktop_os_release()['ID']", line).result == "([False, 1], 'debian')"
    assert notebook.remote("subprocess.getoutput('hello')", line).result == "'Hello, world!'"
    more = line.replace("')}", "').pip_install('six')}")
    assert notebook.remote("import six; six.__name__, len(x)", more, timeout=120).result == "('six', 2)"
