"""The kernel `remora`, and the front of any ipykernel. The only file that knows ipykernel.

The kernel is ipykernel's with the extension loaded from the start, completion and inspection that know remote names, and an
interrupt that reaches a waiting cell at once. Everything else works the same in a plain ipykernel 6 or 7 after `%load_ext
remora`.
"""

from __future__ import annotations

import sys
from typing import Any

from ipykernel.iostream import OutStream
from ipykernel.ipkernel import IPythonKernel

from ..wire import Buffer, Fields
from .front import CommHandler, Front, PlainFront
from .remote import Remote


class IpykernelFront(Front):
    """Publishes through an ipykernel's own socket."""

    def __init__(self, kernel: Any) -> None:
        """Publish for this kernel."""
        super().__init__()
        self._kernel = kernel
        self._plain = PlainFront(kernel.shell)
        self._publisher = type(kernel.shell.display_pub)

    def parent(self) -> Fields:
        """Return the request that is being executed."""
        return dict(self._kernel.get_parent() or {})

    def _captured(self) -> bool:
        """Say whether something like `%%capture` takes the place of the cell's output."""
        return not isinstance(sys.stdout, OutStream) or type(self._kernel.shell.display_pub) is not self._publisher

    def publish(self, msg_type: str, content: Fields, metadata: Fields, buffers: tuple[Buffer, ...], parent: Fields) -> None:
        """Send the message as it is, or to whatever captures the cell's output."""
        here = parent.get("header", {}).get("msg_id") == self.parent().get("header", {}).get("msg_id")
        if here and self._captured() and not msg_type.startswith("comm_"):
            self._plain.publish(msg_type, content, metadata, buffers, parent)
            return
        if msg_type == "execute_result":
            content = content | {"metadata": content.get("metadata", {})}
        kernel = self._kernel
        ident = kernel.topic(msg_type) if hasattr(kernel, "topic") else kernel._topic(msg_type)
        raw = [bytes(b) for b in buffers] or None
        kernel.session.send(kernel.iopub_socket, msg_type, content, parent=parent, ident=ident, metadata=metadata, buffers=raw)

    def ask(self, prompt: str, password: bool) -> str:
        """Ask through the front end; StdinNotImplementedError when it cannot be asked."""
        return str(self._kernel.getpass(prompt) if password else self._kernel.raw_input(prompt))

    def relay_comm(self, comm: str, target: str, handler: CommHandler) -> None:
        """Register a stand-in for the sandbox's comm, so that what front ends say to it arrives there."""
        manager = self._kernel.comm_manager
        if comm not in manager.comms:
            manager.register_comm(RelayedComm(comm, target, handler, self.parent))

    def forget_comm(self, comm: str) -> None:
        """Take the stand-in away."""
        self._kernel.comm_manager.comms.pop(comm, None)

    def add_payload(self, payload: list[Fields]) -> None:
        """Add to the reply of the cell."""
        for item in payload:
            self._kernel.shell.payload_manager.write_payload(item)


class RelayedComm:
    """What the kernel's comm manager needs to know of a comm that lives in a sandbox."""

    def __init__(self, comm: str, target: str, handler: CommHandler, parent: Any) -> None:
        """Hand on what comes for `comm`."""
        self.comm_id, self.target_name = comm, target
        self._handler, self._parent = handler, parent

    def handle_msg(self, msg: Fields) -> None:
        """Hand on a message."""
        self._hand_on("comm_msg", msg)

    def handle_close(self, msg: Fields) -> None:
        """Hand on the end."""
        self._hand_on("comm_close", msg)

    def _hand_on(self, msg_type: str, msg: Fields) -> None:
        parent = {"header": _plain(msg.get("header", {})), "metadata": {}}
        self._handler(msg_type, msg["content"], msg.get("metadata", {}), [bytes(b) for b in msg.get("buffers", [])], parent)


def _plain(header: Fields) -> Fields:
    return {key: value if isinstance(value, (str, int, float, type(None))) else str(value) for key, value in header.items()}


class RemoraKernel(IPythonKernel):
    """ipykernel's kernel with Remora in it."""

    implementation = "remora"
    banner = "Python with Remora: cells that begin with %%remote run in a sandbox"

    def __init__(self, **kwargs: Any) -> None:
        """Load the extension before the first cell."""
        super().__init__(**kwargs)
        shell: Any = self.shell
        shell.extension_manager.load_extension("remora")
        self._remote: Remote = shell.remora

    async def do_complete(self, code: str, cursor_pos: int | None) -> Fields:
        """Complete in the sandbox what stands in a remote cell."""
        there = self._remote.complete(code, len(code) if cursor_pos is None else cursor_pos)
        return there if there is not None else await _settled(super().do_complete(code, cursor_pos))

    async def do_inspect(self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()) -> Fields:
        """Inspect in the sandbox what stands in a remote cell and is not found here."""
        there = self._remote.inspect(code, cursor_pos, detail_level)
        return there if there is not None else await _settled(super().do_inspect(code, cursor_pos, detail_level, omit_sections))

    async def do_is_complete(self, code: str) -> Fields:
        """Judge the code below the header of a remote cell."""
        return await _settled(super().do_is_complete(self._remote.body(code)))

    async def do_history(
        self, hist_access_type: str, output: bool, raw: bool, session: int = 0, *rest: Any, **more: Any
    ) -> Fields:
        """Return history, in which this session's entries bear its number; IPython says 0 where a range was asked for."""
        reply = await _settled(super().do_history(hist_access_type, output, raw, session, *rest, **more))
        number = self.shell.history_manager.session_number if self.shell else 0
        return reply | {"history": [(entry[0] or number, *entry[1:]) for entry in reply["history"]]}

    def finish_metadata(self, parent: Fields, metadata: Fields, reply_content: Fields) -> Fields:
        """Put the figures of a remote cell into the metadata of its reply, where whoever keeps the notebook finds them."""
        figures = self._remote.take_figures()
        return dict(super().finish_metadata(parent, metadata, reply_content)) | ({"remora": figures} if figures else {})

    async def do_shutdown(self, restart: bool) -> Fields:
        """End this kernel's sandboxes when it ends for good; a restarted kernel's are kept for whoever attaches."""
        self._remote.leave(restart)
        return await _settled(super().do_shutdown(restart))


async def _settled(reply: Any) -> Fields:
    """Return a reply that ipykernel gives as it is, or as something to wait for, by version."""
    return dict(await reply if hasattr(reply, "__await__") else reply)


def front_of(shell: Any) -> Front:
    """Return the front of the kernel that this shell belongs to."""
    kernel = getattr(shell, "kernel", None)
    return IpykernelFront(kernel) if isinstance(kernel, IPythonKernel) else PlainFront(shell)
