"""Random faults over runs on another machine: what is struck, and those that go on running cells meanwhile.

Law: chance is seeded, so that a failure can be had again as far as clocks allow. Whatever is made slow, cut or full is mended
before the runs are judged: by what a process of their user's saw, which is told of no fault (observer.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from journeys import parts
from journeys.driving import Notebook, Place
from journeys.elsewhere import ON
from jupyter_core.utils import ensure_event_loop
from provisioner.hosts import Host

PATIENCE = 150.0
"""Seconds in which a run is over, whatever was struck."""
_LINES, _FILLER, _TRIES = 40, ".filler", 5
_BREATH = 0.5
"""Seconds after which a person tries again what was refused."""
_CODE = """
import os, time
for i in range({lines}):
    print('run', {number}, 'line', i, flush=True)
    time.sleep({pause})
try:
    with open('.making-{number}', 'w') as file: file.write('{number}\\n' * 20_000)
    os.replace('.making-{number}', 'made-{number}.txt')
    made_{number} = True
except OSError:
    made_{number} = False
print('made', made_{number}, flush=True)
"""


_CLOCK = """
import os, time
right = time.time
def set_back():
    try:
        with open('{path}') as file: return right() - float(file.read() or 0)
    except OSError:
        return right()
time.time = set_back
"""


@dataclass
class Sent:
    """One run that was sent off."""

    number: int
    lines: int
    given: bool = False
    """Whether there was room for the file that it is given."""
    run: str = ""
    seen: dict[str, Any] = field(default_factory=dict)
    """What the observer saw in the end: `state`, `reason`, `text`."""
    refused: str = ""
    """Why it was not begun, as the cell said."""

    @property
    def wanted(self) -> str:
        """Return what it prints, but for its last line."""
        return "".join(f"run {self.number} line {i}\n" for i in range(self.lines))


class KernelGoneError(Exception):
    """The kernel was killed while a cell ran in it."""


class Observer:
    """A process that follows runs and says what it saw of each."""

    def __init__(self, place: Place, python: str, patience: float) -> None:
        """Start it; a run that nobody knows, or whose machine is out of reach, is asked for again for so many seconds."""
        words = [python, str(Path(__file__).with_name("observer.py")), str(patience)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=place.environment, text=True)
        self._seen: dict[str, queue.SimpleQueue[dict[str, Any]]] = {}
        self._reading = threading.Thread(target=self._read, name="observer")
        self._reading.start()

    def follow(self, run: str) -> dict[str, Any]:
        """Return what is seen of a run, when it is over."""
        self._seen[run] = queue.SimpleQueue()
        assert self._process.stdin is not None
        self._process.stdin.write(f"{run}\n")
        self._process.stdin.flush()
        try:
            return self._seen[run].get(timeout=PATIENCE)
        except queue.Empty:
            return {"state": "not over", "text": ""}

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            seen = json.loads(line)
            self._seen[seen["run"]].put(seen)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        self._reading.join()
        self._process.stdout.close()


class Seat:
    """A notebook whose cells are run there one after the other, in a kernel that is started anew when it was killed."""

    def __init__(self, number: int, place: Place, observer: Observer, chance: random.Random, folder: Path) -> None:
        """Run nothing yet."""
        self.number, self.folder = number, folder
        self.sent: list[Sent] = []
        self.trouble: list[str] = []
        self._place, self._observer, self._chance = place, observer, chance
        self._notebook: Notebook | None = None
        self._over, self.begun = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"seat-{number}")

    def start(self) -> None:
        """Begin to run cells."""
        self._thread.start()

    def stop(self) -> None:
        """Run no more cells, when the present one is over; all files are home then."""
        self._over.set()
        self._thread.join()

    def kill(self) -> bool:
        """Kill the kernel, if there is one."""
        notebook = self._notebook
        if notebook is not None:
            notebook.manager.provisioner.process.kill()
        return notebook is not None

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._one()
            for _ in range(_TRIES):  # brings home what has not come yet; the first may find a sandbox that is just ending
                if not (why := self._remote("pass")):
                    break
            else:
                self.trouble.append(f"after all faults: {why}")
        except Exception as error:  # whatever it is, the test is to hear of it
            self.trouble.append(repr(error))
        finally:
            self.begun.set()
            ensure_event_loop().close()  # which jupyter_client has made for this thread

    def _one(self) -> None:
        number = self.number * 1000 + len(self.sent)
        sent = Sent(number, lines=self._chance.randint(_LINES // 4, _LINES))
        self.sent.append(sent)
        sent.given = self._give(f"given-{number}.txt", f"{number}\n" * 5000)
        code = _CODE.format(lines=sent.lines, number=number, pause=round(self._chance.uniform(0.01, 0.1), 3))
        sent.refused = self._remote(code, "--detach", sent)
        self.begun.set()
        if sent.run:
            sent.seen = self._observer.follow(sent.run)
        else:
            self._over.wait(_BREATH)

    def _give(self, name: str, text: str) -> bool:
        """Write a file into the notebook's folder, whole; say whether there was room."""
        try:
            (self.folder / ".giving").write_text(text)
            (self.folder / ".giving").replace(self.folder / name)
        except OSError:
            return False
        return True

    def _remote(self, code: str, line: str = "", sent: Sent | None = None) -> str:
        """Run a cell there; return why it failed, or nothing. `sent` gets the id of the run."""
        try:
            notebook = self._kernel()
            return _cell(notebook, f"%%remote {ON} {line}\n{code}", sent)
        except KernelGoneError as error:
            return repr(error)

    def _kernel(self) -> Notebook:
        if self._notebook is None or not self._notebook.manager.is_alive():
            dead, self._notebook = self._notebook, None
            if dead is not None:
                self._place.end(dead)
            notebook = self._place.start("small", folder=self.folder)
            if why := _cell(notebook, "%load_ext remora"):
                raise RuntimeError(why)
            self._notebook = notebook
        return self._notebook


def _cell(notebook: Notebook, code: str, sent: Sent | None = None) -> str:
    """Run a cell, in a kernel that may be killed; return its error, or nothing."""
    request = notebook.send(code)
    replied = idle = False
    error, began = "", time.monotonic()
    while not (replied and idle):
        if not notebook.manager.is_alive():
            raise KernelGoneError
        if time.monotonic() - began > PATIENCE:
            return "NotOver: the cell has not come to its end"
        with contextlib.suppress(queue.Empty):
            replied = replied or notebook.client.get_shell_msg(timeout=0.02)["parent_header"].get("msg_id") == request
        with contextlib.suppress(queue.Empty):
            message = notebook.client.get_iopub_msg(timeout=0.02)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            idle = idle or content.get("execution_state") == "idle"
            error = f"{content['ename']}: {content['evalue']}" if message["msg_type"] == "error" else error
            if sent is not None and message["msg_type"] == "execute_result":
                sent.run = content["data"]["text/plain"].removeprefix("<run ").partition(":")[0]
    return error


class Clocks:
    """The clock that our processes here read as `time.time`, and that of those on the host; each can be set back for itself.

    Times of files, and clocks that only go forward, are the machine's own.
    """

    def __init__(self, host: Host, place: Place) -> None:
        """Have what starts here from now on look at a clock that can be set; `there` sees to what starts on the host."""
        self._host, self._here = host, place.root / "clock"
        folder = place.root / "clocks"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_CLOCK.format(path=self._here))
        place.environment["PYTHONPATH"] = str(folder)

    def there(self) -> None:
        """Have what starts on the host look at its clock, now that our code is there; what runs goes on with the old one."""
        for package in self._host.home_path.glob(".local/share/remora/agent/bundles/*/**/remora_provisioner"):
            (package.parent / "sitecustomize.py").write_text(_CLOCK.format(path="/tmp/clock"))
        parts.kill(parts.agents(self._host))

    def set_back(self, which: int) -> None:
        """Set one of the two back an hour, or right again."""
        clock = (self._here, self._host.path / "tmp/clock")[which]
        clock.unlink() if clock.exists() else clock.write_text("3600")


class Faults:
    """Strikes, one after the other."""

    def __init__(self, host: Host, place: Place, seats: list[Seat], chance: random.Random, clocks: Clocks) -> None:
        """Strike what there is."""
        self._host, self._place, self._seats, self._chance = host, place, seats, chance
        self._open = contextlib.ExitStack()
        self.struck: dict[str, int] = {}
        self.kinds: dict[str, Callable[[], object]] = {
            "kernel": lambda: self._chance.choice(self._seats).kill(),
            "backend": lambda: parts.kill(parts.backends(place)),
            "connection": lambda: parts.kill(parts.connections(place)),
            "agent": lambda: parts.kill(parts.agents(host)),
            "bridge": lambda: parts.kill(parts.there(host, "machines.bridge")),
            "supervisor": lambda: self._one_of("remora_provisioner.supervise"),
            "guest": lambda: self._one_of("remora/guest"),
            "link cut": self._cut,
            "link reset": self._reset,
            "link slow": self._slow,
            "disk full there": lambda: self._open.enter_context(full(lambda: host.path / "home")),
            "disk full here": lambda: self._open.enter_context(full(lambda: place.state.parent)),
            "reboot": lambda: host.reboot(silently=self._chance.random() < 0.5),
            "clock set back": lambda: clocks.set_back(self._chance.randrange(2)),
        }

    def strike(self, kinds: list[str]) -> None:
        """Let these happen, with pauses between, some of them while the one before is still there."""
        for kind in kinds:
            self.kinds[kind]()
            self.struck[kind] = self.struck.get(kind, 0) + 1
            time.sleep(self._chance.uniform(0, 1.5))
            if self._chance.random() < 0.7:
                self.mend()
        self.mend()

    def mend(self) -> None:
        """Have link and disks as they were."""
        self._open.close()

    def _one_of(self, word: str) -> bool:
        found = sorted(parts.there(self._host, word))
        return bool(found) and parts.kill([self._chance.choice(found)])

    def _cut(self) -> None:
        if not self._host.link.is_cut:
            self._host.link.cut()
            self._open.callback(self._host.link.mend)

    def _reset(self) -> None:
        with contextlib.suppress(RuntimeError):  # one that was just being made is left
            self._host.link.reset()

    def _slow(self) -> None:
        shape = {"delay_ms": self._chance.choice([50, 300]), "loss": self._chance.choice([0, 0.02]), "rate_mbit": 2}
        self._host.link.shape(**shape)
        self._open.callback(self._host.link.shape)


@contextlib.contextmanager
def full(folder: Callable[[], Path]) -> Iterator[None]:
    """Leave no byte free on the file system of a folder, which should be small, until the block ends.

    A folder on a host has another path when that was started anew.
    """
    with (folder() / _FILLER).open("wb") as file:
        taken = 0
        for _ in range(_TRIES):
            room = os.statvfs(file.fileno())
            with contextlib.suppress(OSError):  # somebody else was faster
                os.posix_fallocate(file.fileno(), taken, room.f_bavail * room.f_frsize)
            taken = os.fstat(file.fileno()).st_size
    try:
        yield
    finally:
        (folder() / _FILLER).unlink(missing_ok=True)  # it may have been filled twice
