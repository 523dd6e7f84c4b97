"""The client of a backend that goes away: what was asked is asked of the next one, and of the one after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from remora import launch, streams
from remora.client import Client, Waiter
from remora.errors import BackendError
from remora.streams import Peer
from remora.wire import FindRun, Hello, Message, Request, RunId

QUESTION = FindRun(RunId("r1"))


class Backends:
    """Backends at one socket, one after the other, of which some go away as soon as they are asked something."""

    def __init__(self, *deaths: type[Message]) -> None:
        """Each goes away over the first message of this type; the one after them answers."""
        self._deaths = [*deaths]
        self.asked: list[str] = []

    def accept(self) -> Peer:
        """Make the Peer of a connection."""
        return Peer(self._receive)

    def _receive(self, peer: Peer, message: Message) -> None:
        assert isinstance(message, Request)
        self.asked.append(type(message).__name__)
        if self._deaths and isinstance(message, self._deaths[0]):
            self._deaths.pop(0)
            peer.close()
        else:
            peer.answer(message, {"said": "hello"})


async def _hung_up(client: Client) -> None:
    if client._peer is not None:
        client._peer.close()
        await client._peer.gone
    await asyncio.sleep(0.05)  # the other end hears of it on the same loop


@pytest.fixture
def client() -> Iterator[Client]:
    """Give a test a client of its own."""
    client = Client()
    yield client
    client.start(_hung_up(client)).result()
    client.soon(client._loop.stop)
    client._thread.join()
    client._loop.close()


@pytest.mark.parametrize("ask", [lambda c: c.request(QUESTION), lambda c: c.staged(QUESTION, Waiter())])
@pytest.mark.parametrize(
    ("deaths", "answered"),
    [((), True), ((FindRun, FindRun), True), ((Hello, Hello), True), ((FindRun, Hello, FindRun), True), ((FindRun,) * 3, False)],
)
def test_what_is_asked_of_backends_that_go_away(
    client: Client,
    ask: Callable[[Client], Coroutine[Any, Any, Any]],
    deaths: tuple[type[Message], ...],
    answered: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """It is asked again, but not for ever: it may be what they die of."""
    backends = Backends(*deaths)
    monkeypatch.setattr(launch, "ensure_backend", lambda: None)
    monkeypatch.setattr(launch, "backend_socket", lambda: tmp_path / "socket")

    async def scenario() -> object:
        server = await streams.serve(tmp_path / "socket", backends.accept)
        try:
            return await ask(client)
        finally:
            server.close()

    found = client.start(scenario())
    if answered:
        assert "hello" in str(found.result(10))
    else:
        with pytest.raises(BackendError):
            found.result(10)
    assert backends.asked.count("FindRun") == 1 + deaths.count(FindRun) - (not answered)
