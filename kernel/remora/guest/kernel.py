"""`get_ipython().kernel`: the small part of a kernel that libraries look for.

Law: nothing here but what a library is known to use (ipywidgets, tqdm, rich, panel, bokeh); each member behaves as ipykernel's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..wire import Fields
from . import origin
from .jsonable import jsonable
from .outbox import Outbox
from .stdin import Stdin


class Session:
    """Stands where libraries expect the session that sends messages."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.session = "remora"

    def send(self, stream: Any, msg_or_type: Any, content: Any = None, parent: Any = None, **more: Any) -> None:
        """Send a message to the front end, as output of the calling code."""
        whose = origin.current()
        message = msg_or_type if isinstance(msg_or_type, dict) else {"msg_type": msg_or_type, "content": content or {}}
        if whose is not None:
            if parent:
                whose = whose.under(parent)
            metadata, buffers = jsonable(more.get("metadata") or {}), tuple(more.get("buffers") or ())
            self._outbox.put(whose.output(message["msg_type"], jsonable(message["content"]), metadata, buffers))

    def msg(self, msg_type: str, content: Any = None, parent: Any = None, **more: Any) -> Fields:
        """Return a message that `send` takes."""
        return {
            "header": {"msg_type": msg_type},
            "msg_type": msg_type,
            "content": content or {},
            "metadata": more.get("metadata") or {},
        }


class Kernel:
    """What `get_ipython().kernel` is in a sandbox."""

    implementation = "remora"
    eventloop = None
    iopub_socket = None

    def __init__(self, outbox: Outbox, stdin: Stdin) -> None:
        """Send by `outbox`, ask by `stdin`."""
        self.session = Session(outbox)
        self.shell: Any = None
        self._stdin = stdin

    @property
    def comm_manager(self) -> Any:
        """Return the one comm manager."""
        import comm

        return comm.get_comm_manager()

    @property
    def io_loop(self) -> Any:
        """Return the loop that always runs in the main thread."""
        return asyncio.get_event_loop()

    @property
    def _parent_header(self) -> Fields:
        return self.get_parent()

    def get_parent(self, channel: str | None = None) -> Fields:
        """Return the front end's request behind the calling code, as a Jupyter message."""
        parent: Fields = self.shell.get_parent()
        return parent

    def set_parent(self, ident: Any, parent: Fields, channel: str = "shell") -> None:
        """Let output of the calling code belong to another request of the front end."""
        self.shell.set_parent(parent)

    def send_response(self, stream: Any, msg_or_type: Any, content: Any = None, **more: Any) -> None:
        """Send a message to the front end."""
        self.session.send(stream, msg_or_type, content, **more)

    def raw_input(self, prompt: str = "") -> str:
        """Ask for a line of text."""
        return self._stdin.input(prompt)

    def getpass(self, prompt: str = "", stream: Any = None) -> str:
        """Ask for a line of text that is not shown."""
        return self._stdin.getpass(prompt, stream)
