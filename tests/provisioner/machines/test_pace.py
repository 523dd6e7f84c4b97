"""How much a link has under way, on simulated lines with their own clock: all of a line is used, and no message waits long."""

from __future__ import annotations

import random

import pytest
from provisioner.machines.sides import Line
from remora_provisioner.machines.link.pace import CHUNK, FIRST, MOST

MEGA = 1e6
NOISE = random.Random(1).randbytes(CHUNK)
TEXT = b"".join(b"epoch %d: loss 0.%d\n" % (n, n * n) for n in range(CHUNK))[:CHUNK]


def a_line(rate: float, round_trip: float, content: bytes = NOISE) -> Line:
    """Return a line whose transfers send that over and over."""
    line = Line(rate, round_trip)
    line.content = lambda: content
    return line


def worst(line: Line, number: int, seconds: float, every: float = 0.1) -> float:
    """Send a small message now and then, and return how long the slowest took."""
    until, found = line.now + seconds, 0.0
    while line.now < until:
        found = max(found, line.latency(number))
        line.run(line.now + every)
    return found


def use(line: Line, number: int, seconds: float) -> float:
    """Return which part of the line a transfer fills in the next seconds."""
    before = line.delivered[number]
    line.run(line.now + seconds)
    return (line.delivered[number] - before) / (line.rate * seconds)


@pytest.mark.parametrize("rate", [0.25 * MEGA, 1 * MEGA, 12.5 * MEGA])
def test_a_transfer_fills_the_line_and_a_message_overtakes_it(rate: float) -> None:
    """From the first byte on, beside a transfer, a message takes at most two round trips and 100 ms; yet the line is full."""
    for round_trip in (0.002, 0.05, 0.15):
        line = a_line(rate, round_trip)
        small = line.pair.first.bundle.open("small")
        line.run(2 * round_trip)
        assert line.latency(small) < round_trip / 2 + 0.002
        number = line.transfer()
        slack = FIRST / rate if rate < MEGA else 0.0  # until something is known of the line
        assert worst(line, small, 2.0) < 2 * round_trip + 0.1 + slack
        assert worst(line, small, 1.0) < 2 * round_trip + 0.1
        assert use(line, number, 1.0) > 0.95
        assert line.pair.first.bundle.pace.rate == pytest.approx(rate, rel=0.25)


def test_a_line_that_becomes_slower_and_faster() -> None:
    """A queue that builds up is noticed and runs dry within seconds; what the line can do more is found soon, too."""
    line = a_line(10 * MEGA, 0.05)
    small, number = line.pair.first.bundle.open("small"), line.transfer()
    line.run(2.0)
    line.rate = 2 * MEGA
    line.run(line.now + 1.5)
    assert worst(line, small, 1.0) < 0.2
    assert use(line, number, 1.0) > 0.9
    line.rate = 10 * MEGA
    line.run(line.now + 1.5)
    assert use(line, number, 1.0) > 0.9


def test_a_line_that_becomes_longer() -> None:
    """When the way becomes longer, as through another network, the least round-trip time is measured anew in time."""
    line = a_line(5 * MEGA, 0.01)
    number = line.transfer()
    line.run(2.0)
    line.round_trip = 0.15
    line.run(40.0)
    assert use(line, number, 2.0) > 0.9


def test_transfers_share_the_line() -> None:
    """Two transfers one way have equal parts, and one the other way keeps its own."""
    line = a_line(5 * MEGA, 0.03)
    one, other, back = line.transfer(), line.transfer(), line.transfer(line.pair.second)
    line.run(1.5)
    before = dict(line.delivered)
    line.run(3.5)
    shares = {number: line.delivered[number] - before[number] for number in (one, other, back)}
    assert shares[one] == pytest.approx(shares[other], rel=0.05)
    assert shares[one] + shares[other] > 0.8 * 5 * MEGA * 2.0
    assert shares[back] > 0.8 * 5 * MEGA * 2.0


def test_little_traffic_says_nothing_about_the_rate() -> None:
    """Messages now and then leave the rate unknown, and do not make the link take itself for slow."""
    line = a_line(50 * MEGA, 0.05)
    small = line.pair.first.bundle.open("small")
    worst(line, small, 3.0, every=0.3)
    assert line.pair.first.bundle.pace.rate == 0
    number = line.transfer()
    line.run(line.now + 1.0)
    assert use(line, number, 0.5) > 0.9
    assert line.pair.first.bundle.pace._cap <= MOST


@pytest.mark.parametrize(("content", "rate", "pays"), [(TEXT, 1e6, True), (NOISE, 1e6, False), (TEXT, 45e6, False)])
def test_compression_where_it_pays(content: bytes, rate: float, pays: bool) -> None:
    """Text over a slow line is compressed; noise is not, nor anything on a line that gains less than compressing takes."""
    line = a_line(rate, 0.01, content)
    number = line.transfer()
    line.run(1.0)
    assert (line.carried[True] < 0.7 * line.delivered[number]) is pays
    if not pays:
        assert line.carried[True] > line.delivered[number]


def test_a_line_that_is_not_busy_is_not_compressed() -> None:
    """Where nothing waits, nothing is compressed, though the line is slow and known."""
    line = a_line(1e6, 0.01, TEXT)
    number, small = line.transfer(), line.pair.first.bundle.open("small")
    line.run(1.0)
    line.pair.first.bundle.drop(number)
    line.run(2.0)
    before = line.carried[True]
    for _ in range(5):
        line.latency(small, TEXT[:6000])
        line.run(line.now + 0.1)
    assert line.carried[True] - before > 5 * 6000
