"""Disks that are full, for real: a tiny file system as root, a limit on the size of files as anybody.

Law: whoever makes one full has it back as it was when the block ends.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Freed = Callable[[], None]
"""Makes room."""


@contextlib.contextmanager
def tiny(place: Path, kibibytes: int) -> Iterator[Freed]:
    """Mount a file system of that size at `place`; root alone can."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k,mode=700", "tmpfs", str(place)], check=True)
    try:
        yield lambda: _mount_again(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _mount_again(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=512m", str(place)], check=True)


@contextlib.contextmanager
def capped(_: Path, kibibytes: int) -> Iterator[Freed]:
    """Let no file of this process grow beyond that size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kibibytes * 1024, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others cannot mount")
KINDS = [pytest.param(tiny, marks=_ROOT, id="tiny disk"), pytest.param(capped, id="capped files")]
