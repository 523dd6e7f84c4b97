"""seccomp: the system calls that no notebook needs and that widen what a process can reach.

Law: a deny list, since scientific code calls everything else; a denied call gets EPERM. Programs of another architecture (32 bit,
x32) are denied every call. clone3 hides its flags from the filter, so it gets ENOSYS and libraries fall back to clone.
Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from . import calls

_EVERYWHERE = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
_CALLS = (
    "mount umount2 pivot_root chroot ptrace bpf perf_event_open userfaultfd add_key request_key keyctl kexec_load "
    "kexec_file_load init_module finit_module delete_module unshare setns process_vm_readv process_vm_writev "
    "swapon swapoff reboot acct quotactl syslog open_by_handle_at kcmp clone"
)
_NUMBERS = {
    "x86_64": (
        "165 166 155 161 101 321 298 323 248 249 250 246 320 175 313 176 272 308 310 311 167 168 169 163 179 103 304 312 56"
    ),
    "aarch64": "40 39 41 51 117 280 241 282 217 218 219 104 294 105 273 106 97 268 270 271 224 225 142 89 60 116 265 272 220",
}
ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_CLONE3 = 435
_X32_BIT = 0x4000_0000
_NEW_NAMESPACES = 0x7E02_0000  # mount, cgroup, uts, ipc, user, pid, network
LOAD, EQUAL, _AT_LEAST, _ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL = 0x7FFF_0000, 0x0005_0000
NUMBER, _ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def is_known(machine: str) -> bool:
    """Say whether there is a filter for this architecture (`os.uname().machine`)."""
    return machine in ARCHITECTURES


def numbers(machine: str) -> dict[str, int]:
    """Return the numbers of the calls that the filter looks at."""
    return dict(zip(_CALLS.split(), map(int, _NUMBERS[machine].split()), strict=True)) | _EVERYWHERE


def step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """Return one BPF instruction; jumps count the instructions to be left out."""
    return struct.pack("=HBBI", code, then, otherwise, value)


def program(machine: str) -> bytes:
    """Return the filter as BPF instructions."""
    known = numbers(machine)
    clone = known.pop("clone")
    denied = step(RETURN, FAIL | errno.EPERM)
    steps = [
        step(LOAD, _ARCHITECTURE),
        step(EQUAL, ARCHITECTURES[machine], 1, 0),
        denied,
        step(LOAD, NUMBER),
        step(_AT_LEAST, _X32_BIT, 0, 1),
        denied,
        step(EQUAL, _CLONE3, 0, 1),
        step(RETURN, FAIL | errno.ENOSYS),
    ]
    for number in sorted(known.values()):
        steps += [step(EQUAL, number, 0, 1), denied]
    steps += [
        step(EQUAL, clone, 0, 3),
        step(LOAD, FIRST_ARGUMENT),
        step(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        denied,
        step(RETURN, ALLOW),
    ]
    return b"".join(steps)


def install() -> None:
    """Put the filter over the calling thread and all that it starts, for good; new privileges must be forbidden already."""
    code = program(os.uname().machine)
    whole = _Program(len(code) // 8, code)
    calls.prctl("prctl(SECCOMP)", _PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(whole))
