"""Secrets in output: every spelling of a value that a sandbox was given becomes `***` before anything is written down.

Law: the one place where output is masked, in the supervisor, outside of the sandbox; whatever code inside does to its own
streams, it comes through here. What is not recognised is said in docs/how-to/secrets.md. A sandbox without secrets pays nothing.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from remora.wire import Buffer, Fields

STARS = "***"
_SHORTEST = 4
"""Characters: what is shorter stands in much that is no secret."""
_LINE = 8
"""Characters of a line of a longer value that is masked by itself."""
_WORDS = frozenset({"true", "false", "none", "null"})
_IN_RESULT = ("error", "remote", "payload")
"""What of a run's result is for people; the rest is names and numbers that others go by."""


class Mask:
    """The secrets of one sandbox."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Know these variables, by value."""
        self.variables: dict[str, str] = {}
        self._spellings: tuple[str, ...] = ()
        self._bytes: tuple[bytes, ...] = ()
        self._pattern: re.Pattern[str] | None = None
        self.add(variables)

    def __bool__(self) -> bool:
        """Tell whether anything is to be masked."""
        return self._pattern is not None

    def add(self, variables: Mapping[str, str]) -> None:
        """Know more variables; values that one had before stay masked."""
        self.variables |= variables
        found = {spelling for value in variables.values() for spelling in _spellings(value)}
        if found:
            self._spellings = tuple(sorted(found.union(self._spellings), key=len, reverse=True))
            self._pattern = re.compile("|".join(map(re.escape, self._spellings)))
            self._bytes = tuple(code for text in self._spellings for code in (text.encode(), text.encode("utf-32-le")))

    def text(self, text: str) -> str:
        """Return a text without values."""
        return self._pattern.sub(STARS, text) if self._pattern is not None else text

    def split(self, text: str) -> tuple[str, str]:
        """Return what can be shown, masked, and the end of the text that may be the beginning of a value."""
        if self._pattern is None:
            return text, ""
        cut = self._begins(text)
        for match in self._pattern.finditer(text):
            if match.start() < cut < match.end():
                cut = match.end()
        return self.text(text[:cut]), text[cut:]

    def _begins(self, text: str) -> int:
        """Return where the longest end of the text begins with which a value begins; its length if there is none."""
        first = len(text)
        for spelling in self._spellings:
            at = text.find(spelling[0], max(0, len(text) - len(spelling) + 1), first)
            while at >= 0 and not spelling.startswith(text[at:]):
                at = text.find(spelling[0], at + 1, first)
            first = at if at >= 0 else first
        return first

    def value(self, value: Any, keys: bool = False) -> Any:
        """Return plain JSON values without values of secrets; with `keys` also in the names of fields, as below a MIME type."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (list, tuple)):
            return [self.value(one, keys) for one in value]
        if isinstance(value, dict):
            return {self.text(k) if keys else k: self.value(one, keys or "/" in str(k)) for k, one in value.items()}
        return value

    def buffer(self, buffer: Buffer) -> Buffer:
        """Return bytes with stars in the place of values, as many as these have bytes: what encloses them stays whole."""
        data = bytes(buffer)
        found = [code for code in self._bytes if code in data]
        for code in found:
            data = data.replace(code, b"*" * len(code))
        return data if found else buffer


class Veil:
    """The output of one run on its way to the log: text that may be half of a value waits for what comes next."""

    def __init__(self, mask: Mask) -> None:
        """Hide what this mask knows, also what it comes to know."""
        self._mask = mask
        self._waiting: dict[str, Fields] = {}
        """By stream: the last message with the text that waits."""

    def through(self, kind: str, content: Fields) -> Iterator[Fields]:
        """Yield what may be recorded of one message: nothing for text that waits as a whole."""
        if not self._mask:
            yield content
        elif kind == "output" and content.get("msg_type") == "stream":
            yield from self._stream(content)
        elif kind == "output":
            yield content | {part: self._mask.value(content.get(part) or {}) for part in ("content", "metadata")}
        elif kind == "result":
            yield content | {part: self._mask.value(content[part]) for part in _IN_RESULT if content.get(part)}
        else:
            yield self._mask.value(content)

    def _stream(self, content: Fields) -> Iterator[Fields]:
        stream = json.dumps(_with(content, ""), sort_keys=True)
        before = self._waiting.pop(stream, None)
        text, rest = self._mask.split((before["content"]["text"] if before else "") + str(content["content"].get("text", "")))
        if rest:
            self._waiting[stream] = _with(content, rest)
        if text:
            yield _with(content, text)

    def rest(self) -> Iterable[Fields]:
        """Return text that waited in vain, and wait for nothing more."""
        waited, self._waiting = self._waiting, {}
        return [_with(content, self._mask.text(content["content"]["text"])) for content in waited.values()]

    def over(self, buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        """Return bulk bytes without values."""
        return tuple(map(self._mask.buffer, buffers)) if self._mask else buffers


def _with(content: Fields, text: str) -> Fields:
    """Return a message of a stream with another text."""
    return content | {"content": content["content"] | {"text": text}}


def _spellings(value: str) -> set[str]:
    """Return a value as it may stand in output: as it is, and as Python, JSON, HTML and addresses write it; its lines, too."""
    whole = {value, value.strip(), *(line.strip() for line in value.splitlines() if len(line.strip()) >= _LINE)}
    found: set[str] = set()
    for text in whole:
        if len(text) >= _SHORTEST and text.lower() not in _WORDS:
            found |= {text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
            found |= {html.escape(text), html.escape(text, quote=False), quote(text), quote(text, safe="")}
    return {spelling for spelling in found if len(spelling) >= _SHORTEST}
