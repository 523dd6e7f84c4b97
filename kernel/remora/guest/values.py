"""Variables of a run: they arrive before its code, and what it made or changed goes home after it.

Law: `sync` decides what travels; here is only the order in which it is asked. Decoding runs user code, so it can be
interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..sync.codec import decode
from ..sync.ledger import Seen
from ..wire import Fields, StartRun
from .outcome import Outcome

if TYPE_CHECKING:
    from .service import Guest


def arrive(guest: Guest, message: StartRun) -> Mapping[str, Seen]:
    """Bind the variables that came along, and return how they look to the ledger; raises SendError."""
    deletes: Iterable[str] = message.body.get("deletes") or ()
    for name in deletes:
        guest.namespace.pop(name, None)
    values: dict[str, object] = {}
    if message.body.get("values"):
        with guest.interrupts.allowed(message.run):
            values = decode(bytes(message.buffers[0]), message.buffers[1:], namespace=guest.namespace)
    guest.namespace.update(values)
    return guest.ledger.incoming(values, guest.namespace, deletes)


def before(guest: Guest, body: Fields, seen: Mapping[str, Seen]) -> Any:
    """Note how the namespace looks before the code, given what has just arrived; None when nothing is to come home."""
    return guest.ledger.before(guest.namespace, body.get("reads"), seen) if body.get("sync", True) else None


def go_home(guest: Guest, body: Fields, noted: Any, outcome: Outcome) -> None:
    """Put into the outcome what the code made, changed and deleted."""
    if noted is None:
        return
    outgoing = guest.ledger.changes(guest.namespace, noted, body.get("outs"))
    outcome.keep(outgoing.encoded, guest.namespace)
    outcome.deleted, outcome.mutated = outgoing.deletes, outgoing.mutated
    guest.ledger.sent(outgoing)
