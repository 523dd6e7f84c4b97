"""Who descends from whom, read from /proc.

Law: reads only, and never fails because a process has ended meanwhile. Standard library only: the warden uses it too.
"""

from __future__ import annotations

import os
from collections import deque


def children(pid: int) -> list[int]:
    """Return the direct children of a process, of all its threads."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as listing:
                found.extend(map(int, listing.read().split()))
    except (FileNotFoundError, ProcessLookupError):
        return found if os.path.exists(f"/proc/{pid}/task/{pid}/children") else _children_by_scan(pid)
    return found


def _children_by_scan(parent: int) -> list[int]:
    """Do the same on a kernel without `children` files (and for a process that is gone: nothing)."""
    return [pid for pid in all_processes() if _parent(pid) == parent]


def all_processes() -> list[int]:
    """Return every pid that this process can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment(pid: int) -> list[bytes] | None:
    """Return what a process was started with, as NAME=value.

    None for one that has ended or belongs to somebody else; nothing for one without, and while it becomes another program.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as listing, open(f"/proc/{pid}/statm", "rb") as memory:
            return [one for one in listing.read().split(b"\0") if one] if memory.read(2) != b"0 " else None
    except OSError:
        return None


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def descendants(pid: int) -> list[int]:
    """Return everything below a process, parents before children, without the process itself."""
    found: list[int] = []
    waiting = deque([pid])
    while waiting:
        below = children(waiting.popleft())
        found.extend(below)
        waiting.extend(below)
    return found
