"""Hosts for tests: other machines that can be reached by SSH alone, made of namespaces, with a bare Debian and an empty home.

Law: a host changes nothing on this machine, and its processes see nothing of it: no files, processes, users or other networks.
It goes with the test process, even when that is killed. Root is needed. The code under test plays no part in this.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from provisioner.links import Keeper, Link

from provisioner import roots, servers

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEADLINE = 30.0  # seconds for a host to start
_SPACES = ("mount", "net", "uts", "ipc")
_LACKING = Path(__file__).with_name("lacking.py")
_FIRST_ID = 0x6F00_0000  # users of hosts: ids that nothing else here has, two for each link


@dataclass(eq=False)
class Host:
    """A host, there as long as the block of its `with`."""

    name: str = "box"
    user: str = "ada"
    port: int = 22
    shell: str = "/bin/bash"
    programs: Sequence[str] = ()
    """What is there beside the programs of a bare Debian: any of this machine that needs nothing but libraries."""
    without: Sequence[str] = ()
    """Which programs of a bare Debian are not there."""
    home: str = "size=4g"
    """How /home is mounted, in tmpfs's words: "size=20m", "noexec"."""
    tmp: str = "size=1g"
    """How /tmp is mounted."""
    namespaces: bool = True
    """Whether one can make a namespace of users. False puts all in a chroot, for which the kernel denies it."""
    landlock: bool = True
    """Whether the kernel has Landlock. False has a filter of system calls say that it has not."""
    behind: Host | None = None
    """The host through which alone this one is reached."""
    known: str = "right"
    """What known_hosts says of it: "right" key, "other" key, "nothing"."""
    passphrase: str = ""
    """That of the key that it takes."""
    noise: bool = False
    """Whether banner, motd and the shell's start files print NOISE."""
    garbage: bool = False
    """Whether something answers on the port that is no SSH server."""
    sshd: str = ""
    """More lines of its server's configuration."""

    folder: Path = field(init=False)
    """What this machine has of it: `config` for `ssh -F`, `key`, `known_hosts`."""
    link: Link = field(init=False)
    """The link to it."""
    started: float = field(init=False, default=0.0)
    """Seconds that it took to start."""
    _keeper: Keeper = field(init=False)
    _top: str = field(init=False, default="/")
    _process: int = field(init=False, default=0)
    _answering: subprocess.Popen[bytes] | None = field(init=False, default=None)

    def __enter__(self) -> Host:
        """Make it, and return when its server listens."""
        began = time.monotonic()
        self.folder = Path(tempfile.mkdtemp(prefix="host-"))
        self._keeper = Keeper(*_SPACES, through=() if self.landlock else [sys.executable, "-I", "-S", str(_LACKING)])
        try:
            self._make()
            self.start()
            if self.garbage:
                self._answer_garbage()
        except BaseException:
            self.close()
            raise
        self.started = time.monotonic() - began
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take it away."""
        self.close()

    @property
    def config(self) -> Path:
        """Return a configuration of OpenSSH's client that knows this host by its name, and nothing else."""
        return self.folder / "config"

    @property
    def known_hosts(self) -> Path:
        """Return the file that `config` names for the keys of hosts."""
        return self.folder / "known_hosts"

    @property
    def path(self) -> Path:
        """Return its file system, as seen from here; absolute links in it would lead into this machine's."""
        return Path(f"/proc/{self._process}/root" if self._process else f"/proc/{self._keeper.pid}/root{self._top}")

    @property
    def home_path(self) -> Path:
        """Return the home of its user, as seen from here."""
        return self.path / "home" / self.user

    @property
    def uid(self) -> int:
        """Return the id of its user, there and here."""
        return _FIRST_ID + 2 * self.link.number

    def ssh(self, *words: str, options: Sequence[str] = (), given: str = "") -> subprocess.CompletedProcess[str]:
        """Run words there by OpenSSH's client, with `given` as their input; never asks."""
        command = ["ssh", "-F", str(self.config), "-o", "BatchMode=yes", *options, self.name, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, input=given)

    def run(self, argv: Sequence[str], user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run a command there, without SSH: for the test's own eyes."""
        number = str({"root": 0, self.user: self.uid, servers.OTHER: self.uid + 1}[user])
        home = "/root" if user == "root" else f"/home/{user}"
        spaces = [f"--{space}" for space in (*_SPACES, "pid")]
        inside = ["nsenter", "--target", str(self._process), *spaces, "--root", "--setgid", number, "--setuid", number, "--"]
        clean = ["/usr/bin/env", "-i", "-C", home, f"PATH={PATH}", f"HOME={home}", f"USER={user}"]
        return subprocess.run([*inside, *clean, *argv], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def do(self, code: str) -> subprocess.CompletedProcess[str]:
        """Have bash do this as its user, in the user's home, without SSH."""
        return self.run(["bash", "-c", code], user=self.user)

    def processes(self) -> dict[int, str]:
        """Return what runs there besides SSH's server, in sandboxes too: ids as seen from here, and command lines."""
        found = {}
        waiting = [self._process]
        while waiting:
            pid = waiting.pop()
            place = Path(f"/proc/{pid}")
            try:
                waiting += _children(pid)
                program, words = Path(os.readlink(place / "exe")).name, (place / "cmdline").read_bytes()
            except OSError:  # gone meanwhile
                continue
            if not program.startswith("sshd"):
                found[pid] = words.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def start(self) -> None:
        """Switch it on; returns when its server listens."""
        with _listening(self.path / "etc/ssh/ready") as listening:
            boot = f"chroot {self._top} /bin/sh /etc/ssh/boot"
            self._keeper.tell(f"setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child=KILL {boot} >/dev/null 2>&1 &")
            parent = _children(self._keeper.pid)[-1]
            if not listening(parent):
                raise RuntimeError("the host does not start: " + (self.path / "var/log/sshd.log").read_text())
            self._process = _children(parent)[0]

    def stop(self) -> None:
        """Kill every process of it at once; its files stay. Connections end as those of killed processes do. Safe twice."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            self._keeper.tell("wait")
            self._process = 0

    def reboot(self, *, silently: bool = False) -> None:
        """Kill every process of it and switch it on again; /run, /dev/shm and its connections are forgotten, other files stay.

        With `silently` no word of this reaches the other ends of connections, as when a machine has lost its power.
        """
        mended = silently and not self.link.is_cut
        if silently:
            self.link.cut()
            self.link.reset()
        self.stop()
        self.start()
        if mended:
            self.link.mend()

    def remount(self, place: str, options: str) -> None:
        """Change how /home or /tmp is mounted: "ro", "rw", "noexec", "size=30m"."""
        done = self.run(["mount", "-o", f"remount,{options}", place])
        if done.returncode:
            raise RuntimeError(done.stderr)

    @contextlib.contextmanager
    def full(self, place: str) -> Iterator[None]:
        """Leave no byte free in /home or /tmp, which should not be large, until the block ends."""
        filler = self.path / place.strip("/") / ".filler"
        with filler.open("wb") as file:
            room = os.statvfs(file.fileno())
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)
        try:
            yield
        finally:
            filler.unlink()

    def close(self) -> None:
        """Take it away with all that is in it. Safe twice."""
        if self._answering:
            self._answering.kill()
            self._answering.communicate()
        self.stop()
        if hasattr(self, "link"):
            self.link.close()
        self._keeper.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self) -> None:
        top = self.folder / "top"
        top.mkdir()
        parts = " ".join(f"{top}/{part}" for part in ("lower", "upper", "work", "root"))
        self._keeper.tell(f"mount -t tmpfs -o mode=755 host {top}", f"mkdir {parts}", f"mount --bind / {top}/lower")
        self.link = Link(self._keeper, self.behind and self.behind._keeper)
        upper = Path(f"/proc/{self._keeper.pid}/root{top}/upper")
        roots.lay(upper, [*self.programs, Path(self.shell).name], self.without)
        servers.configure(self, upper / "etc")
        self._keeper.tell(*self._mounts(top))
        if self.noise:
            servers.make_noise(self.home_path)

    def _mounts(self, top: Path) -> Iterator[str]:
        yield f"mount -t overlay -o lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work host {top}/root"
        yield f"cd {top}/root"
        yield f"mount -t tmpfs -o mode=755,{self.home} home home && mount -t tmpfs -o mode=1777,{self.tmp} tmp tmp"
        yield "mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts dev/pts"
        yield "mount -t sysfs -o ro sysfs sys"
        yield "if [ -d /sys/fs/cgroup ]; then mount --rbind /sys/fs/cgroup sys/fs/cgroup; fi"
        for number, name in enumerate((self.user, servers.OTHER), self.uid):
            yield f"mkdir -m 700 home/{name} && chown {number}:{number} home/{name}"
        yield f"echo {self.name} >/proc/sys/kernel/hostname"
        if self.namespaces:
            yield "pivot_root . mnt && cd /"
        else:
            self._top = (
                f"{top}/root"  # a chroot inside this machine's root: the kernel lets nobody in there make a user namespace
            )

    def _answer_garbage(self) -> None:
        words = [
            "nsenter",
            "--target",
            str(self._keeper.pid),
            "--net",
            sys.executable,
            "-I",
            "-S",
            "-c",
            servers.GARBAGE,
            str(self.port),
        ]
        self._answering = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if self._answering.stdout is None or not self._answering.stdout.read(1):
            raise RuntimeError("nothing answers garbage")


@contextlib.contextmanager
def _listening(place: Path) -> Iterator[Callable[[int], bool]]:
    """Give what waits until somebody has written into this pipe, and says whether that was before the process given ended."""
    ready = os.open(place, os.O_RDONLY | os.O_NONBLOCK)

    def wait(pid: int) -> bool:
        process = os.pidfd_open(pid)
        try:
            return ready in select.select([ready, process], [], [], DEADLINE)[0]
        finally:
            os.close(process)

    try:
        yield wait
    finally:
        os.close(ready)


def _children(pid: int) -> list[int]:
    return [int(child) for tasks in Path(f"/proc/{pid}/task").iterdir() for child in (tasks / "children").read_text().split()]
