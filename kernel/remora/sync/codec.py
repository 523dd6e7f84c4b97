"""Variables to bytes and back: one pickler for a batch, so that what they share is still shared on the other side.

Law: one dump for each variable, all with one memo; large memory goes as buffers beside the stream. Functions and classes of the
notebook travel by value and bind to the receiver's live namespace. Bytecode is never read by another Python minor version.
A value that cannot travel is named with its path and does not keep the others from travelling.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from remora.errors import SendError
from remora.sync import classes, receiving, sides, tensors
from remora.sync.explain import explain
from remora.sync.marks import Hasher
from remora.sync.nesting import with_large_stack
from remora.sync.packer import Marker, Packer, class_digest, no_garbage_collection
from remora.sync.registry import REGISTRY
from remora.sync.salvage import memo_after

Buffer: TypeAlias = bytes | bytearray | memoryview
MAGIC = b"RMS1"
HEAD = struct.Struct("<4sI")
IN_BAND = 4096  # bytes: a smaller buffer costs more as a piece of its own


@dataclass(frozen=True)
class Encoded:
    """Variables as bytes, the global names that their functions use, and what could not be encoded."""

    names: tuple[str, ...]
    stream: bytes
    buffers: tuple[Buffer, ...]
    deps: frozenset[str] = frozenset()
    failures: dict[str, SendError] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Return the size of stream and buffers in bytes."""
        return len(self.stream) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


@dataclass(frozen=True)
class Decoded:
    """Variables that arrived, and those that could not be rebuilt here."""

    values: dict[str, object]
    failures: dict[str, SendError]
    notes: tuple[str, ...] = ()
    """A line each on what is not as it was there."""


class Unpacker(pickle.Unpickler):
    """The C unpickler; what a stream looks for in `__main__` is the receiver's live namespace."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a module's attribute, or a variable of the live namespace."""
        return _live(module, name) or super().find_class(module, name)


class CarefulUnpacker(pickle._Unpickler):
    """The same in Python, for what follows a broken variable."""

    def __init__(self, file: Any, memo: dict[int, Any], *, buffers: Iterable[Any]) -> None:
        """Go on with a memo."""
        super().__init__(file, buffers=buffers)
        self.memo = memo

    def find_class(self, module: str, name: str) -> Any:
        """Return a module's attribute, or a variable of the live namespace."""
        return _live(module, name) or super().find_class(module, name)


def _live(module: str, name: str) -> Any:
    return receiving.live_namespace().get(name) if module == "__main__" else None


def encode(
    values: Mapping[str, object],
    *,
    namespace: dict[str, Any],
    packages: Mapping[str, str] | None = None,
    loose: frozenset[str] = frozenset(),
) -> Encoded:
    """Turn variables into bytes; those that cannot travel are in `failures`, the others are not harmed by them.

    `packages` are versions of the other side's; where its dill differs, dill's own constructors are not used. `loose` names the
    modules that the other side cannot import: what is defined in them goes by value, with what it uses of its module.
    """
    borrows = sides.same_dill(packages)
    left = dict(values)
    failures: dict[str, SendError] = {}
    with no_garbage_collection():
        while True:
            done, failed = _attempt_deeply(left, namespace, borrows, loose)
            if not failed:
                break
            for name, error in failed.items():
                failures[name] = explain(name, left.pop(name), error, namespace=namespace)
    return Encoded(done.names, done.stream, done.buffers, done.deps, failures)


def _attempt_deeply(
    values: dict[str, Any], namespace: dict[str, Any], borrows: bool, loose: frozenset[str]
) -> tuple[Encoded, dict[str, Exception]]:
    done, failed = _attempt(values, namespace, borrows, loose)
    if any(isinstance(error, RecursionError) for error in failed.values()):
        done, failed = with_large_stack(lambda: _attempt(values, namespace, borrows, loose))
    return done, failed


def _attempt(
    values: dict[str, Any], namespace: dict[str, Any], borrows: bool, loose: frozenset[str]
) -> tuple[Encoded, dict[str, Exception]]:
    """Pack all variables once; after a failure the rest is only tried, since the memo holds what was not written."""
    file, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    packer = Packer(file, namespace, lambda buffer: _keep(buffer, buffers))
    packer.borrows, packer.loose = borrows, loose
    packer.roots |= {id(value) for value in values.values()}
    failed: dict[str, Exception] = {}
    ends: list[tuple[int, int]] = []
    for name, value in values.items():
        try:
            packer.dump(value)
        except Exception as error:  # reducers of the user's and of libraries' classes run here
            failed[name] = error
        ends.append((file.tell(), len(buffers)))
    head = _head(tuple(values), ends, packer)
    stream = head + file.getvalue() if not failed else b""
    raw = tuple(buffer.raw() for buffer in buffers)
    return Encoded(tuple(values), stream, raw, frozenset(packer.deps)), failed


def _keep(buffer: pickle.PickleBuffer, buffers: list[pickle.PickleBuffer]) -> bool:
    if buffer.raw().nbytes < IN_BAND:
        return True
    buffers.append(buffer)
    return False


def _head(names: tuple[str, ...], ends: list[tuple[int, int]], packer: Packer) -> bytes:
    text = json.dumps({"names": names, "ends": ends, "needs": sides.needs(packer.kinds, packer.bytecode)}).encode()
    return HEAD.pack(MAGIC, len(text)) + text


def decode(stream: bytes, buffers: Sequence[Buffer], *, namespace: dict[str, Any]) -> dict[str, object]:
    """Rebuild variables bound to `namespace`, without putting them there; raises SendError if one cannot be rebuilt."""
    decoded = decode_each(stream, buffers, namespace=namespace)
    for error in decoded.failures.values():
        raise error
    return decoded.values


def decode_each(stream: bytes, buffers: Sequence[Buffer], *, namespace: dict[str, Any]) -> Decoded:
    """Rebuild what can be rebuilt; raises SendError only if the stream is not for this Python."""
    view = memoryview(stream)
    magic, length = HEAD.unpack_from(view)
    if magic != MAGIC:
        raise SendError("what arrived is not a stream of variables; both sides need the same version of Remora")
    head = json.loads(bytes(view[HEAD.size : HEAD.size + length]))
    sides.check(head["needs"])
    body = view[HEAD.size + length :]
    ready = [_writeable(buffer) for buffer in buffers]
    with no_garbage_collection(), receiving.into(namespace):
        decoded = _load_each(head, body, ready)
        for cls in classes.take_applied():
            REGISTRY.record(cls).digest = class_digest(cls, namespace)
    return decoded


def _load_each(head: dict[str, Any], body: memoryview, buffers: list[Any]) -> Decoded:
    """Read segment after segment with one unpickler; after a failure go on with one that knows what is lost."""
    values: dict[str, object] = {}
    failures: dict[str, SendError] = {}
    moved: dict[str, tuple[str, ...]] = {}
    file = io.BytesIO(body)
    unpacker: Any = Unpacker(file, buffers=_from(buffers, 0))
    start = 0
    for name, (end, last) in zip(head["names"], head["ends"], strict=True):
        try:
            values[name] = unpacker.load()
            moved[name] = tensors.take_stranded()
        except Exception as error:  # constructors of the user's and of libraries' classes run here
            failures[name] = _arrival(name, error)
            memo = memo_after(_memo_of(unpacker), bytes(body[:start]), bytes(body[start:end]))
            file.seek(end)
            unpacker = CarefulUnpacker(file, memo, buffers=_from(buffers, last))
        start = end
    return Decoded(values, failures, _notes(moved))


def _notes(moved: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    names = ", ".join(name for name, devices in moved.items() if devices)
    devices = ", ".join(dict.fromkeys(device for devices in moved.values() for device in devices))
    line = f"{names}: what was on {devices} there is on the CPU here, which has no such device, and goes back to its device"
    return (line,) if names else ()


def _from(buffers: list[Any], first: int) -> Iterator[Any]:
    return iter(buffers[first:])


def _memo_of(unpacker: Any) -> dict[int, Any]:
    return dict(unpacker.memo.copy())


def _arrival(name: str, error: Exception) -> SendError:
    if isinstance(error, SendError):
        return error
    if isinstance(error, ModuleNotFoundError):
        text = f"{name}: module {error.name!r} is not installed on the side that received it; add it with pip="
    else:
        text = f"{name}: cannot be rebuilt where it arrived: {type(error).__name__}: {error}; make it there instead"
    return SendError(text, name=name)


def _writeable(buffer: Buffer) -> Buffer:
    view = memoryview(buffer)
    return bytearray(view) if view.readonly else buffer


def fingerprint(value: object, *, namespace: dict[str, Any]) -> bytes | None:
    """Return a digest of a value's contents as this side sees them, None if there is none (treat it as changed)."""
    return mark(value, namespace=namespace)[0]


def mark(value: object, *, namespace: dict[str, Any]) -> tuple[bytes | None, frozenset[str]]:
    """Return a value's digest and the global names that its functions and classes use."""
    hasher = Hasher()
    marker = Marker(hasher, namespace, hasher.buffer)
    try:
        with no_garbage_collection():
            _mark(marker, value)
    except RecursionError:
        return _mark_deeply(value, namespace)
    except Exception:  # what cannot be pickled has no digest, whatever it raises
        return None, frozenset(marker.deps)
    return hasher.digest(), frozenset(marker.deps)


def _mark_deeply(value: object, namespace: dict[str, Any]) -> tuple[bytes | None, frozenset[str]]:
    hasher = Hasher()
    marker = Marker(hasher, namespace, hasher.buffer)
    try:
        with_large_stack(lambda: _mark(marker, value))
    except Exception:  # what cannot be pickled has no digest, whatever it raises
        return None, frozenset(marker.deps)
    return hasher.digest(), frozenset(marker.deps)


def _mark(marker: Marker, value: object) -> None:
    marker.dump(value)
    for cls in marker.met:  # grows as classes lead to others
        marker.dump((classes.skeleton_of(cls), classes.contents_of(cls)))
