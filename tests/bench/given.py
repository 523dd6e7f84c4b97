"""What more than one bench is given: a host in a network namespace, an environment that is sent to it, a folder of many files.

Law: a host is made by root alone; who is not root measures nothing with one.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uv
from place import Place
from provisioner.hosts import Host

ROOT = Path(__file__).resolve().parents[2]
"""This tree."""
_FILES, _BYTES, _FOLDERS = 10_000, 100_000, 100


def hosts_can_be() -> bool:
    """Say whether a host can be made."""
    return os.geteuid() == 0


@contextlib.contextmanager
def box(place: Place, **options: Any) -> Iterator[Host]:
    """Give a host that the place's user knows as `box`; for `options` see `Host`."""
    with Host(name="box", **options) as host:
        home = place.folder.parent / "user"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        shutil.copy(host.config, home / ".ssh/config")
        place.environment["HOME"] = str(home)
        try:
            yield host
        finally:
            host.link.shape()
            place.stop()


def environment(place: Place, *wanted: str) -> str:
    """Return the Python of an environment with what is wanted and nothing else: all of it goes to the host."""
    folder = place.folder.parent / "environment"
    python = str(folder / "bin/python")
    for words in (
        ["venv", "--python", sys.executable, folder],
        ["pip", "install", "--compile-bytecode", "--python", python, *wanted],
    ):
        subprocess.run([uv.find_uv_bin(), "-q", *words], check=True)
    return python


def fill(folder: Path) -> None:
    """Make 10,000 files with 1 GB in a folder, the same each time."""
    chance = random.Random(0)
    for number in range(_FILES):
        path = folder / f"{number % _FOLDERS:02d}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(_BYTES))
    os.sync()
