"""What both sides of an exchange do around it: open the folder, look at it, keep its digests, tell the other side of a failure.

Law: decides nothing; used by home.py, serving.py and resting.py alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from remora.errors import RemoraError, StateError

from .agreed import Memory
from .beneath import Beneath
from .folderindex import Index, look, read
from .ignoring import Rules
from .letters import Letters


@contextlib.contextmanager
def telling(letters: Letters) -> Iterator[None]:
    """Tell the other side what went wrong here, and let it wait for nothing."""
    try:
        yield
    except RemoraError as error:
        letters.put_error(error)
        letters.stop()
        raise


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Beneath]:
    """Open the folder; StateError if it cannot be."""
    try:
        top = Beneath(folder)
    except OSError as error:
        raise _unreadable(folder, error) from error
    with top:
        yield top


@contextlib.contextmanager
def looked(folder: Path, rules: Rules, most: int, memory: Memory, *, all_read: bool = True) -> Iterator[Index]:
    """Give the folder's index, and keep the digests that it has in the end, however that comes.

    Unless `all_read`, what is unread has still to be read.
    """
    with _readable(folder):
        index = look(folder, rules, most, memory.digests())
    if all_read:
        read_unread(folder, index)
    try:
        yield index
    except RemoraError:
        with contextlib.suppress(StateError):  # the disk may be full, and what went wrong first counts
            memory.keep_digests(index)
        raise
    memory.keep_digests(index)


def read_unread(folder: Path, index: Index, but: Container[bytes] = ()) -> None:
    """Read what is unread, `but` some. Raises StateError if the folder cannot be read any more."""
    with _readable(folder):
        read(folder, index, but)


def sweep(top: Beneath, index: Index, kept: Iterable[bytes]) -> None:
    """Remove what was cut off on its way in and is not expected any more."""
    for path in index.arriving.keys() - set(kept):
        with contextlib.suppress(OSError):  # it stays aside, and is seen next time
            top.remove(path)


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: OSError) -> StateError:
    if isinstance(error, FileNotFoundError):
        text = "is not there any more; what runs have written stays on the other machine, and comes when it is there again"
        return StateError(f"the notebook's folder {folder} {text}", reason="no-folder")
    return StateError(f"the notebook's folder {folder} cannot be read ({error.strerror}): look at its permissions")
