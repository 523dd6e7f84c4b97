"""Which files stay where they are: the lines of `.remoraignore`, as those of a .gitignore, after a few of our own.

Law: pure. All of gitignore's grammar, in the top folder's file only. Both sides use the rules of the user's folder, and that file
stays there: what runs on a machine cannot change what it is sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from remora.errors import InputError

from .entries import Entries, Entry, Kind, parents

NAME = b".remoraignore"
IGNORED = b"ignored"
"""Why such a thing is held."""
ENVIRONMENT = "pyvenv.cfg"
"""A folder with this file is an environment, made for one machine."""
_ALWAYS = (b".git", b"__pycache__/", b".ipynb_checkpoints/", b"node_modules/")


@dataclass(frozen=True)
class _Rule:
    matches: re.Pattern[bytes]
    folders_only: bool
    takes_back: bool


class Rules:
    """The rules of one folder; the last one that matches decides."""

    def __init__(self, text: bytes = b"") -> None:
        """Read the lines of a `.remoraignore`; InputError names the one that cannot be understood."""
        self.text = text
        lines = [line.removesuffix(b"\r") for line in text.split(b"\n")]
        self._rules = [rule for number, line in enumerate(lines, 1) if (rule := _rule(line, number))]
        self.for_folders_only = not self._rules
        """Whether no file is left out but `.git` and `.remoraignore`."""
        self._names: dict[bytes, bool] = {line.rstrip(b"/"): line.endswith(b"/") for line in _ALWAYS}

    def ignores(self, path: bytes, is_folder: bool) -> bool:
        """Tell whether what is at this path stays; nothing below a folder that stays is asked for."""
        if path == NAME:
            return True
        name = path[path.rfind(b"/") + 1 :]
        ignored = name in self._names and (is_folder or not self._names[name])
        for rule in self._rules:
            if ignored == rule.takes_back and (is_folder or not rule.folders_only) and rule.matches.fullmatch(path):
                ignored = not rule.takes_back
        return ignored

    def over(self, entries: Entries) -> Entries:
        """Return what somebody else claims to have, in which all that stays by these rules is held, and nothing is below it."""
        tops: dict[bytes, bytes] = {b"": b""}
        found: Entries = {}
        for path, entry in entries.items():
            folder = path[: max(path.rfind(b"/"), 0)]
            if folder not in tops:
                tops[folder] = next((above for above in reversed(parents(path)) if self.ignores(above, True)), b"")
            top = tops[folder] or (path if self.ignores(path, entry.kind == Kind.FOLDER) else b"")
            found[top or path] = Entry(Kind.HELD, 0, IGNORED) if top else entry
        return found


def _rule(line: bytes, number: int) -> _Rule | None:
    line = _trimmed(line)
    if not line or line.startswith(b"#"):
        return None
    takes_back = line.startswith(b"!")
    pattern = line[1:] if takes_back else line
    folders_only = pattern.endswith(b"/")
    pattern = pattern.rstrip(b"/") if folders_only else pattern
    if not pattern:
        return None
    anywhere = b"" if b"/" in pattern else rb"(?:.*/)?"
    try:
        return _Rule(re.compile(anywhere + _expression(pattern.removeprefix(b"/")), re.DOTALL), folders_only, takes_back)
    except re.error as error:
        raise InputError(f"line {number} of .remoraignore cannot be understood ({error}): mend or remove it") from error


def _trimmed(line: bytes) -> bytes:
    """Return a line without the spaces at its end, unless a backslash keeps them."""
    bare = line.rstrip(b" ")
    return bare + b" " if bare.endswith(b"\\") and len(bare) < len(line) else bare


_TOKENS = re.compile(rb"^\*\*/|/\*\*/|/\*\*$|\*+|\?|\[[!^]?\]?[^\]]*\]|\\.|.", re.DOTALL)
_MEANINGS = {b"**/": rb"(?:.*/)?", b"/**/": rb"/(?:.*/)?", b"/**": rb"/.*", b"?": rb"[^/]"}


def _expression(pattern: bytes) -> bytes:
    """Return a gitignore pattern as a regular expression."""
    return b"".join(_meaning(token) for token in _TOKENS.findall(pattern))


def _meaning(token: bytes) -> bytes:
    if token in _MEANINGS:
        return _MEANINGS[token]
    if token.startswith(b"*"):
        return rb"[^/]*"
    if token.startswith(b"[") and len(token) > 1:
        inner = token[1:-1].replace(b"[", rb"\[")
        return b"(?!/)[" + (b"^" + inner[1:] if inner[:1] in (b"!", b"^") else inner) + b"]"
    return re.escape(token[1:] if len(token) > 1 and token.startswith(b"\\") else token)
