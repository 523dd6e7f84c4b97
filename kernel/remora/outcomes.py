"""What came of a run, as its caller sees it: output shown where the caller is, a value, or the exception that was raised there.

Law: nothing here waits; IPython is used where it runs already and never imported.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from .errors import RemoraError, RemoteError, SendError, from_dict
from .sync.codec import decode_each
from .sync.raised import decode_exception
from .wire import Buffer, Fields, Record

_NOTE = "In the sandbox:"


def show(record: Record) -> None:
    """Show a record's output on this process's streams, or below the cell that executes."""
    if record.type == "notice":
        sys.stderr.write(f"Remora: {record.content['text']}\n")
    elif record.type == "output":
        message = record.content
        if message["msg_type"] == "stream":
            stream = sys.stderr if message["content"]["name"] == "stderr" else sys.stdout
            stream.write(message["content"]["text"])
            stream.flush()
        else:
            _display(message, record.buffers)


def shell() -> Any:
    """Return IPython's shell where this process has one, else None."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None


def _display(message: Fields, buffers: tuple[Buffer, ...]) -> None:
    where, content, metadata = shell(), message["content"], message.get("metadata") or {}
    front = getattr(getattr(where, "remora", None), "front", None)
    if front is not None:
        front.publish(message["msg_type"], content, metadata, buffers, front.parent())
    elif where is not None and "data" in content:
        update = message["msg_type"] == "update_display_data"
        where.display_pub.publish(content["data"], content.get("metadata"), transient=content.get("transient", {}), update=update)
    elif "text/plain" in content.get("data", {}):
        print(content["data"]["text/plain"])


def values(result: Record, namespace: Fields) -> Fields:
    """Return the variables that a result brings; SendError if one cannot be rebuilt here."""
    if not result.content.get("values"):
        return {}
    stream, *buffers = part(result, "values")
    decoded = decode_each(bytes(stream), buffers, namespace=namespace)
    for error in decoded.failures.values():
        raise error
    sys.stderr.writelines(f"Remora: {line}\n" for line in decoded.notes)
    return decoded.values


def failure(result: Record, namespace: Fields) -> BaseException | None:
    """Return what a failed call raises here: the user's own exception, with the traceback from there as a note, or its end."""
    error, ended = _raised(result, namespace), result.content.get("ended")
    if error is not None and not ended and (isinstance(error, RemoteError) or not isinstance(error, RemoraError)):
        _annotate(error, result.content["error"]["traceback"])
    return error


def cell_failure(result: Record, namespace: Fields) -> BaseException | None:
    """Return what a failed cell raises here: the user's own exception, shown as it was rendered there, or why it was ended."""
    error = _raised(result, namespace)
    if error is not None and not result.content.get("ended"):
        show_traceback(error, result.content["error"]["traceback"])
    return error


def _raised(result: Record, namespace: Fields) -> BaseException | None:
    if result.content.get("ended"):
        return from_dict(result.content["ended"])
    about = result.content.get("error")
    if not about:
        return None
    error = _exception(result, namespace)
    if error is None:
        kind = type(about["ename"], (RemoteError,), {"__module__": "remora"})
        error = kind(about["evalue"], ename=about["ename"], evalue=about["evalue"])
        show_traceback(error, about["traceback"])
    return error


def show_traceback(error: BaseException, lines: list[str]) -> None:
    """Have IPython show these lines as an exception's traceback; a type that takes no attributes gets its own."""
    with contextlib.suppress(TypeError):
        vars(error)["_render_traceback_"] = lambda: list(lines)  # the hook for a ready-made traceback


def _annotate(error: BaseException, lines: list[str]) -> None:
    """Add the traceback from there as a note, in place of one from a sandbox further away."""
    notes = [note for note in getattr(error, "__notes__", ()) if not str(note).startswith(_NOTE)]
    error.__notes__ = [*notes, "\n".join([_NOTE, *(f"  {line}" for line in lines)])]


def _exception(result: Record, namespace: Fields) -> BaseException | None:
    if not result.content.get("exception"):
        return None
    stream, *buffers = part(result, "exception")
    try:
        return decode_exception(bytes(stream), buffers, namespace=namespace)
    except SendError:
        return None


def part(result: Record, name: str) -> tuple[Buffer, ...]:
    """Return the buffers of one part of a result."""
    first, count = result.content["parts"][name]
    return result.buffers[first : first + count]
