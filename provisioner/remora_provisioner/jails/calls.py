"""System calls that Python does not wrap, as plain functions.

Law: one function per call, no decisions; each raises OSError with the call's name. Safe between fork and exec: nothing here
imports, logs or takes a lock. Linux only, x86_64 and aarch64 (whose numbers from 424 on are the same).
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x4000, 0x4_0000
MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_IDMAP = 0x2, 0x4, 0x10_0000

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 36, 38, 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_CAPABILITY_VERSION_3 = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def raw(number: int, name: str, *arguments: object) -> int:
    """Make system call `number`; whole numbers are passed as longs."""
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *longs), name)


def prctl(name: str, option: int, *arguments: int) -> None:
    """Call prctl with up to four numbers."""
    four = (*arguments, 0, 0, 0, 0)[:4]
    _checked(_libc.prctl(option, *(ctypes.c_ulong(a) for a in four)), name)


def signal_on_parent_death(signal_number: int, parent: int) -> None:
    """Ask for a signal when the parent's thread ends; leave at once if `parent` is already gone."""
    prctl("prctl(PDEATHSIG)", _PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process."""
    prctl("prctl(CHILD_SUBREAPER)", _PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """Make set-user-id files and file capabilities powerless for this process and its children, for good."""
    prctl("prctl(NO_NEW_PRIVS)", _PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up every capability: bounding, ambient, permitted, effective and inheritable."""
    for capability in range(64):
        try:
            prctl("prctl(CAPBSET_DROP)", _PR_CAPBSET_DROP, capability)
        except OSError:  # past the last capability of this kernel, or not held at all
            break
    prctl("prctl(CAP_AMBIENT)", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    _checked(_libc.unshare(flags), "unshare")


def mount(kind: str, target: str, flags: int, options: str = "") -> None:
    """Mount a file system, or change how mounts at `target` propagate."""
    _checked(_libc.mount(b"none", target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def clone_tree(path: str) -> int:
    """Return a descriptor of a detached copy of the mounts at and below `path`."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    return raw(_OPEN_TREE, f"open_tree {path}", _AT_FDCWD, ctypes.c_char_p(os.fsencode(path)), flags)


def change_tree(tree: int, attributes: int, user_namespace: int = 0) -> None:
    """Set attributes on a detached tree, all mounts of it, and cut it off from events elsewhere."""
    wanted = _MountAttributes(attributes, 0, MS_PRIVATE, user_namespace)
    size = ctypes.sizeof(wanted)
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    raw(_MOUNT_SETATTR, "mount_setattr", tree, ctypes.c_char_p(b""), flags, ctypes.byref(wanted), ctypes.c_size_t(size))


def attach_tree(tree: int, target: str) -> None:
    """Mount a detached tree at `target`."""
    where = ctypes.c_char_p(os.fsencode(target))
    raw(_MOVE_MOUNT, f"move_mount {target}", tree, ctypes.c_char_p(b""), _AT_FDCWD, where, _MOVE_MOUNT_F_EMPTY_PATH)
