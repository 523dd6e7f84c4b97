"""What users put into displays and comm messages, as plain JSON values.

Law: the same conversions that Jupyter's own session makes: bytes as base64, dates as ISO text, numbers of other libraries as
plain ones. What is none of these is shown by its repr rather than lost.
"""

from __future__ import annotations

import numbers
from base64 import b64encode
from datetime import date
from typing import Any

_PLAIN = (str, int, float, bool, type(None))


def jsonable(value: Any) -> Any:
    """Return the value made of dictionaries with text keys, lists, text, numbers, booleans and None alone."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    return _atom(value)


def _atom(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(value).decode("ascii")
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, date):
        return value.isoformat()
    return repr(value)
