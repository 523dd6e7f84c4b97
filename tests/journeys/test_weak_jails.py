"""Where user namespaces are forbidden: a weaker jail is taken and one line says so, unless `jail=` demands more.

The kernel is started inside a user namespace that allows no further ones, as a container or Ubuntu 24.04 does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from journeys.driving import Notebook, Place

FORBID = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Give a place whose kernels may not make namespaces."""
    place = Place()
    argv = ["unshare", "--user", "--map-root-user", "sh", "-c", FORBID, "sh"]
    plain = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    place.add_kernel("forbidden", sys.executable, {"argv": [*argv, *plain], "display_name": "forbidden", "language": "python"})
    try:
        yield place
    finally:
        place.close()


@pytest.fixture(scope="module")
def notebook(place: Place) -> Notebook:
    """Give a kernel there, whose session has a sandbox."""
    notebook = place.start("forbidden")
    assert notebook.run("%load_ext remora").ok
    first = notebook.remote("print('runs')")
    assert first.stdout == "runs\n", first.error
    assert first.stderr.count("\n") == 1
    assert "jail bubblewrap does not work here" in first.stderr
    return notebook


def test_the_weaker_jail_is_taken_and_said_once(notebook: Notebook) -> None:
    """The sandbox runs by Landlock, the line that says so comes once, and the status line names the jail."""
    again = notebook.remote("import time; time.sleep(1.1)")
    assert again.stderr == ""
    assert "landlock" in notebook.run("%remote").result


def test_the_folder_can_be_written_and_the_rest_cannot(notebook: Notebook) -> None:
    """Landlock keeps the environment read-only and the notebook's folder writable."""
    code = """
import os
open('made.txt', 'w').write('x')
try:
    open(os.__file__, 'a')
except OSError as error:
    print(type(error).__name__)
"""
    assert notebook.remote(code).stdout == "PermissionError\n"
    assert (notebook.folder / "made.txt").read_text() == "x"


def test_what_demands_more_is_refused(notebook: Notebook) -> None:
    """With jail=bubblewrap nothing weaker will do."""
    ran = notebook.remote("1", "session=strong jail=bubblewrap")
    assert not ran.ok
    assert "Unavailable" in ran.error
    assert "bubblewrap" in ran.error
