"""Places whose user knows a host, for journeys to other machines."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from journeys.driving import Message, Notebook, Place
from provisioner.hosts import Host

ON = "on=box"


@contextlib.contextmanager
def knowing(host: Host, python: str) -> Iterator[Place]:
    """Give a place whose user knows the host."""
    home = Path(tempfile.mkdtemp(prefix="home-"))
    (home / ".ssh").mkdir(mode=0o700)
    shutil.copy(host.config, home / ".ssh/config")
    place = Place(HOME=str(home))
    place.add_kernel("small", python)
    try:
        yield place
    finally:
        place.close()
        shutil.rmtree(home)


def started(place: Place) -> Notebook:
    """Start a kernel whose session has a sandbox there."""
    notebook = place.start("small")
    assert notebook.run("%load_ext remora").ok
    assert (ran := notebook.remote("pass", ON)).ok, ran.error
    return notebook


def kill_when(text: str, kill: Callable[[], object]) -> Callable[[Message], None]:
    """Return what to do with each message, so that something is killed once a text is printed."""
    killed: list[float] = []

    def on(message: Message) -> None:
        if not killed and text in message["content"].get("text", ""):
            killed.append(time.monotonic())
            kill()

    return on
