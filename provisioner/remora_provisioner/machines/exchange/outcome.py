"""What came of a plan: what both sides agree on after it, and the receipt.

Law: pure. What failed is as if it had not been planned: the next comparison finds it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from remora.resources import format_bytes

from .comparing import Plan
from .entries import Entries, Entry, Kind, shown
from .receipts import HERE, Receipt, Stay, held

_MOST_TOLD = 1000


@dataclass
class Outcome:
    """A plan, and how it went."""

    machine: str
    plan: Plan
    capped: list[Stay]
    failed_there: dict[bytes, str] = field(default_factory=dict)
    failed_here: dict[bytes, str] = field(default_factory=dict)
    sent_bytes: int = 0
    fetched_bytes: int = 0

    def settled(self, base: Entries, there: Entries) -> tuple[Entries, Entries]:
        """Return what both sides agree on now, and what is there now."""
        plan, now = self.plan, _moved(there, self._moves())
        failed = self.failed_here.keys() | self.failed_there.keys()
        sent = {path: entry for path, entry in plan.send.items() if path not in self.failed_there}
        fetched = {path: entry for path, entry in plan.fetch.items() if path not in failed}
        gone_there = dict.fromkeys(path for path in plan.delete_there if path not in self.failed_there)
        gone_here = dict.fromkeys(path for path in plan.delete_here if path not in self.failed_here)
        agreed = _with(base, {**plan.equal, **sent, **fetched, **gone_there, **gone_here})
        return agreed, _with(now, {**sent, **gone_there})

    def receipt(self, here: Entries, there: Entries, told: list[str]) -> Receipt:
        """Return the receipt; `told` is what the one before has named that stays."""
        plan, gone = self.plan, self.failed_there.keys()
        stays = self._stays(here, there)
        return Receipt(
            self.machine,
            sum(entry.kind != Kind.FOLDER for path, entry in plan.send.items() if path not in gone),
            sum(entry.kind != Kind.FOLDER for path, entry in plan.fetch.items() if path not in self.failed_here),
            self.sent_bytes,
            self.fetched_bytes,
            sum(path not in gone and there[path].kind != Kind.FOLDER for path in plan.delete_there),
            sum(path not in self.failed_here and here[path].kind != Kind.FOLDER for path in plan.delete_here),
            tuple((shown(old), shown(new)) for old, new in self._moves().items()),
            tuple(stays),
            tuple(stay for stay in stays if str(stay) not in told),
        )

    def told(self, here: Entries, there: Entries) -> list[str]:
        """Return what the receipt names that stays."""
        return [str(stay) for stay in self._stays(here, there)[:_MOST_TOLD]]

    def _moves(self) -> dict[bytes, bytes]:
        return {old: new for old, new in self.plan.move_there.items() if old not in self.failed_there}

    def _stays(self, here: Entries, there: Entries) -> list[Stay]:
        sides = ((here, HERE), (there, f"on {self.machine}"))
        kept = [(where, path, entry) for side, where in sides for path, entry in side.items() if entry.kind == Kind.HELD]
        found = [stay for where, path, entry in sorted(kept) if (stay := held(path, entry, where))]
        failed = {**self.failed_there, **self.failed_here}
        return [*found, *self.capped, *(Stay(shown(path), why, "") for path, why in sorted(failed.items()) if why)]


def capped(plan: Plan, most: int, machine: str) -> list[Stay]:
    """Take out of a plan what goes beyond `most` bytes one way, the smallest first, and return what that is."""
    stays = []
    for entries, where in ((plan.send, HERE), (plan.fetch, f"on {machine}")):
        kept_twice = {*plan.move_there, *plan.move_there.values()}
        left = most
        for size, path in sorted((entry.size, path) for path, entry in entries.items() if entry.is_file):
            if path in kept_twice or size <= left:
                left -= size
                continue
            del entries[path]
            stays.append(Stay(shown(path), format_bytes(size), where))
    return stays


def _with(entries: Entries, news: Mapping[bytes, Entry | None]) -> Entries:
    """Return the entries with others in their place, or none."""
    found = dict(entries)
    for path, entry in news.items():
        if entry is None:
            found.pop(path, None)
        else:
            found[path] = entry
    return found


def _moved(there: Entries, moves: dict[bytes, bytes]) -> Entries:
    """Return what is there after things got other names."""
    if not moves:
        return dict(there)
    found: Entries = {}
    for path, entry in there.items():
        old = next((old for old in moves if path == old or path.startswith(old + b"/")), None)
        found[path if old is None else moves[old] + path[len(old) :]] = entry
    return found
