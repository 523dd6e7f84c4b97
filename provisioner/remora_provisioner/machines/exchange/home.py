"""The notebook's folder on two machines, the user's side: an exchange brings both to agreement, before a run and after it.

Law: this side decides, by three-way comparison (comparing.py), and alone remembers what was agreed on; serving.py answers. What
lies in a folder and what is in its files are told separately, but for digests of new files. Neither side believes the other.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from remora.errors import RemoraError, StateError

from . import outcome, parcels
from .agreed import Agreed, Intent, Memory, locked, new_token
from .applying import CHANGED, Changes
from .arrivals import Arrivals
from .beneath import Beneath
from .comparing import Plan, compare
from .entries import GONE, Entries, Entry, Kind, by_folder, packed, unpacked, whole
from .folderindex import Index, is_old
from .ignoring import NAME, Rules
from .letters import PROTOCOL, Letters, octets, text
from .looking import looked, opened, read_unread, sweep, telling
from .moving import Moving
from .receipts import Receipt
from .streaming import Streaming

_MOST_RULES = 1 << 18


class FolderHome:
    """The user's side: where the notebook's folder really is."""

    def __init__(self, folder: Path, state: Path, machine: str, *, writable: bool, most: int) -> None:
        """Exchange `folder` with `machine`, a name for people and for files.

        `state`: a directory for this folder alone, shared by all machines that it is exchanged with. Unless `writable` nothing
        comes home. `most`: bytes of a file, and of all that goes one way in an exchange, beyond which it stays.
        """
        self.folder, self.state, self.machine, self.writable, self.most = folder, state, machine, writable, most

    def exchange(self, sock: socket.socket, say: Callable[[str], None] = lambda _: None) -> Receipt:
        """Bring both sides to agreement over a connection to `serve`, which is good for one exchange; blocks.

        `say` hears from time to time how far it has come, from any thread.
        Raises Unavailable if the connection broke, StateError if a disk is full or cannot be used, InputError for a
        `.remoraignore` that cannot be understood, ProtocolError for a machine that misbehaves. What arrived stays; the next
        exchange goes on.
        """
        letters = Letters(sock, self.machine)
        with telling(letters), locked(self.state), opened(self.folder) as top:
            return _Home(self, letters, top, Moving(self.machine, say)).run()


class _Home:
    """One exchange, as the user's side sees it."""

    def __init__(self, home: FolderHome, letters: Letters, top: Beneath, moving: Moving) -> None:
        self._home, self._letters, self._top, self._moving = home, letters, top, moving
        self._memory = Memory(home.state, home.machine)
        self._agreed = self._memory.agreed()
        self._arriving: dict[bytes, int] = {}
        self._token = ""

    def run(self) -> Receipt:
        home = self._home
        rules = Rules(rules_of(self._top))
        self._letters.put_values(b"H", {"protocol": PROTOCOL, "most": home.most, "seen": self._agreed.seen}, rules.text)
        with looked(home.folder, rules, home.most, self._memory, all_read=False) as index:
            new = self._new(index)
            read_unread(home.folder, index, new)  # while the machine looks at its folder
            there = self._index_there(rules)
            late = _not_among(there, new)
            read_unread(home.folder, index, late)
            here = index.entries | late
            base = self._base(here, there)
            plan = compare(base, here, there, _Beside(home.machine, (base, here, there)), writable=home.writable)
            done = outcome.Outcome(home.machine, plan, outcome.capped(plan, home.most, home.machine))
            sweep(self._top, index, [parcels.aside(*item) for item in plan.fetch.items()])
            if not plan.is_empty:
                self._carry_out(plan, done, index, here, there)
        self._remember(done, base, here, there)
        return done.receipt(here, there, self._agreed.told)

    # ---- what is there, and what was agreed on

    def _index_there(self, rules: Rules) -> Entries:
        letter, values, data = self._letters.get_values(b"S", b"F")
        try:
            self._token = str(values["token"])
            self._arriving = {octets(path): int(size) for path, size in values["arriving"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._letters.nonsense() from error
        if letter == b"S":
            return self._agreed.there
        theirs = {folder: entry.content for folder, entry in unpacked(data, trusted=True).items()}
        mine = by_folder(self._agreed.there)
        ask = {folder for folder, digest in theirs.items() if mine.get(folder) != digest}
        there = {path: entry for path, entry in self._agreed.there.items() if (at := _folder(path)) in theirs and at not in ask}
        if ask:
            self._letters.put_values(b"A", {"folders": [text(folder) for folder in ask]})
            there |= rules.over(unpacked(self._letters.get_values(b"I")[2]))
        self._agreed.seen = ""
        return there

    def _new(self, index: Index) -> Entries:
        """Return the files that may go without a digest, unless the machine has them: no exchange has known them.

        They are as old as to show whether they are what they were when they go.
        """
        if not index.unread:
            return {}
        intent = self._memory.intent()
        known = self._agreed.base.keys() | intent.here.keys() | intent.there.keys()
        old = (item for item in index.unread.items() if is_old(item[1][1], index.moment))
        return {path: entry for path, (entry, _) in old if entry.may_be_late and path not in known}

    def _base(self, here: Entries, there: Entries) -> Entries:
        """Return what both agreed on, as far as that still holds: else nothing, which deletes and overwrites nothing."""
        agreed, base = self._agreed, self._agreed.base
        known = self._token and self._token in (agreed.token, agreed.before) and agreed.top == os.fstat(self._top.top).st_ino
        if not known or (base and (base.keys().isdisjoint(here) or base.keys().isdisjoint(there))):
            self._agreed = Agreed(there=agreed.there, seen=agreed.seen, told=agreed.told)
            return {}
        if agreed.before and self._token == agreed.token:
            self._memory.confirm(self._token)
        intent = self._memory.intent()
        if not intent.is_empty:
            base, agreed.seen = dict(base), ""
            agreed.base = base
        for wanted, side in ((intent.there, there), (intent.here, here)):
            for path, entry in wanted.items():
                if side.get(path, GONE) == entry:
                    _put(base, path, entry)
        return base

    # ---- doing it

    def _carry_out(self, plan: Plan, done: outcome.Outcome, index: Index, here: Entries, there: Entries) -> None:
        self._intend(plan)
        staying = {path: entry for path, entry in there.items() if path not in plan.move_there} if plan.move_there else there
        copies_there, copies_here = _known(plan.send, staying), _known(plan.fetch, here)
        wants = [(path, entry) for path, entry in plan.fetch.items() if entry.is_file and path not in copies_here]
        sends = [(path, entry) for path, entry in plan.send.items() if entry.is_file and path not in copies_there]
        values = {
            "moves": [[text(old), text(new)] for old, new in plan.move_there.items()],
            "deletes": [text(path) for path in plan.delete_there],
            "copies": [[text(path), text(source)] for path, source in copies_there.items()],
            "wants": [[text(path), parcels.resumes_at(path, entry, index.arriving)] for path, entry in wants],
        }
        self._letters.put_values(b"P", values, packed(plan.send))
        outgoing = [self._parcel(number, index, *item) for number, item in enumerate(sends)]
        changes = Changes(self._top, index)
        to_come = sum(entry.size - parcels.resumes_at(path, entry, index.arriving) for path, entry in wants)
        self._moving.expect(sum(one.entry.size - one.start for one in outgoing), to_come)
        streaming = Streaming(self._home.folder, self._letters, outgoing, self._moving)
        arrivals = Arrivals(changes, wants, self._letters)
        try:
            streaming.apply(lambda: changes.carry_out(plan.fetch, copies_here, plan.delete_here))
            streaming.receive(arrivals)
            streaming.finish()
            arrivals.end()
            done.failed_there = self._failures()
        except RemoraError:
            streaming.close()
            if _take_digests(plan, index, streaming.found):
                with contextlib.suppress(StateError):  # then the next exchange does not know that what it finds there is this
                    self._memory.intend(_intent(plan))
            raise
        finally:
            streaming.close()
            arrivals.close()
        _take_digests(plan, index, streaming.found)
        for path, entry in plan.send.items():
            if entry.is_file and not entry.content:
                done.failed_there.setdefault(path, CHANGED)
        done.failed_here = changes.failures
        done.sent_bytes, done.fetched_bytes = streaming.sent_bytes, arrivals.bytes

    def _parcel(self, number: int, index: Index, path: bytes, entry: Entry) -> parcels.Parcel:
        stamp = None if entry.content else index.unread[path][1]
        return parcels.Parcel(number, path, entry, parcels.resumes_at(path, entry, self._arriving), stamp)

    def _intend(self, plan: Plan) -> None:
        if not self._memory.intent().is_empty:  # what was found out by it goes into what is agreed on, for it is overwritten
            self._memory.agree(self._agreed)
        self._memory.intend(_intent(plan))

    def _failures(self) -> dict[bytes, str]:
        _, values, _ = self._letters.get_values(b"D")
        try:
            return {octets(path): str(why)[:200] for path, why in values["failures"].items()}
        except (KeyError, AttributeError, ValueError) as error:
            raise self._letters.nonsense() from error

    def _remember(self, done: outcome.Outcome, base: Entries, here: Entries, there: Entries) -> None:
        """Keep what is agreed on now, first here, then there: until it is known that it has arrived, both names are good."""
        agreed = self._agreed
        new_base, new_there = done.settled(base, there)
        top = os.fstat(self._top.top).st_ino
        told = done.told(here, there)
        same = new_base == agreed.base and new_there == agreed.there and told == agreed.told
        if same and agreed.seen and agreed.token == self._token:
            self._letters.put_values(b"B", {})
            return
        token = new_token()
        seen = whole(by_folder(new_there)).hex()
        self._memory.agree(Agreed(new_base, new_there, token, self._token, top, seen, told))
        self._letters.put_values(b"T", {"token": token})


class _Beside:
    """Names the places where the machine's versions are kept: data.csv.from-gpubox."""

    def __init__(self, machine: str, taken: Iterable[Entries]) -> None:
        self._ending = b".from-" + re.sub(rb"[^\w.@+-]", b"_", machine.encode())[:60]
        self._taken = list(taken)
        self._given: set[bytes] = set()

    def __call__(self, path: bytes) -> bytes:
        """Return a path that nothing has on either side."""
        folder, _, name = path.rpartition(b"/")
        above = folder + b"/" if folder else b""
        number = 1
        while True:
            ending = self._ending + (b"-%d" % number if number > 1 else b"")
            found = above + name[: 255 - len(ending)] + ending
            if found not in self._given and not any(found in side for side in self._taken):
                self._given.add(found)
                return found
            number += 1


def _intent(plan: Plan) -> Intent:
    gone_there, gone_here = dict.fromkeys(plan.delete_there, GONE), dict.fromkeys(plan.delete_here, GONE)
    return Intent(plan.send | gone_there, plan.fetch | gone_here)


def _take_digests(plan: Plan, index: Index, found: Entries) -> bool:
    """Take in what was found out about files as they went; say whether that was anything."""
    for path, entry in found.items():
        plan.send[path] = entry
        index.put(path, entry, index.unread.pop(path)[1])
    return bool(found)


def _known(entries: Entries, side: Entries) -> dict[bytes, bytes]:
    """Return for each file whose content one side has already under another name that name; none for empty files."""
    wanted = {entry.content for entry in entries.values() if entry.is_file and entry.size}
    if not wanted:
        return {}
    places = {entry.content: path for path, entry in side.items() if entry.is_file and entry.content in wanted}
    return {path: places[entry.content] for path, entry in entries.items() if entry.is_file and entry.content in places}


def _not_among(there: Entries, new: Entries) -> Entries:
    """Return those of the new files whose content cannot be there: nothing has their name or their size."""
    sizes = {entry.size for entry in there.values()}
    return {path: entry for path, entry in new.items() if path not in there and entry.size not in sizes}


def _put(entries: Entries, path: bytes, entry: Entry) -> None:
    if entry.kind == Kind.GONE:
        entries.pop(path, None)
    else:
        entries[path] = entry


def _folder(path: bytes) -> bytes:
    return path[: path.rfind(b"/") + 1]


def rules_of(top: Beneath) -> bytes:
    """Return the text of the folder's `.remoraignore`, empty if there is none. Raises StateError if it cannot be read."""
    try:
        descriptor = top.read(NAME)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StateError(f".remoraignore cannot be read ({error.strerror or error}): mend or remove it") from error
    with open(descriptor, "rb") as file:
        return file.read(_MOST_RULES)
