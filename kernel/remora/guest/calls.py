"""Running one function call: no shell, no names, the result goes home.

Law: this is the plain executor, which needs nothing but Python and `sync`; it works where IPython is missing or too old.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..sync.codec import encode
from ..wire import StartRun
from . import values
from .outcome import Outcome, describe

if TYPE_CHECKING:
    from .service import Guest


async def run_call(guest: Guest, message: StartRun, outcome: Outcome) -> None:
    """Call a function that was sent with its arguments."""
    values.arrive(guest, message)
    function, args, kwargs = guest.namespace.pop("call")
    try:
        result = await _call(guest, message, function, args, kwargs)
    except BaseException as error:  # SystemExit and KeyboardInterrupt too are how a call may end
        guest.end_fork()
        outcome.fail(error)
        return
    guest.end_fork()
    encoded = encode({"result": result}, namespace=guest.namespace)
    if encoded.failures:
        outcome.fail(encoded.failures["result"])
        outcome.remote = describe(encoded, {"result": result})
    else:
        outcome.values = encoded


async def _call(guest: Guest, message: StartRun, function: Any, args: Any, kwargs: Any) -> Any:
    with guest.interrupts.allowed(message.run):
        result = function(*args, **kwargs)
    if inspect.iscoroutine(result):
        return await guest.interrupts.awaiting(message.run, result)
    return result
