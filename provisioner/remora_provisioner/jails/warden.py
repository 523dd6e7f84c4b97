"""A small process that stands outside of a weak jail: it starts the command, and ends whatever the command left behind.

Law: executed as a program of its own by warded.py; standard library only. It is the subreaper of everything the command starts,
so nothing can slip out of the tree below it by forking twice. SIGTERM ends all; it is also what the kernel sends when the
opener dies. The command's exit code is the warden's; 128 + number when a signal ended it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import types
from typing import Any

from . import calls, census, rules, syscalls


class _Ended(BaseException):
    """SIGTERM came."""


def main(orders: int) -> None:
    """Carry out the orders (JSON, in a descriptor) and leave with the command's exit code."""
    with open(orders, encoding="utf-8") as text:
        wanted = json.load(text)
    calls.become_subreaper()
    signal.signal(signal.SIGTERM, _raise_ended)
    code = 128 + signal.SIGKILL
    with contextlib.suppress(_Ended):
        code = _wait_for(_start(wanted))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end_all()
    os._exit(code)


def _raise_ended(number: int, frame: types.FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes from several sides, and once is enough
    raise _Ended


def _start(wanted: dict[str, Any]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            calls.signal_on_parent_death(signal.SIGKILL, parent)
            _become(wanted, parent)
        except BaseException as problem:  # whatever it is, it must reach the log and must not run the warden's code twice
            os.write(2, f"{wanted['argv'][0]}: {problem}\n".encode())
        os._exit(127)
    for descriptor in wanted["pass_fds"]:  # else the other end would not see the command end
        os.close(descriptor)
    _nothing_to_read()
    return child


def _become(wanted: dict[str, Any], parent: int) -> None:
    """Take on the restrictions, say that all is ready, and become the command."""
    for descriptor in wanted["pass_fds"]:
        os.set_inheritable(descriptor, True)
    os.setsid()
    os.chdir(wanted["folder"])
    if wanted["restricted"]:
        if os.geteuid() == 0:
            calls.drop_capabilities()
        calls.forbid_new_privileges()
        rules.restrict(wanted["readable"], wanted["writable"])
        syscalls.install()
    os.write(0, b"\n")
    _nothing_to_read()
    os.execvpe(wanted["argv"][0], wanted["argv"], wanted["environment"])


def _nothing_to_read() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _wait_for(command: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _end_all() -> None:
    """Kill until no child is left; each end that is waited for may have uncovered new ones."""
    while True:
        for pid in census.descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))
