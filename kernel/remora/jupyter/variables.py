"""A cell's variables on the notebook's side: what goes along, and what is bound here afterwards.

Law: which names those are is decided in `sync`; here is the order of things, and what becomes of a name that cannot travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import SendError
from ..sync.binding import bind
from ..sync.codec import decode_each
from ..sync.handles import RemoteValue
from ..sync.ledger import Outgoing
from ..sync.names import analyse
from ..sync.raised import decode_exception
from ..wire import Buffer, Fields, Record
from .options import CellOptions
from .sessions import Session

Namespace = dict[str, Any]


@dataclass(frozen=True)
class Cargo:
    """What goes along with a cell."""

    outgoing: Outgoing | None
    body: Fields
    """The fields of a StartRun that speak of variables."""
    buffers: tuple[Buffer, ...] = ()

    @property
    def nbytes(self) -> int:
        """Return the bytes of variables that go along."""
        return sum(memoryview(b).nbytes for b in self.buffers)


def load(code: str, session: Session, options: CellOptions, namespace: Namespace) -> Cargo:
    """Pack what the cell reads and the sandbox does not hold; raises SendError for what cannot travel."""
    if not options.sync:
        return Cargo(None, {"sync": False})
    names = analyse(code)
    explicit = options.inputs is not None
    wanted = options.inputs if options.inputs is not None else sorted(names.reads)
    outgoing = session.ledger.outgoing(wanted, namespace, explicit=explicit)
    for name, error in outgoing.encoded.failures.items():
        if name in wanted:
            raise error
    encoded = outgoing.encoded
    dynamic = names.dynamic or outgoing.dynamic
    touched = None if dynamic else sorted({*names.reads, *names.writes, *encoded.names, *outgoing.skipped})
    outputs = list(options.outputs) if options.outputs is not None else None
    body: Fields = {"sync": True, "reads": touched, "deletes": list(outgoing.deletes), "outs": outputs}
    if not encoded.names:
        return Cargo(outgoing, body)
    return Cargo(outgoing, body | {"values": {"names": list(encoded.names)}}, (encoded.stream, *encoded.buffers))


def unload(result: Record, session: Session, cargo: Cargo, namespace: Namespace, fetch: Any) -> int:
    """Bind what the cell made, changed and deleted; return how many bytes came. `fetch(names)` brings what was too large to come along."""
    content = result.content
    arrived = not (content.get("error") or {}).get("ename") == "SendError"
    if cargo.outgoing is not None and arrived and "parts" in content:
        session.ledger.sent(cargo.outgoing)
    total = 0
    if content.get("values"):
        total += receive(part(result, "values"), content, session, namespace)
    elif content.get("deleted") or content.get("remote"):
        _bind({}, content, session, namespace)
    if content.get("away"):
        buffers, more = fetch(content["away"])
        total += receive(buffers, more | {"mutated": content.get("mutated", [])}, session, namespace)
    return total


def receive(buffers: tuple[Buffer, ...], content: Fields, session: Session, namespace: Namespace) -> int:
    """Bind variables that came as stream and buffers; return how many bytes those were."""
    decoded = decode_each(bytes(buffers[0]), buffers[1:], namespace=namespace)
    failed = {name: {"type": "value", "repr": "", "reason": str(error)} for name, error in decoded.failures.items()}
    _bind(decoded.values, content | {"remote": (content.get("remote") or {}) | failed}, session, namespace)
    return sum(memoryview(b).nbytes for b in buffers)


def _bind(values: dict[str, object], content: Fields, session: Session, namespace: Namespace) -> None:
    stay = {
        name: RemoteValue(name, about["type"], about["repr"], session.name, about["reason"])
        for name, about in (content.get("remote") or {}).items()
    }
    deleted = content.get("deleted") or []
    bind(values | stay, namespace, mutated=content.get("mutated") or (), deletes=deleted)
    session.ledger.incoming(values | stay, namespace, deleted)


def part(result: Record, name: str) -> tuple[Buffer, ...]:
    """Return the buffers of one part of a result."""
    first, count = result.content["parts"][name]
    return result.buffers[first : first + count]


def exception(result: Record, namespace: Namespace) -> BaseException | None:
    """Return the exception that the code raised there, with its own type, if it can be rebuilt here."""
    if not result.content.get("exception"):
        return None
    stream, *buffers = part(result, "exception")
    try:
        return decode_exception(bytes(stream), buffers, namespace=namespace)
    except SendError:
        return None
