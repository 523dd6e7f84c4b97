"""Where a remote run's messages are shown: the front end's side of a relay, whatever kernel this is.

Law: a Front publishes Jupyter messages as they come and asks for input; it knows no runs. The one for ipykernel is in
kernel.py; the plain one here works with IPython's own interfaces, in a terminal and inside a sandbox, and wherever output
is being captured.
"""

from __future__ import annotations

import getpass
import os
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from .. import settings
from ..wire import Buffer, Fields
from .cancelling import Comms

if TYPE_CHECKING:
    from .remote import Remote

CommHandler = Callable[[str, Fields, Fields, list[Buffer], Fields], None]
"""Takes msg_type, content, metadata, buffers and the parent header of a front end's comm message."""


class Front(ABC):
    """One kernel's way to its front ends."""

    kernel: str
    """Names this kernel's life: a restarted kernel is another one."""

    def __init__(self) -> None:
        """Name the kernel."""
        inside = f"{settings.SANDBOX.text}/" if settings.SANDBOX.text else ""
        self.kernel = f"{inside}{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def restarts_as(self) -> str:
        """Return a name that a restarted kernel has in common with this one; empty where nothing restarts it."""
        return ""

    @abstractmethod
    def parent(self) -> Fields:
        """Return the message that is being executed, `{}` if there is none."""

    @abstractmethod
    def publish(self, msg_type: str, content: Fields, metadata: Fields, buffers: tuple[Buffer, ...], parent: Fields) -> None:
        """Show a message under the cell of `parent`. Thread-safe."""

    @abstractmethod
    def ask(self, prompt: str, password: bool) -> str:
        """Ask the user; raises what the kernel raises when nobody can be asked."""

    def relay_comm(self, comm: str, target: str, handler: CommHandler) -> None:
        """Send what front ends say to this comm to `handler`. Where there are no comms, nothing is to be done."""
        return

    def forget_comm(self, comm: str) -> None:
        """Take note that the comm is closed."""
        return

    def hearing(self) -> AbstractContextManager[None]:
        """Hear front ends while the cell that is being executed waits; where that is impossible they wait, too."""
        return nullcontext()

    def comms(self) -> Comms | None:
        """Return what hears widgets while a cell waits, if somebody is there to use one."""
        return None

    def answer_for(self, remote: Remote) -> None:
        """Ask `remote` first what is asked of the kernel about remote cells. Where nothing is asked, nothing is to be done."""
        return

    def close(self) -> None:
        """Leave the kernel as it was; safe twice."""
        return

    def add_payload(self, payload: list[Fields]) -> None:
        """Add to the reply of the cell that is being executed, such as what a pager shows."""
        return


class PlainFront(Front):
    """Shows messages through IPython's shell and `sys.stdout`."""

    def __init__(self, shell: Any) -> None:
        """Show in this shell."""
        super().__init__()
        self._shell = shell

    def parent(self) -> Fields:
        """Return the message that is being executed where the shell knows one."""
        kernel = getattr(self._shell, "kernel", None)
        return dict(kernel.get_parent() or {}) if kernel is not None and hasattr(kernel, "get_parent") else {}

    def publish(self, msg_type: str, content: Fields, metadata: Fields, buffers: tuple[Buffer, ...], parent: Fields) -> None:
        """Show a message where IPython shows its own."""
        if msg_type == "stream":
            stream = sys.stderr if content["name"] == "stderr" else sys.stdout
            stream.write(content["text"])
            stream.flush()
        elif hasattr(self._shell.display_pub, "send"):
            self._shell.display_pub.send(msg_type, content)
        elif msg_type in ("display_data", "update_display_data", "execute_result"):
            update = msg_type == "update_display_data"
            publish = self._shell.display_pub.publish
            publish(content["data"], content.get("metadata"), transient=content.get("transient", {}), update=update)
        elif msg_type == "clear_output":
            self._shell.display_pub.clear_output(wait=content.get("wait", False))

    def ask(self, prompt: str, password: bool) -> str:
        """Ask on the terminal, or however this shell asks."""
        return getpass.getpass(prompt) if password else input(prompt)

    def add_payload(self, payload: list[Fields]) -> None:
        """Hand pages to the shell's own payload manager."""
        manager = getattr(self._shell, "payload_manager", None)
        if manager is not None:
            for item in payload:
                manager.write_payload(item)
