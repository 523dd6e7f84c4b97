"""The notebook's folder on two machines, the side of the machine: it says what lies in its folder, and does what the plan says.

Law: decides nothing and remembers only digests and the token of what was agreed on. What the other side asks for stays within
the folder, and what it sends is believed only when its digest is right. Nothing is held before the other side has said hello,
which it says when it holds its own folder: two exchanges of one folder never wait for each other.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remora.errors import ProtocolError

from . import parcels
from .agreed import Memory, kept, locked
from .applying import Changes
from .arrivals import Arrivals
from .beneath import Beneath
from .entries import Entries, Entry, Kind, by_folder, is_plain, packed, shown, unpacked, whole
from .folderindex import Index
from .ignoring import Rules
from .letters import PROTOCOL, Letters, octets, text
from .looking import looked, opened, sweep, telling
from .streaming import Streaming

HOME = "the notebook's machine"
"""Who is at the other end, for messages."""


def serve(folder: Path, state: Path, sock: socket.socket) -> None:
    """Be the other half of one `FolderHome.exchange`; blocks until that is over. The folder is made if it is not there.

    `state`: a directory for this folder alone. Raises what `exchange` raises; the other side is told.
    """
    letters = Letters(sock, HOME)
    with telling(letters):
        _, hello, lines = letters.get_values(b"H")
        if hello.get("protocol") != PROTOCOL or not isinstance(hello.get("most"), int):
            raise letters.nonsense()
        with locked(state):
            with kept(folder):
                folder.mkdir(parents=True, exist_ok=True)
            with opened(folder) as top:
                _There(folder, Memory(state), letters, top).run(hello, lines)


class _There:
    """One exchange, as the machine's side sees it."""

    def __init__(self, folder: Path, memory: Memory, letters: Letters, top: Beneath) -> None:
        self._folder, self._memory, self._letters, self._top = folder, memory, letters, top
        self._number = os.fstat(top.top).st_ino

    def run(self, hello: dict[str, Any], lines: bytes) -> None:
        with looked(self._folder, Rules(lines), hello["most"], self._memory) as index:
            self._tell(index, hello.get("seen"))
            while True:
                letter, values, data = self._answer()
                if letter == b"A":
                    self._index(index, values)
                elif letter == b"P":
                    self._carry_out(_plan(self._letters, values, data, index), index)
                else:
                    break
        if letter == b"T":
            self._memory.keep_token(str(values.get("token"))[:64], self._number)

    def _answer(self) -> tuple[bytes, dict[str, Any], bytes]:
        return self._letters.get_values(b"A", b"P", b"T", b"B")

    def _tell(self, index: Index, seen: object) -> None:
        self._folders = by_folder(index.entries)
        same = whole(self._folders).hex() == seen
        values = {
            "token": self._memory.token(self._number),
            "arriving": {text(path): size for path, size in index.arriving.items()},
        }
        digests = {folder: Entry(Kind.FOLDER, 0, digest) for folder, digest in self._folders.items()}
        self._letters.put_values(b"S" if same else b"F", values, b"" if same else packed(digests))

    def _index(self, index: Index, values: dict[str, Any]) -> None:
        asked = set(_paths(self._letters, values, "folders"))
        found = {path: entry for path, entry in index.entries.items() if path[: path.rfind(b"/") + 1] in asked}
        self._letters.put_values(b"I", {}, packed(found))

    def _carry_out(self, plan: _Plan, index: Index) -> None:
        expected = [(path, entry) for path, entry in plan.entries.items() if entry.is_file and path not in plan.copies]
        sweep(self._top, index, [parcels.aside(*item) for item in expected])
        changes = Changes(self._top, index)
        changes.move(plan.moves)
        arrivals = Arrivals(changes, expected, self._letters)
        streaming = Streaming(self._folder, self._letters, plan.parcels(index))
        try:
            streaming.apply(lambda: changes.carry_out(plan.entries, plan.copies, plan.deletes))
            streaming.receive(arrivals)
            streaming.finish()
            arrivals.end()
            failures = {text(path): why for path, why in changes.failures.items()}
            self._letters.put_values(b"D", {"failures": failures})
        finally:
            streaming.close()
            arrivals.close()


@dataclass(frozen=True)
class _Plan:
    """What is to be done here; all paths are plain."""

    entries: Entries
    moves: dict[bytes, bytes]
    deletes: list[bytes]
    copies: dict[bytes, bytes]
    wants: list[tuple[bytes, int]]

    def parcels(self, index: Index) -> list[parcels.Parcel]:
        """Return what is to be sent, as far as it is here."""
        found = ((n, path, index.entries.get(path), start) for n, (path, start) in enumerate(self.wants))
        return [parcels.Parcel(n, path, entry, start) for n, path, entry, start in found if entry is not None and entry.is_file]


def _plan(letters: Letters, values: dict[str, Any], data: bytes, index: Index) -> _Plan:
    """Return what a P says; ProtocolError for what is malformed or leads outside."""
    try:
        moves = {octets(old): octets(new) for old, new in values["moves"]}
        copies = {octets(path): octets(source) for path, source in values["copies"]}
        wants = [(octets(path), max(int(start), 0)) for path, start in values["wants"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise letters.nonsense() from error
    plan = _Plan(unpacked(data, late=True), moves, _paths(letters, values, "deletes"), copies, wants)
    named = [*moves, *moves.values(), *plan.deletes, *copies, *copies.values(), *(path for path, _ in wants)]
    for path in named:
        if not is_plain(path):
            raise ProtocolError(f"{letters.name} names {shown(path)[:200]}, which leads out of the folder", reason="path-escapes")
    for path, source in copies.items():
        if path not in plan.entries or source not in index.entries or not plan.entries[path].content:
            raise letters.nonsense()
    return plan


def _paths(letters: Letters, values: dict[str, Any], name: str) -> list[bytes]:
    try:
        return [octets(path) for path in values[name]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise letters.nonsense() from error
