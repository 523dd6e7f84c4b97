"""What a backend and the agent of another machine say to each other; both ends are in this package."""

from __future__ import annotations

from dataclasses import dataclass, field

from remora.wire import Fields, Request, SandboxId


@dataclass(frozen=True)
class TakeUp(Request):
    """First of all: which of the sandboxes that the backend takes for living are.

    Answer: `living`, all that this backend has there, and `ended`: for those asked about what became of them; also `facts` of
    the machine and `farms`, the folder of its trees. `terms`: what this backend wants of the machine, see terms.py.
    """

    sandboxes: list[SandboxId]
    terms: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class Lack(Request):
    """Before a sandbox: what is lacking for it.

    Answer: which of these trees are not there, as `lacking`, and why no sandbox can be had, as `obstacle`, None if one can. What
    is there stays for the next hour.
    """

    trees: list[str]


@dataclass(frozen=True)
class OpenThere(Request):
    """Start a sandbox. Answer: `notices` for its user, and `facts` of it; or the trees that are `lacking`: nothing is done."""

    sandbox: SandboxId
    spec: Fields
    fitting: Fields
    facts: Fields
    secrets: Fields = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ExtendThere(Request):
    """Give a living sandbox more; its trees are there. Answer: `notices` for its user."""

    sandbox: SandboxId
    fitting: Fields
    secrets: Fields = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class StopThere(Request):
    """End a sandbox. Answered when nothing of it is left."""

    sandbox: SandboxId
    reason: str


@dataclass(frozen=True)
class AskPort(Request):
    """Does anything there listen on a port of a sandbox's loopback? Answer: `listens`."""

    sandbox: SandboxId
    port: int


@dataclass(frozen=True)
class Leave(Request):
    """Nothing is wanted there any more: the agent ends, unless it has sandboxes."""


@dataclass(frozen=True)
class AskEnd(Request):
    """A supervisor has gone: what became of its sandbox? Answered when it is buried: state, facts and runs; empty if it lives."""

    sandbox: SandboxId
