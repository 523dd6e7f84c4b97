"""What two sides must do to hold the same: what they last agreed on, what is here now, and what is there now.

Law: pure. No version of a file that one side alone has is ever dropped: what both sides changed is kept on both under two names,
the user's under its own; a change wins over a deletion. What one side holds (see `Kind.HELD`), and all below it, is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .entries import Entries, Entry, Kind, parents

Beside = Callable[[bytes], bytes]
"""Names the place beside a path where the other side's version is kept."""


@dataclass
class Plan:
    """What is to be done; every path in one list at most, but that of a conflict is moved there, then sent."""

    send: Entries = field(default_factory=dict)
    fetch: Entries = field(default_factory=dict)
    delete_there: list[bytes] = field(default_factory=list)
    delete_here: list[bytes] = field(default_factory=list)
    move_there: dict[bytes, bytes] = field(default_factory=dict)
    """New paths of what was changed on both sides."""
    equal: dict[bytes, Entry | None] = field(default_factory=dict)
    """What both sides hold alike, or have both deleted, and have not agreed on yet."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done on either side."""
        return not (self.send or self.fetch or self.delete_there or self.delete_here or self.move_there)


def compare(base: Mapping[bytes, Entry], here: Entries, there: Entries, beside: Beside, *, writable: bool = True) -> Plan:
    """Return the plan. Unless `writable` nothing is changed here: what is missing there is sent again."""
    if here == there == base:
        return Plan()
    differing = [path for path in here.keys() | there.keys() | base.keys() if not _settled(path, base, here, there)]
    comparison = _Comparison(base, here, there, beside, writable, sorted(differing))
    comparison.decide()
    return comparison.plan


def _settled(path: bytes, base: Mapping[bytes, Entry], here: Entries, there: Entries) -> bool:
    mine = here.get(path)
    return mine is not None and mine == there.get(path) and (mine == base.get(path) or mine.kind == Kind.HELD)


class _Comparison:
    """One comparison, path by path, folders before what is in them."""

    def __init__(
        self, base: Mapping[bytes, Entry], here: Entries, there: Entries, beside: Beside, writable: bool, paths: list[bytes]
    ) -> None:
        self.base, self.here, self.there, self.beside, self.writable, self.paths = base, here, there, beside, writable, paths
        self.plan = Plan()

    def decide(self) -> None:
        """Fill in the plan."""
        for path in self.paths:
            above = parents(path)
            moved = next((folder for folder in above if folder in self.plan.move_there), None)
            if self._is_held(path, above):
                continue
            if moved is not None:
                self._below_moved(path, moved)
            else:
                self._one(path, self.base.get(path), self.here.get(path), self.there.get(path))
        self._keep_folders()

    def _is_held(self, path: bytes, above: list[bytes]) -> bool:
        sides = [entry for at in (path, *above) for entry in (self.here.get(at), self.there.get(at))]
        return any(entry is not None and entry.kind == Kind.HELD for entry in sides)

    def _one(self, path: bytes, base: Entry | None, here: Entry | None, there: Entry | None) -> None:
        if here == there:
            self.plan.equal[path] = here
        elif here is not None and there is not None and Kind.FOLDER in (here.kind, there.kind):
            self._folder_against_file(path, base, here, there)
        elif here == base:
            self._changed_there(path, here, there)
        elif there == base:
            self._changed_here(path, here)
        elif here is None:
            self._changed_there(path, None, there)
        elif there is None:
            self.plan.send[path] = here
        else:
            self._conflict(path, here, there)

    def _changed_there(self, path: bytes, here: Entry | None, there: Entry | None) -> None:
        if there is not None and self.writable:
            self.plan.fetch[path] = there
        elif there is None and self.writable:
            self.plan.delete_here.append(path)
        elif there is None and here is not None:
            self.plan.send[path] = here

    def _changed_here(self, path: bytes, here: Entry | None) -> None:
        if here is None:
            self.plan.delete_there.append(path)
        else:
            self.plan.send[path] = here

    def _conflict(self, path: bytes, here: Entry, there: Entry) -> None:
        if here.is_file and there.is_file and here.content == there.content:  # nothing but who may execute it
            self.plan.send[path] = here
            return
        name = self.beside(path)
        self.plan.move_there[path] = name
        self.plan.send[path] = here
        if self.writable:
            self.plan.fetch[name] = there

    def _folder_against_file(self, path: bytes, base: Entry | None, here: Entry, there: Entry) -> None:
        """Decide where one side has a folder and the other has not; what is in the folder is decided for itself."""
        if there == base and self._is_untouched(path, self.there):
            self.plan.send[path] = here
        elif here == base and self.writable and self._is_untouched(path, self.here):
            self.plan.fetch[path] = there
        else:
            self._conflict(path, here, there)

    def _is_untouched(self, path: bytes, side: Entries) -> bool:
        below = path + b"/"
        return all(side.get(at) == self.base.get(at) for at in self.paths if at.startswith(below))

    def _below_moved(self, path: bytes, moved: bytes) -> None:
        """Decide where all that is there goes beside: what is here has nothing to meet."""
        here, there = self.here.get(path), self.there.get(path)
        if here is not None:
            self.plan.send[path] = here
        if there is not None and self.writable:
            self.plan.fetch[self.plan.move_there[moved] + path[len(moved) :]] = there

    def _keep_folders(self) -> None:
        """Give a folder that one side has deleted back to it when the other has something to put into it."""
        for wanted, deleted, again in (
            (self.plan.fetch, self.plan.delete_there, self.plan.fetch),
            (self.plan.send, self.plan.delete_here, self.plan.send),
        ):
            gone = set(deleted)
            kept = {folder for path in wanted for folder in parents(path) if folder in gone}
            if kept:
                deleted[:] = [path for path in deleted if path not in kept]
                again.update(dict.fromkeys(kept, Entry(Kind.FOLDER)))
