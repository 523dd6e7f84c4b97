"""The link's core: whatever is cut where, every connection's bytes come once and in order; turns are fair; bounds hold."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from provisioner.machines.sides import Pair, Side
from remora.errors import ProtocolError, Refused, StateError, Unavailable
from remora_provisioner.machines.link import linkframes, windows
from remora_provisioner.machines.link.core import BACKLOG, CONNECTIONS, TARGET
from remora_provisioner.machines.link.linkframes import Greeting
from remora_provisioner.machines.link.pace import CHUNK, FIRST
from remora_provisioner.machines.link.turns import Outgoing, Turns

NOISE = random.Random(1).randbytes(CHUNK)
SIZES = (1, 7, 300, 5000, 40_000, 300_000)


# ---- any schedule -----------------------------------------------------------------------------------------------------------


class Schedule(RuleBasedStateMachine):
    """Two sides, driven in any order; beside them what each connection was given."""

    @initialize()
    def begin(self) -> None:
        """Start with nothing."""
        self.pair = Pair()
        self.random = random.Random(7)
        self.on = False
        self.numbers: list[int] = []
        self.sent: dict[tuple[bool, int], bytearray] = {}
        self.over: set[tuple[bool, int]] = set()
        self.dropped: set[int] = set()

    def _known(self, side: Side, number: int) -> bool:
        return number % 2 == (1 if side.first else 0) or number in side.targets

    @rule(first=st.booleans())
    def dial(self, first: bool) -> None:
        """Open a connection from either side, whether or not there is a stream."""
        side = self.pair.first if first else self.pair.second
        number = side.bundle.open(f"to {len(self.numbers)}")
        self.numbers.append(number)
        self.sent[True, number], self.sent[False, number] = bytearray(), bytearray()

    @precondition(lambda self: self.numbers)
    @rule(which=st.integers(0, 9), first=st.booleans(), size=st.sampled_from(SIZES), plain=st.booleans())
    def write(self, which: int, first: bool, size: int, plain: bool) -> None:
        """Send on a connection."""
        number = self.numbers[which % len(self.numbers)]
        side = self.pair.first if first else self.pair.second
        if number in self.dropped or (first, number) in self.over or not self._known(side, number):
            return
        data = bytes([len(self.sent[first, number]) % 251]) * size if plain else self.random.randbytes(size)
        side.bundle.send(number, data)
        self.sent[first, number] += data

    @precondition(lambda self: self.numbers)
    @rule(which=st.integers(0, 9), first=st.booleans())
    def finish(self, which: int, first: bool) -> None:
        """Finish a connection one way."""
        number = self.numbers[which % len(self.numbers)]
        side = self.pair.first if first else self.pair.second
        if number not in self.dropped and self._known(side, number):
            side.bundle.finish(number)
            self.over.add((first, number))

    @precondition(lambda self: self.numbers)
    @rule(which=st.integers(0, 9), first=st.booleans())
    def drop(self, which: int, first: bool) -> None:
        """End a connection."""
        number = self.numbers[which % len(self.numbers)]
        side = self.pair.first if first else self.pair.second
        if self._known(side, number):
            side.bundle.drop(number)
            self.dropped.add(number)

    @rule(first=st.booleans())
    def read(self, first: bool) -> None:
        """Let what has come be read."""
        (self.pair.first if first else self.pair.second).read_all(self.pair.now)

    @rule()
    def carry(self) -> None:
        """Put a stream there, or another one."""
        self.pair.carry()
        self.on = True

    @precondition(lambda self: self.on)
    @rule()
    def cut(self) -> None:
        """Take the stream away."""
        self.pair.cut()
        self.on = False

    @precondition(lambda self: self.on)
    @rule(
        first=st.booleans(), count=st.one_of(st.integers(1, 60), st.integers(1, 200_000)), wait=st.sampled_from((0, 0.001, 0.02))
    )
    def move(self, first: bool, count: int, wait: float) -> None:
        """Let some bytes of one side through."""
        side = self.pair.first if first else self.pair.second
        self.pair.now += wait
        side.bundle.passage.tick(self.pair.now)
        side.take(self.pair.now)
        self.pair.move(side, count)

    @rule(rounds=st.integers(1, 6))
    def exchange(self, rounds: int) -> None:
        """Let all that is on the stream through, a few times."""
        for _ in range(rounds if self.on else 0):
            for side in self.pair.sides:
                side.take(self.pair.now)
                self.pair.move(side, len(side.out))
            self.pair.now += 0.005
            for side in self.pair.sides:
                side.bundle.passage.tick(self.pair.now)

    @invariant()
    def nothing_is_doubled(self) -> None:
        """Find that what has come is a beginning of what was sent, and that no stream was broken."""
        for first, side, other in ((True, self.pair.first, self.pair.second), (False, self.pair.second, self.pair.first)):
            assert not side.broken
            for number in self.numbers:
                sent, got = self.sent[first, number], other.got.get(number, b"")
                assert len(got) <= len(sent) and sent.startswith(bytes(got))

    def teardown(self) -> None:
        """In the end everything is there, once, with its end; what was dropped on one side is gone on both."""
        self.pair.carry()
        self.pair.settle()
        self.nothing_is_doubled()
        for number in set(self.numbers) - self.dropped:
            for first, other in ((True, self.pair.second), (False, self.pair.first)):
                assert other.got[number] == self.sent[first, number]
                assert other.finished[number] == ((first, number) in self.over)
                assert number not in other.closed
        for side in self.pair.sides:
            alive = {n for n in set(self.numbers) - self.dropped if {(True, n), (False, n)} - self.over}
            assert set(side.bundle._connections) == alive
            assert side.bundle.buffered == 0
            assert not side.renewed


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(max_examples=120, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_every_place_to_cut(cuts: int) -> None:
    """Whatever byte a stream ends at, in either direction and again and again, the story comes out the same."""
    whole = 0
    while True:
        pair = Pair()
        one = pair.first.bundle.open("a")
        pair.first.bundle.send(one, b"question")
        pair.first.bundle.finish(one)
        for _ in range(cuts):
            pair.carry()
            _through(pair, whole)
            if one in pair.second.targets and not pair.second.finished.get(-1):
                pair.second.finished[-1] = 1
                pair.second.bundle.send(one, b"answer")
                pair.second.bundle.finish(one)
        pair.carry()
        pair.settle()
        if not pair.second.finished[-1]:
            pair.second.bundle.send(one, b"answer")
            pair.second.bundle.finish(one)
            pair.settle()
        assert (pair.second.got[one], pair.first.got[one]) == (b"question", b"answer")
        assert pair.second.finished[one] == pair.first.finished[one] == 1
        assert not pair.first.broken + pair.second.broken
        assert not any(side.bundle._connections or side.renewed for side in pair.sides)
        if whole > 400:
            return
        whole += 1


def _through(pair: Pair, count: int) -> None:
    """Let that many bytes through, both directions together."""
    for _ in range(6):
        pair.now += 0.02
        for side in pair.sides:
            side.bundle.passage.tick(pair.now)
            side.take(pair.now)
            part = min(count, len(side.out))
            count -= part
            pair.move(side, part)


def test_what_is_sent_again_keeps_its_order() -> None:
    """A stream that breaks before all that was under way has been sent again changes nothing of the order."""
    pair = Pair()
    pair.carry()
    number = pair.first.bundle.open("a")
    noise, sent = random.Random(4), bytearray()

    def fill() -> None:
        while pair.first.bundle._connections[number].backlog < BACKLOG:
            sent.extend(noise.randbytes(CHUNK))
            pair.first.bundle.send(number, bytes(sent[-CHUNK:]))

    for _ in range(40):
        fill()
        for side in pair.sides:
            side.read_all(pair.now)
            side.take(pair.now)
            pair.move(side, len(side.out))
        pair.now += 0.01
    for _ in range(8):
        fill()
        pair.first.take(pair.now)
    assert len(pair.first.out) > 4 * FIRST
    for _ in range(3):
        pair.carry()
        _through(pair, 2 * FIRST // 3)
    pair.carry()
    pair.settle()
    assert pair.second.got[number] == sent


# ---- the other side is started anew -----------------------------------------------------------------------------------------


def test_a_restart_ends_what_it_has_forgotten() -> None:
    """When the other side knows nothing, its old connections end with the news; a dialling it never heard of goes through."""
    pair = Pair()
    pair.carry()
    old = pair.first.bundle.open("old")
    pair.settle()
    pair.cut()
    new = pair.first.bundle.open("new")
    pair.first.bundle.send(new, b"hello")
    pair.second = Side(first=False)
    for _ in range(3):
        pair.carry()
        pair.settle()
        assert pair.first.closed == {old: None}
        assert pair.first.renewed == 1
        assert pair.second.targets == {new: "new"}
        assert pair.second.got[new] == b"hello"
        assert not pair.first.broken + pair.second.broken


def test_a_restart_of_the_first_side() -> None:
    """A machine that is dialled by a backend started anew forgets the old one's connections, and serves the new one."""
    pair = Pair()
    pair.carry()
    old = pair.first.bundle.open("old")
    pair.settle()
    pair.first = Side(first=True)
    pair.carry()
    new = pair.first.bundle.open("new")
    pair.settle()
    assert pair.second.closed == {old: None}
    assert (pair.second.renewed, pair.first.renewed) == (1, 0)
    assert [*pair.second.targets.values()] == ["old", "new"]
    assert pair.first.bundle._connections.keys() == {new}
    pair.first.bundle.send(new, b"hello")
    pair.settle()
    assert old not in pair.second.got
    assert [*pair.second.got.values()] == [b"hello"]


def test_a_restart_that_is_cut() -> None:
    """Wherever the first streams after a restart end, both sides agree in the end."""
    for through in range(160):
        pair = Pair()
        pair.carry()
        old = pair.first.bundle.open("old")
        pair.settle()
        pair.second = Side(first=False)
        for _ in range(2):
            pair.carry()
            _through(pair, through)
        pair.carry()
        pair.settle()
        new = pair.first.bundle.open("new")
        pair.settle()
        assert pair.first.closed == {old: None}
        assert pair.second.targets == {new: "new"}
        assert pair.first.renewed == 1
        assert not pair.first.broken + pair.second.broken


def test_a_closed_link_ends_everything_over_there() -> None:
    """The farewell ends the other side's connections; both sides may begin again."""
    pair = Pair()
    pair.carry()
    old = pair.first.bundle.open("old")
    pair.settle()
    farewell = b"".join(pair.first.bundle.passage.farewell())
    pair.second.hear(farewell, pair.now)
    assert pair.second.closed == {old: None}
    assert pair.second.broken[0].error is None
    pair.first = Side(first=True)
    pair.carry()
    pair.first.bundle.open("new")
    pair.settle()
    assert [*pair.second.targets.values()] == ["old", "new"]


# ---- bounds -----------------------------------------------------------------------------------------------------------------


def test_a_slow_reader_stops_nobody_else() -> None:
    """Of a connection that nobody reads a window comes over and a backlog stays; another one goes on."""
    pair = Pair()
    pair.carry()
    stuck, free = pair.first.bundle.open("stuck"), pair.first.bundle.open("free")
    sent = {stuck: 0, free: 0}
    for _ in range(300):
        for number in sent:
            while pair.first.bundle._connections[number].backlog < BACKLOG:
                pair.first.bundle.send(number, NOISE)
                sent[number] += len(NOISE)
        pair.second.bundle.read(free, pair.second.unread.pop(free, 0), pair.now)
        for side in pair.sides:
            side.take(pair.now)
            pair.move(side, len(side.out))
        pair.now += 0.001
    assert len(pair.second.got[stuck]) == windows.FIRST
    assert sent[stuck] <= windows.FIRST + BACKLOG + CHUNK
    assert len(pair.second.got[free]) > 10 * windows.FIRST
    assert pair.second.bundle.buffered <= windows.FIRST + windows.MOST + BACKLOG


def test_what_is_under_way_is_bounded_while_nobody_answers() -> None:
    """A stream that swallows everything gets no more than the first measure, and connections stop taking bytes."""
    pair = Pair()
    pair.carry()
    pair.settle()
    numbers = [pair.first.bundle.open(str(n)) for n in range(20)]
    for number in numbers:
        while pair.first.bundle.send(number, NOISE):
            pass
    while pair.first.take(pair.now):
        pass
    assert FIRST <= len(pair.first.out) <= FIRST + 2 * CHUNK
    assert pair.first.bundle.buffered <= 20 * (BACKLOG + CHUNK)


def test_windows_that_grew_are_bounded_together() -> None:
    """Readers that take everything are given more, each up to a bound, and all of them up to another."""
    together = windows.Windows()
    grown = [windows.Window(together) for _ in range(20)]
    for window in grown:
        for _ in range(12):
            window.arrived(window._size - window._ungranted)
            window.read(window.held, 0.05, 0.01)
    assert max(window._size for window in grown) == windows.MOST
    assert windows.ALL / 2 < together.grown <= windows.ALL
    for window in grown:
        window.close()
    assert together.grown == 0


def test_there_is_a_most_of_connections() -> None:
    """One more than fit is refused on this side, and when it comes from the other; long names are refused too."""
    pair = Pair()
    pair.carry()
    for n in range(CONNECTIONS):
        pair.first.bundle.open(str(n))
    with pytest.raises(Unavailable):
        pair.first.bundle.open("one more")
    with pytest.raises(Refused):
        pair.second.bundle.open("x" * (TARGET + 1))
    pair.second.bundle.open("one more")
    pair.settle()
    assert len(pair.second.targets) == CONNECTIONS - 1
    assert [type(error) for error in pair.second.closed.values()] == [Unavailable]
    assert [type(error) for error in pair.first.closed.values()] == [Unavailable]


def test_a_reason_comes_along() -> None:
    """Whoever ends a connection may say why, and the error over there is the same."""
    pair = Pair()
    pair.carry()
    number = pair.first.bundle.open("there")
    pair.settle()
    pair.second.bundle.drop(number, StateError("the disk is full", reason="disk-full"))
    pair.settle()
    error = pair.first.closed[number]
    assert isinstance(error, StateError)
    assert (error.reason, str(error)) == ("disk-full", "the disk is full")


# ---- what is no link --------------------------------------------------------------------------------------------------------


def _broken(side: Side) -> ProtocolError:
    (broken,) = side.broken
    assert broken.error is not None
    return broken.error


@pytest.mark.parametrize("first", [True, False])
def test_garbage(first: bool) -> None:
    """What is no greeting is said to be none, in words that show it, as early as it can be known."""
    for noise in (b"bash: remora: command not found\n", b"\0" * 50, b"RMRALINX" + b"\0" * 50, b"R!"):
        side = Side(first=first)
        side.bundle.passage.start(0.0)
        side.hear(noise, 0.0)
        assert f"no link of Remora: it says {noise[:36]!r}" in str(_broken(side))


def test_another_protocol() -> None:
    """A greeting of another version names both versions, however long that version's greetings are."""
    side = Side(first=False)
    side.bundle.passage.start(0.0)
    side.hear(linkframes.greet(Greeting(1, b"", 0), protocol=9)[:10], 0.0)
    assert f"speaks protocol 9 of links, not {linkframes.PROTOCOL}" in str(_broken(side))


@pytest.mark.parametrize("first", [True, False])
def test_two_of_a_kind(first: bool) -> None:
    """Two first or two second sides say so."""
    side, other = Side(first=first), Side(first=first)
    for each in (side, other):
        each.bundle.passage.start(0.0)
    side.hear(linkframes.greet(Greeting(linkframes.FRESH if first else linkframes.WELCOME, bytes(16), 0)), 0.0)
    assert f"for the {'first' if first else 'second'}" in str(_broken(side))


HOSTILE = [
    linkframes.pieces(99),
    linkframes.pieces(9),
    linkframes.pieces(linkframes.ACK, body=b"short"),
    linkframes.pieces(linkframes.ACK, body=linkframes.ACKNOWLEDGED.pack(1000, 0, 0)),
    linkframes.pieces(linkframes.DATA, 77, b"never opened"),
    linkframes.pieces(linkframes.OPEN, 1, b"mine"),
    linkframes.pieces(linkframes.OPEN, 2, b"\xff"),
    linkframes.pieces(linkframes.CREDIT, 1, b"low"),
    linkframes.pieces(linkframes.CLOSE, 1, b"{"),
    linkframes.pieces(linkframes.CLOSE, 1, b"[]"),
    linkframes.pieces(linkframes.DATA, 1, b"no zlib", linkframes.PACKED),
    linkframes.pieces(linkframes.DATA, 1, zlib.compress(bytes(CHUNK + 1)), linkframes.PACKED),
    linkframes.pieces(linkframes.DATA, 1, zlib.compress(bytes(CHUNK))[:-1], linkframes.PACKED),
    [*linkframes.pieces(linkframes.END, 1), *linkframes.pieces(linkframes.END, 1)],
    [*linkframes.pieces(linkframes.END, 1), *linkframes.pieces(linkframes.DATA, 1, b"more")],
    linkframes.pieces(linkframes.DATA, 1, NOISE) * (windows.FIRST // CHUNK + 1),
]


def test_a_hostile_other_side() -> None:
    """Frames that mean nothing, or more than was agreed, end the stream with a clear error; what was good goes on."""
    for frames in HOSTILE:
        pair = Pair()
        pair.carry()
        number = pair.first.bundle.open("there")
        pair.settle()
        pair.first.hear(b"".join(frames), pair.now)
        assert str(_broken(pair.first))
        pair.first.bundle.send(number, b"still there")
        assert not pair.first.closed
        if len(frames) == 1:
            pair.first.broken.clear()
            pair.carry()
            pair.settle()
            assert pair.second.got[number] == b"still there"
            assert not pair.first.broken


def test_pings_without_end_are_answered_once() -> None:
    """Whoever asks and never reads does not fill the memory of the other side."""
    pair = Pair()
    pair.carry()
    pair.settle()
    pair.first.hear(b"".join(linkframes.pieces(linkframes.PING, body=linkframes.BEAT.pack(1.0))) * 10_000, pair.now)
    assert pair.first.take(pair.now) < 100


def test_silence_is_noticed_and_a_heartbeat_is_enough() -> None:
    """Three heartbeats without a byte mean that the stream is dead; heartbeats alone keep it, and time it."""
    pair = Pair()
    pair.carry()
    pair.settle()
    for _ in range(20):
        pair.now += 5.0
        alive = [side.bundle.passage.tick(pair.now) for side in pair.sides]
        assert alive == [True, True]
        for side in pair.sides:
            side.take(pair.now)
            pair.move(side, len(side.out))
        for side in pair.sides:
            side.take(pair.now)
            pair.move(side, len(side.out))
    assert pair.first.bundle.pace.round_trip == 0.0
    alive = []
    for _ in range(4):
        pair.now += 5.0
        alive.append(pair.first.bundle.passage.tick(pair.now))
    assert alive == [True, True, True, False]


# ---- turns --------------------------------------------------------------------------------------------------------------


def test_turns_are_equal_shares_and_newcomers_go_first() -> None:
    """Two that always have something share by bytes; one that was silent comes before both, and not for ever."""
    turns: Turns[Outgoing] = Turns()
    large, larger, small = Outgoing(1 << 40), Outgoing(1 << 40), Outgoing(1 << 40)
    sent = {large: 0, larger: 0, small: 0}
    sizes = {large: 10_000, larger: 30_000, small: 100}

    def serve() -> Outgoing:
        sender = turns.next()
        assert sender is not None
        sender.tag += sizes[sender]
        sent[sender] += sizes[sender]
        turns.join(sender)
        return sender

    turns.join(large)
    turns.join(larger)
    for _ in range(1000):
        serve()
    assert abs(sent[large] - sent[larger]) <= 30_000
    turns.join(small)
    assert [serve() for _ in range(5)] == [small] * 5
    for _ in range(3000):
        serve()
    assert max(sent[large], sent[larger]) - min(sent[large], sent[larger]) <= 30_000
    late = Outgoing(1 << 40)
    sent[late], sizes[late] = 0, 30_000
    turns.join(late)
    before = sent[larger]
    for _ in range(1000):
        serve()
    assert sent[late] - (sent[larger] - before) <= 3 * 30_000
