"""What a machine elsewhere keeps of us, and what of it goes when: logs of runs, images, copies of folders, words that wait.

Law: what lives stays, and what may not have come home yet stays for a month. Ages are taken from files, so a clock that is set
back makes things stay longer. Blocks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from remora.errors import StoreRefused
from remora.wire import RunId

from ..hearing import UNFINISHED
from ..images.gc import collect
from ..images.store import Store
from ..order import RUNS, SOCKET, Order
from ..recovery import last_state
from ..runs import LOG_NAME
from ..single import serves
from . import copies, ends
from .copies import AGREED, FILES, TOKEN
from .terms import Terms
from .versions import state_of

_UNHEARD = 30 * 24 * 3600.0
"""Seconds for which is kept what its backend may not have: ends of sandboxes, their runs, files that a cell has written."""
_GONE = ".gone"
_LOG_MOST, _LOG_LEFT = 1 << 20, 1 << 18
_AGENT_SOCKET, _AGENT_LOG = "agent", "agent.log"


class Tidying:
    """Puts the state of one agent in order."""

    def __init__(self, state: Path, opening: Lock) -> None:
        """Look below `state`; `opening` is held while the place of a folder is given to a sandbox."""
        self._state, self._opening = state, opening

    def run(self, terms: Terms) -> None:
        """Let go of what nobody has a use for any more."""
        for work in (self._runs, self._ends, self._folders, self._images):
            with contextlib.suppress(OSError, StoreRefused):  # what cannot be read stays, and the rest is put in order
                work(terms)
        _shorten(self._state / _AGENT_LOG)
        self._other_protocols()

    def _runs(self, terms: Terms) -> None:
        runs = self._state / "runs"
        living = {run for directory in self._sandboxes() for run in _lines(directory / RUNS)}
        unheard = {run for end in (self._state / ends.FOLDER).glob("*.json") for run in _runs_of(end)}
        for folder in runs.glob("*"):
            if folder.name in unheard or _age(folder, folder / LOG_NAME) <= terms.runs:
                continue
            if folder.name not in living or last_state(runs, RunId(folder.name))[0] not in UNFINISHED:
                shutil.rmtree(folder, ignore_errors=True)

    def _ends(self, _: Terms) -> None:
        for path in (self._state / ends.FOLDER).glob("*"):
            if _age(path) > _UNHEARD:
                path.unlink(missing_ok=True)

    def _folders(self, terms: Terms) -> None:
        used = {source for directory in self._sandboxes() for source in _sources(directory)}
        for place in (self._state / copies.FOLDER).glob("*"):
            limit = terms.runs if _all_home(place) else _UNHEARD
            with self._opening:
                if str(place / FILES) not in used and _age(place, place / AGREED / TOKEN) > limit:
                    place.rename(place.with_name(f"{place.name}{_GONE}"))
        for left in (self._state / copies.FOLDER).glob(f"*{_GONE}"):
            shutil.rmtree(left, ignore_errors=True)

    def _images(self, terms: Terms) -> None:
        store = Store(self._state / "images")
        store.work.clear_stale()
        if store.size() <= terms.images:
            return
        kept, size, objects = [], 0, set[tuple[str, bool]]()
        for tree in sorted(store.trees(), key=lambda tree: -_changed(self._state / "images" / "trees" / tree)):
            more = {(file.digest, file.executable): file.size for file in store.load(tree).files()}
            size += sum(count for thing, count in more.items() if thing not in objects)
            if size > terms.images:
                break
            objects |= more.keys()
            kept.append(tree)
        collect(store, kept)

    def _sandboxes(self) -> Iterator[Path]:
        return (self._state / "sandboxes").glob("*")

    def _other_protocols(self) -> None:
        """Remove what agents of another protocol have kept, once they are gone for long."""
        for state in self._state.parent.glob(state_of(Path()).name.partition("-")[0] + "-*"):
            idle = state != self._state and not any((state / "sandboxes").glob("*")) and not serves(state / _AGENT_SOCKET)
            if idle and _age(state, state / _AGENT_LOG, state / "runs") > _UNHEARD:
                shutil.rmtree(state, ignore_errors=True)


def living(state: Path) -> list[str]:
    """Return the sandboxes whose supervisors answer."""
    return [path.name for path in (state / "sandboxes").glob("*") if serves(path / SOCKET)]


def sizes(place: Path) -> dict[str, int]:
    """Return what of ours a machine keeps, in bytes, by kind; what several share counts once."""
    found: dict[str, int] = {}
    for state in place.glob("state-*"):
        for kind, folder in (("runs", "runs"), ("folders", copies.FOLDER), ("caches", "caches"), ("images", "images/objects")):
            found[kind] = found.get(kind, 0) + _size(state / folder)
    return found | {"programs": _size(place / "pythons") + _size(place / "bundles")}


def _all_home(place: Path) -> bool:
    """Say whether nothing in a folder was written after both sides agreed on it last."""
    agreed = _changed(place / AGREED / TOKEN)
    return bool(agreed) and all(facts.st_ctime <= agreed for facts in _everything(place / FILES))


def _everything(folder: Path) -> Iterator[os.stat_result]:
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                yield os.lstat(f"{top}/{name}")


def _size(folder: Path) -> int:
    return sum(facts.st_blocks * 512 for facts in _everything(folder))


def _changed(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _age(*paths: Path) -> float:
    return time.time() - max(map(_changed, paths))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _runs_of(end: Path) -> list[str]:
    try:
        return [*json.loads(end.read_text())["runs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _sources(directory: Path) -> list[str]:
    try:
        return [source for source, _, _ in Order.load(directory).mounts]
    except (OSError, ValueError):
        return []


def _shorten(log: Path) -> None:
    """Keep the end of a log that has grown long; whoever writes to it appends."""
    with contextlib.suppress(OSError), log.open("r+b") as file:
        if os.fstat(file.fileno()).st_size > _LOG_MOST:
            file.seek(-_LOG_LEFT, os.SEEK_END)
            rest = file.read().partition(b"\n")[2]
            file.seek(0)
            file.write(rest)
            file.truncate()
