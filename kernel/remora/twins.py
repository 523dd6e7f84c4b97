"""Names that can be called in two ways: `f.remote(x)` blocks, `await f.remote.aio(x)` does not.

Law: nothing of Remora is known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
A = TypeVar("A", covariant=True)


class Twin(Generic[P, R, A]):
    """A blocking call with its async twin under `.aio`."""

    __slots__ = ("_blocking", "aio")

    def __init__(self, blocking: Callable[P, R], aio: Callable[P, A]) -> None:
        """Take both ways."""
        self._blocking, self.aio = blocking, aio

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call, and wait here."""
        __tracebackhide__ = True
        return self._blocking(*args, **kwargs)

    def __repr__(self) -> str:
        """Return what is called, and that there are two ways."""
        name = getattr(self._blocking, "__name__", "call").strip("_")
        return f"<{name}, and {name}.aio to be awaited>"
