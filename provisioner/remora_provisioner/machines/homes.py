"""The folders of this machine that sandboxes on another one share, and when they are exchanged with it.

Law: one exchange of a folder at a time. What came home while nobody waited is told to whoever waits next.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from remora.errors import RemoraError
from remora.resources import SandboxSpec, parse_memory
from remora.settings import FILES_MOST
from remora.wire import Fields, SandboxId

from ..view import shared_folder
from .exchange import FolderHome, Receipt
from .threads import beside

_LOG = logging.getLogger(__name__)


@dataclass
class _Home:
    folder: FolderHome
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    untold: list[Receipt] = field(default_factory=list)
    fetching: asyncio.Task[None] | None = None


class Homes:
    """The folders that are shared with one machine, by sandbox."""

    def __init__(self, machine: str, dial: Callable[[str], socket.socket], state: Path) -> None:
        """Exchange with the machine of this name, which `dial` reaches; `state` is the backend's directory."""
        self._machine, self._dial, self._state = machine, dial, state
        self._homes: dict[SandboxId, _Home] = {}

    def note(self, sandbox: SandboxId, spec: SandboxSpec) -> None:
        """Take note of the folder that a sandbox shares, if it shares one."""
        folder, _ = shared_folder(spec, self._state)
        if folder is not None:
            state = self._state / "folders" / hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
            most = parse_memory(FILES_MOST.text, FILES_MOST.name)
            home = FolderHome(Path(folder), state, self._machine, writable=spec.files == "rw", most=most)
            self._homes[sandbox] = _Home(home)

    def drop(self, sandbox: SandboxId) -> None:
        """Take note that a sandbox has ended."""
        self._homes.pop(sandbox, None)

    def close(self) -> None:
        """End what is going on."""
        for home in self._homes.values():
            if home.fetching is not None:
                home.fetching.cancel()

    async def exchange(self, sandbox: SandboxId) -> Fields:
        """Bring a folder here and there to agreement; return the bytes `sent` and `fetched`, and `line`, empty if nothing was."""
        home = self._homes.get(sandbox)
        if home is None:
            return {"line": "", "sent": 0, "fetched": 0}
        await self._exchange(sandbox, home)
        receipts, home.untold = home.untold, []
        sent, fetched = sum(one.sent_bytes for one in receipts), sum(one.fetched_bytes for one in receipts)
        return {"line": "; ".join(filter(None, (one.line() for one in receipts))), "sent": sent, "fetched": fetched}

    def fetch_soon(self, sandbox: SandboxId) -> None:
        """Let files come home while nobody waits for them."""
        home = self._homes.get(sandbox)
        if home is not None and (home.fetching is None or home.fetching.done()):
            home.fetching = asyncio.get_running_loop().create_task(self._fetch(sandbox, home))

    async def _fetch(self, sandbox: SandboxId, home: _Home) -> None:
        try:
            await self._exchange(sandbox, home)
        except (RemoraError, OSError) as error:
            _LOG.warning("files of %s have not come home yet: %s", sandbox, error)

    async def _exchange(self, sandbox: SandboxId, home: _Home) -> None:
        async with home.turn:
            with self._dial(f"folder/{sandbox}") as sock:
                home.untold.append(await beside(sock, home.folder.exchange))
