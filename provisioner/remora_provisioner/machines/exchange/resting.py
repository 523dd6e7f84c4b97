"""Whether an exchange would find anything to do: what the user's side can say alone, and one digest of the other side's folder.

Law: nothing is changed here. A folder that is as it was agreed needs nothing sent. As long as nothing else is agreed on, nothing
is to be fetched while the other folder has the digest that it had then. Any doubt is an exchange.

    K look       both           home: protocol, rules, size cap; there: the digest of what lies there now
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .agreed import Memory, kept, locked
from .comparing import compare
from .entries import by_folder, whole
from .home import FolderHome, rules_of
from .ignoring import Rules
from .letters import PROTOCOL, Letters
from .looking import looked, opened, telling
from .outcome import Outcome, capped
from .serving import HOME


class Rest(NamedTuple):
    """What both sides were found to be at rest with."""

    token: str
    """Names what they had agreed on."""
    there: str
    """The digest of the machine's folder."""


def rest(home: FolderHome, *, wait: bool = True) -> Rest | None:
    """Return what both sides are at rest with, as far as is known here; None if an exchange is needed. It blocks.

    Raises StateError and InputError as an exchange does, and BlockingIOError, unless it is to `wait`, while one goes on.
    """
    memory = Memory(home.state, home.machine)
    with locked(home.state, wait=wait), opened(home.folder) as top:
        agreed = memory.agreed()
        if not agreed.seen or agreed.top != os.fstat(top.top).st_ino or not memory.intent().is_empty:
            return None
        with looked(home.folder, Rules(rules_of(top)), home.most, memory) as index:
            here, there = index.entries, agreed.there
            plan = compare(agreed.base, here, there, lambda path: path + b"~", writable=home.writable)
            done = Outcome(home.machine, plan, capped(plan, home.most, home.machine))
            quiet = plan.is_empty and not plan.equal and not index.arriving and done.told(here, there) == agreed.told
    return Rest(agreed.token, agreed.seen) if quiet else None


def is_at_rest(home: FolderHome, known: Rest | None, sock: socket.socket, until: Callable[[socket.socket], None]) -> bool:
    """Ask over a connection to `tell` whether the machine's folder is what it was at rest with; blocks until it is told.

    Without `known`, that is found out meanwhile. `until` returns when there is something to be read, and may raise. Raises
    Unavailable if the connection broke, ProtocolError for nonsense.
    """
    letters = Letters(sock, home.machine)
    with telling(letters):
        with opened(home.folder) as top:
            rules = Rules(rules_of(top))
        letters.put_values(b"K", {"protocol": PROTOCOL, "most": home.most}, rules.text)
        known = known or rest(home)
        until(sock)
        _, values, _ = letters.get_values(b"K")
    if known is None or values.get("there") != known.there:
        return False
    return Memory(home.state, home.machine).agreed().token == known.token


def tell(folder: Path, state: Path, sock: socket.socket, ended: Callable[[], object]) -> None:
    """Be the other half of `is_at_rest`, on the machine; see `serve`. It is looked when `ended`, which may block, returns."""
    letters = Letters(sock, HOME)
    with telling(letters):
        _, asked, lines = letters.get_values(b"K")
        if asked.get("protocol") != PROTOCOL or not isinstance(asked.get("most"), int):
            raise letters.nonsense()
        rules, memory = Rules(lines), Memory(state)
        memory.digests()  # they are at hand then
        ended()
        with locked(state):
            with kept(folder):
                folder.mkdir(parents=True, exist_ok=True)
            with looked(folder, rules, asked["most"], memory) as index:
                there = whole(by_folder(index.entries)).hex()
        letters.put_values(b"K", {"there": there})
