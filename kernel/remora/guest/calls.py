"""Running one function call: no shell, no names, the result goes home.

Law: this is the plain executor, which needs nothing but Python and `sync`; it works where IPython is missing or too old.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from ..errors import Refused
from ..sync.codec import encode
from ..wire import StartRun
from . import kept, values
from .outcome import Outcome, describe

if TYPE_CHECKING:
    from .service import Guest


async def run_call(guest: Guest, message: StartRun, outcome: Outcome) -> None:
    """Call a function that was sent with its arguments."""
    if message.body.get("displays"):
        _prepare_displays(guest)
    values.arrive(guest, message)
    function, args, kwargs = guest.namespace.pop(message.body.get("entry", "call"))
    try:
        result = await _call(guest, message, function, args, kwargs)
    except BaseException as error:  # SystemExit and KeyboardInterrupt too are how a call may end
        guest.interrupts.forbid()
        guest.end_fork()
        outcome.fail(error)
        return
    guest.end_fork()
    encoded = encode({"result": result}, namespace=guest.namespace)
    if encoded.failures:
        outcome.fail(encoded.failures["result"])
        outcome.remote = describe(encoded, {"result": result})
    elif name := kept.found_in(encoded):
        outcome.fail(kept.refusal(name))
    else:
        outcome.values = encoded


def _prepare_displays(guest: Guest) -> None:
    """Make the shell, so that what the function displays goes to the caller's notebook as more than text."""
    with contextlib.suppress(Refused):  # without IPython it goes as text
        _ = guest.shell


async def _call(guest: Guest, message: StartRun, function: Any, args: Any, kwargs: Any) -> Any:
    with guest.interrupts.allowed(message.run):
        result = function(*args, **kwargs)
    if inspect.iscoroutine(result):
        return await guest.interrupts.awaiting(message.run, result)
    return result
