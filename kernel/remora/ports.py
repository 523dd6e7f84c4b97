"""Ports of a sandbox, opened here: asked of the backend by the notebook and by the command line."""

from __future__ import annotations

from typing import Any

from .wire import Ask, Fields


def ask(op: str, sandbox: str, port: str | None = None, **more: Any) -> Fields:
    """Have a port of a sandbox opened ("open") or closed, or those that are open listed; return the answer.

    Of "open": `sandbox`, `on`, `port`, the `address` and number `here` of what is open, whether something `listens` there yet.
    Raises OptionError for a number that is none, InputError for one that cannot be had.
    """
    from . import client as clients

    client = clients.client()
    return client.run(client.request(Ask("ports", op, {"sandbox": sandbox, "port": port} | more))).result


def sentence(found: Fields) -> str:
    """Return in words what was opened."""
    other = found["here"] is not None and found["here"] != found["port"]
    taken = f" (port {found['port']} is taken here)" if other else ""
    yet = "" if found["listens"] else "; nothing listens there yet, so connections are refused until something does"
    return f"{found['address']}{taken} leads to port {found['port']} of sandbox {found['sandbox']} on {found['on']}{yet}"
