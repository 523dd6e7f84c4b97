"""Two folders at rest: said only when an exchange would find nothing to do, without one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from provisioner.machines.exchanging import Pair, write
from remora.errors import ProtocolError, RunEnded, Unavailable
from remora_provisioner.machines.exchange.resting import Rest, is_at_rest, rest, tell


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Give two folders that have agreed."""
    pair = Pair(tmp_path, most=1000)
    write(pair.here / "data/a.csv", "1,2", old=True)
    pair.exchange()
    return pair


def at_once(_: socket.socket) -> None:
    """Wait for nothing before reading."""


def asked(pair: Pair, known: Rest | None, ended: Callable[[], object] = lambda: None) -> bool:
    """Ask whether the machine's folder is at rest when `ended` returns."""
    near, far = socket.socketpair()

    def machine() -> None:
        with suppress(RunEnded):  # the other side was told
            tell(pair.there, pair.state, far, ended)

    other = threading.Thread(target=machine)
    with near, far:
        other.start()
        try:
            return is_at_rest(pair.home, known, near, at_once)
        finally:
            other.join()


def test_nothing_has_changed(pair: Pair):
    """Both sides say so, before and after."""
    known = rest(pair.home)
    assert known is not None
    assert asked(pair, known)
    assert asked(pair, None)


@pytest.mark.parametrize("path", ["data/a.csv", "new.txt", "data/large.bin"])
def test_what_is_saved_here_is_seen_here(pair: Pair, path: str):
    """A change, a new file, and one that is too large to travel, of which its user is to be told once."""
    write(pair.here / path, bytes(2000 if "large" in path else 5))
    assert rest(pair.home) is None
    assert not asked(pair, None)
    pair.exchange()
    assert rest(pair.home) is not None


def test_what_is_deleted_here_is_seen_here(pair: Pair):
    """The machine has it still."""
    (pair.here / "data/a.csv").unlink()
    assert rest(pair.home) is None


def test_what_a_run_writes_or_deletes_is_seen_there(pair: Pair):
    """And not any more when it is home."""
    known = rest(pair.home)
    write(pair.there / "made.txt", "made")
    assert not asked(pair, known)
    pair.exchange()
    assert asked(pair, rest(pair.home))
    known = rest(pair.home)
    (pair.there / "made.txt").unlink()
    assert not asked(pair, known)


def test_the_machine_looks_when_the_run_has_ended(pair: Pair):
    """And not when it is asked, which is when the run begins; of a run whose sandbox goes, both sides hear it."""
    assert not asked(pair, rest(pair.home), lambda: write(pair.there / "made.txt", "made"))
    pair.exchange()

    def gone() -> None:
        raise RunEnded("the sandbox was ended", reason="stopped")

    with pytest.raises(RunEnded, match="the sandbox was ended"):
        asked(pair, rest(pair.home), gone)


def test_an_agreement_of_somebody_else_counts(pair: Pair):
    """The same digest as before is no rest when it was another in between."""
    known = rest(pair.home)
    write(pair.there / "made.txt", "made")
    pair.exchange()
    (pair.there / "made.txt").unlink()
    assert not asked(pair, known)


def test_what_could_not_be_done_is_no_rest(pair: Pair):
    """An exchange that broke is to be gone on with."""
    write(pair.here / "more.bin", bytes(900))
    with pytest.raises(Unavailable):
        pair.exchange(most=500)
    assert rest(pair.home) is None


def test_folders_that_have_never_met_are_not_at_rest(tmp_path: Path):
    """Also when both are empty."""
    assert rest(Pair(tmp_path).home) is None


def test_nonsense_is_refused(pair: Pair):
    """Each side names it."""
    for side in (
        lambda sock: tell(pair.there, pair.state, sock, lambda: None),
        lambda sock: is_at_rest(pair.home, None, sock, at_once),
    ):
        near, far = socket.socketpair()
        with near, far:
            near.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ProtocolError):
                side(far)
