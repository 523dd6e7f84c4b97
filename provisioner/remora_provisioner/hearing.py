"""What is heard of sandboxes from their supervisors, on whichever machine they are.

Law: a supervisor knows the truth about its sandbox and its runs; what it says is passed to the listener as it comes, and nothing
is decided here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from abc import ABC, abstractmethod
from typing import Protocol

from remora import streams
from remora.errors import StateError
from remora.states import RunState, SandboxState
from remora.streams import Peer
from remora.wire import Fields, Message, Record, RunChanged, RunId, SandboxChanged, SandboxId, Watch

_LOG = logging.getLogger(__name__)
UNFINISHED = frozenset({RunState.QUEUED.value, RunState.RUNNING.value, RunState.UNKNOWN.value})
_PATIENCE = 0.5
"""Seconds that supervisors have to say what is new."""


class Listener(Protocol):
    """Who hears of what happens on a machine."""

    def sandbox_changed(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        """Take a sandbox's new state."""

    def run_changed(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Take a run's new state."""

    def recorded(self, record: Record) -> None:
        """Take one more entry in the log of a run that is followed."""


class Hearing(ABC):
    """The supervisors that are connected, and what they say."""

    def __init__(self, listener: Listener) -> None:
        """Pass on what happens to `listener`."""
        self._listener = listener
        self._peers: dict[SandboxId, Peer] = {}
        self._open_runs: dict[SandboxId, set[RunId]] = {}
        self._over: set[SandboxId] = set()
        """Those whose end was reported and that are not buried yet."""

    def peer(self, sandbox: SandboxId) -> Peer:
        """Return the connection to a living sandbox's supervisor; StateError if there is none."""
        if sandbox not in self._peers:
            raise StateError(f"sandbox {sandbox} is not running", reason="sandbox-ended")
        return self._peers[sandbox]

    def present(self, sandbox: SandboxId) -> Peer | None:
        """Return the connection to a sandbox's supervisor; None if there is none now."""
        return self._peers.get(sandbox)

    def expect(self, sandbox: SandboxId, run: RunId) -> None:
        """Take note of a run that had not ended when it was last heard of."""
        self._open_runs.setdefault(sandbox, set()).add(run)

    def has(self, sandbox: str) -> bool:
        """Say whether the sandbox's supervisor is connected."""
        return sandbox in self._peers

    async def catch_up(self) -> None:
        """Hear at once what supervisors would tell in a moment: who asks for a run that has just begun should find it."""
        asked = [asyncio.ensure_future(peer.request(Watch())) for peer in self._peers.values()]
        if asked:
            _, late = await asyncio.wait(asked, timeout=_PATIENCE)  # one that is ending, or stuck, has nothing to say
            for one in late:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _watch(self, sandbox: SandboxId, sock: socket.socket) -> Fields:
        """Hear a supervisor from now on; return what it knows. Raises RemoraError if it does not answer."""
        peer = await streams.adopt(sock, lambda _, message: self._take_in(sandbox, message), lambda _: self._lost(sandbox))
        self._peers[sandbox] = peer
        return (await peer.request(Watch())).result

    @abstractmethod
    def _lost(self, sandbox: SandboxId) -> None:
        """Take note that the supervisor has gone, in order or not."""

    def _take_in(self, sandbox: SandboxId, message: Message) -> None:
        try:
            self._heard(sandbox, message)
        except Exception:  # whatever it is, the connection would break over it, and the sandbox be taken for dead
            _LOG.exception("what sandbox %s says is passed over: %s", sandbox, type(message).__name__)

    def _heard(self, sandbox: SandboxId, message: Message) -> None:
        if isinstance(message, RunChanged):
            self._note_run(sandbox, message.run, message.state, message.facts)
        elif isinstance(message, SandboxChanged):
            self._heard_sandbox(sandbox, message.state, message.facts)
        elif isinstance(message, Record):
            self._listener.recorded(message)

    def _heard_sandbox(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        self._listener.sandbox_changed(sandbox, state, facts)
        if state == SandboxState.ENDED.value:  # by now whoever listens has heard of it
            self._over.add(sandbox)

    def _note_run(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        unfinished = self._open_runs.setdefault(sandbox, set())
        if state in UNFINISHED:
            unfinished.add(run)
        self._listener.run_changed(sandbox, run, state, facts)
        if state not in UNFINISHED:
            unfinished.discard(run)

    def _tell(self, sandbox: SandboxId, known: Fields) -> None:
        """Report what a supervisor says of its sandbox and of all its runs."""
        self._heard_sandbox(sandbox, known["state"], known["facts"])
        for run, about in known["runs"].items():
            self._note_run(sandbox, RunId(run), about["state"], about["facts"])
