"""Variable sync: what a cell reads goes, what it assigns comes home. The same code on both sides.

`names` what a cell touches · `codec` objects to bytes · `ledger` what the other side holds · `binding` what came back ·
`handles` what stays away.
"""

from remora.sync.binding import bind
from remora.sync.codec import Decoded, Encoded, decode, decode_each, encode, fingerprint
from remora.sync.handles import RemoteValue, lives_in
from remora.sync.ledger import Ledger, Outgoing, Snapshot
from remora.sync.names import CellNames, analyse, function_reads, hidden
from remora.sync.raised import decode_exception, encode_exception
from remora.sync.sides import check

__all__ = [
    "CellNames",
    "Decoded",
    "Encoded",
    "Ledger",
    "Outgoing",
    "RemoteValue",
    "Snapshot",
    "analyse",
    "bind",
    "check",
    "decode",
    "decode_each",
    "decode_exception",
    "encode",
    "encode_exception",
    "fingerprint",
    "function_reads",
    "hidden",
    "lives_in",
]
