"""Remora: cells and functions of a notebook that run in sandboxes on bigger machines.

`import remora` is all that a user imports. It must stay cheap and safe on a bare Python, so every name is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .building import Image
    from .errors import OptionError, RemoraError, RemoteError, RunEnded, SendError, Unavailable
    from .functions import function
    from .jupyter.magics import load_ipython_extension, unload_ipython_extension
    from .runs import Run

_HOMES = {
    "RemoraError": "errors",
    "OptionError": "errors",
    "RemoteError": "errors",
    "RunEnded": "errors",
    "SendError": "errors",
    "Unavailable": "errors",
    "function": "functions",
    "Image": "building",
    "Run": "runs",
    "load_ipython_extension": "jupyter.magics",
    "unload_ipython_extension": "jupyter.magics",
}

__all__ = [
    "Image",
    "OptionError",
    "RemoraError",
    "RemoteError",
    "Run",
    "RunEnded",
    "SendError",
    "Unavailable",
    "function",
    "load_ipython_extension",
    "unload_ipython_extension",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'remora' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
