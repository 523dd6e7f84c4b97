"""The contract that every jail passes.

Law: needs no test framework: pytest collects a subclass of `JailContract` as it is, and `python -m remora_provisioner.testing`
runs it where there is no pytest (as an ordinary user with the system's Python, say). Code for the inside is at the top.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from remora.errors import PlaceError

from .. import jails
from ..sandbox import Jail, Mount
from .visits import FAMILY, PATIENCE, SAY, Visit, hear, make_plan, start_opener

_REPORT = """
descriptors = sorted(map(int, os.listdir("/proc/self/fd")))
say([sys.argv[2:], dict(os.environ), os.getcwd(), sys.stdin.read(), descriptors])
"""

_PARENT = """
import subprocess
child = subprocess.Popen(["/bin/sh", "-c", "echo up; read forever"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
say(child.stdout.readline().decode())
child.wait()
"""

_HANDLER = """
import signal
say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""

_UNTIDY = """
import tempfile
for place in (os.path.expanduser("~"), tempfile.gettempdir()):
    os.chdir(place)
    for _ in range(200):
        os.mkdir("d" * 100)
        os.chdir("d" * 100)
    open("file", "w").close()
    os.chmod("file", 0)
    os.chmod(".", 0)
    os.makedirs(place + "/r/r")
    os.chmod(place + "/r", 0o500)
"""

_PRY = """
home = os.environ["HOME"]
seen = os.listdir(home)
open(home + "/mine", "w").close()
try:
    seen.append(open(sys.argv[2]).read())
except OSError:
    pass
say(seen)
"""

_WRITE = """
def attempt(path):
    try:
        open(path, "w").close()
    except OSError:
        return False
    return True
say([attempt(path) for path in sys.argv[2:]])
"""

_SHARE = """
import multiprocessing
from multiprocessing.shared_memory import SharedMemory
one = SharedMemory(create=True, size=1 << 24)
one.buf[-1] = 7
multiprocessing.Lock().acquire()
one.close()
one.unlink()
say("fine")
"""


class JailContract:
    """What every jail keeps. A subclass names the jail, and says what this kind does not hide."""

    jail_name: ClassVar[str]
    hides_files: ClassVar[bool] = True
    hides_processes: ClassVar[bool] = True

    def jail(self) -> Jail:
        """Return the jail to be tested."""
        return jails.named(self.jail_name)

    @contextlib.contextmanager
    def visit(self, place: Path, code: str, *arguments: str, **changes: Any) -> Iterator[Visit]:
        """Open a sandbox that runs the code, to which `say(value)` is known; close it afterwards."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                ours.settimeout(PATIENCE)
                number = theirs.fileno()
                plan = make_plan(place, SAY + code, str(number), *arguments, pass_fds=(number,), **changes)
                sandbox = self.jail().open(plan)
            try:
                yield Visit(plan, sandbox, ours)
            finally:
                sandbox.close()

    def test_works_here(self, tmp_path: Path) -> None:
        """The jail says that it works, and what it does not promise."""
        assert self.jail().obstacle() is None
        assert self.jail().limits and self.jail().name

    def test_starts_what_was_asked(self, tmp_path: Path) -> None:
        """Arguments, environment, folder and descriptors arrive; nothing of ours is inherited."""
        environment = {"PATH": "/usr/bin:/bin", "A": "b c\n=d", "EMPTY": ""}
        with self.visit(tmp_path, _REPORT, "one", "two words", environment=environment) as visit:
            arguments, seen, folder, read, descriptors = visit.hear()
            assert arguments == ["one", "two words"]
            assert environment.items() <= seen.items() and "LANG" not in seen and "PYTHONPATH" not in seen
            assert folder == str(tmp_path / "folder") and read == ""
            assert len(descriptors) == 5  # the three, the socket, and the one that lists them

    def test_exit_code(self, tmp_path: Path) -> None:
        """The exit code arrives, as often as one asks for it."""
        with self.visit(tmp_path, "sys.exit(7)") as visit:
            assert (visit.end(), visit.end()) == (7, 7)

    def test_signal(self, tmp_path: Path) -> None:
        """A command that a signal ended is told from one that left."""
        with self.visit(tmp_path, "os.kill(os.getpid(), 9)") as visit:
            assert visit.end() == -signal.SIGKILL

    def test_log(self, tmp_path: Path) -> None:
        """What it prints is appended to the log."""
        (tmp_path / "log").write_text("before\n")
        with self.visit(tmp_path, "print('out', flush=True); print('err', file=sys.stderr)") as visit:
            visit.end()
        assert (tmp_path / "log").read_text() == "before\nout\nerr\n"

    def test_kill_ends_all(self, tmp_path: Path) -> None:
        """No descendant outlives `kill`: the last one to hold the socket is gone."""
        with self.visit(tmp_path, FAMILY + "signal.pause()") as visit:
            assert visit.hear() == "all there"
            visit.sandbox.kill()
            assert visit.hear() is None
            ended = visit.end()
            assert ended == -signal.SIGKILL, ended

    def test_close_ends_all(self, tmp_path: Path) -> None:
        """No descendant outlives `close`, and closing twice does no harm."""
        with self.visit(tmp_path, FAMILY + "signal.pause()") as visit:
            assert visit.hear() == "all there"
            visit.sandbox.close()
            visit.sandbox.close()
            assert visit.hear() is None and visit.sandbox.processes() == []

    def test_daemons_end_with_the_command(self, tmp_path: Path) -> None:
        """What the command leaves behind ends with it."""
        with self.visit(tmp_path, FAMILY) as visit:
            assert visit.hear() == "all there"
            assert visit.end() == 0
            assert visit.hear() is None

    def test_killed_from_outside(self, tmp_path: Path) -> None:
        """When the process that stands for the sandbox is killed, that is seen, and `close` still leaves nobody."""
        with self.visit(tmp_path, FAMILY + "signal.pause()") as visit:
            assert visit.hear() == "all there"
            os.kill(visit.sandbox.pid, signal.SIGKILL)
            assert visit.end() == -signal.SIGKILL
            visit.sandbox.close()
            assert visit.hear() is None

    def test_dies_with_its_opener(self, tmp_path: Path) -> None:
        """When the opener is killed, everything inside dies."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(PATIENCE)
            opener = start_opener(self.jail_name, tmp_path, theirs.fileno())
            theirs.close()
            with opener:
                assert hear(ours) == "all there"
                opener.kill()
            assert hear(ours) is None

    def test_lists_processes(self, tmp_path: Path) -> None:
        """`processes` are those inside, by their pids outside, without the jail's own."""
        with self.visit(tmp_path, _PARENT) as visit:
            assert visit.hear() == "up\n"
            names = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] for pid in visit.sandbox.processes()]
            assert names == [sys.executable.encode(), b"/bin/sh"]

    def test_interrupt_is_heard(self, tmp_path: Path) -> None:
        """SIGINT reaches Python as KeyboardInterrupt even if the opener ignores it."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with self.visit(tmp_path, _HANDLER) as visit:
                assert visit.hear() is True
        finally:
            signal.signal(signal.SIGINT, before)

    def test_folder_is_shared(self, tmp_path: Path) -> None:
        """What is written in the folder is on the machine, owned as the folder is."""
        with self.visit(tmp_path, "open('new', 'w').write('text'); os.makedirs('a/b'); os.rename('new', 'a/b/new')") as visit:
            assert visit.end() == 0
        written = tmp_path / "folder/a/b/new"
        assert written.read_text() == "text" and written.stat().st_uid == (tmp_path / "folder").stat().st_uid

    def test_scratch_is_emptied(self, tmp_path: Path) -> None:
        """Nothing private is left, whatever modes and depth it has."""
        with self.visit(tmp_path, _UNTIDY) as visit:
            assert visit.end() == 0
        assert list((tmp_path / "scratch").iterdir()) == []

    def test_home_is_private(self, tmp_path: Path) -> None:
        """The home inside is empty and writable; the real one cannot be read."""
        (tmp_path / "home").mkdir()
        (tmp_path / "home/secret").write_text("secret")
        with self.visit(tmp_path, _PRY, str(tmp_path / "home/secret")) as visit:
            assert visit.hear() == ([] if self.hides_files else ["secret"])
        assert [entry.name for entry in (tmp_path / "home").iterdir()] == ["secret"]

    def test_read_only_means_it(self, tmp_path: Path) -> None:
        """What is mounted read-only cannot be written, nor can the environment that Python runs from."""
        if not self.hides_files:
            return
        (tmp_path / "folder").mkdir()
        places = (tmp_path / "folder", sys.prefix, sys.base_prefix, "/etc", "/")
        targets = [str(Path(place, "written-by-a-test")) for place in places]
        mounts = tuple(replace(mount, writable=False) for mount in make_plan(tmp_path, "").mounts)
        with self.visit(tmp_path, _WRITE, *targets, "/proc/sys/kernel/core_pattern", mounts=mounts) as visit:
            assert visit.hear() == [False] * 6

    def test_folder_without_a_mount(self, tmp_path: Path) -> None:
        """With no mount for the folder the command starts in an empty, writable one."""
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/private").write_text("")
        mounts = make_plan(tmp_path, "").mounts[:-1]
        with self.visit(tmp_path, "say(os.listdir('.')); open('x', 'w').close()", mounts=mounts) as visit:
            assert visit.hear() == []
            assert visit.end() == 0

    def test_sees_no_other_processes(self, tmp_path: Path) -> None:
        """Where the jail hides processes, /proc is the sandbox's own."""
        code = "say([os.getpid() < 10, os.path.exists(f'/proc/{sys.argv[2]}/stat')])"
        with self.visit(tmp_path, code, str(os.getpid())) as visit:
            small, theirs = visit.hear()
            assert (small, theirs) == (True, False) if self.hides_processes else theirs

    def test_shared_memory(self, tmp_path: Path) -> None:
        """POSIX shared memory and semaphores work, as a DataLoader with workers needs them."""
        with self.visit(tmp_path, _SHARE) as visit:
            assert visit.hear() == "fine"

    def test_what_is_missing_is_said(self, tmp_path: Path) -> None:
        """A plan that cannot be carried out is a PlaceError, and nothing is left of it."""
        gone = Mount(tmp_path / "gone", tmp_path / "gone")
        plan = make_plan(tmp_path, "")
        try:
            self.jail().open(replace(plan, mounts=(*plan.mounts, gone))).close()
        except PlaceError as problem:
            assert problem.reason == "sandbox" and "gone" in str(problem)
        else:
            raise AssertionError("a missing folder was passed over")
        assert list((tmp_path / "scratch").iterdir()) == []

    def test_leaves_nothing(self, tmp_path: Path) -> None:
        """Ten sandboxes later, descriptors, mounts and children are what they were."""
        before = _belongings(tmp_path)
        for _ in range(10):
            with self.visit(tmp_path, "") as visit:
                visit.end()
        assert _belongings(tmp_path) == before


def _belongings(place: Path) -> tuple[int, list[str], str]:
    descriptors = len(os.listdir("/proc/self/fd"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(place) in line]
    return descriptors, mounts, children


def run_contract(name: str, hides_files: bool, hides_processes: bool) -> int:
    """Run the contract without a test framework, printing what fails; return how many tests failed."""
    kind = type(name, (JailContract,), {"jail_name": name, "hides_files": hides_files, "hides_processes": hides_processes})
    failed = 0
    for test in sorted(each for each in dir(kind) if each.startswith("test_")):
        with tempfile.TemporaryDirectory() as place:
            try:
                getattr(kind(), test)(Path(place))
            except Exception:  # a test may fail in any way; the others are still run
                print(f"{name}: {test}\n{traceback.format_exc()}")
                failed += 1
    return failed
