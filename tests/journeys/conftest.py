"""Kernels for journeys: one place with one kernel for each file, its sandbox already there.

Law: what a file shares is started before its first test, so that each test's leak check sees only what the test itself starts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from journeys.driving import Notebook, Place


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Give a file's tests a place, closed after the last of them."""
    place = Place()
    try:
        yield place
    finally:
        place.close()


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
