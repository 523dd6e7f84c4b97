"""Comms of the guest: what widgets and libraries send to the front end, and what comes back.

Law: a comm is an output like any other, in order with the text around it. What the front end sends runs on the main thread; its
output belongs to the run that opened the comm and is shown under the front end's request (`parent`).
"""

from __future__ import annotations

from typing import Any

import comm
from comm.base_comm import BaseComm

from ..wire import CommMessage, Fields
from . import origin
from .jsonable import jsonable
from .outbox import Outbox

_outboxes: list[Outbox] = []


class Comm(BaseComm):
    """One comm; it remembers whose code opened it."""

    opened: origin.Origin | None = None

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any) -> None:
        """Send a comm message to the front end."""
        whose = origin.current()
        if self.opened is None:
            self.opened = whose
        if whose is None or not _outboxes:
            return
        content = jsonable({"data": data or {}, "comm_id": self.comm_id, **keys})
        raw = tuple(memoryview(buffer).cast("B") for buffer in buffers or ())
        _outboxes[0].put(whose.output(msg_type, content, jsonable(metadata or {}), raw))


def install(outbox: Outbox) -> None:
    """Let the package `comm` make comms of ours."""
    _outboxes[:] = [outbox]
    comm.create_comm = Comm


def origin_of(message: CommMessage) -> origin.Origin | None:
    """Return whose output it is what a message from the front end brings about."""
    known = comm.get_comm_manager().comms.get(str(message.content.get("comm_id")))
    opened = getattr(known, "opened", None) or origin.latest()
    return None if opened is None else opened.under(message.parent)


def deliver(message: CommMessage) -> None:
    """Hand a message from the front end to the comm's handlers; what they raise is logged by the package `comm`."""
    handler = getattr(comm.get_comm_manager(), message.msg_type)
    header: Fields = {"msg_type": message.msg_type, **origin.as_message(message.parent).get("header", {})}
    content = {"data": {}, **message.content}
    handler(
        None,
        "",
        {
            "header": header,
            "parent_header": {},
            "msg_id": header.get("msg_id", ""),
            "msg_type": message.msg_type,
            "content": content,
            "metadata": message.metadata,
            "buffers": list(message.buffers),
        },
    )
