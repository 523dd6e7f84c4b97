"""Places whose user knows a host, for journeys to other machines."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from journeys.calling import warm_up
from journeys.driving import DEADLINE, Message, Notebook, Place
from provisioner.hosts import Host
from remora.jupyter.kept import NAMED
from remora.wire import PROTOCOL

ON = "on=box"
_there: dict[str, Any] = {}
"""The host of all remote cells, if they are not to run here."""


@contextlib.contextmanager
def everything() -> Iterator[None]:
    """Have the remote cells of all kernels started meanwhile run on a host: the metadata of their notebook says so."""
    warm_up()
    home = Path(tempfile.mkdtemp(prefix="home-"))
    with Host(name="box") as host, pytest.MonkeyPatch.context() as patch:
        (home / ".ssh").mkdir(mode=0o700)
        shutil.copy(host.config, home / ".ssh/config")
        patch.setitem(_there, "host", host)
        patch.setattr(Place, "packed", home / "packed")
        (home / "default.ipynb").write_text(json.dumps({"cells": [], "metadata": metadata()}))
        patch.setenv("HOME", str(home))
        patch.setenv(NAMED, str(home / "default.ipynb"))
        with contextlib.closing(Place()) as place:  # no test waits for what is brought once, or is blamed for the agent there
            assert (ran := place.start().remote("pass", timeout=300)).ok, ran.error
            place.keep_packed()
            yield
    shutil.rmtree(home)


@contextlib.contextmanager
def host() -> Iterator[Host]:
    """Give the host of all remote cells, or one for the meantime."""
    with contextlib.nullcontext(_there["host"]) if _there else Host(name="box") as host:
        yield host


def machine() -> str:
    """Return what the machine of remote cells is called."""
    return "box" if _there else "here"


def kept(place: Place) -> Path:
    """Return the folder that has sandboxes and run logs of a place's remote cells; there, those of other places, too."""
    return _there["host"].home_path / f".local/share/remora/agent/state-{PROTOCOL}" if _there else place.backend


def reached(place: Place) -> None:
    """Have that host reached by a place's backend, so that no test is blamed for the connection."""
    if _there:
        notebook = place.start()
        assert (ran := notebook.remote("pass")).ok, ran.error
        place.end(notebook)


def metadata() -> Message:
    """Return what the metadata of a notebook has to say for its remote cells to run there, if they are to."""
    return {"remora": {"default": ON}} if _there else {}


def bell() -> socket.socket | None:
    """Return a socket that code can connect to if it is on that host; None where it is here. Whoever asks closes it."""
    if not _there:
        return None
    server = socket.create_server((_there["host"].link.near, 0))
    server.settimeout(DEADLINE)
    return server


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
