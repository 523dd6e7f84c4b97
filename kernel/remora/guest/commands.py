"""`!command`: run by the system's shell on a terminal of its own, as IPython does, its output passed on as it comes.

Law: an interrupt ends the command, whenever it comes. It meets the main thread alone, so the command is started on another one:
nothing can come between its start and its being known here.
"""

from __future__ import annotations

import contextlib
import sys
import threading

import pexpect

_SHELL = "/bin/sh"
_CHUNK = 1 << 16
_PATIENCE = 0.5  # seconds that a command may take to end after Ctrl-C


def system(command: str) -> int:
    """Run a command; return its exit code, or minus the signal that ended it."""
    starting = _Starting(command)
    try:
        child = starting.wait()
        _show(child, None)
    except KeyboardInterrupt:
        started = starting.give_up()
        if started is None:
            raise
        _stop(child := started)
    child.close()
    if child.exitstatus is None:
        return -int(child.signalstatus or 0)
    # a shell reports a signal that ended its command by adding 128 to its number
    return int(child.exitstatus) if child.exitstatus <= 128 else 128 - int(child.exitstatus)


class _Starting:
    """A command that is being started by a thread; whoever gives it up first decides what becomes of it."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._lock, self._ready = threading.Lock(), threading.Event()
        self._child: pexpect.spawn[str] | None = None
        self._failure: BaseException | None = None
        self._given_up = False

    def wait(self) -> pexpect.spawn[str]:
        """Start it and return it, once it is there."""
        threading.Thread(target=self._start, name="remora-command", daemon=True).start()
        self._ready.wait()
        if self._child is None:
            raise self._failure or OSError("the command could not be started")
        return self._child

    def give_up(self) -> pexpect.spawn[str] | None:
        """Return it if it is there; if it is still to come, it is ended when it does."""
        with self._lock:
            self._given_up = True
            return self._child

    def _start(self) -> None:
        try:
            child = pexpect.spawn(_SHELL, ["-c", self._command], encoding="utf-8", codec_errors="replace", timeout=None)
        except Exception as failure:  # whatever it is, it is the caller's
            self._failure = failure
        else:
            # how long to wait before looking whether it has gone: by then it has
            child.delayafterclose = child.ptyproc.delayafterclose = 0.0
            with self._lock:
                self._child = child
            if self._given_up:
                child.terminate(force=True)
        self._ready.set()


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
