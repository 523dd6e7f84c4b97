"""What became of a run, and how it is said: the one result message that ends it.

Law: a run ends with exactly one result whatever happened in it. Errors of the user's code and of ours take the same form.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from typing import Any

from ..errors import RemoraError
from ..sync.codec import Encoded
from ..sync.raised import encode_exception
from ..wire import Buffer, Emit, Fields, RunId
from . import kept
from .interrupts import without_handler

AWAY = 16 << 20  # bytes: what is larger is fetched by the client, so that it does not pass through the run log
_REPR = 200


@dataclass
class Outcome:
    """What a run leaves behind."""

    error: Fields | None = None
    exception: BaseException | None = None
    values: Encoded | None = None
    away: tuple[str, ...] = ()
    remote: Fields = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    mutated: frozenset[str] = frozenset()
    payload: list[Fields] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)
    """Requirements."""
    opened: list[str] = field(default_factory=list)
    """Files of the image, if anybody wants to know."""
    execution_count: int = 0
    begun: float = field(default_factory=time.monotonic)

    def fail(self, error: BaseException, rendered: list[str] | None = None) -> None:
        """Take an error, with its traceback as it is to be shown."""
        self.exception = error
        self.error = {
            "ename": type(error).__name__,
            "evalue": text_of(error),
            "traceback": render(error) if rendered is None else rendered,
        }

    def keep(self, encoded: Encoded, namespace: Fields) -> None:
        """Take variables to bring home: at once, or away if large or with a secret; those that cannot travel are described."""
        self.remote = describe(encoded, namespace)
        if encoded.nbytes > AWAY or kept.found_in(encoded):
            self.away = encoded.names
        elif encoded.names:
            self.values = encoded

    def emit(self, run: RunId, namespace: Fields) -> Emit:
        """Return the run's last message."""
        buffers: list[Buffer] = []
        parts: dict[str, list[int]] = {}
        _add(parts, buffers, "values", self.values)
        _add(parts, buffers, "exception", self._encoded_exception(namespace))
        content: Fields = {
            "ok": self.error is None,
            "error": self.error,
            "values": {"names": list(self.values.names)} if self.values else None,
            "exception": "exception" in parts,
            "parts": parts,
            "away": list(self.away),
            "remote": self.remote,
            "deleted": list(self.deleted),
            "mutated": sorted(self.mutated),
            "payload": self.payload,
            "installed": self.installed,
            "execution_count": self.execution_count,
            "stats": {"seconds": time.monotonic() - self.begun},
        }
        if self.opened:
            content["opened"] = self.opened
        if isinstance(self.exception, MemoryError):
            content["reason"] = "out-of-memory"
        return Emit(run, "result", content, buffers=tuple(buffers))

    def _encoded_exception(self, namespace: Fields) -> Encoded | None:
        if self.exception is None:
            return None
        try:
            encoded = encode_exception(self.exception, namespace=namespace)
        except Exception:  # reducers of user classes run here; the error's text goes home all the same
            return None
        return None if encoded is None or kept.found_in(encoded) else encoded  # its text goes home, masked


def _add(parts: dict[str, list[int]], buffers: list[Buffer], name: str, encoded: Encoded | None) -> None:
    if encoded is not None:
        parts[name] = [len(buffers), 1 + len(encoded.buffers)]
        buffers.extend((encoded.stream, *encoded.buffers))


def describe(encoded: Encoded, namespace: Fields) -> Fields:
    """Return type, repr and reason of every variable that cannot travel."""
    return {
        name: {"type": type_of(namespace.get(name)), "repr": repr_of(namespace.get(name)), "reason": str(error)}
        for name, error in encoded.failures.items()
    }


def type_of(value: Any) -> str:
    """Return a type's name as users write it."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


def repr_of(value: Any) -> str:
    """Return a short repr, whatever the value's own one does."""
    try:
        text = repr(value)
    except Exception as error:  # a user's __repr__ may raise anything
        return f"<{type_of(value)}: repr raised {type(error).__name__}>"
    return text if len(text) <= _REPR else f"{text[: _REPR - 1]}…"


def text_of(error: BaseException) -> str:
    """Return an exception's text, whatever its own `__str__` does."""
    try:
        return str(error)
    except Exception as second:  # a user's __str__ may raise anything
        return f"<unprintable: {type(second).__name__}>"


def render(error: BaseException) -> list[str]:
    """Return a plain traceback without the guest's own frames; one line for what is ours and says what to do."""
    if isinstance(error, RemoraError):
        return error._render_traceback_()
    without_handler(error)
    frames = error.__traceback__
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__", "")).startswith("remora.guest."):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).splitlines()
