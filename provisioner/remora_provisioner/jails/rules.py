"""Landlock: which files the calling thread, and all that it starts, may open and how.

Law: asks the kernel for its ABI and handles every file right that this ABI knows, so that nothing is allowed by not being
named. Landlock says nothing of chmod, chown, times, or of asking for a file's existence and size. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterable

from . import calls

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE, _IOCTL_DEV = 1, 2, 4, 8, 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FIRST_ABI = (1 << 13) - 1  # execute up to make_sym
_SCOPE_SOCKETS_AND_SIGNALS = 3  # abstract Unix sockets and signals to outside, from ABI 6 on


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def abi() -> int:
    """Return the version of Landlock here, 0 where there is none."""
    try:
        return calls.raw(_CREATE_RULESET, "landlock_create_ruleset", None, 0, _ASK_VERSION)
    except OSError as problem:
        if problem.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


def handled(version: int) -> int:
    """Return the file rights that an ABI knows."""
    late = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
    return _FIRST_ABI | sum(right for since, right in late.items() if version >= since)


def restrict(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Allow reading and executing below `readable`, everything below `writable`, nothing else, for good."""
    version = abi()
    rights = handled(version)
    wanted = _Ruleset(rights, 0, _SCOPE_SOCKETS_AND_SIGNALS if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = calls.raw(_CREATE_RULESET, "landlock_create_ruleset", ctypes.byref(wanted), size, 0)
    try:
        for path in readable:
            _allow(ruleset, path, rights & _READ)
        for path in writable:
            _allow(ruleset, path, rights)
        calls.raw(_RESTRICT_SELF, "landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not on this machine, or not for us to see: then there is nothing to allow
        return
    try:
        is_folder = stat.S_ISDIR(os.fstat(place).st_mode)
        rule = _PathBeneath(rights if is_folder else rights & _OF_FILES, place)
        calls.raw(_ADD_RULE, f"landlock_add_rule {path}", ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(place)
