"""What each process costs to start: the import that users write, the command line, backend, and guest.

Law: every figure is a whole process, and stands beside that of a Python which does nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import remora
from figures import Figure
from place import Place
from remora import frames
from remora.wire import Ready

_ROUNDS = 7
_BACKEND = "from remora.launch import ensure_backend; ensure_backend()"


def measure(place: Place) -> list[Figure]:
    """Start each process by turns."""
    commands: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: _process(place, "-c", "pass"),
        "import remora": lambda: _process(place, "-c", "import remora"),
        "remora --help": lambda: _process(place, "-c", "from remora.cli import main; main()", "--help"),
        "backend, to serving": lambda: _backend(place),
        "guest, to ready (no sandbox around it)": lambda: _guest(place),
    }
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(_ROUNDS):
        for name, command in commands.items():
            samples[name].append(command())
    return [Figure(f"start: {name}", tuple(found)) for name, found in samples.items()]


def _process(place: Place, *arguments: str) -> float:
    began = time.perf_counter()
    place.run(*arguments)
    return time.perf_counter() - began


def _backend(place: Place) -> float:
    """Return the seconds from starting the backend's process to its word that it serves."""
    directory = place.state / "alone"
    directory.mkdir()
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "remora_backend", str(directory), str(writing)]
    began = time.perf_counter()
    with subprocess.Popen(command, pass_fds=[writing], env=place.environment, stderr=subprocess.DEVNULL) as process:
        os.close(writing)
        with open(reading, encoding="utf-8") as said:
            assert said.readline() == "ready\n"
        took = time.perf_counter() - began
        process.terminate()
    shutil.rmtree(directory)
    return took


def _guest(place: Place) -> float:
    """Return the seconds from starting the guest's process to its word that it can run code."""
    ours, theirs = socket.socketpair()
    entry = Path(remora.__file__).parent / "guest" / "__main__.py"
    environment = place.environment | {"REMORA_GUEST_FD": str(theirs.fileno())}
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, str(entry)], pass_fds=[theirs.fileno()], env=environment, cwd=place.folder):
        theirs.close()
        decoder = frames.Decoder()
        ready = next(m for _ in iter(int, 1) for m in decoder.wrote(ours.recv_into(decoder.writable())))
        took = time.perf_counter() - began
        assert isinstance(ready, Ready), json.dumps(str(ready))
        ours.close()  # the guest leaves with its supervisor
    return took
