"""What a person who follows a run sees in the terminal: its output as text, and one line that says how far it is.

Law: output goes where the code sent it, what is said about the run goes to standard error; colours only in a terminal.
"""

from __future__ import annotations

import re
import struct
import sys
import time
from collections.abc import Callable
from typing import IO, Any

from ..resources import format_bytes
from ..wire import Fields, Record

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FIGURES = re.compile(r": [0-9.]+ \w+ of [0-9.]+ \w+")
"""How far something has come."""
_TEXTS = ("text/plain", "text/markdown", "text/html", "application/json")
Streams = dict[str, IO[str]]


class Console:
    """Prints the output of one run, and a status line where there is a terminal."""

    def __init__(self, show: bool = True, copies: Streams | None = None, status: bool | None = None, errors: bool = True) -> None:
        """Print output if `show`, and the error that ends a run if `errors`.

        `copies` get "stdout" and "stderr" as well; `status`: whether to say how far it is, None: where a line can be rewritten.
        """
        self._streams: Streams = {"stdout": sys.stdout, "stderr": sys.stderr} if show else {}
        self._copies = copies or {}
        self._show, self._errors = show, errors
        self._said_error = False
        self._live = sys.stderr.isatty()
        self._status = self._live if status is None else status
        self._shown = ""
        self._displays: dict[str, str] = {}
        self._open_line = False

    @property
    def says_progress(self) -> bool:
        """True when it matters how far the run is."""
        return self._status

    @property
    def ticks(self) -> bool:
        """True when the status line is rewritten as time goes by."""
        return self._status and self._live

    # -- lines of ours

    def say(self, line: str) -> None:
        """Print a line about the run."""
        self._clear()
        self._end_line()
        print(line, file=sys.stderr, flush=True)

    def status(self, line: str) -> None:
        """Show how far the run is: rewritten in a terminal, elsewhere a line each time it says something new."""
        if not self._status:
            return
        if not self._live:
            stable = _FIGURES.sub("", line.partition(" · ")[0])  # without what changes all the time
            if stable != self._shown:
                self._shown = stable
                print(stable, file=sys.stderr, flush=True)
        elif line != self._shown and not self._open_line:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self._shown = line

    def _clear(self) -> None:
        if self._live and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = ""

    def close(self) -> None:
        """Take the status line away."""
        self._clear()
        self._end_line()

    def _end_line(self) -> None:
        if self._open_line and self._streams and sys.stdout.isatty():
            print(flush=True)
        self._open_line = False

    # -- output of the run

    def show(self, record: Record) -> None:
        """Print a record; those that are no output are passed over."""
        if record.type == "output":
            self._output(record.content["msg_type"], record.content["content"])
        elif record.type == "notice":
            self.write("stderr", f"Remora: {record.content['text']}\n")
        elif record.type == "cell" and record.content.get("error") and (self._show or not record.content.get("expected")):
            self._error(record.content["error"])
        elif record.type == "result":
            self._result(record.content)

    def _output(self, kind: str, content: Fields) -> None:
        if kind == "stream":
            self.write("stderr" if content["name"] == "stderr" else "stdout", content["text"])
        elif kind in ("display_data", "execute_result", "update_display_data"):
            self._display(content)

    def _display(self, content: Fields) -> None:
        text = summary(content.get("data") or {})
        display = (content.get("transient") or {}).get("display_id")
        if text and not (display and self._displays.get(display) == text):
            self.write("stdout", f"{text}\n", copied=False)
        if display:
            self._displays[display] = text

    def _result(self, content: Fields) -> None:
        """Print the error of a cell or call; that of a notebook's cell came with the cell."""
        if content.get("error") and not self._said_error:
            self._error(content["error"])

    def _error(self, error: Fields) -> None:
        self._said_error = True
        if not self._show and not self._errors:
            return
        lines = error.get("traceback") or [f"{error.get('ename')}: {error.get('evalue')}"]
        self._print(sys.stderr, "\n".join(lines).rstrip("\n") + "\n")

    def write(self, stream: str, text: str, copied: bool = True) -> None:
        """Print text of one of the run's streams."""
        if copied and stream in self._copies:
            self._copies[stream].write(text)
            self._copies[stream].flush()
        target = self._streams.get(stream)
        if target is not None and text:
            self._print(target, text)

    def _print(self, target: IO[str], text: str) -> None:
        self._clear()
        target.write(text if target.isatty() else _COLOURS.sub("", text))
        target.flush()
        self._open_line = not text.endswith("\n")


def summary(data: Fields) -> str:
    """Return a display's text, or a line that stands for what a terminal cannot show."""
    kinds = [kind for kind in data if kind.startswith(("image/", "video/", "audio/")) or kind == "application/pdf"]
    if kinds:
        return _placeholder(kinds[0], data[kinds[0]])
    for kind in _TEXTS:
        if kind in data:
            text = "".join(data[kind]) if isinstance(data[kind], (str, list)) else str(data[kind])
            return text if kind in ("text/plain", "text/markdown") else f"[{kind}, {format_bytes(len(text))}]"
    return "".join(f"[{kind}]" for kind in list(data)[:1])


def _placeholder(kind: str, data: Any) -> str:
    from base64 import b64decode

    raw = b64decode(data) if isinstance(data, str) and kind != "image/svg+xml" else str(data).encode()
    size = ""
    if raw[:8] == b"\x89PNG\r\n\x1a\n" and len(raw) >= 24:
        size = "{} x {}, ".format(*struct.unpack(">II", raw[16:24]))
    return f"[{kind}, {size}{format_bytes(len(raw))}]"


class Clock:
    """Elapsed time for a status line."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Start now."""
        self._now, self._began = now, now()

    def __str__(self) -> str:
        """Return minutes and seconds, or hours as well."""
        whole = int(self._now() - self._began)
        hours, rest = divmod(whole, 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
