"""Who comes: the user's keys, an agent's keys, passphrases, passwords and a host's own questions, in the order of ssh.

Law: knows no SSH library; `Door` and `Ring` are what it needs of one. A passphrase is asked for when all keys without one have
failed, three times at most, and is kept nowhere but in the key that it opens.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from remora.errors import Unavailable

from .asking import Asker
from .reaching import shown
from .route import Hop

Left = frozenset[str] | None
"""Ways in that the host still wants: none is left (we are in), or it refused without saying (None)."""
Answers = Callable[[str, str, list[tuple[str, bool]]], list[str]]
_TRIES = 3
_QUESTIONS, _PASSWORD = "keyboard-interactive", "password"


class Locked(Exception):
    """A key needs a passphrase, or another one."""


class Unusable(Exception):
    """A file holds no key that can be used."""


class Door(Protocol):
    """A host that wants to know who comes."""

    def none(self) -> Left:
        """Show nothing."""

    def key(self, key: Any) -> Left:
        """Show a key."""

    def password(self, password: str) -> Left:
        """Give a password."""

    def questions(self, answers: Answers) -> Left:
        """Let the host ask."""


class Ring(Protocol):
    """The user's keys."""

    def agent(self, place: str) -> list[tuple[bytes, Any, str]]:
        """Return the keys of the agent at a socket: the public half, the key, and what the user calls it."""

    def load(self, file: Path, passphrase: str | None = None) -> Any:
        """Return a key from its file. Raises Locked and Unusable."""


class SignIn:
    """One visit to a host's door."""

    def __init__(self, hop: Hop, door: Door, ring: Ring, asker: Asker) -> None:
        """Come as the user that the hop names."""
        self._hop, self._door, self._ring, self._asker = hop, door, ring, asker
        self._shown: list[str] = []
        self._remarks: list[str] = []
        self._asked, self._unanswered = 0, False

    def run(self) -> None:
        """Return once we are in. Raises Unavailable with "not-authorised" for a reason."""
        left: Left = None
        for key in self._keys():
            left = self._door.key(key)
            if left is not None and "publickey" not in left:
                break
        if left is None:
            left = self._door.none()
        if left and (left := self._by_hand(left)):
            raise self._refused(left)

    def _by_hand(self, left: frozenset[str]) -> frozenset[str]:
        """Answer what only a person can; return the ways that are left."""
        off = {way for way, option in _OPTIONS.items() if self._hop.word(option, "yes") == "no"}
        for number in range(_TRIES):
            ways = left - off
            before = self._asked
            if _QUESTIONS in ways:
                after = self._door.questions(self._answers)
            elif _PASSWORD in ways and (password := self._ask(_PASSWORD, f"{self._who}'s password", number > 0)):
                after = self._door.password(password)
            else:
                break
            if after is None and self._asked == before:
                off.add(_QUESTIONS)  # refused without a question: it has none
            left = left if after is None else after
            if not left or self._unanswered:
                break
        return left

    def _answers(self, title: str, instructions: str, fields: list[tuple[str, bool]]) -> list[str]:
        """Answer a host's questions; too few answers are a refusal."""
        given = []
        for prompt, visible in fields:
            words = shown(" ".join((title, instructions, prompt)), 500)
            answer = self._ask("prompt", f"{self._who} asks: {words}", secret=not visible)
            if answer is None:
                self._unanswered = True
                self._remarks.append("it asks a question that nobody answered")
                return []
            given.append(answer)
        return given

    # -- keys

    def _keys(self) -> Iterator[Any]:
        """Yield the keys in the order to show them."""
        if self._hop.word("pubkeyauthentication", "yes") == "no":
            return
        files = [file for file in self._hop.identities if file.is_file()]
        held = {}
        for half, key, name in self._agents(files):
            held[half] = key
            self._shown.append(name)
            yield key
        locked = []
        for file in files:
            if public_half(file) in held:
                continue
            try:
                key = self._ring.load(file)
            except Locked:
                locked.append(file)
                continue
            except Unusable as error:
                self._remarks.append(f"{file} cannot be used ({error})")
                continue
            self._shown.append(str(file))
            yield key
        yield from filter(None, map(self._unlock, locked))

    def _agents(self, files: list[Path]) -> list[tuple[bytes, Any, str]]:
        """Return the agent's keys, first those that the configuration names, the others unless it wants no others."""
        named = {half for file in files if (half := public_half(file)) is not None}
        keys = self._ring.agent(self._hop.agent)
        first = [key for key in keys if key[0] in named]
        only = self._hop.word("identitiesonly", "no") == "yes"
        return first + ([] if only else [key for key in keys if key[0] not in named])

    def _unlock(self, file: Path) -> Any:
        """Return a key that has a passphrase; None if it stays shut."""
        for number in range(_TRIES):
            answer = self._ask("passphrase", f"Passphrase of the key {file}", number > 0, file=str(file))
            if not answer:
                self._remarks.append(f"the key {file} has a passphrase: ssh-add {file}")
                return None
            try:
                key = self._ring.load(file, answer)
            except Locked:
                continue
            self._shown.append(str(file))
            return key
        self._remarks.append(f"the passphrase of {file} was wrong")
        return None

    # -- words

    @property
    def _who(self) -> str:
        return f"{self._hop.user}@{self._hop.name}"

    def _ask(self, kind: str, text: str, again: bool = False, *, secret: bool = True, **facts: str) -> str | None:
        self._asked += 1
        if self._hop.word("batchmode", "no") == "yes":
            return None
        return self._asker.ask(kind, text, secret=secret, again=again, facts=facts)

    def _refused(self, left: frozenset[str]) -> Unavailable:
        keys = f"with {', '.join(self._shown)}" if self._shown else "without a key"
        remarks = "".join(f"; {remark}" for remark in dict.fromkeys(self._remarks))
        takes = f" (it takes {', '.join(sorted(left))})"
        text = f"{self._hop.place} does not let {self._hop.user} in {keys}{takes}{remarks}. To see why: ssh {self._hop.name}"
        return Unavailable(text, reason="not-authorised")


def has_key(hop: Hop, ring: Ring) -> bool:
    """Say whether there is a key to show for which nobody has to be asked."""
    if ring.agent(hop.agent):
        return True
    for file in filter(Path.is_file, hop.identities):
        with contextlib.suppress(Locked, Unusable):
            ring.load(file)
            return True
    return False


_OPTIONS = {_QUESTIONS: "kbdinteractiveauthentication", _PASSWORD: "passwordauthentication"}


def public_half(file: Path) -> bytes | None:
    """Return the public key beside a private one; None if there is none that can be read."""
    try:
        fields = file.with_name(file.name + ".pub").read_text(encoding="utf-8").split()
        return base64.b64decode(fields[1], validate=True)
    except (OSError, ValueError, IndexError):
        return None
