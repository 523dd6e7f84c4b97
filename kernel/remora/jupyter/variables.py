"""A cell's variables on the notebook's side: what goes along, and what is bound here afterwards.

Law: which names those are is decided in `sync`; here is the order of things, and what becomes of a name that cannot travel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..outcomes import part
from ..sync.binding import bind as sync_bind
from ..sync.codec import decode_each
from ..sync.handles import RemoteValue
from ..sync.ledger import Outgoing
from ..sync.names import analyse
from ..wire import Buffer, Fields, Record
from .options import CellOptions
from .sessions import Session

Namespace = dict[str, Any]
Fetch = Callable[[list[str]], tuple[tuple[Buffer, ...], Fields]]


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


@dataclass(frozen=True)
class Delivery:
    """What came of a run, decoded and not yet bound."""

    values: Namespace
    mutated: frozenset[str] = frozenset()
    deleted: tuple[str, ...] = ()
    nbytes: int = 0
    notes: tuple[str, ...] = ()
    """Lines for the user."""


def unload(result: Record, session: Session, cargo: Cargo, namespace: Namespace, fetch: Fetch) -> Delivery:
    """Decode what the cell made and changed; `fetch(names)` brings what was too large to come along."""
    content = result.content
    arrived = (content.get("error") or {}).get("ename") != "SendError"
    if cargo.outgoing is not None and arrived and "parts" in content:
        session.ledger.sent(cargo.outgoing)
    came = unpack(part(result, "values") if content.get("values") else (), content, session, namespace)
    if not content.get("away"):
        return came
    buffers, more = fetch(content["away"])
    rest = unpack(buffers, more, session, namespace)
    return replace(came, values=came.values | rest.values, nbytes=came.nbytes + rest.nbytes, notes=came.notes + rest.notes)


def unpack(buffers: tuple[Buffer, ...], content: Fields, session: Session, namespace: Namespace) -> Delivery:
    """Decode variables that came as stream and buffers, and stand-ins for those that stay there."""
    stay = dict(content.get("remote") or {})
    values: Namespace = {}
    notes: tuple[str, ...] = ()
    if buffers:
        decoded = decode_each(bytes(buffers[0]), buffers[1:], namespace=namespace)
        values |= decoded.values
        notes = decoded.notes
        stay |= {name: {"type": "value", "repr": "", "reason": str(error)} for name, error in decoded.failures.items()}
    values |= {n: RemoteValue(n, about["type"], about["repr"], session.name, about["reason"]) for n, about in stay.items()}
    size = sum(memoryview(b).nbytes for b in buffers)
    return Delivery(values, frozenset(content.get("mutated") or ()), tuple(content.get("deleted") or ()), size, notes)


def bind(delivery: Delivery, session: Session, namespace: Namespace) -> None:
    """Bind what was delivered, and note in the ledger that both sides hold the same."""
    sync_bind(delivery.values, namespace, mutated=delivery.mutated, deletes=delivery.deleted)
    session.ledger.incoming(delivery.values, namespace, delivery.deleted)
