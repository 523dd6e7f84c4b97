"""What an exchange of files has done, as a value and in one line for a person.

Law: pure; says what moved, what is kept twice and what stays, and nothing when nothing happened.
"""

from __future__ import annotations

from dataclasses import dataclass

from remora.resources import format_bytes

from .entries import Entry, shown
from .folderindex import DEEP, LARGE, OUTSIDE, SPECIAL, UNREADABLE

HERE = "here"
_NAMED = 3
"""How many of those that stay are named."""
_WHY = {
    OUTSIDE: "leads outside",
    SPECIAL: "no file",
    UNREADABLE: "cannot be read",
    DEEP: "path too long",
}


@dataclass(frozen=True)
class Stay:
    """Something that did not travel."""

    path: str
    why: str
    where: str = HERE
    """It says "here", or "on" and the machine; nothing for what is to travel next time."""


@dataclass(frozen=True)
class Receipt:
    """What one exchange with a machine has done."""

    machine: str
    sent: int = 0
    fetched: int = 0
    """Files and links, those too whose content was over there already."""
    sent_bytes: int = 0
    fetched_bytes: int = 0
    """Of contents that moved."""
    deleted_there: int = 0
    deleted_here: int = 0
    conflicts: tuple[tuple[str, str], ...] = ()
    """What was changed on both sides, and under which name the machine's version is kept."""
    stays: tuple[Stay, ...] = ()
    news: tuple[Stay, ...] = ()
    """Those of them that the receipt before has not named."""

    def line(self) -> str:
        """Return one line for the status line; empty if there is nothing to say."""
        said = [
            _moved(self.sent, "sent", self.sent_bytes),
            _moved(self.fetched, "fetched", self.fetched_bytes),
            f"{_files(self.deleted_there)} deleted on {self.machine}" if self.deleted_there else "",
            f"{_files(self.deleted_here)} deleted here" if self.deleted_here else "",
            self._conflicts(),
            *(_stay([stay for stay in self.news if stay.where == where]) for where in (HERE, f"on {self.machine}", "")),
        ]
        return "; ".join(part for part in said if part)

    def _conflicts(self) -> str:
        if not self.conflicts:
            return ""
        path, beside = self.conflicts[0]
        others = f" (and {len(self.conflicts) - 1} more)" if len(self.conflicts) > 1 else ""
        return f"{path} was changed on both sides: the version of {self.machine} is kept as {beside}{others}"


def held(path: bytes, entry: Entry, where: str) -> Stay | None:
    """Return what there is to say of something that is held; None for what is meant to stay."""
    why = format_bytes(entry.size) if entry.content == LARGE else _WHY.get(entry.content)
    return None if why is None else Stay(shown(path), why, where)


def _files(count: int) -> str:
    return f"{count} {'file' if count == 1 else 'files'}"


def _moved(count: int, how: str, size: int) -> str:
    return f"{_files(count)} {how} ({format_bytes(size)})" if count else ""


def _stay(stays: list[Stay]) -> str:
    if not stays:
        return ""
    named = [f"{stay.path} ({stay.why})" for stay in stays[:_NAMED]]
    if others := len(stays) - len(named):
        named.append(f"{others} {'other' if others == 1 else 'others'}")
    where, many = stays[0].where, len(named) > 1
    verb = ("stay" if many else "stays") if where else ("wait" if many else "waits")
    return f"{', '.join(named[:-1])}{' and ' * many}{named[-1]} {verb} {where or 'for the next run'}"
