"""Of the system calls of a build: who owns a file, and devices, are taken for done though there is but one user.

A build has one user, 0 inside, since more are not to be had without rights. Packages give files to other users and make devices;
here such calls succeed and do nothing, as an image knows no owners. Law: a filter, standard library only; it widens nothing.
"""

from __future__ import annotations

import os
import stat

from .syscalls import ALLOW, ARCHITECTURES, EQUAL, FAIL, FIRST_ARGUMENT, LOAD, NUMBER, RETURN, step

_AND = 0x54
_ARCHITECTURE = 4
_TAKEN = "chown fchown lchown fchownat setuid setgid setreuid setregid setgroups setresuid setresgid setfsuid setfsgid capset"
_NUMBERS = {
    "x86_64": "92 93 94 260 105 106 113 114 116 117 119 122 123 126",
    "aarch64": "-1 55 -1 54 146 144 145 143 159 147 149 151 152 91",
}
_MODES = {"x86_64": {133: 1, 259: 2}, "aarch64": {33: 2}}
"""mknod and mknodat, with the argument that is the mode."""
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
"""Over what belongs to the build itself, in its own user namespace; nothing of the machine's."""


def taken(machine: str) -> dict[str, int]:
    """Return the numbers of the calls that always succeed."""
    pairs = zip(_TAKEN.split(), map(int, _NUMBERS[machine].split()), strict=True)
    return {name: number for name, number in pairs if number >= 0}


def program(machine: str) -> bytes:
    """Return the filter as BPF instructions; an architecture that is not known gets one that allows everything."""
    if machine not in ARCHITECTURES:
        return step(RETURN, ALLOW)
    done, steps = step(RETURN, FAIL), [step(LOAD, _ARCHITECTURE), step(EQUAL, ARCHITECTURES[machine], 1, 0), step(RETURN, ALLOW)]
    steps.append(step(LOAD, NUMBER))
    for number in taken(machine).values():
        steps += [step(EQUAL, number, 0, 1), done]
    for number, argument in _MODES[machine].items():
        steps += [
            step(EQUAL, number, 0, 6),
            step(LOAD, FIRST_ARGUMENT + 8 * argument),
            step(_AND, 0o170000),
            step(EQUAL, stat.S_IFCHR, 1, 0),
            step(EQUAL, stat.S_IFBLK, 0, 1),
            done,
            step(RETURN, ALLOW),
        ]
    return b"".join([*steps, step(RETURN, ALLOW)])


def open_filter() -> int:
    """Return a descriptor from which the filter of this machine can be read."""
    filter_ = os.memfd_create("ownership", 0)
    os.write(filter_, program(os.uname().machine))
    os.lseek(filter_, 0, os.SEEK_SET)
    return filter_
