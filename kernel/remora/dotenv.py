"""Variables of a secret, as text: what a `.env` file says, and which names and values a sandbox's environment can take.

Law: pure; an InputError names the place and never shows a value, nor a line that may hold one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import InputError

LARGEST = 100 * 1024
"""Bytes of one value: the kernel of Linux takes 128 KiB with the name."""
MOST = 1024 * 1024
"""Bytes of all that one sandbox is given."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?([^\s=#'\"]+)[ \t]*=[ \t]*")
_QUOTED = {
    "'": re.compile(r"'([^']*)'[ \t]*(?:#[^\n]*)?(?:\n|$)"),
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#[^\n]*)?(?:\n|$)', re.DOTALL),
}
_PLAIN = re.compile(r"([^\n]*)(?:\n|$)")
_ESCAPED = re.compile(r'\\([\\"$nrt])')
_MEANING = {"n": "\n", "r": "\r", "t": "\t"}
_OURS = frozenset({"HOME", "PATH", "TERM", "VIRTUAL_ENV"})


def parse(text: str, where: str) -> dict[str, str]:
    """Return the variables of a `.env` file. Single quotes keep all, double quotes know backslashes, both may hold lines.

    `${NAME}` stays as it is. Raises InputError with the number of the line that is not understood.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        line = _PLAIN.match(text, at)
        assert line is not None
        if not line[1].strip() or line[1].lstrip().startswith("#"):
            at = line.end()
            continue
        number = text.count("\n", 0, at) + 1
        head = _LINE.match(text, at)
        if head is None:
            raise InputError(f"{where}, line {number} is not understood; write it like NAME=value or NAME='a value'")
        found[head[1]], at = _value(text, head.end(), f"{where}, line {number}")
    check(found, where)
    return found


def _value(text: str, at: int, where: str) -> tuple[str, int]:
    """Return the value that begins there, and where the next line begins."""
    quote = text[at : at + 1]
    if quote in _QUOTED:
        quoted = _QUOTED[quote].match(text, at)
        if quoted is None:
            raise InputError(f"{where}: the quotes do not end, or something stands behind them; write it like NAME='a value'")
        value = quoted[1] if quote == "'" else _ESCAPED.sub(lambda found: _MEANING.get(found[1], found[1]), quoted[1])
        return value, quoted.end()
    plain = _PLAIN.match(text, at)
    assert plain is not None
    return re.split(r"(?:^|[ \t])#", plain[1], maxsplit=1)[0].strip(), plain.end()


def check(variables: Mapping[str, str], where: str) -> None:
    """Raise InputError for what no environment can hold, or what Remora sets itself in every sandbox."""
    for name, value in variables.items():
        if not _NAME.fullmatch(name):
            raise InputError(f"{where}: {name[:40]!r} is no name of a variable; use letters, digits and _, no digit first")
        if name in _OURS or name.startswith("REMORA_"):
            raise InputError(f"{where}: {name} is set by Remora itself in every sandbox; leave it out")
        if not value:
            raise InputError(f"{where}: {name} has no value; give it one or leave it out")
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise InputError(f"{where}: the value of {name} is no text (it holds a null byte or broken Unicode)")
        if len(value.encode()) > LARGEST:
            raise InputError(
                f"{where}: the value of {name} is larger than the {LARGEST // 1024} KiB that an environment takes; "
                "keep it in a file, and the file in the notebook's folder"
            )
    if sum(len(name) + len(value.encode()) for name, value in variables.items()) > MOST:
        raise InputError(f"{where}: all variables together are larger than {MOST // 1024} KiB; give a sandbox fewer of them")
