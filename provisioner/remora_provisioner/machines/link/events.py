"""What a link has to say to whoever holds its connections and its stream.

Law: plain values, and nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from remora.errors import ProtocolError, RemoraError
from remora.wire import Buffer


class Opened(NamedTuple):
    """The other side wants a connection to `target`."""

    number: int
    target: str


class Arrived(NamedTuple):
    """Bytes for a connection; a view of them may hold only until more is read."""

    number: int
    data: Buffer


class Finished(NamedTuple):
    """No more bytes will come on a connection."""

    number: int


class Closed(NamedTuple):
    """A connection has ended, with a reason if the other side gave one: what has arrived is all, and nothing more is taken."""

    number: int
    error: RemoraError | None


class Carried(NamedTuple):
    """The other side has greeted: the link goes on."""


class Renewed(NamedTuple):
    """The other side knows nothing of what was before, or has closed the link: all that was sent or had come is void."""


class Broken(NamedTuple):
    """The stream cannot be used any further; None when the other side has closed the link."""

    error: ProtocolError | None


Event = Opened | Arrived | Finished | Closed | Carried | Renewed | Broken
