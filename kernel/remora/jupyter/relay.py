"""What a run emits, shown in the notebook under the cell it belongs to; and what front ends say to its widgets, sent there.

Law: order is kept, nothing is dropped, and a message keeps its own cell's parent however late it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..wire import Buffer, CommMessage, Fields, Record
from .front import Front

if TYPE_CHECKING:
    from .sessions import Session


class Relay:
    """Shows the output of one run."""

    def __init__(self, front: Front, session: Session, parent: Fields) -> None:
        """Show under the cell whose request is `parent`."""
        self.parent = parent
        self._front, self._session = front, session

    def show(self, record: Record) -> None:
        """Show one record; those that are no output are passed over. Thread-safe."""
        if record.type == "notice":
            self.say(str(record.content["text"]))
        elif record.type == "output":
            self.publish(record.content, record.buffers)

    def publish(self, message: Fields, buffers: tuple[Buffer, ...] = ()) -> None:
        """Show one Jupyter message of the guest."""
        kind, content = message["msg_type"], message["content"]
        self._mind_comms(kind, content)
        parent = message.get("parent") or self.parent
        self._front.publish(kind, content, message.get("metadata") or {}, buffers, parent)

    def say(self, line: str) -> None:
        """Show a line of ours."""
        self._front.publish("stream", {"name": "stderr", "text": f"Remora: {line}\n"}, {}, (), self.parent)

    def _mind_comms(self, kind: str, content: Fields) -> None:
        if kind == "comm_open":
            self._session.comms.add(content["comm_id"])
            self._front.relay_comm(content["comm_id"], content.get("target_name", ""), self._to_guest)
        elif kind == "comm_close":
            self._session.comms.discard(content["comm_id"])
            self._front.forget_comm(content["comm_id"])

    def _to_guest(self, msg_type: str, content: Fields, metadata: Fields, buffers: list[Buffer], parent: Fields) -> None:
        if self._session.connection is not None:
            self._session.connection.send(CommMessage(msg_type, content, metadata, parent, buffers=tuple(buffers)))
