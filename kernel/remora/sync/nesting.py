"""Deeply nested values: done again in a thread with a large stack, so that the C stack of the caller never overflows.

Law: only after a RecursionError; the raised limit holds no longer than the work. Python versions whose limit for C code cannot be
raised end in RecursionError, never in a crash.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

STACK = 512 * 1024 * 1024  # bytes of address space, touched only as deep as the nesting goes
LIMIT = 60_000  # levels


def with_large_stack(work: Callable[[], Any]) -> Any:
    """Return what the work returns, or raise what it raises, after doing it in a thread with a large stack."""
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, work()))
        except BaseException as error:
            outcome.append((False, error))

    limit, size = sys.getrecursionlimit(), threading.stack_size(STACK)
    try:
        sys.setrecursionlimit(max(limit, LIMIT))
        thread = threading.Thread(target=run, name="remora-deep")
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(size)
    done, result = outcome[0]
    if done:
        return result
    raise result
