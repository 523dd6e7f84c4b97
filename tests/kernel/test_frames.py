"""Frames: whatever the bytes are cut into, the same messages come out; whatever is no frame is refused in time."""

from __future__ import annotations

import ctypes
import itertools
import json
import struct
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from remora import frames
from remora.errors import ProtocolError
from remora.frames import Decoder, Payload, encode
from remora.wire import PROTOCOL, Answer, Buffer, Emit, Fields, Hello, Message, Ready, Record, RunId, StartRun

PREFIX = struct.Struct("<4sIIQ")

# Everything that JSON can say, lone surrogates included: user code prints them.
_texts = st.text(st.characters(exclude_categories=()), max_size=12)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_contents = st.dictionaries(_texts, _values, max_size=4)
_buffers = st.lists(st.binary(max_size=300), max_size=4).map(tuple)
_emits = st.builds(
    lambda run, kind, content, data: Emit(RunId(run), kind, content, buffers=data), _texts, _texts, _contents, _buffers
)


def joined(message: Message) -> bytes:
    """Return a message as the bytes that travel."""
    return b"".join(bytes(piece) for piece in encode(message))


def frame(head: Any, payload: bytes = b"", *, magic: bytes = b"RMRA", protocol: int = PROTOCOL) -> bytes:
    """Return a frame with any head at all; bytes are taken as they are."""
    data = head if isinstance(head, bytes) else json.dumps(head).encode()
    return PREFIX.pack(magic, protocol, len(data), len(payload)) + data + payload


def same(one: Message, other: Message) -> bool:
    """Say whether two messages are equal, whatever kind of bytes their buffers are made of."""
    plain = all(getattr(one, f.name) == getattr(other, f.name) for f in fields(one) if f.name != "buffers")
    return type(one) is type(other) and plain and [bytes(b) for b in one.buffers] == [bytes(b) for b in other.buffers]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the data in pieces."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=50)
@given(st.lists(_emits, min_size=1, max_size=5), st.lists(st.integers(0, 5000), max_size=8))
@example([Emit(RunId("r"), "output", {"text": "\udcff\ud800"}, buffers=(b"",))], [1, 4, 19, 20, 21])
def test_any_split_of_the_bytes_gives_the_same_messages(messages: list[Emit], places: list[int]) -> None:
    """Messages come out whole, in order and once, wherever the stream was cut."""
    decoder = Decoder()
    data = b"".join(map(joined, messages))
    found = [message for piece in cut(data, places) for message in decoder.feed(piece)]
    assert len(found) == len(messages)
    assert all(map(same, found, messages))
    assert decoder.between
    assert decoder.taken == len(data)


@settings(max_examples=50)
@given(_emits)
def test_a_stream_may_come_byte_by_byte(message: Emit) -> None:
    """A message appears with its last byte, not sooner; `between` and `taken` say where frames begin."""
    decoder = Decoder()
    *before, last = (bytes([b]) for b in joined(message))
    for byte in before:
        assert not list(decoder.feed(byte))
        assert not decoder.between
    assert decoder.taken == 0
    (found,) = decoder.feed(last)
    assert same(found, message)
    assert decoder.between


@settings(max_examples=50)
@given(st.lists(_emits, min_size=2, max_size=4), st.integers(1, 40))
def test_reading_into_the_given_room(messages: list[Emit], most: int) -> None:
    """The way of sockets and files, writable and wrote, gives what feed gives, however little is read at once."""
    data, decoder, found = b"".join(map(joined, messages)), Decoder(), []
    while data:
        room = decoder.writable()
        count = min(len(room), most, len(data))
        assert count > 0
        room[:count] = data[:count]
        data = data[count:]
        found += decoder.wrote(count)
    assert all(map(same, found, messages))


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 5_000_000])
@pytest.mark.parametrize("place", ["head", "payload"])
def test_sizes_around_the_room_for_small_frames(size: int, place: str) -> None:
    """Heads and payloads below, at and far above the size of the scratch arrive unharmed, and so does what follows."""
    text, data = ("x" * size, b"") if place == "head" else ("", bytes(size))
    message = Emit(RunId("r"), "output", {"text": text}, buffers=(data, b"tail"))
    decoder = Decoder()
    found = list(decoder.feed(joined(message) + joined(Ready({"pid": 1})) + joined(message)))
    assert [type(m) for m in found] == [Emit, Ready, Emit]
    assert same(found[0], message)
    assert same(found[2], message)


def test_buffers_of_any_kind_travel_without_a_copy() -> None:
    """bytes, bytearray, views and arrays of numbers are sent as they are: the pieces share their memory."""
    array = memoryview(bytearray(struct.pack("<4d", 1, 2, 3, 4))).cast("d")
    data = bytearray(b"abc")
    pieces = encode(Emit(RunId("r"), "output", {}, buffers=(b"one", data, array, memoryview(b""))))
    data[0] = ord("z")
    assert [bytes(p) for p in pieces[1:]] == [b"one", b"zbc", struct.pack("<4d", 1, 2, 3, 4), b""]
    (found,) = Decoder().feed(b"".join(bytes(p) for p in pieces))
    assert [len(b) for b in found.buffers] == [3, 3, 32, 0]


def test_buffers_are_slices_of_one_memory_and_outlive_the_decoder() -> None:
    """A bulk byte is touched once: all buffers of a message look into one block, which the next message does not reuse."""
    decoder = Decoder()
    first, second = (
        next(iter(decoder.feed(joined(Emit(RunId("r"), "output", {}, buffers=(bytes([n]) * 70_000, b"end")))))) for n in (1, 2)
    )
    assert isinstance(first.buffers[0], memoryview)
    assert first.buffers[0].obj is first.buffers[1].obj
    assert first.buffers[0].obj is not second.buffers[0].obj
    assert set(bytes(first.buffers[0])) == {1}


def test_the_largest_buffer_begins_where_any_array_may() -> None:
    """However long what comes before it is: an array that is read there is as fast as one that was made there."""
    message = Emit(RunId("r"), "output", {}, buffers=(b"odd", bytes(2 << 20), b"end"))
    (found,) = Decoder().feed(joined(message))
    address = ctypes.addressof(ctypes.c_char.from_buffer(found.buffers[1]))
    assert address % 64 == 0
    assert same(found, message)


@pytest.mark.parametrize("most", [7, 100_000])
def test_a_payload_goes_where_it_is_said(most: int) -> None:
    """Whoever takes a payload is told what is coming, gets all of that one, and says what the message's buffers are."""
    told, taken = [], Taken()

    def choose(kind: str, body: Fields, sizes: list[int]) -> Payload | None:
        told.append((kind, body["facts"], sizes))
        return taken if len(told) == 2 else None

    data = b"".join(joined(Ready({"n": n}, buffers=(bytes([n]) * 40_000, b"end"))) for n in range(3))
    decoder, found = Decoder(choose), []
    while data:
        room = decoder.writable()
        count = min(len(room), most, len(data))
        room[:count] = data[:count]
        found += decoder.wrote(count)
        data = data[count:]
    assert told == [("Ready", {"n": n}, [40_000, 3]) for n in range(3)]
    assert bytes(taken.data) == b"\1" * 40_000 + b"end"
    assert [m.buffers for m in found[1:2]] == [(b"taken",)]
    assert [len(m.buffers) for m in found] == [2, 1, 2]


def test_who_takes_a_payload_hears_that_the_rest_will_not_come() -> None:
    """At the end of the stream in the midst of one, and not behind it."""
    taken = Taken()
    decoder = Decoder(lambda kind, body, sizes: taken)
    message = joined(Ready({}, buffers=(bytes(40_000), b"end")))
    assert list(decoder.feed(message[:-1])) == []
    decoder.broken()
    assert taken.left == 1
    assert taken.is_broken
    taken = Taken()
    decoder = Decoder(lambda kind, body, sizes: taken)
    list(decoder.feed(message))
    decoder.broken()
    assert not taken.is_broken


class Taken(Payload):
    """Keeps what it is given."""

    def __init__(self) -> None:
        """Expect 40,003 bytes."""
        self.data, self.left, self.is_broken = bytearray(), 40_003, False
        self._room = bytearray(1000)

    def writable(self) -> memoryview:
        """Return a small room."""
        return memoryview(self._room)[: self.left]

    def wrote(self, count: int) -> None:
        """Keep them."""
        self.data += self._room[:count]
        self.left -= count

    def buffers(self) -> tuple[Buffer, ...]:
        """Return something else."""
        return (b"taken",)

    def broken(self) -> None:
        """Keep that, too."""
        self.is_broken = True


def test_a_value_that_json_cannot_say_fails_at_the_sender() -> None:
    """Bytes in a field are a mistake of ours, seen where it was made."""
    with pytest.raises(TypeError):
        encode(Ready({"data": b"bytes"}))


@pytest.mark.parametrize(
    "data",
    [
        frame(["Ready", {"facts": {}}, []], magic=b"HTTP"),
        frame(["Ready", {"facts": {}}, []], protocol=PROTOCOL + 1),
        b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n",
        bytes(64),
    ],
)
def test_another_protocol_is_refused_with_its_prefix(data: bytes) -> None:
    """What does not begin as our frames do is refused after 20 bytes, with the advice to use one version."""
    decoder = Decoder()
    assert not list(decoder.feed(data[:19]))
    with pytest.raises(ProtocolError, match="same version on both sides"):
        list(decoder.feed(data[19:20]))


@pytest.mark.parametrize(
    ("head", "payload"), [(frames.HEAD_LIMIT + 1, 0), (2, frames.PAYLOAD_LIMIT + 1), (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)]
)
def test_lengths_beyond_any_message_are_refused_before_memory_is_taken(head: int, payload: int) -> None:
    """A prefix that announces too much is an error at once: nothing of that size is made."""
    with pytest.raises(ProtocolError, match="larger than any message"):
        list(Decoder().feed(PREFIX.pack(b"RMRA", PROTOCOL, head, payload)))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 10_000,
        b'"Ready"',
        b"null",
        b"[]",
        ["Ready", {"facts": {}}],
        ["Ready", {"facts": {}}, [], 1],
        ["Ready", [], []],
        ["Ready", None, []],
        ["Ready", {"facts": {}}, None],
        ["Ready", {"facts": {}}, 3],
        ["Ready", {"facts": {}}, ["3"]],
        ["Ready", {"facts": {}}, [-1, 1]],
        ["Ready", {"facts": {}}, [1.5]],
        ["Ready", {"facts": {}}, [1 << 70]],
        [["Ready"], {"facts": {}}, []],
        [{}, {"facts": {}}, []],
        [None, {"facts": {}}, []],
        ["Nothing", {}, []],
        ["Message", {}, []],
        ["Ready", {}, []],
        ["Record", {"run": "r"}, []],
        ["Ready", {"facts": {}, "buffers": []}, []],
    ],
)
def test_a_head_that_makes_no_sense_is_a_protocol_error(head: Any) -> None:
    """Anything that is valid JSON, or not even that, but no message of ours, is a ProtocolError and nothing else."""
    with pytest.raises(ProtocolError):
        list(Decoder().feed(frame(head)))


@pytest.mark.parametrize(("sizes", "payload"), [([], b"abc"), ([2], b"abc"), ([4], b"abc"), ([1, 1], b"abc"), ([3, 3], b"abc")])
def test_sizes_must_add_up(sizes: list[int], payload: bytes) -> None:
    """A head that lies about its buffers is found out before they are read."""
    with pytest.raises(ProtocolError, match="do not add up"):
        list(Decoder().feed(frame(["Ready", {"facts": {}}, sizes], payload)))


def test_an_unknown_kind_is_named() -> None:
    """The error names the kind, so that two versions can be told apart."""
    with pytest.raises(ProtocolError, match="'Teleport'"):
        list(Decoder().feed(frame(["Teleport", {"to": "moon"}, []])))


def test_fields_of_a_newer_version_are_passed_over() -> None:
    """A message with more fields than are known is understood, and fields that have a default may be missing."""
    (hello,) = Decoder().feed(frame(["Hello", {"protocol": 1, "version": "9", "role": "r", "colour": "red"}, []]))
    assert hello == Hello(1, "9", "r")
    (answer,) = Decoder().feed(frame(["Answer", {"ask": 7}, []]))
    assert answer == Answer(7, {}, None)


def test_a_missing_field_is_named() -> None:
    """The error says which field is not there."""
    with pytest.raises(ProtocolError, match=r"StartRun lacks a field.*'body'"):
        list(Decoder().feed(frame(["StartRun", {"run": "r", "form": "cell", "name": "n"}, []])))


def test_whole_messages_before_a_broken_one_are_delivered() -> None:
    """What was whole before the stream broke is not lost with it."""
    decoder, found = Decoder(), []
    with pytest.raises(ProtocolError):
        for message in decoder.feed(joined(Ready({"pid": 1})) * 2 + b"x" * 20):
            found.append(message)
    assert found == [Ready({"pid": 1})] * 2


@settings(max_examples=50)
@given(st.binary(max_size=200), _emits, st.integers(0, 500), st.integers(0, 255))
def test_noise_is_refused_or_waited_for_and_never_anything_else(noise: bytes, message: Emit, at: int, value: int) -> None:
    """Random bytes, and frames with one byte changed, raise ProtocolError or nothing."""
    changed = bytearray(joined(message))
    changed[at % len(changed)] = value
    for data in (noise, b"RMRA" + noise, bytes(changed)):
        try:
            found = list(Decoder().feed(data))
        except ProtocolError:
            continue
        except MemoryError:  # a length below the limit that this machine does not have; a connection ends by it, too
            continue
        assert all(isinstance(m, Message) for m in found)


def test_frames_one_after_the_other_make_a_file() -> None:
    """`taken` is the offset of the next frame, whatever is half read behind it: a torn tail can be cut off there."""
    records = [Record(RunId("r"), n, 0.5, "output", {"text": "é" * n}, buffers=(b"b" * n,)) for n in range(50)]
    data, decoder, ends = b"", Decoder(), []
    for record in records:
        data += joined(record)
        ends.append(len(data))
    seen = [decoder.taken for _ in decoder.feed(data[:-3])]
    assert seen == ends[:-1]
    assert not decoder.between


def test_a_run_with_many_buffers() -> None:
    """Ten thousand buffers in one message keep their order and sizes."""
    sizes = [n % 7 for n in range(10_000)]
    message = StartRun(RunId("r"), "cell", "n", {}, buffers=tuple(bytes([n % 256]) * size for n, size in enumerate(sizes)))
    (found,) = Decoder().feed(joined(message))
    assert [len(b) for b in found.buffers] == sizes
    assert same(found, message)
