"""Errors that come from another machine bear its name, so that whoever reads one knows where to look, and are one plain line.

Law: no error changes its kind or its reason, but that a machine which went away while it was asked is a matter of the place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from remora.errors import BackendError, PlaceError, RemoraError, Unavailable

from .ssh.reaching import shown

_MOST = 1000


@contextlib.contextmanager
def naming(machine: str) -> Iterator[None]:
    """Have what a machine says of itself bear its name. Raises Unavailable if it goes away."""
    try:
        yield
    except BackendError as error:
        text = f"{machine} was lost while something was asked of it ({error}); run it again"
        raise Unavailable(text, reason="machine-gone") from error
    except RemoraError as error:
        text = shown(error, _MOST)
        error.args = (f"{machine}: {text}" if isinstance(error, PlaceError) and machine not in text else text,)
        raise
