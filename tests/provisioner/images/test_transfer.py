"""Transfer: only what is lacking travels, a lie is refused by its name, and what arrived whole is not sent again."""

from __future__ import annotations

import functools
import json
import os
import random
import select
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from remora.errors import RemoraError, StateError, StoreRefused, Unavailable
from remora_provisioner.images.store import Store
from remora_provisioner.images.transfer import receive, send
from remora_provisioner.images.tree import File, Link, Tree

from provisioner import disks, needs

LARGE, NEW = random.Random(1).randbytes(250_000), random.Random(2).randbytes(3000)


@pytest.fixture
def here(tmp_path: Path) -> Store:
    """Return the sender's store."""
    return Store(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Store:
    """Return the receiver's store."""
    return Store(tmp_path / "there")


class Counting:
    """A stream that counts what is written to it and breaks when that is too much."""

    def __init__(self, inner: IO[bytes], most: int = 1 << 40) -> None:
        self.inner, self.most, self.count = inner, most, 0

    def write(self, data: bytes) -> int | None:
        """Write, up to the break."""
        if self.count + len(data) > self.most:
            self.inner.write(data[: self.most - self.count])
            self.inner.flush()
            raise BrokenPipeError
        self.count += len(data)
        return self.inner.write(data)

    def flush(self) -> None:
        """Let it go."""
        self.inner.flush()


Peer = Callable[[IO[bytes], IO[bytes]], object]


def meet(sender: Peer, receiver: Peer) -> tuple[RemoraError | None, RemoraError | None]:
    """Let two peers talk over two pipes, each in its thread; return what each has raised."""
    (left_in, right_out), (right_in, left_out) = os.pipe(), os.pipe()
    raised: list[RemoraError | None] = [None, None]

    def run(which: int, peer: Peer, reader: int, writer: int) -> None:
        try:
            with open(reader, "rb") as incoming, open(writer, "wb", buffering=0) as outgoing:
                peer(incoming, outgoing)
        except RemoraError as error:
            raised[which] = error

    threads = [
        threading.Thread(target=run, args=(0, sender, left_in, left_out)),
        threading.Thread(target=run, args=(1, receiver, right_in, right_out)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised[0], raised[1]


def pass_on(here: Store, there: Store, digest: str, most: int = 1 << 40) -> tuple[int, list[RemoraError | None]]:
    """Send a tree; return how many bytes the sender wrote and what was raised."""
    counting: list[Counting] = []

    def sender(reader: IO[bytes], writer: IO[bytes]) -> None:
        counting.append(Counting(writer, most))
        send(here, digest, reader, counting[0])

    raised = meet(sender, lambda reader, writer: receive(there, reader, writer))
    return counting[0].count, list(raised)


def example(store: Store, *extra: bytes) -> str:
    """Save a tree of small, large, empty and executable files."""
    contents = [b"", b"small", LARGE, *(b"%d" % at * 50 for at in range(300)), *extra]
    files = [File(f"d{at % 7}/f{at}", *store.put_bytes(data)) for at, data in enumerate(contents)]
    files.append(File("x", *store.put_bytes(b"#!", executable=True), executable=True))
    return store.save(Tree.of([*files, Link("link", "x")]))


def test_a_tree_arrives_and_then_only_differences_travel(here: Store, there: Store):
    """The second time only the index goes; another version brings its new files alone."""
    digest = example(here)
    first, raised = pass_on(here, there, digest)
    assert raised == [None, None]
    assert there.load(digest) == here.load(digest)
    assert there.verify() == []
    again, _ = pass_on(here, there, digest)
    assert again < first - len(LARGE)
    newer, _ = pass_on(here, there, example(here, NEW))
    assert again + 3000 <= newer < again + 4000


def test_what_can_be_compressed_is(here: Store, there: Store):
    """Text takes a fraction of its size, and what is compressed already no more than itself."""
    text = b"".join(b"def function_%d(x):\n    return x\n" % at for at in range(60_000))
    size, raised = pass_on(here, there, here.save(Tree.of([File("text.py", *here.put_bytes(text))])))
    assert raised == [None, None]
    assert size < len(text) // 5
    size, raised = pass_on(here, there, here.save(Tree.of([File("packed.gz", *here.put_bytes(LARGE))])))
    assert raised == [None, None]
    assert size < len(LARGE) + 300
    assert there.verify() == []


def test_a_broken_transfer_goes_on_where_it_was(here: Store, there: Store):
    """Wherever it breaks the store is clean, and each attempt gets further."""
    digest = example(here, *(random.Random(seed).randbytes(400_000) for seed in range(6)))
    whole, _ = pass_on(here, Store(there.root / "scratch"), digest)
    for most in (0, 5, 1000, whole // 10, whole // 2, whole // 4):
        _, raised = pass_on(here, there, digest, most)
        assert all(isinstance(error, Unavailable) for error in raised), raised
        assert there.verify() == []
        assert there.trees() == set()
        assert list(there.work.root.iterdir()) == []
    rest, raised = pass_on(here, there, digest)
    assert raised == [None, None]
    assert rest < whole - len(LARGE)


def frame(letter: bytes, data: bytes, length: int | None = None) -> bytes:
    """Return a frame, possibly with a length that is a lie."""
    return struct.pack(">cQ", letter, len(data) if length is None else length) + data


def index_of(*entries: File | Link, system: bool = False) -> bytes:
    """Return the frame that announces a tree."""
    return frame(b"T", zlib.compress(Tree.of(entries, system=system).to_bytes()))


def lie(there: Store, data: bytes) -> str:
    """Let a peer say this and no more; return the reason of the refusal, which both sides learn."""
    heard: list[bytes] = []

    def liar(reader: IO[bytes], writer: IO[bytes]) -> None:
        writer.write(data)
        heard.append(reader.read())

    _, refused = meet(liar, lambda reader, writer: receive(there, reader, writer))
    assert isinstance(refused, StoreRefused), refused
    assert json.loads(heard[0][heard[0].index(b"{") :])["reason"] == refused.reason
    assert there.verify() == []
    assert there.trees() == set()
    assert list(there.work.root.iterdir()) == []
    return refused.reason


A = "a" * 64
SMALL, BIG = File("f", A, 5), File("f", A, 100_000)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (frame(b"T", b"", 1 << 60), "too-large"),
        (frame(b"T", b"garbage"), "malformed"),
        (frame(b"T", zlib.compress(b"[1]\n")), "malformed"),
        (frame(b"T", zlib.compress(bytes(300 << 20), 1)), "too-large"),
        (frame(b"T", zlib.compress(b'["f","../x","' + A.encode() + b'",1,false]\n')), "path-escapes"),
        (index_of(Link("l", "/etc"), system=True), "link-escapes"),
        (index_of(SMALL, File("g", A, 6)), "malformed"),
        (index_of(SMALL) + frame(b"P", b"12345"), "wrong-digest"),
        (index_of(SMALL) + frame(b"P", b"123456"), "too-large"),
        (index_of(SMALL) + frame(b"P", b"1234"), "malformed"),
        (index_of(SMALL) + frame(b"O", b"12345"), "malformed"),
        (index_of(SMALL) + frame(b"Z", b"12345"), "malformed"),
        (index_of(SMALL) + frame(b"Z", zlib.compress(b"12345")), "too-large"),
        (index_of(BIG) + frame(b"Z", zlib.compress(bytes(100_000))), "wrong-digest"),
        (index_of(BIG) + frame(b"P", b"", 1 << 50), "too-large"),
        (index_of(BIG) + frame(b"Z", zlib.compress(bytes(100_001))), "wrong-digest"),
        (index_of(BIG) + frame(b"P", b"", 99_999), "malformed"),
        (index_of(BIG) + frame(b"E", b"garbage"), "malformed"),
    ],
)
def test_a_peer_that_lies_is_refused(there: Store, data: bytes, reason: str):
    """Each lie by its own reason, and nothing of it stays."""
    assert lie(there, data) == reason


@needs.root
def test_a_full_disk_is_told_to_the_sender(here: Store, tmp_path: Path):
    """The sender stops at once, says that it is the other disk, and with more room only the rest travels."""
    digest = example(here, *(os.urandom(1 << 21) for _ in range(8)))
    with disks.tiny(tmp_path / "there", 6000) as freed:
        there = Store(tmp_path / "there")
        sender = functools.partial(send, here, digest)

        def receiver(reader: IO[bytes], writer: IO[bytes]) -> None:
            try:
                receive(there, reader, writer, real=True)
            except StateError:
                while reader.read(1 << 16):
                    pass

        sent: list[int] = []

        def listening(reader: IO[bytes], writer: IO[bytes]) -> None:
            counting = Counting(writer)
            try:
                sender(reader, counting, lambda: select.select([reader], [], [], 0)[0])
            finally:
                sent.append(counting.count)

        error, _ = meet(listening, receiver)
        assert isinstance(error, StateError)
        assert error.reason == "disk-full"
        assert "its disk takes no more (No space left on device): make room there" in str(error)
        freed()
        assert meet(listening, receiver) == (None, None)
        assert sent[0] < 16 << 20
        assert sent[1] < 16 << 20
        assert (there.farm(digest) / "x").read_bytes() == b"#!"


def test_a_root_file_system_is_received_as_such(here: Store, there: Store):
    """Absolute links come in only where they are expected."""
    digest = here.save(Tree.of([Link("bin", "/usr/bin")], system=True))
    raised = meet(lambda r, w: send(here, digest, r, w), lambda r, w: receive(there, r, w, system=True))
    assert raised == (None, None)
    _, raised_later = pass_on(here, there, digest)
    assert [error and error.reason for error in raised_later] == ["link-escapes", "link-escapes"]


@pytest.mark.parametrize("answer", [b"X" * 9, frame(b"W", b""), frame(b"W", b"", 1 << 50)])
def test_a_receiver_that_talks_nonsense_is_refused(here: Store, answer: bytes):
    """The sender sends it nothing."""
    digest = here.save(Tree.of([File("f", *here.put_bytes(b"secret"))]))

    def receiver(reader: IO[bytes], writer: IO[bytes]) -> None:
        writer.write(answer)
        assert b"secret" not in reader.read()

    refused, _ = meet(lambda r, w: send(here, digest, r, w), receiver)
    assert isinstance(refused, StoreRefused)


def test_an_object_that_was_damaged_at_the_sender_is_not_taken(here: Store, there: Store):
    """What is shorter than announced breaks off, what is different is refused."""
    digest, size = here.put_bytes(b"good")
    tree = here.save(Tree.of([File("f", digest, size)]))
    place = Path(here.objects.place(digest, False))
    place.chmod(0o644)
    place.write_bytes(b"evil")
    _, raised = pass_on(here, there, tree)
    assert raised[1] is not None
    assert raised[1].reason == "wrong-digest"
    assert (there.verify(), there.trees()) == ([], set())
