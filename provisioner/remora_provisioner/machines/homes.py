"""The folders of this machine that sandboxes on another one share, and when they are exchanged with it.

Law: one exchange of a folder at a time, and none where both sides are known to be at rest: a run begins without one, and after it
one digest tells that there is nothing to fetch. What came home while nobody waited is told to whoever waits next. Who wants an
exchange that begins from now on shares it with all who want the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from remora.errors import RemoraError, Unavailable
from remora.resources import SandboxSpec, parse_memory
from remora.settings import FILES_MOST
from remora.wire import Fields, RunId, SandboxId

from ..view import shared_folder
from .doors import Waiting
from .exchange import FolderHome, Receipt, Rest, is_at_rest, rest
from .threads import apart, beside

_SOONEST, _LATEST = 1.0, 60.0
"""Seconds until files are fetched again that could not come."""
_LAST = 600.0
"""Seconds for the files of a sandbox that has ended to come home."""
_LINGER = 10.0
"""Seconds in which whoever has waited for such files asks what came."""
_LOG = logging.getLogger(__name__)
T = TypeVar("T")
Say = Callable[[str], None]
"""Hears in words how far an exchange has come; on the loop, and must not block."""


@dataclass
class _Home:
    folder: FolderHome
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    untold: list[Receipt] = field(default_factory=list)
    fetching: asyncio.Task[None] | None = None
    met: bool = False
    """Whether the last exchange came to its end."""
    rest: Rest | None = None
    awaited: dict[RunId, bool] = field(default_factory=dict)
    """Runs whose files somebody waits for, and whether they are heard to have ended."""
    fetched: set[RunId] = field(default_factory=set)
    """Those whose files are home, until they are heard to have ended."""
    again: bool = False
    """Whether a run has ended since `fetching` last began."""
    hearing: list[Say] = field(default_factory=list)
    """Who wants to hear how far an exchange has come."""

    @contextlib.contextmanager
    def heard(self, say: Say) -> Iterator[None]:
        """Let `say` hear of exchanges meanwhile; on the loop."""
        self.hearing.append(say)
        try:
            yield
        finally:
            self.hearing.remove(say)

    def tell(self, text: str) -> None:
        """Tell whoever wants to hear."""
        for say in [*self.hearing]:
            say(text)


_Shared = tuple[Path, bool]
"""A folder, and whether files come home to it."""


class Homes:
    """The folders that are shared with one machine, by sandbox."""

    def __init__(self, machine: str, dial: Callable[[str], socket.socket], state: Path) -> None:
        """Exchange with the machine of this name, which `dial` reaches; `state` is the backend's directory."""
        self._machine, self._dial, self._state = machine, dial, state
        self._loop = asyncio.get_running_loop()
        self._homes: dict[SandboxId, _Home] = {}
        self._turns: dict[_Shared, asyncio.Lock] = {}
        self._next: dict[_Shared, asyncio.Task[str]] = {}
        """Exchanges that have not begun."""

    def note(self, sandbox: SandboxId, spec: SandboxSpec) -> None:
        """Take note of the folder that a sandbox shares, if it shares one."""
        folder, _ = shared_folder(spec, self._state)
        if folder is not None:
            state = self._state / "folders" / hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
            most = parse_memory(FILES_MOST.text, FILES_MOST.name)
            home = FolderHome(Path(folder), state, self._machine, writable=spec.files == "rw", most=most)
            self._homes[sandbox] = _Home(home)

    async def last(self, sandbox: SandboxId, *, working: bool) -> None:
        """Bring home what is left when a sandbox has ended, `working` or not, and let whoever waited hear what that was."""
        if (home := self._homes.get(sandbox)) is None:
            return
        if working or home.awaited or home.again or not home.met:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST):
                    await self._try(sandbox, home)
            await asyncio.sleep(_LINGER)
        self._homes.pop(sandbox, None)

    def close(self) -> None:
        """End what is going on."""
        for joint in self._next.values():
            joint.cancel()
        for home in self._homes.values():
            if home.fetching is not None:
                home.fetching.cancel()

    def is_at_rest(self, sandbox: SandboxId) -> bool:
        """Say whether a run may begin without an exchange, and there is nothing to be told; from any thread, and it blocks."""
        home = self._homes.get(sandbox)
        if home is None or not home.met or home.untold:
            return home is None
        try:
            home.rest = found = rest(home.folder, wait=False)
        except (RemoraError, BlockingIOError):
            return False  # an exchange says why, or waits for the one that goes on
        return found is not None

    async def exchange(self, sandbox: SandboxId, say: Say = lambda _: None, *, whole: bool) -> Fields:
        """Bring a folder here and there to agreement; return the bytes `sent` and `fetched`, and `line`, empty if nothing was.

        Unless it is to be the `whole` of it, nothing is asked of the machine if nothing has to be sent.
        """
        home = self._homes.get(sandbox)
        if home is None:
            return _told([])
        with home.heard(say):  # of one that goes on already, too
            async with home.turn:
                home.rest = await apart(lambda: rest(home.folder)) if home.met and not whole else None
            if home.rest is None:
                await self._exchange(sandbox, home)
        return _told(home.untold)

    def is_home(self, sandbox: SandboxId, run: RunId, waiting: Waiting) -> bool:
        """Wait for the end of a run, which need not have begun, and bring home what it has written; say whether that was nothing.

        From a thread of its own, for who is `waiting`. Raises OSError if that cannot be said: the whole has to be exchanged when
        the run has ended.
        """
        home = self._homes.get(sandbox)
        if home is None:
            return True
        try:
            with self._in_loop(self._awaiting(home, sandbox, run)) as sock:
                at_rest = is_at_rest(home.folder, home.rest, sock, waiting.until)
            if not at_rest:
                self._in_loop(self._exchange_for(sandbox, home, waiting.say))
        except (RemoraError, OSError, CancelledError) as error:
            self._loop.call_soon_threadsafe(self._given_up, sandbox, home, run)
            raise ConnectionAbortedError("the files of a run are not home") from error
        self._loop.call_soon_threadsafe(self._came, home, run)
        return at_rest and not home.untold

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what work on the loop returns, or raise what it raises; from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _awaiting(self, home: _Home, sandbox: SandboxId, run: RunId) -> socket.socket:
        """Return a connection at which the machine tells how the folder is there when the run has ended."""
        home.awaited[run] = False
        return self._dial(f"folder/{sandbox}/{run}")

    def _came(self, home: _Home, run: RunId) -> None:
        """Take note that a run's files are home."""
        if not home.awaited.pop(run, True):
            home.fetched.add(run)

    def _given_up(self, sandbox: SandboxId, home: _Home, run: RunId) -> None:
        """Take note that nobody waits for a run's files any more."""
        if home.awaited.pop(run, False):
            self.fetch_soon(sandbox)

    def ended(self, sandbox: SandboxId, run: RunId) -> None:
        """Take note that a run has ended: what it has written comes home, also when nobody waits."""
        if (home := self._homes.get(sandbox)) is None:
            return
        if run in home.awaited:
            home.awaited[run] = True
        elif run in home.fetched:
            home.fetched.discard(run)
        else:
            self.fetch_soon(sandbox)

    async def agree(self, sandbox: SandboxId) -> str:
        """Bring a folder here and there to agreement, for many at once; return the line that says what has moved."""
        home = self._homes.get(sandbox)
        if home is None:
            return ""
        shared = (home.folder.folder, home.folder.writable)
        if shared not in self._next:
            self._next[shared] = asyncio.get_running_loop().create_task(self._agree(shared))
        return await asyncio.shield(self._next[shared])

    async def _agree(self, shared: _Shared) -> str:
        async with self._turns.setdefault(shared, asyncio.Lock()):
            del self._next[shared]
            alike = [each for each in self._homes.items() if (each[1].folder.folder, each[1].folder.writable) == shared]
            for number, (sandbox, home) in enumerate(alike, 1):
                try:
                    await self._exchange(sandbox, home)
                except Unavailable:  # the sandbox may just have ended
                    if number == len(alike):
                        raise
                else:
                    return str(_told(home.untold)["line"])
        return ""

    def fetch_soon(self, sandbox: SandboxId) -> None:
        """Let an exchange begin for which nobody waits; it is tried again as long as the sandbox lives."""
        if (home := self._homes.get(sandbox)) is not None:
            home.again = True
            if home.fetching is None or home.fetching.done():
                home.fetching = asyncio.get_running_loop().create_task(self._fetch(sandbox, home))

    async def _fetch(self, sandbox: SandboxId, home: _Home) -> None:
        pause = _SOONEST
        while home.again and self._homes.get(sandbox) is home:
            home.again = False
            if not await self._try(sandbox, home):
                home.again = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LATEST)

    async def _try(self, sandbox: SandboxId, home: _Home) -> bool:
        """Exchange, and say whether that came to its end."""
        try:
            await self._exchange(sandbox, home)
        except (RemoraError, OSError) as error:
            _LOG.warning("files of %s have not come home yet: %s", sandbox, error)
            return False
        return True

    async def _exchange_for(self, sandbox: SandboxId, home: _Home, say: Say) -> None:
        with home.heard(say):
            await self._exchange(sandbox, home)

    async def _exchange(self, sandbox: SandboxId, home: _Home) -> None:
        def say(text: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody hears
                self._loop.call_soon_threadsafe(home.tell, text)

        async with home.turn:
            home.met = False
            with self._dial(f"folder/{sandbox}") as sock:
                home.untold.append(await beside(sock, lambda sock: home.folder.exchange(sock, say)))
            home.met = True


def _told(receipts: list[Receipt]) -> Fields:
    """Return what a kernel is told of exchanges, once."""
    said = {
        "line": "; ".join(filter(None, (one.line() for one in receipts))),
        "sent": sum(one.sent_bytes for one in receipts),
        "fetched": sum(one.fetched_bytes for one in receipts),
    }
    receipts.clear()
    return said
