"""A program that becomes another one, for which, and for all that it starts, the kernel has no Landlock: as kernels before 5.13.

Law: runs by itself, as root (`python -I -S lacking.py PROGRAM WORDS`), standard library only. What it takes cannot be had back.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from errno import ENOSYS

_CREATE_RULESET = 444  # landlock_create_ruleset, on every architecture
_SET_SECCOMP, _FILTER = 22, 2
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
# Each step: what to do, how many steps to jump if so, if not, and with which value.
_STEPS = ((0x20, 0, 0, 0), (0x15, 0, 1, _CREATE_RULESET), (0x06, 0, 0, _ERROR | ENOSYS), (0x06, 0, 0, _ALLOW))


def main(words: list[str]) -> None:
    """Withhold Landlock, and become the program."""
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _STEPS))
    program = ctypes.create_string_buffer(struct.pack("HP", len(_STEPS), ctypes.addressof(steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
