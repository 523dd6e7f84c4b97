"""`!command`: run by the system's shell on a terminal of its own, as IPython does, its output passed on as it comes.

Law: an interrupt ends the command, whenever it comes. It meets the main thread alone, so the command is started on another one:
nothing can come between its start and its being known here.
"""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor

import pexpect

_SHELL = "/bin/sh"
_CHUNK = 1 << 16
_PATIENCE = 0.5  # seconds that a command may take to end after Ctrl-C


def system(command: str) -> int:
    """Run a command; return its exit code, or minus the signal that ended it."""
    children: list[pexpect.spawn[str]] = []
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="remora-command") as starting:
            starting.submit(lambda: children.append(_start(command))).result()
        _show(children[0], None)
    except KeyboardInterrupt:
        if not children:  # leaving the block above waits: what was to be started is known by now, or never started
            raise
        _stop(children[0])
    (child,) = children
    child.close()
    if child.exitstatus is None:
        return -int(child.signalstatus or 0)
    # a shell reports a signal that ended its command by adding 128 to its number
    return int(child.exitstatus) if child.exitstatus <= 128 else 128 - int(child.exitstatus)


def _start(command: str) -> pexpect.spawn[str]:
    child = pexpect.spawn(_SHELL, ["-c", command], encoding="utf-8", codec_errors="replace", timeout=None)
    # how long to wait before looking whether it has gone: by then it has
    child.delayafterclose = child.ptyproc.delayafterclose = 0.0
    return child


def _show(child: pexpect.spawn[str], patience: float | None) -> None:
    """Print what it prints until it ends, or is silent for longer than `patience` seconds."""
    with contextlib.suppress(pexpect.EOF, pexpect.TIMEOUT):
        while True:
            sys.stdout.write(child.read_nonblocking(_CHUNK, patience))
            sys.stdout.flush()
    if child.flag_eof:
        child.isalive()  # waits, and takes its exit code


def _stop(child: pexpect.spawn[str]) -> None:
    try:
        child.sendintr()
        _show(child, _PATIENCE)
    except KeyboardInterrupt:
        return  # whoever presses stop again has waited long enough
    finally:
        child.terminate(force=True)
