"""`@remora.function(…)`: a function that runs here when it is called, and in a sandbox when it is asked to.

Law: the decorated function is a plain value: nothing is started, sent or connected before `.remote`, `.map` or `.spawn`,
and it travels into sandboxes like any other function.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, overload

from .calls import Call
from .client import client
from .errors import OptionError
from .images import Image
from .mapping import Fan, results, results_aio, zipped
from .options import CellOptions, build
from .packing import Packer
from .runs import Run
from .twins import Twin

P = ParamSpec("P")
R = TypeVar("R")
_OF_THE_IMAGE = ("image", "pip", "apt", "requirements", "python")
_OPTIONS = ("gpu", "cpu", "memory", "timeout", "idle", "files", "jail", "env", "secret", "on", *_OF_THE_IMAGE)
_MOST_RETRIES = 10


class FunctionOptions(TypedDict, total=False):
    """What `@remora.function` takes; `remora.options` says what each means."""

    gpu: str | list[str] | None
    cpu: float | str | None
    memory: str | None
    timeout: float | str | None
    """For each attempt."""
    idle: float | str | None
    files: str | None
    jail: str | None
    env: Mapping[str, str] | None
    secret: str | list[str] | None
    on: str | None
    image: Image | str | None
    pip: str | list[str] | None
    apt: str | list[str] | None
    requirements: str | list[str] | None
    python: str | None
    retries: int | None
    """Attempts after the first one that ended with an exception or a crash."""


class Function(Generic[P, R]):
    """A function that can run elsewhere."""

    def __init__(self, raw: Callable[P, R], options: CellOptions, retries: int = 0) -> None:
        """Take the plain function and how it is to run."""
        self._raw, self._options, self._retries = raw, options, retries
        self._packer: Packer | None = None
        functools.update_wrapper(self, raw)

    def __repr__(self) -> str:
        """Return the function's name and options."""
        options = f" ({self._options})" if self._options.given else ""
        return f"<remora.function {getattr(self, '__qualname__', self._raw)!s}{options}>"

    def __getstate__(self) -> tuple[Any, ...]:
        """Return what travels: the plain function, and how it is to run."""
        return self._raw, self._options, self._retries

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Become the function again on the other side."""
        self._raw, self._options, self._retries = state
        self._packer = None
        functools.update_wrapper(self, self._raw, updated=())

    # -- here

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here."""
        __tracebackhide__ = True
        return self._raw(*args, **kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here."""
        __tracebackhide__ = True
        return self._raw(*args, **kwargs)

    # -- there

    @property
    def remote(self) -> Twin[P, R, Awaitable[R]]:
        """`f.remote(…)`: call it in a sandbox, wait, and return what it returns or raise what it raises."""
        return Twin(self._remote, self._remote_aio)

    def _remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True
        value: R = self._call(args, kwargs).get()
        return value

    async def _remote_aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True
        run = self._call(args, kwargs)
        try:
            value: R = await run.get.aio()
        except asyncio.CancelledError:
            run.cancel()
            raise
        return value

    @property
    def spawn(self) -> Twin[P, Run, Awaitable[Run]]:
        """`f.spawn(…)`: queue a call and return its Run at once; it goes on whatever becomes of this process."""
        return Twin(self._spawn, self._spawn_aio)

    def _spawn(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        __tracebackhide__ = True
        call = Call(self._pack().pack(args, kwargs))
        client().run(call.submit())
        run = Run(call, self._pack().name, self._pack().namespace)
        if self._retries:
            run.follow()  # who started a run tries it again
        return run

    async def _spawn_aio(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        return self._spawn(*args, **kwargs)

    @property
    def map(self) -> Twin[..., Iterator[Any], AsyncIterator[Any]]:
        """`f.map(*iterables, kwargs=None, order_outputs=True, return_exceptions=False)`: one call for each input, lazily."""
        return Twin(self._map, self._map_aio)

    def _map(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        _check_inputs(iterables)
        return results(Fan(self._pack(), kwargs, order_outputs, return_exceptions), zip(*iterables, strict=False))

    def _map_aio(
        self,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Any]:
        _check_inputs(iterables)
        return results_aio(Fan(self._pack(), kwargs, order_outputs, return_exceptions), zipped(iterables))

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Run:
        packer = self._pack()
        return Run(Call(packer.pack(args, kwargs)), packer.name, packer.namespace)

    def _pack(self) -> Packer:
        if self._packer is None:
            self._packer = Packer(self._raw, self._options, self._retries)
        return self._packer


def _check_inputs(iterables: tuple[Any, ...]) -> None:
    if not iterables:
        raise TypeError("map() needs an iterable for each of the function's arguments, such as f.map(xs)")


@overload
def function(raw: Callable[P, R], /) -> Function[P, R]: ...
@overload
def function(**options: Unpack[FunctionOptions]) -> Callable[[Callable[P, R]], Function[P, R]]: ...
def function(raw: Any = None, /, **options: Any) -> Any:
    """Make a function that can run in a sandbox: `@remora.function` or `@remora.function(gpu="A100", cpu=4, memory="16GiB", …)`.

    Raises OptionError for an option that is unknown or malformed.
    """
    retries = _retries(options.pop("retries", None))
    chosen = build(options)
    for name in sorted(chosen.given - set(_OPTIONS)):
        raise OptionError(f"{name}= is for cells; a function takes {', '.join(_OPTIONS)} and retries")
    if raw is None:
        return lambda plain: _made(plain, chosen, retries)
    return _made(raw, chosen, retries)


def _made(raw: Any, options: CellOptions, retries: int) -> Function[Any, Any]:
    if isinstance(raw, Function):
        raise OptionError(f"{raw!r} is a remora.function already; decorate it once, with all its options")
    if not callable(raw):
        raise OptionError(f"remora.function decorates functions, not {type(raw).__name__}; write options by name: cpu=4")
    return Function(raw, options, retries)


def _retries(value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_RETRIES:
        raise OptionError(f"retries={value!r} is no number of attempts; write it like retries=3, at most {_MOST_RETRIES}")
    return value
