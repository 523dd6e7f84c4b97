"""The run log: nothing is lost, doubled or out of order, whatever the disk and those who follow do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import in_loop
from remora import streams
from remora.errors import StateError
from remora.frames import encode
from remora.streams import Peer
from remora.wire import Message, Ready, Record, RunId
from remora_provisioner import runlog
from remora_provisioner.runlog import Follower, RunLog

from provisioner import disks

RUN = RunId("r1")


def record(seq: int, size: int = 10, kind: str = "output", **content: Any) -> Record:
    """Return a record of about that many bytes."""
    return Record(RUN, seq, 0.5, kind, content or {"text": "x" * size}, buffers=(b"b" * (seq % 3),))


def the_end(seq: int) -> Record:
    """Return the last record of a run."""
    return record(seq, kind="state", state="done")


def numbers(path: Path, after: int = -1, start: int = 0) -> list[int]:
    """Return the numbers of the records in a log."""
    return [found.seq for found, _ in runlog.read(path, after, start)]


@contextlib.contextmanager
def log_at(path: Path) -> Iterator[RunLog]:
    """Give an open log."""
    log = RunLog(path)
    try:
        yield log
    finally:
        log.close()
        log.close()


# ---- writing and reading --------------------------------------------------------------------------------------------------


def test_what_was_appended_is_there_at_once(tmp_path: Path) -> None:
    """Each record can be read by others as soon as `append` returns, with its buffers and the offset behind it."""
    with log_at(tmp_path / "deep" / "er" / "log") as log:
        for seq in range(20):
            pieces = log.append(record(seq))
            assert numbers(log.path) == list(range(seq + 1))
            assert log.size == log.path.stat().st_size
            assert b"".join(pieces) == log.path.read_bytes()[-sum(map(len, pieces)) :]
        assert [len(found.buffers[0]) for found, _ in runlog.read(log.path)] == [seq % 3 for seq in range(20)]
    assert (log.path.stat().st_mode & 0o777, log.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_reading_from_a_number_and_from_an_offset(tmp_path: Path) -> None:
    """`after` leaves out records, `start` leaves out bytes; the offsets given fit the second."""
    with log_at(tmp_path / "log") as log:
        for seq in range(10):
            log.append(record(seq))
        places = {found.seq: offset for found, offset in runlog.read(log.path)}
        assert numbers(log.path, after=6) == [7, 8, 9]
        assert numbers(log.path, start=places[6]) == [7, 8, 9]
        assert numbers(log.path, after=8, start=places[3]) == [9]
        assert [offset for _, offset in runlog.read(log.path, start=places[6])] == [places[7], places[8], places[9]]
        assert places[9] == log.size


def test_a_log_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    """Reading never makes a file."""
    assert numbers(tmp_path / "none" / "log") == []
    assert not list(tmp_path.iterdir())


def test_a_large_record(tmp_path: Path) -> None:
    """A record of many megabytes, in several buffers, is written whole and read whole."""
    big = Record(RUN, 0, 0.5, "output", {}, buffers=tuple(bytes([n]) * 3_000_000 for n in range(4)))
    with log_at(tmp_path / "log") as log:
        log.append(big)
        log.append(the_end(1))
    (found, _), (last, offset) = runlog.read(tmp_path / "log")
    assert [bytes(b[:1]) * 3_000_000 == bytes(b) for b in found.buffers] == [True] * 4
    assert (last.seq, offset) == (1, (tmp_path / "log").stat().st_size)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 6), st.integers(0, 400), st.sampled_from([b"", b"\0" * 40, b"RMRA", b"garbage " * 9]))
def test_a_torn_tail_is_passed_over_and_cut(tmp_path: Path, count: int, torn: int, noise: bytes) -> None:
    """Wherever the file was torn, and whatever a power cut left behind, whole records stay and writing goes on after them."""
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    with log_at(path) as log:
        for seq in range(count):
            log.append(record(seq))
    data = path.read_bytes()
    path.write_bytes(data[: max(len(data) - torn, 0)] + noise)
    whole = numbers(path)
    assert whole == list(range(len(whole)))
    with log_at(path) as log:
        assert log.seq == len(whole) - 1
        log.append(record(log.seq + 1))
        log.append(the_end(log.seq + 1))
    assert numbers(path) == list(range(len(whole) + 2))


def test_a_log_with_something_else_in_it(tmp_path: Path) -> None:
    """A frame that is no record ends what is read, without an error."""
    (tmp_path / "log").write_bytes(b"".join(b"".join(encode(m)) for m in (record(0), Ready({}), record(1))))
    assert numbers(tmp_path / "log") == [0]


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    """Whoever opens the log again knows the last number in it."""
    with log_at(tmp_path / "log") as log:
        assert log.seq == -1
        log.append(record(0))
        log.append(record(1))
    with log_at(tmp_path / "log") as log:
        assert log.seq == 1


@pytest.mark.parametrize("obstacle", ["file", "folder"])
def test_a_log_that_cannot_be_made(tmp_path: Path, obstacle: str) -> None:
    """A file where the folder should be, or a folder where the log should be: StateError, with what to do."""
    path = tmp_path / "run" / "log"
    if obstacle == "file":
        (tmp_path / "run").touch()
    else:
        path.mkdir(parents=True)
    with pytest.raises(StateError, match=r"cannot be written.*REMORA_STATE_DIR"):
        RunLog(path)


# ---- a full disk ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", disks.KINDS)
def test_a_full_disk_loses_nothing(tmp_path: Path, full: Callable[..., Any]) -> None:
    """Records that find no room are held, in order, and are written as soon as there is some; the file is whole all the time."""
    path = tmp_path / "disk" / "log"
    with full(tmp_path / "disk", 64) as free:
        with log_at(path) as log:
            for seq in range(40):
                log.append(record(seq, 4000))
                assert numbers(path) == list(range(len(numbers(path))))
            assert log.trouble == os.strerror(errno.ENOSPC if full is disks.tiny else errno.EFBIG)
            held = [found.seq for found in log.held()]
            assert held
            assert numbers(path) + held == list(range(40))
            free()
            log.append(the_end(40))
            assert log.trouble is None
            assert log.held() == []
        assert numbers(path) == list(range(41))


@pytest.mark.parametrize("full", disks.KINDS)
def test_what_is_held_is_written_at_the_end(tmp_path: Path, full: Callable[..., Any]) -> None:
    """When nothing more is appended, closing writes what found no room before."""
    path = tmp_path / "disk" / "log"
    with full(tmp_path / "disk", 64) as free:
        with log_at(path) as log:
            for seq in range(30):
                log.append(record(seq, 4000))
            free()
        assert numbers(path) == list(range(30))


@in_loop
async def test_many_appends_share_one_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appends reach the disk in groups, and the last one is never left out, even if it came while the flush ran."""
    flushed: list[int] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def flush(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if not flushed:
            asyncio.run_coroutine_threadsafe(append_more(), loop).result()
        flushed.append(size)
        os.fsync(descriptor)
        if len(flushed) == 2:
            loop.call_soon_threadsafe(done.set)

    async def append_more() -> None:
        log.append(record(100))
        log.sync_soon(0.001)

    monkeypatch.setattr(os, "fdatasync", flush)
    with log_at(tmp_path / "log") as log:
        for seq in range(100):
            log.append(record(seq))
            log.sync_soon(0.001)
        await done.wait()
        assert flushed[1] == log.size > flushed[0]


@in_loop
async def test_a_flush_that_fails_is_trouble_and_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that breaks under a flush is noted; the log goes on."""
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(_: int) -> None:
        loop.call_soon_threadsafe(tried.set)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    with log_at(tmp_path / "log") as log:
        log.append(record(0))
        log.sync_soon(0.0)
        await tried.wait()
        await log._syncing
        assert log.trouble == os.strerror(errno.EIO)
        log.append(record(1))
        assert log.trouble is None


# ---- followers ------------------------------------------------------------------------------------------------------------


class Reader:
    """The other side of a follower's connection: hears records, or does not for a while."""

    def __init__(self) -> None:
        """Hear from the beginning."""
        self.heard: list[int] = []
        self._more = asyncio.Event()

    def receive(self, _: Peer, message: Message) -> None:
        """Keep the number."""
        assert isinstance(message, Record)
        self.heard.append(message.seq)
        self._more.set()

    async def all_of(self, peer: Peer, count: int) -> list[int]:
        """Return the numbers when so many came."""
        while len(self.heard) < count and not peer.gone.done():
            self._more.clear()
            await self._more.wait()
        return self.heard


@contextlib.asynccontextmanager
async def followed() -> AsyncIterator[tuple[Peer, Peer, Reader]]:
    """Give the sending peer, the hearing peer and what it hears."""
    one, other = socket.socketpair()
    reader = Reader()
    sender, hearer = await streams.adopt(one, lambda *_: None), await streams.adopt(other, reader.receive)
    try:
        yield sender, hearer, reader
    finally:
        for peer in (sender, hearer):
            peer.close()
            await peer.gone


@in_loop
async def test_a_follower_comes_behind_catches_up_and_goes_along(tmp_path: Path) -> None:
    """What was written before comes from the file, what comes after straight, each once and in order; then it ends."""
    ended = False
    with log_at(tmp_path / "log") as log:
        for seq in range(50):
            log.append(record(seq))
        async with followed() as (sender, hearer, reader):
            follower = Follower(sender, log.path, -1, lambda: ended, log.held)
            following = asyncio.create_task(follower.run())
            assert await reader.all_of(hearer, 50) == list(range(50))
            for seq in range(50, 100):
                entry = record(seq)
                follower.push(entry, log.append(entry), log.size)
            ended = True
            last = the_end(100)
            follower.push(last, log.append(last), log.size)
            await following
            assert await reader.all_of(hearer, 101) == list(range(101))


@pytest.mark.parametrize("after", [-1, 3, 9, 10, 50])
@in_loop
async def test_a_follower_after_the_end(tmp_path: Path, after: int) -> None:
    """Whoever comes when all is over gets what they have not seen, and is told at once that this was all."""
    with log_at(tmp_path / "log") as log:
        for seq in range(10):
            log.append(record(seq))
        log.append(the_end(10))
    async with followed() as (sender, hearer, reader):
        await Follower(sender, tmp_path / "log", after, lambda: True).run()
        assert await reader.all_of(hearer, max(10 - after, 0)) == list(range(after + 1, 11))


@in_loop
async def test_a_slow_follower_holds_nobody_up(tmp_path: Path) -> None:
    """A peer that does not read costs no memory beyond a few MiB, and gets everything once and in order when it does."""
    count, size = 200, 200_000
    one, other = socket.socketpair()
    sender = await streams.adopt(one, lambda *_: None)
    ended = False
    with log_at(tmp_path / "log") as log:
        follower = Follower(sender, log.path, -1, lambda: ended, log.held)
        following = asyncio.create_task(follower.run())
        await asyncio.sleep(0)
        for seq in range(count):
            entry = record(seq, size)
            follower.push(entry, log.append(entry), log.size)
            if seq % 10 == 0:
                await asyncio.sleep(0)
        assert sender.congested
        assert sender._transport is not None
        assert sender._transport.get_write_buffer_size() < 16 << 20
        ended = True
        last = the_end(count)
        follower.push(last, log.append(last), log.size)
        reader = Reader()
        hearer = await streams.adopt(other, reader.receive)
        await following
        assert await reader.all_of(hearer, count + 1) == list(range(count + 1))
    for peer in (sender, hearer):
        peer.close()
        await peer.gone


@in_loop
async def test_two_slow_followers_on_one_connection(tmp_path: Path) -> None:
    """Two runs followed over one slow connection both come through."""
    one, other = socket.socketpair()
    sender = await streams.adopt(one, lambda *_: None)
    following = []
    for name in ("a", "b"):
        with log_at(tmp_path / name) as log:
            for seq in range(60):
                log.append(record(seq, 200_000))
            log.append(the_end(60))
        following.append(asyncio.create_task(Follower(sender, tmp_path / name, -1, lambda: True).run()))
    await asyncio.sleep(0)
    assert sender.congested
    reader = Reader()
    hearer = await streams.adopt(other, reader.receive)
    await asyncio.gather(*following)
    assert sorted(await reader.all_of(hearer, 122)) == sorted([*range(61), *range(61)])
    for peer in (sender, hearer):
        peer.close()
        await peer.gone


@pytest.mark.parametrize("full", disks.KINDS)
@in_loop
async def test_a_follower_gets_what_a_full_disk_refused(tmp_path: Path, full: Callable[..., Any]) -> None:
    """Whoever comes while the disk is full gets the records that are in memory alone, and those that come when there is room."""
    with full(tmp_path / "disk", 64) as free, log_at(tmp_path / "disk" / "log") as log:
        for seq in range(30):
            log.append(record(seq, 4000))
        assert log.held()
        ended = False
        async with followed() as (sender, hearer, reader):
            follower = Follower(sender, log.path, -1, lambda: ended, log.held)
            following = asyncio.create_task(follower.run())
            assert await reader.all_of(hearer, 30) == list(range(30))
            entry = record(30)
            follower.push(entry, log.append(entry), log.size)
            free()
            ended = True
            last = the_end(31)
            follower.push(last, log.append(last), log.size)
            await following
            assert await reader.all_of(hearer, 32) == list(range(32))
        assert numbers(log.path) == list(range(32))


@in_loop
async def test_a_record_that_was_read_before_it_was_told(tmp_path: Path) -> None:
    """Where another process writes the log, a record may be in the file before it is pushed: it is sent once."""
    ended = False
    with log_at(tmp_path / "log") as log:
        entries = [record(seq) for seq in range(5)]
        pieces = [log.append(entry) for entry in entries]
        async with followed() as (sender, hearer, reader):
            follower = Follower(sender, log.path, -1, lambda: ended)
            following = asyncio.create_task(follower.run())
            await reader.all_of(hearer, 5)
            for entry, piece in zip(entries, pieces, strict=True):
                follower.push(entry, piece)
            log.append(record(5))
            late = record(6)
            follower.push(late, log.append(late))
            last = the_end(7)
            log.append(last)
            ended = True
            follower.wake()
            await following
            assert await reader.all_of(hearer, 8) == list(range(8))


@in_loop
async def test_output_after_the_end_is_sent_too(tmp_path: Path) -> None:
    """A follower that is told of no end goes on: threads of the user's print when their cell is over."""
    with log_at(tmp_path / "log") as log:
        log.append(the_end(0))
        async with followed() as (sender, hearer, reader):
            follower = Follower(sender, log.path, -1, lambda: False, log.held)
            following = asyncio.create_task(follower.run())
            await reader.all_of(hearer, 1)
            late = record(1)
            follower.push(late, log.append(late), log.size)
            assert await reader.all_of(hearer, 2) == [0, 1]
            assert not following.done()
            following.cancel()
            await asyncio.wait({following})


@in_loop
async def test_a_follower_that_vanishes(tmp_path: Path) -> None:
    """Pushing to a peer that has gone does nothing."""
    with log_at(tmp_path / "log") as log:
        async with followed() as (sender, hearer, _):
            follower = Follower(sender, log.path, -1, lambda: False, log.held)
            sender.attach(follower.run())
            hearer.close()
            await sender.gone
            for seq in range(5):
                entry = record(seq)
                follower.push(entry, log.append(entry), log.size)
        assert numbers(log.path) == list(range(5))
