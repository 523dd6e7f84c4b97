"""Whose output is it: the run, cell and front-end request behind the code that executes right now.

Law: a context variable says it; asyncio tasks inherit it by themselves, threads and executor jobs because they are taught to,
once, by `teach_threads`. Code without one (bare `_thread`, C callbacks, child processes) belongs to the latest run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from ..wire import Emit, Fields, RunId

_CURRENT: ContextVar[Origin] = ContextVar("remora_origin")
_latest: list[Origin] = []


@dataclass(frozen=True)
class Origin:
    """Who made the code run: a run, its cell when it is a notebook, and the front end's request as a message.

    `foreign`: the request is not the run's own one, so output says under which parent it is to be shown.
    """

    run: RunId
    cell: int | None = None
    request: Fields = field(default_factory=dict)
    allow_stdin: bool = False
    foreign: bool = False

    def under(self, request: Fields) -> Origin:
        """Return the same origin with its output shown under another request of the front end, given as message or header."""
        message = as_message(request)
        return self if message.get("header") == self.request.get("header") else replace(self, request=message, foreign=True)

    def output(self, msg_type: str, content: Fields, metadata: Fields | None = None, buffers: tuple[Any, ...] = ()) -> Emit:
        """Return a Jupyter message as output of this origin."""
        body: Fields = {"msg_type": msg_type, "content": content, "metadata": metadata or {}}
        if self.cell is not None:
            body["cell"] = self.cell
        if self.foreign:
            body["parent"] = self.request
        return Emit(self.run, "output", body, buffers=buffers)


def as_message(request: Fields) -> Fields:
    """Return a front end's request as a message with its `header`, given as such or as the header alone; {} without one."""
    return request if not request or "header" in request else {"header": request, "metadata": {}}


def current() -> Origin | None:
    """Return the origin of the calling code, else that of the latest run; None before the first one."""
    origin = _CURRENT.get(None)
    return origin if origin is not None else latest()


def latest() -> Origin | None:
    """Return the origin that began last."""
    return _latest[0] if _latest else None


def begin(origin: Origin) -> None:
    """Let everything that executes from here on in this context belong to `origin`."""
    _CURRENT.set(origin)
    _latest[:] = [origin]


@contextmanager
def within(origin: Origin) -> Iterator[None]:
    """Let the code inside belong to `origin`."""
    token = _CURRENT.set(origin)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def adopt(origin: Origin) -> Any:
    """Set the origin of the calling context alone; returns the token for `restore`."""
    return _CURRENT.set(origin)


def restore(token: Any) -> None:
    """Undo `adopt`."""
    _CURRENT.reset(token)


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function such that it belongs to the origin of whoever asks now, wherever it is called."""
    origin = _CURRENT.get(None)
    if origin is None:
        return function

    def run(*args: Any, **kwargs: Any) -> Any:
        with within(origin):
            return function(*args, **kwargs)

    return run


def teach_threads() -> None:
    """Make threads inherit the origin of the code that starts them, and executor jobs of the code that submits them."""
    from concurrent.futures import ThreadPoolExecutor

    thread: Any = threading.Thread
    start, bootstrap, submit = thread.start, thread._bootstrap_inner, ThreadPoolExecutor.submit

    def start_noting(self: Any) -> None:
        self._remora_origin = _CURRENT.get(None)
        start(self)

    def bootstrap_within(self: Any) -> None:
        origin = getattr(self, "_remora_origin", None)
        if origin is not None:
            _CURRENT.set(origin)
        bootstrap(self)

    def submit_bound(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, bound(fn), *args, **kwargs)

    # wrapping run() instead would make every thread part of a reference cycle, and would be seen by users
    thread.start, thread._bootstrap_inner = start_noting, bootstrap_within
    pool: Any = ThreadPoolExecutor
    pool.submit = submit_bound
