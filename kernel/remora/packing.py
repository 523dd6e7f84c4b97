"""A function, its arguments and all that it needs as one cargo: the global names that it uses travel with it, and what those use.

Law: nothing is sent here. What cannot travel is a SendError that names it, before anything has gone.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from . import giving, places
from .calls import Cargo
from .errors import SendError
from .options import CellOptions
from .outcomes import shell
from .resources import SandboxSpec
from .settings import UPLINK
from .sync.codec import Encoded, encode
from .sync.names import hidden
from .wire import Fields

_ENTRY = "call"
_PATHS = (
    (re.compile(r"call ?\[1\]\[(\d+)\]"), "argument {}"),
    (re.compile(r"call ?\[2\]\[(.*?)\]"), "argument {}"),
    (re.compile(r"call ?\[0\]"), "the code"),
)
"""Where things are in what is packed, in words; positional arguments count from 1."""


def namespace_of(function: Callable[..., Any]) -> Fields:
    """Return where a function's global names are looked up when it travels by value: the notebook's or script's own namespace."""
    scope: Fields | None = getattr(_plain(function), "__globals__", None)
    return scope if scope is not None and scope.get("__name__") == "__main__" else vars(sys.modules["__main__"])


def _plain(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)


class Packer:
    """Packs the calls of one function; what it learns of the function's needs makes the next call cheaper."""

    def __init__(self, function: Callable[..., Any], options: CellOptions, retries: int) -> None:
        """Take the function and how it is to run."""
        self.namespace = namespace_of(function)
        self._function, self._options, self._retries = function, options, retries
        self.name = getattr(function, "__qualname__", None) or type(function).__name__
        self._needs: frozenset[str] = frozenset()
        self._spec: tuple[SandboxSpec, Fields] | None = None

    def pack(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Cargo:
        """Return a call as it is to be sent; raises SendError naming what cannot travel."""
        entry, encoded = self._encode((self._function, args, dict(kwargs)))
        body: Fields = {"values": {"names": list(encoded.names)}, "entry": entry}
        if self._options.timeout is not None:
            body["timeout"] = self._options.timeout
        if shell() is not None:
            body["displays"] = True
        within = _present_run()
        if within is not None:
            body["within"] = within
        spec, secrets = self._place()
        return Cargo(self.name, spec, body, (encoded.stream, *encoded.buffers), self._retries, secrets)

    def _encode(self, call: tuple[Any, ...]) -> tuple[str, Encoded]:
        loose = places.loose_modules(self._options.files)
        while True:
            entry = _ENTRY if _ENTRY not in self._needs else "call "  # no global name has a space in it
            needed = {name: self.namespace[name] for name in sorted(self._needs) if name in self.namespace}
            encoded = encode({entry: call, **needed}, namespace=self.namespace, loose=loose)
            for name, error in encoded.failures.items():
                raise self._named(error) if name == entry else error
            more = {name for name in encoded.deps - needed.keys() if name in self.namespace and not hidden(name)}
            if not more:
                return entry, encoded
            self._needs = frozenset(needed.keys() | more)

    def _named(self, error: SendError) -> SendError:
        """Say of a path into what was packed which argument it means."""
        path, _, why = str(error).partition(": ")
        for shape, words in _PATHS:
            if found := shape.match(path):
                which = words.format(*(int(g) + 1 if g.isdigit() else g for g in found.groups()))
                text = f"{which}{path[found.end() :]} of {self.name}: {why}"
                return SendError(text, reason=error.reason, **error.facts)
        return error

    def _place(self) -> tuple[Fields, Fields]:
        """Return the spec of the call's sandbox, and the values of the secrets that it names."""
        spec = places.spec(self._options)
        if self._spec is None or self._spec[0] != spec:
            self._spec = spec, spec.to_dict()
        return self._spec[1], giving.for_spec(spec)


def _present_run() -> str | None:
    """Return the run that this code is part of, if it executes in a sandbox."""
    if not UPLINK.text:
        return None
    from .guest import origin

    present = origin.current()
    return present.run if present is not None else None
