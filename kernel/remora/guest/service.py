"""The guest's life: boot, take messages, run what they ask, one thing after the other.

Law: user code executes on the main thread, inside the one asyncio loop that runs for as long as the process. Runs and questions
wait in one queue. What must reach a busy guest (interrupts, answers to `input()`) is handled by the receiving thread itself.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import re
import sys
import threading
import traceback
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import InternalError, Refused, RemoraError
from ..frames import AHEAD
from ..sync.ledger import Ledger
from ..wire import Answer, AskGuest, CommMessage, Fields, InputReply, Interrupt, Message, Ready, ShellBytes, StartRun
from . import kept, origin, questions
from .calls import run_call
from .cells import run_cell
from .console import Console
from .freshness import Freshness
from .interrupts import Interrupts
from .link import Link
from .notebooks import run_notebook
from .opened import Opened
from .outbox import Outbox
from .outcome import Outcome
from .shells import Shells
from .stdin import Stdin

if TYPE_CHECKING:
    from .shell import ZMQInteractiveShell

FLOORS = {"IPython": (8, 20), "traitlets": (5, 13)}
"""What cells need at least; functions run without."""
FORMS: dict[str, Callable[[Guest, StartRun, Outcome], Awaitable[None]]] = {
    "cell": run_cell,
    "call": run_call,
    "notebook": run_notebook,
}


class Guest:
    """The parts of this process, and what it does with each message."""

    def __init__(self, link: Link, log: int) -> None:
        """Take over the process: its descriptors, streams, signals and `__main__`."""
        self.link = link
        self.module = types.ModuleType("__main__")
        self.namespace: Fields = vars(self.module)
        sys.modules["__main__"] = self.module
        self.outbox = Outbox(link.send, log)
        self.console = Console(self.outbox)
        self.interrupts = Interrupts()
        self.stdin = Stdin(self.outbox, self.console)
        self.shells = Shells(self.outbox.put)
        self.ledger = Ledger()
        self.freshness = Freshness()
        folder = os.environ.pop("REMORA_OPENED", "")
        self._opened = Opened(folder) if folder else None
        self.loop = asyncio.new_event_loop()
        self._shell: ZMQInteractiveShell | None = None
        self._extended = False
        self._process = os.getpid()
        self._queue: asyncio.Queue[StartRun | AskGuest] = asyncio.Queue()
        origin.teach_threads()
        os.register_at_fork(after_in_child=self._forked)

    # -- the shell, made when it is first needed

    @property
    def shell(self) -> ZMQInteractiveShell:
        """Return the shell; raises Refused where IPython is missing or too old."""
        if self._shell is None:
            with _users_folder_aside():
                _check_ipython()
                from . import comms
                from .kernel import Kernel
                from .shell import make_shell

                comms.install(self.outbox)
                self._shell = make_shell(self.outbox, self.module, Kernel(self.outbox, self.stdin))
        return self._shell

    def loop_runs(self, shell: ZMQInteractiveShell) -> bool:
        """Return whether cells that await are for asyncio's loop, which is the default (`%autoawait`)."""
        from IPython.core.async_helpers import _asyncio_runner

        return shell.loop_runner is _asyncio_runner

    def load_remora(self) -> None:
        """Let the code use `%%remote` here too, once."""
        if not self._extended:
            self._extended = True
            self.shell.extension_manager.load_extension("remora")

    # -- messages

    def take(self, message: Message) -> None:
        """Take a message, on the receiving thread."""
        if isinstance(message, Interrupt):
            self.interrupts.request(message.run)
        elif isinstance(message, InputReply):
            self.stdin.reply(message)
        elif isinstance(message, CommMessage):
            self.loop.call_soon_threadsafe(self._deliver, message)
        elif isinstance(message, ShellBytes):
            self.shells.take(message)
        elif isinstance(message, AskGuest) and message.op == "shell":
            self._open_shell(message)
        elif isinstance(message, (StartRun, AskGuest)):
            self.loop.call_soon_threadsafe(self._queue.put_nowait, message)

    def _open_shell(self, question: AskGuest) -> None:
        try:
            self.shells.open(question)
        except OSError as error:
            refused = Refused(f"no shell can be opened in the sandbox: {error}")
            self.outbox.put(Answer(question.ask, error=refused.to_dict()))

    async def serve(self) -> None:
        """Run and answer, in order, for ever."""
        while True:
            try:
                message = await self._queue.get()
                await self._run(message) if isinstance(message, StartRun) else self._answer(message)
            except BaseException as error:  # an alarm of the user's may raise at any moment, also when nothing runs
                self.show_stray(error)

    async def _run(self, message: StartRun) -> None:
        body, outcome = message.body, Outcome()
        request = origin.as_message(body.get("parent") or {})
        origin.begin(origin.Origin(message.run, request=request, allow_stdin=bool(body.get("allow_stdin"))))
        try:
            form = FORMS.get(message.form)
            if form is None:
                raise Refused(
                    f"a sandbox of this version does not run a {message.form!r}; use the same version of Remora on both sides"
                )
            await form(self, message, outcome)
        except BaseException as error:  # a run ends with a result, whatever user code did to our bookkeeping
            self.interrupts.forbid()
            self.end_fork()
            outcome.fail(error)
        if self._opened is not None:
            outcome.opened, self._opened = self._opened.take(), None
        while not self._end(message, outcome):
            pass

    def _end(self, message: StartRun, outcome: Outcome) -> bool:
        try:
            self.console.drain()
            self.outbox.put(outcome.emit(message.run, self.namespace))
        except BaseException as error:  # a handler of the user's signals raised in the middle; there is a result all the same
            outcome.fail(error)
            return False
        return True

    def show_stray(self, error: BaseException) -> None:
        """Show an exception that user code raised outside of any run, such as out of a signal handler or a background task.

        An interrupt that met a task beside the cell that awaits is meant for that cell.
        """
        if not (isinstance(error, KeyboardInterrupt) and self.interrupts.cut()):
            traceback.print_exception(type(error), error, error.__traceback__)

    def _answer(self, question: AskGuest) -> None:
        try:
            result, buffers = questions.answer(self, question.op, question.args)
            self.outbox.put(Answer(question.ask, result, buffers=buffers))
        except RemoraError as error:
            self.outbox.put(Answer(question.ask, error=error.to_dict()))
        except Exception as error:  # completers and reprs of user classes may raise anything
            failed = InternalError(f"{question.op} failed in the sandbox: {type(error).__name__}: {error}")
            self.outbox.put(Answer(question.ask, error=failed.to_dict()))

    def _deliver(self, message: CommMessage) -> None:
        from . import comms

        whose = comms.origin_of(message)
        if whose is None:
            return
        with origin.within(whose):
            try:
                with self.interrupts.allowed(whose.run, early=False):
                    comms.deliver(message)
            except KeyboardInterrupt:
                self.shell.showtraceback()

    # -- forked children

    def _forked(self) -> None:
        """Let a forked child be an ordinary process, which only shares where its output goes."""
        self.link.forget()
        self.outbox.forget()
        self.console.forget()
        self.interrupts.forget()

    def end_fork(self) -> None:
        """End a child that user code forked and then let run into the guest's own code."""
        if os.getpid() != self._process:
            os._exit(0)


@contextmanager
def _users_folder_aside() -> Iterator[None]:
    """Import as if there were no files beside the notebook: a `code.py` there is the user's, not Python's."""
    users = [entry for entry in sys.path if entry == ""]
    sys.path[:] = [entry for entry in sys.path if entry]
    try:
        yield
    finally:
        sys.path[:0] = users


def _check_ipython() -> None:
    """Raise Refused if what the user's image has in front is too old to run cells."""
    for name, floor in FLOORS.items():
        wanted = ".".join(map(str, floor))
        found = _version_of(name)
        if found is None or tuple(map(int, re.findall(r"\d+", found)[:2])) < floor:
            why = "is not there" if found is None else f"is {found}"
            advice = f'add pip="{name.lower()}>={wanted}"'
            raise Refused(f"cells need {name} {wanted} or newer in the sandbox, and it {why}; {advice}. Functions run without.")
    try:
        import_module("IPython.core.interactiveshell")
    except Exception as error:  # a package in front that is too old for the others may fail in any way
        text = f"IPython {_version_of('IPython')} cannot be imported in the sandbox: {type(error).__name__}: {error}"
        raise Refused(
            f"{text}; leave out of pip= what takes the place of a package that it needs. Functions run without."
        ) from error


def _version_of(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _facts() -> Fields:
    versions = {name: found for name in ("IPython", "dill") if (found := _version_of(name))}
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, "pid": os.getpid(), "versions": versions, AHEAD: True}


def main() -> None:
    """Serve until the supervisor goes away."""
    log = os.dup(2)
    faulthandler.enable(log)
    kept.take()
    guest = Guest(Link(int(os.environ.pop("REMORA_GUEST_FD")), log), log)
    sys.argv[:] = [""]
    sys.path.insert(0, "")
    asyncio.set_event_loop(guest.loop)
    guest.outbox.put(Ready(_facts()))
    serving = guest.loop.create_task(guest.serve())
    threading.Thread(target=guest.link.receive_forever, args=(guest.take,), name="remora-in", daemon=True).start()
    while not serving.done():
        try:
            guest.loop.run_forever()
        except BaseException as error:  # out of a background task or a signal handler of the user's; the rest goes on
            guest.show_stray(error)
