"""Gets a Python and our code onto a machine that has nothing but Linux and a shell, and starts the program there.

Law: one command runs there, the same for everybody, and nothing of a user's is in it. Its standard input is a conversation:

    here                                          there
    settling.sh, then what is asked of it
                                                  whatever the shell prints at first, then the marker
                                                  fact NAME VALUE …, tried PLACE: WHY …
                                                  start                    … or, if it lacks something:
                                                  need CODING PART …
    installing.sh, then the digests of the pieces
                                                  lack DIGEST …
    those pieces
                                                  got DIGEST …, unpacking, start

After `start`, the bytes are those of the program. At any time it may say `fail CODE TEXT` and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from remora.errors import PlaceError, RemoraError, StateError, Unavailable
from remora.resources import format_bytes

from .bundle import Bundle, Part, Piece
from .hearing import Hearing, printable

Say = Callable[[str], None]

_LINES = 1000
_ROOM = 2.2
"""How much larger than its content a part is while it is taken in: archive and files, and blocks that are not full."""


@dataclass(frozen=True)
class Patience:
    """Seconds to wait: for the shell there, and for each sign of life after that."""

    shell: float = 30.0
    sign: float = 120.0


@dataclass(frozen=True)
class Program:
    """What is started there: `python -m MODULE PLACE ARGUMENT…`, where PLACE is the folder of ours on that machine."""

    module: str = "remora_provisioner.machines.bridge"
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a word that does not fit on a line."""
        if any("\n" in word or "\0" in word for word in (self.module, *self.arguments)):
            raise ValueError("an argument of a program elsewhere has a newline in it")


@dataclass(frozen=True)
class Facts:
    """What a machine says of itself; None where it could not tell. Bytes for memory and disk."""

    architecture: str = ""
    kernel: str = ""
    libc: str = ""
    user: int | None = None
    home: str = ""
    cores: int | None = None
    memory: int | None = None
    free: int | None = None
    """Free where our things are kept."""
    namespaces: bool | None = None
    """Whether an ordinary user may make namespaces."""
    clock: float | None = None
    """Seconds that its clock is ahead of ours, as well as one can know by whole seconds."""


@dataclass(frozen=True)
class Settled:
    """A machine on which the program has been started."""

    place: str
    """Our folder there."""
    python: str
    """The interpreter there."""
    facts: Facts
    sent: int
    """Bytes that were sent to get there."""
    tried: tuple[str, ...] = ()
    """Folders that could not be used, each with the reason."""


def _stripped(name: str) -> str:
    """Return a script of ours without what only its readers need."""
    lines = Path(__file__).with_name(name).read_text(encoding="ascii").splitlines()
    return "".join(f"{line.strip()}\n" for line in lines if line.strip() and not line.lstrip().startswith("# "))


_SETTLING = _stripped("settling.sh").encode()
_INSTALLING = _stripped("installing.sh").encode()
COMMAND = (
    'exec sh -c \'PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"; export PATH; '
    f'if command -v dd >/dev/null; then eval "$(dd bs=1 count={len(_SETTLING)} 2>/dev/null)"; else echo remora: no dd; fi\''
)
"""What is run there, by whatever login shell there is."""


async def settle(
    sock: socket.socket,
    bundle: Bundle,
    say: Say,
    program: Program | None = None,
    patience: Patience | None = None,
    machine: str = "the machine",
) -> Settled:
    """Bring the machine at whose end COMMAND runs all that it lacks of the bundle, and start the program there.

    `machine` is what it is called in what is said to people.

    The socket stays the caller's, whatever happens, and does not block any more; after this its bytes are the program's standard
    input and output. Progress is told in words. Unavailable if the machine does not answer or cannot be used, StateError if it
    has no room, PlaceError if what was brought does not run there; each with what the machine said.
    """
    return await _Settling(sock, bundle, say, patience or Patience(), machine).run(program or Program())


@dataclass
class _Told:
    """What has been heard so far."""

    facts: dict[str, str] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    asked: float = 0.0
    """When, by the clock here, the machine told its time."""


class _Settling:
    def __init__(self, sock: socket.socket, bundle: Bundle, say: Say, patience: Patience, machine: str) -> None:
        self._sock, self._bundle, self._say, self._patience, self._machine = sock, bundle, say, patience, machine
        self._hearing = Hearing(sock, machine)
        self._told = _Told()
        self._sent = 0

    async def run(self, program: Program) -> Settled:
        nonce = secrets.token_hex(8)
        async with self._sending(_SETTLING + self._question(nonce, program)):
            await self._hearing.pass_over(f"remora:{nonce}", self._patience.shell)
            words = await self._until("need", "start")
        if words[0] == "need":
            await self._bring(words[1:])
        return self._settled()

    def _question(self, nonce: str, program: Program) -> bytes:
        python, code = self._bundle.python, self._bundle.code
        rooms = [int(code.size * _ROOM) >> 10, int((python.size + code.size) * _ROOM) >> 10]
        numbers = f"{self._bundle.digest} {python.digest} {rooms[0]} {rooms[1]} {len(_INSTALLING)}"
        lines = [nonce, self._bundle.architecture, numbers, program.module, str(len(program.arguments)), *program.arguments]
        return "".join(f"{line}\n" for line in lines).encode()

    async def _until(self, *endings: str) -> list[str]:
        """Hear what is told until a line begins with one of these words; return that line's words."""
        ends = time.monotonic() + self._patience.sign
        for _ in range(_LINES):
            line = await self._hearing.line(ends - time.monotonic())
            word, _, rest = line.partition(" ")
            if word in endings:
                return line.split()
            self._take(word, rest)
        raise self._not_understood(self._hearing.last)

    def _take(self, word: str, rest: str) -> None:
        if word == "fact":
            name, _, value = rest.partition(" ")
            self._told.facts[name] = value
            if name == "clock":
                self._told.asked = time.time()
        elif word == "tried":
            self._told.tried.append(printable(rest))
        elif word == "unpacking":
            self._say(f"unpacking on {self._machine}")
        elif word == "fail":
            code, _, text = rest.partition(" ")
            raise self._failure(code, printable(text))
        else:
            raise self._not_understood(f"{word} {rest}")

    # -- bringing what is lacking

    async def _bring(self, words: list[str]) -> None:
        known = {part.name: part for part in (self._bundle.python, self._bundle.code)}
        if words[:1] not in (["gzip"], ["plain"]) or words[1:] not in (["python", "code"], ["code"]):
            raise self._not_understood(self._hearing.last)
        parts = [known[name] for name in words[1:]]
        each = await asyncio.to_thread(lambda: [part.pieces(words[0] == "gzip") for part in parts])
        lists = "".join(_listed(part, pieces) for part, pieces in zip(parts, each, strict=True))
        offered = {piece.digest: piece for pieces in each for piece in pieces}
        async with self._sending(_INSTALLING + lists.encode()):
            lacking = (await self._until("lack"))[1:]
        if not set(lacking) <= offered.keys():
            raise self._not_understood(self._hearing.last)
        what = "a Python and Remora" if len(parts) == 2 else "this version of Remora"
        await self._transfer(what, [offered[digest] for digest in dict.fromkeys(lacking)])
        await self._until("start")

    async def _transfer(self, what: str, pieces: list[Piece]) -> None:
        total, arrived = sum(len(piece.data) for piece in pieces), 0
        async with self._sending(*(piece.data for piece in pieces)):
            for piece in pieces:
                self._say(f"sending {what}: {format_bytes(arrived)} of {format_bytes(total)}")
                if (await self._until("got"))[1:] != [piece.digest]:
                    raise self._not_understood(self._hearing.last)
                arrived += len(piece.data)

    @contextlib.asynccontextmanager
    async def _sending(self, *chunks: bytes) -> AsyncIterator[None]:
        """Send while the block listens: a machine that fails says so before it has read everything."""
        task = asyncio.create_task(self._send(*chunks))
        try:
            yield
            await asyncio.wait({task}, timeout=self._patience.sign)
        finally:
            task.cancel()
            await asyncio.wait({task})
            _ = task.cancelled() or task.exception()  # what the machine said of it matters more

    async def _send(self, *chunks: bytes) -> None:
        loop = asyncio.get_running_loop()
        for chunk in chunks:
            await loop.sock_sendall(self._sock, chunk)
            self._sent += len(chunk)

    # -- what came of it

    def _settled(self) -> Settled:
        place = self._told.facts.get("place", "")
        if not place.startswith("/"):
            raise self._not_understood(f"start without a place ({place})")
        python = f"{place}/bundles/{self._bundle.digest}/bin/python"
        return Settled(place, python, self._facts(), self._sent, tuple(self._told.tried))

    def _facts(self) -> Facts:
        told = self._told.facts
        number = {name: int(value) for name, value in told.items() if value.isdecimal() and len(value) < 20}
        memory, free, clock = (number.get(name) for name in ("memory", "free", "clock"))
        return Facts(
            architecture=printable(told.get("architecture", "")),
            kernel=printable(told.get("kernel", "")),
            libc=printable(told.get("libc", "")),
            user=number.get("user"),
            home=told.get("home", ""),
            cores=number.get("cores"),
            memory=None if memory is None else memory * 1024,
            free=None if free is None else free * 1024,
            namespaces={"yes": True, "no": False}.get(told.get("namespaces", "")),
            clock=None if clock is None else clock + 0.5 - self._told.asked,
        )

    def _failure(self, code: str, text: str) -> RemoraError:
        name = self._machine
        if code == "architecture":
            told = f"{name} is {text}, and Remora here brings what runs on {self._bundle.architecture}"
            return Unavailable(f"{told}; only machines of one's own architecture can be used", reason="architecture")
        if code == "place":
            told = f"{name} has no folder in which something of ours can be kept and executed: {'; '.join(self._told.tried)}"
            return Unavailable(f"{told}. Make room in one of them, or set XDG_DATA_HOME there to another", reason="no-place")
        if code == "full":
            return StateError(f"the disk of {name} is full ({text}); make room there, and run it again", reason="machine-full")
        if code == "runs":
            told = f"the Python that was brought does not run on {name}: {text or 'it gave no reason'}"
            return PlaceError(f"{told} (Linux {self._told.facts.get('kernel', 'unknown')})", reason="python-there")
        if code == "digest":
            return PlaceError(f"what arrived at {name} is not what was sent ({text}); run it again", reason="transfer")
        return PlaceError(f"{name} could not take in what was sent: {text}", reason="machine-write")

    def _not_understood(self, line: str) -> Unavailable:
        told = f"{self._machine} answers what makes no sense here: {printable(line) or 'nothing'}"
        return Unavailable(told, reason="machine-answer")


def _listed(part: Part, pieces: list[Piece]) -> str:
    return f"{part.name} {part.digest} {part.size} {len(pieces)}\n" + "".join(f"{p.digest} {len(p.data)}\n" for p in pieces)
