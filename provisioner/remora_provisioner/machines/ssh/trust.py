"""Whether a host is the one that the user knows: decides from known_hosts, asks about a new one, and refuses a changed one.

Law: nothing is accepted in silence unless the user's configuration says so, and a changed or revoked key is never asked about.
"""

from __future__ import annotations

import contextlib

from remora.errors import StateError, Unavailable

from . import hostkeys
from .asking import Asker
from .hostkeys import Known, Verdict
from .route import Hop


def check(hop: Hop, kind: str, key: bytes, asker: Asker) -> None:
    """Return if the key that a host has shown is to be trusted; raises Unavailable if not."""
    known = hostkeys.lookup(hop.known_files, hop.known_as)
    verdict, line = hostkeys.judge(known, key)
    shown = f"{kind} key {hostkeys.fingerprint(key)}"
    if verdict is Verdict.KNOWN:
        return
    if verdict is Verdict.UNKNOWN:
        _admit(hop, kind, key, shown, asker)
        return
    assert line is not None
    if verdict is Verdict.REVOKED:
        raise Unavailable(f"{hop.place} shows the {shown}, which {line.place} calls revoked", reason="host-key-revoked")
    raise _changed(hop, shown, line)


def _admit(hop: Hop, kind: str, key: bytes, shown: str, asker: Asker) -> None:
    """Accept a host that was never met, if the user or the user's configuration says so."""
    advice = f"to accept it, connect to it once in a terminal: ssh {hop.name}"
    if hop.asks == "yes":
        text = f"{hop.place} is not in {hop.kept_in}, and StrictHostKeyChecking is yes; it shows the {shown}"
        raise Unavailable(text, reason="host-key-unknown")
    if hop.asks != "accept-new":
        text = f"{hop.place} was never met. It shows the {shown}. Is it the right one?"
        facts = {"host": hop.known_as, "type": kind, "fingerprint": hostkeys.fingerprint(key)}
        answer = asker.ask("host-key", text, facts=facts)
        if answer is None:
            text = f"{hop.place} was never met, and nobody is here to say whether it is the right one; {advice}"
            raise Unavailable(text, reason="host-key-unknown")
        if answer.strip().lower() not in {"y", "yes"}:
            raise Unavailable(f"{hop.place} was not accepted; it shows the {shown}", reason="host-key-unknown")
    hashed = hop.word("hashknownhosts", "no") == "yes"
    with contextlib.suppress(StateError):  # accepted for this time: it will be asked about again
        hostkeys.remember(hop.kept_in, hop.known_as, kind, key, hashed=hashed)


def _changed(hop: Hop, shown: str, line: Known) -> Unavailable:
    other = "another key" if line.kind == shown.split()[0] else f"only a key of type {line.kind}"
    return Unavailable(
        f"{hop.place} shows the {shown}, but {line.place} has {other} for it: somebody may be in between, or it was set up anew. "
        f"If you know why, write: ssh-keygen -f {line.file} -R '{hop.known_as}'",
        reason="host-key-changed",
    )
