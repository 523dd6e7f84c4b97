"""Payloads that come ahead of their run, in parts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy
import pytest
from remora.errors import ProtocolError
from remora.frames import AHEAD, Decoder, Part, encode
from remora.guest.payloads import Payloads
from remora.sync import codec
from remora.wire import InputReply, Message, RunId, StartRun


class Receiver:
    """A guest's receiving thread, as far as messages go."""

    def __init__(self) -> None:
        """Start between two messages."""
        self.payloads = Payloads()
        self.decoder = Decoder(self.payloads.choose)

    def hear(self, messages: Iterable[Message]) -> list[Message]:
        """Return what is handed on of these messages."""
        data = b"".join(bytes(piece) for message in messages for piece in encode(message))
        return [taken for m in self.decoder.feed(data) if (taken := self.payloads.take(m)) is not None]


def a_run(ahead: object) -> StartRun:
    """Return a run whose payload came ahead."""
    return StartRun(RunId("r"), "cell", "c", {"code": "x", AHEAD: ahead})


def test_two_payloads_come_at_once_with_other_messages_between() -> None:
    """Each run gets the buffers of its own, in the sizes that were announced; what comes between is handed on at once."""
    one, other, receiver = bytes(range(250)), bytes(reversed(range(250))), Receiver()
    begun: list[Message] = [Part(1, sizes=[100, 0, 150]), Part(2, sizes=[250])]
    assert not receiver.hear(begun)
    for at in range(0, 250, 50):
        parts = [Part(number, buffers=(data[at : at + 50],)) for number, data in ((1, one), (2, other))]
        assert receiver.hear([parts[0], InputReply(RunId("q")), parts[1]]) == [InputReply(RunId("q"))]
    (second,) = receiver.hear([a_run(2)])
    (first,) = receiver.hear([a_run(1)])
    assert [bytes(b) for b in first.buffers] == [one[:100], b"", one[100:]]
    assert [bytes(b) for b in second.buffers] == [other]
    assert isinstance(first, StartRun)
    assert first.body == {"code": "x"}


def test_a_payload_that_is_void_is_forgotten() -> None:
    """Its memory goes, and a later part of the same number belongs to nothing."""
    receiver = Receiver()
    receiver.hear([Part(1, sizes=[10]), Part(1, buffers=(b"12345",)), Part(1, void=True)])
    (run,) = receiver.hear([Part(1, buffers=(b"67890",)), a_run(1)])
    assert run.buffers == ()


@pytest.mark.parametrize("ahead", [7, None, "1", [1]])
def test_a_run_that_names_no_payload_keeps_its_own(ahead: object) -> None:
    """Whatever a run's body says, its own buffers stay."""
    run = StartRun(RunId("r"), "cell", "c", {AHEAD: ahead}, buffers=(b"own",))
    assert [bytes(b) for b in Receiver().hear([run])[0].buffers] == [b"own"]


def test_more_than_was_announced_is_refused() -> None:
    """A part beyond the end of its payload is a ProtocolError before a byte of it is written."""
    receiver = Receiver()
    receiver.hear([Part(1, sizes=[10]), Part(1, buffers=(b"12345",))])
    with pytest.raises(ProtocolError):
        receiver.hear([Part(1, buffers=(b"678901",))])


def test_a_cell_whose_variables_came_ahead(guest) -> None:
    """The guest says that it takes parts; an array that came so is whole, aligned and writeable, and comes home."""
    array = numpy.random.default_rng(5).random(300_000)
    encoded = codec.encode({"a": array}, namespace={"__name__": "__main__"})
    buffers = (encoded.stream, *encoded.buffers)
    data = b"".join(bytes(b) for b in buffers)
    assert guest.facts[AHEAD]
    guest.send(Part(1, sizes=[len(memoryview(b).cast("B")) for b in buffers]))
    for at in range(0, len(data), 1 << 20):
        guest.send(Part(1, buffers=(data[at : at + (1 << 20)],)))
    body = {"code": "a[0] = 2; a.flags.aligned", "values": {"names": ["a"]}, "reads": ["a"], "parent": {}, AHEAD: 1}
    ended = guest.finish(guest.start("cell", body))
    array[0] = 2
    assert (ended.values["a"] == array).all()
    assert ended.plain() == "True"
