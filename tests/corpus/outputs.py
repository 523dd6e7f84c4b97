"""What a cell showed, in a form that two runs can be compared by: text by its content, figures by their pixels.

Law: what may differ between two runs of the same cell on one machine anyway (addresses, clock times, the kernel's own file
names) is evened out, each by one rule of `_EVENED`; nothing else is.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from journeys.driving import Message, Ran, plain
from PIL import Image

Output = tuple[str, Any]
"""The kind of an output and what it holds; equal when nobody could tell two of them apart."""

_SHOWN = ("display_data", "update_display_data", "execute_result", "error", "clear_output")
# What is evened out: the pattern, and what stands for it.
_EVENED = (
    (re.compile(r"\b0x[0-9a-f]{6,}\b"), "0x…"),  # where an object lies in memory
    (re.compile(r"(?:/[\w.-]+)*/ipykernel_\d+/\d+\.py"), "<cell>"),  # the name that ipykernel gives to a cell's code
    # The date and the time in a summary of statsmodels, as text, HTML and LaTeX.
    (re.compile(r"(?<=[> ])(?:\w{3}, \d{2} \w{3} \d{4}|\d{2}:\d{2}:\d{2})(?=[< ])"), "<time>"),
)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it is stored; two are equal when all their pixels are."""

    stored: bytes

    def __eq__(self, other: object) -> bool:
        """Look at the pixels only where the files differ."""
        return isinstance(other, Picture) and (self.stored == other.stored or self.pixels == other.pixels)

    def __hash__(self) -> int:
        """Take what is equal in equal pictures."""
        return hash(self.pixels)

    def __repr__(self) -> str:
        """Return the size, and a digest of the pixels."""
        size, pixels = self.pixels
        return f"<picture of {size[0]}x{size[1]} pixels, {hashlib.sha256(pixels).hexdigest()[:12]}>"

    @cached_property
    def pixels(self) -> tuple[tuple[int, int], bytes]:
        """Width and height, and all pixels with their transparency."""
        with Image.open(io.BytesIO(self.stored)) as image:
            return image.size, image.convert("RGBA").tobytes()


def shown(ran: Ran, folder: Path) -> list[Output]:
    """Return what a cell showed, in order, and how it ended; `folder` is the notebook's."""
    found: list[Output] = []
    for kind, content in _joined(ran.messages):
        found.append((kind, _comparable(content, str(folder))))
    found.append(("status", ran.reply.get("status")))
    return found


def differences(here: Sequence[Output], there: Sequence[Output]) -> list[str]:
    """Return a line for each output that differs."""
    nothing: Output = ("nothing", "")
    return [_told(a, b) for a, b in zip_longest(here, there, fillvalue=nothing) if a != b]


def files(folder: Path) -> dict[str, object]:
    """Return what lies in a notebook's folder: pictures by their pixels, other files by their names alone."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): Picture(p.read_bytes()) if p.suffix == ".png" else None for p in found}


def _joined(messages: Sequence[Message]) -> Iterator[tuple[str, Any]]:
    """Yield the outputs with pieces of one stream joined, in what order the pieces of the two streams ever came."""
    streams: dict[str, str] = {}
    for message in messages:
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            streams[content["name"]] = streams.get(content["name"], "") + content["text"]
        elif kind in _SHOWN and "remora" not in (content.get("metadata") or {}):
            yield from _drained(streams)
            yield kind, content
    yield from _drained(streams)


def _drained(streams: dict[str, str]) -> Iterator[tuple[str, Any]]:
    yield from ((name, streams.pop(name)) for name in sorted(streams))


def _comparable(content: Any, folder: str) -> Any:
    if isinstance(content, str):
        return _even(content, folder)
    if "traceback" in content:
        return content["ename"], _even(content["evalue"], folder)
    if "data" not in content:
        return content
    data = {mime: _datum(mime, datum, folder) for mime, datum in content["data"].items()}
    return data, json.dumps(content.get("metadata") or {}, sort_keys=True)


def _datum(mime: str, datum: Any, folder: str) -> Any:
    if mime in ("image/png", "image/jpeg"):
        return Picture(base64.b64decode(datum))
    return _even(datum if isinstance(datum, str) else json.dumps(datum, sort_keys=True), folder)


def _even(text: str, folder: str) -> str:
    text = plain(text).replace(folder, "<folder>")
    for pattern, instead in _EVENED:
        text = pattern.sub(instead, text)
    return text


def _told(here: Output, there: Output) -> str:
    """Say where two outputs part."""
    a, b = _as_text(here[1]), _as_text(there[1])
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, at - 60)
    return f"{here[0]} {a[start : at + 200]!r} here, {there[0]} {b[start : at + 200]!r} there"


def _as_text(content: Any) -> str:
    return content if isinstance(content, str) else repr(content)
