"""The kernel `remora`, and the front of any ipykernel. The only file that knows ipykernel.

The kernel is ipykernel's with the extension loaded from the start; everything works the same in a plain ipykernel 6 or 7 after
`%load_ext remora`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ipykernel.connect import get_connection_file
from ipykernel.iostream import OutStream
from ipykernel.ipkernel import IPythonKernel

from ..wire import Buffer, Fields
from .cancelling import Comms
from .front import CommHandler, Front, PlainFront
from .listening import listener
from .remote import Remote


class IpykernelFront(Front):
    """Publishes through an ipykernel's own socket."""

    def __init__(self, kernel: Any) -> None:
        """Publish for this kernel."""
        super().__init__()
        self._kernel = kernel
        self._plain = PlainFront(kernel.shell)
        self._publisher = type(kernel.shell.display_pub)
        self._listener = listener(kernel)
        self._answers: Answers | None = None

    def answer_for(self, remote: Remote) -> None:
        """Let the kernel know remote names, put figures into replies, and end its sandboxes with itself."""
        self._answers = Answers(self._kernel, remote)

    def restarts_as(self) -> str:
        """Return the name of the connection file."""
        try:
            return Path(get_connection_file()).stem
        except RuntimeError:  # a kernel inside another program
            return ""

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
            stand_in = RelayedComm(comm, target, handler, self.parent)
            manager.register_comm(stand_in)
            self._listener.serve(comm, stand_in.handle)

    def forget_comm(self, comm: str) -> None:
        """Take the stand-in away."""
        self._listener.forget(comm)
        self._kernel.comm_manager.comms.pop(comm, None)

    def hearing(self) -> AbstractContextManager[None]:
        """Hear front ends while the cell that is being executed waits."""
        return self._listener.waiting(self.parent())

    def comms(self) -> Comms | None:
        """Return what hears widgets while a cell waits; None for a front end without a person, which cannot be asked either."""
        asks = (self.parent().get("content") or {}).get("allow_stdin", False)
        return self._listener if asks and self._listener.live else None

    def close(self) -> None:
        """Leave the kernel as it was; safe twice."""
        self._listener.close()
        if self._answers is not None:
            self._answers.close()

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

    def handle(self, msg: Fields) -> None:
        """Hand on whichever it is."""
        self._hand_on(msg["header"]["msg_type"], msg)

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


class Answers:
    """What a kernel is asked, answered by Remora where it is about remote cells, and by the kernel's own class elsewhere."""

    _NAMES = ("do_complete", "do_inspect", "do_is_complete", "do_shutdown", "finish_metadata")

    def __init__(self, kernel: IPythonKernel, remote: Remote) -> None:
        """Stand before the methods of this kernel, until `close`."""
        self._kernel, self._remote, self._stock = kernel, remote, {name: getattr(kernel, name) for name in self._NAMES}
        vars(kernel).update({name: getattr(self, name) for name in self._NAMES})

    def close(self) -> None:
        """Give the methods back; safe twice."""
        for name in self._NAMES:
            vars(self._kernel).pop(name, None)

    async def _ask_kernel(self, name: str, *arguments: Any, **more: Any) -> Fields:
        return await _settled(self._stock[name](*arguments, **more))

    async def do_complete(self, code: str, cursor_pos: int | None) -> Fields:
        """Complete in the sandbox what stands in a remote cell."""
        there = self._remote.complete(code, len(code) if cursor_pos is None else cursor_pos)
        return there if there is not None else await self._ask_kernel("do_complete", code, cursor_pos)

    async def do_inspect(self, code: str, cursor_pos: int, *rest: Any, **more: Any) -> Fields:
        """Inspect in the sandbox what stands in a remote cell and is not found here."""
        detail = rest[0] if rest else more.get("detail_level", 0)
        there = self._remote.inspect(code, cursor_pos, detail)
        return there if there is not None else await self._ask_kernel("do_inspect", code, cursor_pos, *rest, **more)

    async def do_is_complete(self, code: str) -> Fields:
        """Judge the code below the header of a remote cell."""
        return await self._ask_kernel("do_is_complete", self._remote.body(code))

    def finish_metadata(self, parent: Fields, metadata: Fields, reply_content: Fields) -> Fields:
        """Put the figures of a remote cell into the metadata of its reply, where whoever keeps the notebook finds them."""
        figures = self._remote.take_figures()
        finished = dict(self._stock["finish_metadata"](parent, metadata, reply_content))
        return finished | ({"remora": figures} if figures else {})

    async def do_shutdown(self, restart: bool) -> Fields:
        """End this kernel's sandboxes when it ends for good; a restarted kernel's are kept for whoever attaches."""
        self._remote.leave(restart)
        return await self._ask_kernel("do_shutdown", restart)


class RemoraKernel(IPythonKernel):
    """ipykernel's kernel with Remora in it."""

    implementation = "remora"
    banner = "Python with Remora: cells that begin with %%remote run in a sandbox"

    def __init__(self, **kwargs: Any) -> None:
        """Load the extension before the first cell."""
        super().__init__(**kwargs)
        shell: Any = self.shell
        shell.extension_manager.load_extension("remora")

    async def do_history(
        self, hist_access_type: str, output: bool, raw: bool, session: int = 0, *rest: Any, **more: Any
    ) -> Fields:
        """Return history, in which this session's entries bear its number; IPython says 0 where a range was asked for."""
        reply = await _settled(super().do_history(hist_access_type, output, raw, session, *rest, **more))
        number = self.shell.history_manager.session_number if self.shell else 0
        return reply | {"history": [(entry[0] or number, *entry[1:]) for entry in reply["history"]]}


async def _settled(reply: Any) -> Fields:
    """Return a reply that ipykernel gives as it is, or as something to wait for, by version."""
    return dict(await reply if hasattr(reply, "__await__") else reply)


def front_of(shell: Any) -> Front:
    """Return the front of the kernel that this shell belongs to."""
    kernel = getattr(shell, "kernel", None)
    return IpykernelFront(kernel) if isinstance(kernel, IPythonKernel) else PlainFront(shell)
