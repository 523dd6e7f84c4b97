"""An exception as bytes and back, so that what is raised there can be caught here by its type.

Law: an attribute or argument that cannot travel is left out or becomes its text; only when not even the type can travel is
there nothing to send, and the caller falls back to name and text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from remora.errors import SendError
from remora.sync import receiving
from remora.sync.codec import Buffer, Encoded, decode, encode

NAME = "exception"
CHAIN = 20  # causes and contexts, one behind the other


def encode_exception(error: BaseException, *, namespace: dict[str, Any]) -> Encoded | None:
    """Return an exception as bytes with type, arguments, attributes, notes and chain; None if its type cannot travel."""
    encoded = encode({NAME: error}, namespace=namespace)
    if not encoded.failures:
        return encoded
    try:
        encoded = encode({NAME: _slim(error, namespace, CHAIN)}, namespace=namespace)
    except Exception:  # the class's own `__new__` runs here and may want other arguments
        return None
    return None if encoded.failures else encoded


def decode_exception(stream: bytes, buffers: Sequence[Buffer], *, namespace: dict[str, Any]) -> BaseException | None:
    """Return the exception, None if it cannot be rebuilt here."""
    try:
        error = decode(stream, buffers, namespace=namespace).get(NAME)
    except SendError:
        return None
    return error if isinstance(error, BaseException) else None


def _slim(error: BaseException, namespace: dict[str, Any], left: int) -> BaseException:
    """Return a copy without what cannot travel."""
    args = tuple(value if _travels(value, namespace) else repr(value) for value in error.args)
    copy = receiving.make_exception(type(error), args)
    vars(copy).update((name, value) for name, value in vars(error).items() if _travels(value, namespace))
    if left:
        copy.__cause__ = error.__cause__ and _slim(error.__cause__, namespace, left - 1)
        copy.__context__ = error.__context__ and _slim(error.__context__, namespace, left - 1)
        copy.__suppress_context__ = error.__suppress_context__
    return copy


def _travels(value: object, namespace: dict[str, Any]) -> bool:
    return not encode({NAME: value}, namespace=namespace).failures
