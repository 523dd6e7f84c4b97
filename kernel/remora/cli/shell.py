"""`remora shell`: a shell inside a living sandbox, in this terminal, beside whatever runs there."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..streams import Peer
    from ..wire import Message

_PIECE = 1 << 14
_END_OF_FILE = b"\x04"


@click.command()
@click.argument("sandbox", required=False)
def shell(sandbox: str | None) -> int:
    """Open a shell in a living sandbox; without SANDBOX in the only one. Ends with the shell's exit code."""
    from .. import client as clients

    facts = choose(sandbox)
    terminal = Terminal()
    with terminal.raw(), terminal.window_changes():
        return clients.client().run(terminal.converse(facts))


def choose(prefix: str | None) -> dict[str, Any]:
    """Return the facts of the sandbox that is meant. Refused if there is none, or more than one."""
    from .. import client as clients
    from ..errors import Refused
    from ..wire import ListAll

    client = clients.client()
    living = client.run(client.request(ListAll(1))).result["sandboxes"]
    found = [one for one in living if one["id"].startswith(prefix or "")]
    if len(found) == 1:
        return dict(found[0])
    named = f"called {prefix}" if prefix else "there to be entered"
    if not living:
        raise Refused("no sandbox lives; a remote cell, a function or `remora run` starts one", reason="no-such-sandbox")
    which = "more than one sandbox is" if found else "no living sandbox is"
    raise Refused(f"{which} {named}; name one of {', '.join(one['id'] for one in living)}", reason="no-such-sandbox")


class Terminal:
    """This process's own terminal, lent to a shell elsewhere."""

    def __init__(self) -> None:
        """Take standard input and output; they need not be a terminal."""
        self.name = secrets.token_hex(4)
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._peer: Peer | None = None
        self._printed = 0
        self._over, self._tell_over = os.pipe()

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """Let every key go to the shell, and put the terminal back afterwards."""
        if not os.isatty(self._input):
            yield
            return
        before = termios.tcgetattr(self._input)
        tty.setraw(self._input, termios.TCSADRAIN)  # what was typed ahead is kept
        try:
            yield
        finally:
            termios.tcsetattr(self._input, termios.TCSADRAIN, before)

    @contextlib.contextmanager
    def window_changes(self) -> Iterator[None]:
        """Tell the shell when the window's size changes."""
        before = signal.signal(signal.SIGWINCH, lambda *_: self._send(size=self._size()))
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, before)

    def _size(self) -> list[int]:
        try:
            return list(os.get_terminal_size(self._input))
        except OSError:  # no terminal
            return [80, 24]

    async def converse(self, facts: dict[str, Any]) -> int:
        """Open the shell and pass bytes both ways until it has ended; return its exit code."""
        from .. import client as clients
        from ..errors import BackendError, RunEnded
        from ..wire import AskGuest, FindSandbox

        client = clients.client()
        self._peer = await self._connect(facts["id"])
        typing = threading.Thread(target=self._type, name="remora-typing", daemon=True)
        typing.start()
        opening = {"shell": self.name, "size": self._size(), "terminal": os.environ.get("TERM", "")}
        try:
            return int((await self._peer.request(AskGuest("shell", opening))).result["code"])
        except BackendError:
            ended = (await client.request(FindSandbox(facts["id"]))).result
            text = str(ended.get("message", "the sandbox has ended"))
            raise RunEnded(text, reason=str(ended.get("reason", "crashed"))) from None
        finally:
            os.close(self._tell_over)
            typing.join()
            os.close(self._over)
            self._peer.close()

    async def _connect(self, sandbox: str) -> Peer:
        from pathlib import Path

        from .. import client as clients
        from .. import streams
        from ..errors import Refused
        from ..wire import FindSandbox, SandboxId

        facts = (await clients.client().request(FindSandbox(SandboxId(sandbox)))).result
        if "endpoint" not in facts:
            raise Refused(f"the sandbox {sandbox} has ended", reason="sandbox-ended")
        return await streams.connect(Path(facts["endpoint"]["socket"]), f"shell {os.getpid()}", self._print)

    def _print(self, _: Peer, message: Message) -> None:
        for data in message.buffers:
            self._printed += len(data)
            left = memoryview(data)
            while left:
                left = left[os.write(self._output, left) :]
        self._send(taken=self._printed)

    def _type(self) -> None:
        """Send what is typed until the shell has ended; a terminal's end of file ends it."""
        while True:
            ready, _, _ = select.select([self._input, self._over], [], [])
            if self._over in ready:
                return
            data = os.read(self._input, _PIECE)
            self._send(data or _END_OF_FILE)
            if not data:
                return

    def _send(self, data: bytes = b"", size: list[int] | None = None, taken: int = 0) -> None:
        from .. import client as clients
        from ..wire import ShellBytes

        if self._peer is not None:
            clients.client().soon(self._peer.send, ShellBytes(self.name, size, taken, buffers=(data,) if data else ()))
