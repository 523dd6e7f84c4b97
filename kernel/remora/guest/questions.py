"""Questions to the guest that are not runs: completion, inspection, names, values that are fetched later.

Law: one function for each `op`, found by name in the table at the end; it returns plain values and buffers, and never changes
what a cell sees, `forget` excepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import Refused
from ..sync.codec import encode
from ..sync.names import hidden
from ..wire import Buffer, Fields
from .extending import extend
from .outcome import describe, type_of

if TYPE_CHECKING:
    from .service import Guest

Reply = tuple[Fields, tuple[Buffer, ...]]


def complete(guest: Guest, args: Fields) -> Reply:
    """Return a complete_reply's content."""
    from IPython.core.completer import provisionalcompleter, rectify_completions

    code, cursor = args["code"], int(args.get("cursor_pos", len(args["code"])))
    with provisionalcompleter():
        found = list(rectify_completions(code, guest.shell.Completer.completions(code, cursor)))
    kinds = [{"start": c.start, "end": c.end, "text": c.text, "type": c.type, "signature": c.signature} for c in found]
    start, end = (found[0].start, found[0].end) if found else (cursor, cursor)
    metadata = {"_jupyter_types_experimental": kinds}
    return {
        "status": "ok",
        "matches": [c.text for c in found],
        "cursor_start": start,
        "cursor_end": end,
        "metadata": metadata,
    }, ()


def inspect(guest: Guest, args: Fields) -> Reply:
    """Return an inspect_reply's content."""
    from IPython.utils.tokenutil import token_at_cursor

    code = args["code"]
    name = token_at_cursor(code, int(args.get("cursor_pos", len(code))))
    try:
        data = guest.shell.object_inspect_mime(name, detail_level=int(args.get("detail_level", 0)))
    except KeyError:
        return {"status": "ok", "found": False, "data": {}, "metadata": {}}, ()
    if not guest.shell.enable_html_pager:
        data.pop("text/html", None)
    return {"status": "ok", "found": True, "data": data, "metadata": {}}, ()


def pull(guest: Guest, args: Fields) -> Reply:
    """Return variables by name; those that do not exist or cannot travel are in `remote` with the reason."""
    names = list(args["names"])
    there = {name: guest.namespace[name] for name in names if name in guest.namespace}
    encoded = encode(there, namespace=guest.namespace)
    missing = {
        name: {"type": "", "repr": "", "reason": f"there is no variable {name!r} in the sandbox"}
        for name in names
        if name not in there
    }
    result = {"values": {"names": list(encoded.names)}, "remote": {**describe(encoded, guest.namespace), **missing}}
    return result, (encoded.stream, *encoded.buffers) if encoded.names else ()


def names(guest: Guest, args: Fields) -> Reply:
    """Return the user's variables with what tells them apart at a glance."""
    return {name: _facts(value) for name, value in list(guest.namespace.items()) if not hidden(name)}, ()


def forget(guest: Guest, args: Fields) -> Reply:
    """Delete variables; those that do not exist are passed over."""
    for name in args["names"]:
        guest.namespace.pop(name, None)
        guest.ledger.held.pop(name, None)
    return {}, ()


def _facts(value: Any) -> Fields:
    facts: Fields = {"type": type_of(value)}
    try:
        shape, size = getattr(value, "shape", None), getattr(value, "nbytes", None)
        if isinstance(shape, tuple):
            facts["shape"] = [int(n) for n in shape]
        if isinstance(size, int):
            facts["size"] = size
        elif isinstance(value, (str, bytes, list, tuple, dict, set)):
            facts["size"] = len(value)
    except Exception:  # attributes of user classes may raise anything, and a listing must not
        return {"type": type_of(value)}
    return facts


OPS: dict[str, Callable[[Guest, Fields], Reply]] = {
    "complete": complete,
    "inspect": inspect,
    "pull": pull,
    "names": names,
    "forget": forget,
    "extend": extend,
}


def answer(guest: Guest, op: str, args: Fields) -> Reply:
    """Answer one question; raises Refused when nobody here knows it."""
    if op not in OPS:
        raise Refused(
            f"a sandbox of this version does not know the question {op!r}; use the same version of Remora on both sides"
        )
    return OPS[op](guest, args)
