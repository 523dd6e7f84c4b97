"""What is remembered of a folder between two exchanges: digests, what both sides agreed on, and what was about to be done.

Law: what is on the disk is whole or passed over, and losing it costs time and at worst a file kept twice, never a file. What both
agreed on counts only if the other side names it by the same token, and both folders are still those that it was agreed for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from blake3 import blake3
from remora.errors import ProtocolError, StateError

from .beneath import Stamp, stamp_of
from .entries import DIGEST, Entries, packed, unpacked
from .folderindex import Index

_Value = TypeVar("_Value")
_RECENT: dict[Path, tuple[Stamp, object]] = {}
"""What was read last, by file: an exchange follows the other."""
_MOST_RECENT = 4
_MALFORMED = (ValueError, TypeError, KeyError, struct.error, ProtocolError)


@contextlib.contextmanager
def locked(state: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the folder's lock; while another has it, `wait` or raise BlockingIOError. StateError if there can be none."""
    with kept(state):
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def kept(state: Path) -> Iterator[None]:
    """Translate what the disk says of the state directory."""
    try:
        yield
    except OSError as error:
        raise StateError(f"{state} cannot be used ({error.strerror}): make room, or make it yours, and run it again") from error


@dataclass
class Agreed:
    """What both sides held alike after their last exchange, and all that was there."""

    base: Entries = field(default_factory=dict)
    there: Entries = field(default_factory=dict)
    token: str = ""
    """Names what was agreed on; the other side keeps it too."""
    before: str = ""
    """The token before that, as long as it is not known whether the new one has arrived."""
    top: int = 0
    """The number of the folder here."""
    seen: str = ""
    """The digest of `there`."""
    told: list[str] = field(default_factory=list)
    """What the last receipt has said that stays where it is."""

    def to_bytes(self) -> bytes:
        """Return everything as bytes."""
        values = {"token": self.token, "before": self.before, "top": self.top, "seen": self.seen, "told": self.told}
        base, there = packed(self.base), b"" if self.base == self.there else packed(self.there)
        head = json.dumps(values).encode()
        return struct.pack("<IQ", len(head), len(base)) + head + base + there

    @classmethod
    def from_bytes(cls, data: bytes) -> Agreed:
        """Rebuild from `to_bytes`."""
        head, size = struct.unpack_from("<IQ", data)
        at = 12 + head
        base = unpacked(data[at : at + size], trusted=True)
        there = unpacked(data[at + size :], trusted=True) if len(data) > at + size else dict(base)
        return cls(base, there, **json.loads(data[12:at]))


@dataclass
class Intent:
    """What an exchange was about to do, written down before it began: how much of it was done need not be known."""

    there: Entries = field(default_factory=dict)
    here: Entries = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was."""
        return not self.there and not self.here

    def to_bytes(self) -> bytes:
        """Return everything as bytes."""
        there = packed(self.there)
        return struct.pack("<Q", len(there)) + there + packed(self.here)

    @classmethod
    def from_bytes(cls, data: bytes) -> Intent:
        """Rebuild from `to_bytes`."""
        (size,) = struct.unpack_from("<Q", data)
        return cls(unpacked(data[8 : 8 + size], trusted=True), unpacked(data[8 + size :], trusted=True))


class Memory:
    """The state of one folder, for one machine that it is exchanged with; hold the lock."""

    def __init__(self, state: Path, machine: str = "") -> None:
        self._state = state
        name = quote(machine, safe="")
        self._agreed, self._intent, self._confirmed = (state / f"{name}.{kind}" for kind in ("agreed", "intent", "confirmed"))

    def digests(self) -> Index:
        """Return the digests that are known."""
        with contextlib.suppress(*_MALFORMED):
            return self._parsed(self._state / "digests", Index.from_bytes)
        return Index()

    def keep_digests(self, index: Index) -> None:
        """Keep the digests that can be believed later."""
        if index.news:
            self._write(self._state / "digests", index.to_bytes())

    def agreed(self) -> Agreed:
        """Return what was agreed on."""
        with contextlib.suppress(*_MALFORMED):
            agreed = replace(self._parsed(self._agreed, Agreed.from_bytes))
            with contextlib.suppress(ValueError):
                if self._read(self._confirmed) == agreed.token.encode():
                    agreed.before = ""
            return agreed
        return Agreed()

    def confirm(self, token: str) -> None:
        """Take note that the other side has this token: the one before it is good no longer."""
        self._write(self._confirmed, token.encode())

    def agree(self, agreed: Agreed) -> None:
        """Keep what is agreed on now, and nothing of what was intended."""
        self._write(self._agreed, agreed.to_bytes())
        with kept(self._state):
            self._intent.unlink(missing_ok=True)

    def intent(self) -> Intent:
        """Return what the last exchange was about to do, if it did not come to its end."""
        with contextlib.suppress(*_MALFORMED):
            return Intent.from_bytes(self._read(self._intent))
        return Intent()

    def intend(self, intent: Intent) -> None:
        """Write down what is about to be done."""
        self._write(self._intent, intent.to_bytes())

    def token(self, top: int) -> str:
        """Return the token of what was last agreed on for the folder with that number; for the side that keeps nothing else."""
        with contextlib.suppress(*_MALFORMED):
            values: dict[str, Any] = json.loads(self._read(self._state / "token"))
            return str(values["token"]) if values["top"] == top else ""
        return ""

    def keep_token(self, token: str, top: int) -> None:
        """Keep the token for the folder with that number."""
        self._write(self._state / "token", json.dumps({"token": token, "top": top}).encode())

    def _parsed(self, path: Path, parse: Callable[[bytes], _Value]) -> _Value:
        """Return what a file holds, at once if it was asked for not long ago and is the same; not to be changed."""
        try:
            stamp = stamp_of(os.stat(path))
        except OSError as error:
            raise ValueError(path.name) from error
        recent = _RECENT.get(path)
        if recent is None or recent[0] != stamp:
            recent = _RECENT[path] = stamp, parse(self._read(path))
            for other in list(_RECENT)[:-_MOST_RECENT]:
                _RECENT.pop(other, None)
        return cast(_Value, recent[1])

    def _read(self, path: Path) -> bytes:
        """Return what was written; ValueError if that is not there or not whole."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(path.name) from error
        if blake3(data[DIGEST:]).digest() != data[:DIGEST]:
            raise ValueError(path.name)
        return data[DIGEST:]

    def _write(self, path: Path, data: bytes) -> None:
        aside = path.with_name(path.name + ".new")
        with kept(self._state):
            try:
                with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                    file.write(blake3(data).digest())
                    file.write(data)
                aside.replace(path)
            except OSError:
                with contextlib.suppress(OSError):
                    aside.unlink(missing_ok=True)
                raise


def new_token() -> str:
    """Return a token that nobody has used."""
    return secrets.token_hex(16)
