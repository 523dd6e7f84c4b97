"""Hosts that are hostile or broken, met by a cell: each is one line that names the host and says what to do, and nothing is lost.

One host listens on a port for each way to be difficult, and the user's configuration has a name for each; another one is bare and
cramped. After each refusal the next cell works.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from journeys import parts
from journeys.commands import Commands
from journeys.driving import Message, Notebook, Place, Ran
from journeys.elsewhere import knowing
from provisioner.hosts import Host
from provisioner.servers import OTHER

from provisioner import needs

pytestmark = needs.hosts
_WAYS = ("gitonly", "nosession", "dropper", "one")
_SSHD = """\
Port 22
Port 2201
Port 2202
Port 2203
Port 2204
Match LocalPort 2201
  ForceCommand echo only git is served here
Match LocalPort 2202
  MaxSessions 0
Match LocalPort 2203
  ForceCommand kill -9 $PPID
Match LocalPort 2204
  MaxSessions 1
"""
_VERY_MANY = 100_000
_REASON = re.compile(r"\[([a-z-]+)\]")


@dataclass
class World:
    """The hosts, and what the user's configuration calls them."""

    box: Host
    bare: Host
    old: Host
    place: Place
    silent: int = 0
    """The port of a server that says nothing."""

    @property
    def home(self) -> Path:
        """Return the user's home."""
        return Path(self.place.environment["HOME"])

    def call(self, name: str, host: Host, **options: object) -> None:
        """Give a host another name, with other options."""
        lines = [line.split(None, 1) for line in host.config.read_text().splitlines()[1:]]
        known = dict(lines) | {key: str(value) for key, value in options.items()}
        text = "".join(f"  {key} {value}\n" for key, value in known.items())
        with (self.home / ".ssh/config").open("a") as config:
            config.write(f"\nHost {name}\n{text}")


@pytest.fixture(scope="module")
def world(small_environment: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give a file's tests all hosts, and one place whose user knows them."""
    hosts = [
        Host(name="box", noise=True, sshd=_SSHD, home="size=100m"),
        Host(name="bare", home="size=2g,noexec", tmp="size=1m", without=["tar", "gzip", "sha256sum"]),
        Host(name="old", namespaces=False, home="size=1g"),
    ]
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor() as threads:
            for host in threads.map(Host.__enter__, hosts):
                stack.callback(host.close)
        place = stack.enter_context(knowing(hosts[0], small_environment))
        world = World(*hosts, place=place)
        _name_all(world, tmp_path_factory.mktemp("keys"))
        stack.enter_context(_servers(world))
        yield world
        Commands(place).run("stop", "--all")
        parts.kill(pid for host in hosts for pid in host.processes())  # an agent stays while it is known by another name


def _name_all(world: World, keys: Path) -> None:
    box = world.box
    public = box.known_hosts.read_text().split(None, 1)[1]
    ports = keys / "known_ports"
    ports.write_text("".join(f"[{box.link.far}]:{2201 + number} {public}" for number in range(len(_WAYS))))
    for number, name in enumerate(_WAYS, 2201):
        world.call(name, box, Port=number, UserKnownHostsFile=ports)
    _key(keys / "other")
    (keys / "changed").write_text(f"{box.link.far} {(keys / 'other.pub').read_text()}")
    shutil.copy(box.folder / "key", keys / "locked")
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", keys / "locked"], check=True, stdout=-3)
    world.call("bare", world.bare)
    world.call("old", world.old)
    world.call("changed", box, UserKnownHostsFile=keys / "changed")
    world.call("stranger", box, IdentityFile=keys / "other")
    world.call("locked", box, IdentityFile=keys / "locked")
    world.call("nologin", box, User=OTHER)
    world.call("nowhere", box, HostName="gpu.nowhere.invalid")
    world.call("closed", box, Port=2299)
    users = box.path / "etc/passwd"
    users.write_text(users.read_text().replace(f"/home/{OTHER}:/bin/bash", f"/home/{OTHER}:/usr/sbin/nologin"))


def _key(place: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place], check=True)


@contextlib.contextmanager
def _servers(world: World) -> Iterator[None]:
    """Serve, on this machine, what is no SSH server: noise, and silence."""
    noisy, silent = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                with noisy.accept()[0] as connection:
                    connection.sendall(b"\x00\xffgarbage\x1b[2J\n" * 100)

    thread = threading.Thread(target=answer)
    thread.start()
    world.silent = silent.getsockname()[1]
    known = world.box.folder / "known_silent"
    known.write_text(f"[127.0.0.1]:{world.silent} {world.box.known_hosts.read_text().split(None, 1)[1]}")
    world.call("garbage", world.box, HostName="127.0.0.1", Port=noisy.getsockname()[1])
    world.call("silent", world.box, HostName="127.0.0.1", Port=world.silent, ConnectTimeout=1, UserKnownHostsFile=known)
    try:
        yield
    finally:
        for server in (noisy, silent):
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        thread.join()


@pytest.fixture(scope="module")
def place(world: World) -> Place:
    """Give a file's tests a place."""
    return world.place


@dataclass
class Visits:
    """First cells on hosts that work in the end, in their order: they leave connections, which no single test may."""

    full: Ran
    box: Ran
    stopped: Ran
    bare: Ran
    checked: str
    one: Ran
    wrong: Ran
    unanswered: Ran
    locked: Ran
    old: Ran
    beside: Ran
    after: Ran
    lost: list[Ran]


@pytest.fixture(scope="module")
def visits(place: Place, world: World) -> tuple[Notebook, Visits]:
    """Give a file's tests one kernel, and what it has seen so far."""
    notebook = place.start("small")
    assert notebook.run("%load_ext remora").ok
    full = _on(notebook, "box")
    world.box.remount("/home", "size=2g")
    box = _on(notebook, "box")
    with world.bare.full("/tmp"):
        checked = Commands(place).run("machine", "check", "bare").stdout
        world.bare.link.shape(rate_mbit=30)
        stopped = _on(notebook, "bare", on=_when("", notebook.interrupt, "sending"))
        world.bare.link.shape()
        world.bare.remount("/home", "ro,noexec")
        bare = _on(notebook, "bare", "open('made', 'w').write('there')\nopen('made').read()")
    one = _on(notebook, "one", "found = 1\nfound")
    wrong = _on(notebook, "locked", answers=["a", "b", "c"])
    unanswered = _on(notebook, "locked", on=_when("input_request", notebook.interrupt))
    locked = _on(notebook, "locked", answers=["open sesame"])
    notebook.run("%remote stop locked")
    old = _on(notebook, "old")
    with _stuck(world.box):
        world.box.link.reset()
        beside = notebook.remote("1 + 1", "on=box session=beside")
    after = _on(notebook, "box")
    parts.kill(world.bare.processes())
    lost = [_on(notebook, "bare"), _on(notebook, "bare")]
    visits = Visits(full, box, stopped, bare, checked, one, wrong, unanswered, locked, old, beside, after, lost)
    return notebook, visits


@contextlib.contextmanager
def _stuck(host: Host) -> Iterator[None]:
    """Have every supervisor there stand still."""
    stuck = [pid for pid, words in host.processes().items() if "remora_provisioner.supervise" in words]
    assert stuck
    for pid in stuck:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stuck:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def shared(visits: tuple[Notebook, Visits]) -> Notebook:
    """Give a file's tests the kernel."""
    return visits[0]


@pytest.fixture
def seen(visits: tuple[Notebook, Visits]) -> Visits:
    """Give a test what was seen."""
    return visits[1]


def _on(notebook: Notebook, name: str, code: str = "40 + 2", **options: Any) -> Ran:
    return notebook.remote(code, f"on={name} session={name}", **options)


def _refused(ran: Ran, name: str, reason: str) -> str:
    """Return the one line by which a cell was refused."""
    assert not ran.ok
    line = ran.error.splitlines()[0]
    assert re.findall(_REASON, line)[:1] == [reason], ran.error
    assert name in line
    assert line.isprintable()
    assert "Traceback" not in ran.error
    assert len(line) < 500, line
    return line


def _stopped(ran: Ran) -> bool:
    """Say whether the cell ended as one that was stopped before it ran, in one line and its status."""
    lines = ran.error.splitlines()
    return lines[0] == "KeyboardInterrupt: stopped before anything of the cell had run" and len(lines) < 3


def _when(kind: str, act: Callable[[], object], text: str = "") -> Callable[[Message], None]:
    """Return what acts at the first message of a kind with a text in it."""
    done: list[bool] = []

    def on(message: Message) -> None:
        if message["msg_type"].endswith(kind) and text in str(message["content"]) and not done:
            done.append(True)
            act()

    return on


# ---- hosts that nothing can be done with


_REFUSALS = {
    "gitonly": ("command-ended", "only git is served here"),
    "nosession": ("no-command", "ssh nosession true"),
    "dropper": ("connection-lost", "ssh dropper true"),
    "nologin": ("command-ended", "This account is currently not available"),
    "changed": ("host-key-changed", "ssh-keygen -f"),
    "stranger": ("not-authorised", "ssh stranger"),
    "nowhere": ("no-such-host", "check its name"),
    "closed": ("unreachable", "see whether sshd runs there"),
    "garbage": ("not-ssh", "Check the port"),
    "silent": ("unreachable", "did not answer within 1 s"),
}


@pytest.mark.parametrize(("name", "reason", "advice"), [(name, *told) for name, told in _REFUSALS.items()], ids=_REFUSALS)
def test_a_host_that_cannot_be_used_is_one_line(notebook: Notebook, name: str, reason: str, advice: str):
    """It names the host, what happened and what to do."""
    ran = _on(notebook, name)
    assert advice in _refused(ran, name, reason)
    assert ran.took("error") < 30


# ---- hosts that are difficult, and work


def test_a_disk_that_fills_up_during_the_first_transfer(seen: Visits):
    """The host is named, what arrived stays, and with more room the same cell goes on; banner and .bashrc print as they like."""
    assert "takes no more (No space left on device): make room there" in _refused(seen.full, "box", "disk-full")
    assert (seen.box.result, seen.box.stdout) == ("42", ""), seen.box.reply


def test_a_bare_and_cramped_host(seen: Visits, notebook: Notebook):
    """No tar, no gzip, a home that executes nothing and then takes nothing, a full /tmp, another user: all is as usual."""
    assert seen.bare.result == "'there'", seen.bare.reply
    assert (notebook.folder / "made").read_text() == "there"
    assert "nothing may be executed there" in seen.checked
    assert "/var/tmp/remora-" in seen.checked


def test_a_stop_while_its_image_is_sent(seen: Visits):
    """It ends the cell at once and in one line; the cell after it goes on from what has arrived."""
    assert _stopped(seen.stopped)


def test_two_names_of_one_host(seen: Visits, notebook: Notebook):
    """A host that is known by several names is a machine for each; one that allows one session a connection is enough."""
    assert seen.one.result == "1", seen.one.reply
    for _ in range(2):
        assert _on(notebook, "box").result == "42"
        assert _on(notebook, "one", "found").result == "1"


def test_a_passphrase(seen: Visits):
    """Wrong ones are refused in one line; a stop while it is asked for ends the cell at once; the right one opens."""
    assert "the passphrase of" in _refused(seen.wrong, "locked", "not-authorised")
    assert _stopped(seen.unanswered)
    assert seen.locked.result == "42", seen.locked.reply


def test_a_stop_while_connecting(notebook: Notebook, world: World):
    """It ends the cell at once."""
    world.call("slow", world.box, HostName="127.0.0.1", Port=world.silent, ConnectTimeout=60)
    ran = _on(notebook, "slow", on=_when("", notebook.interrupt, "connecting to slow"))
    assert _stopped(ran)
    assert ran.took("error") < 20


def test_a_supervisor_that_does_not_answer(seen: Visits):
    """It keeps nobody else from the host, also when the link is new; when it goes on, so does its session."""
    assert seen.beside.result == "2", seen.beside.reply
    assert seen.after.result == "42", seen.after.reply


def test_a_kernel_without_namespaces(seen: Visits):
    """It is said how to allow them, before anything is sent but what finds it out."""
    assert "namespace" in _refused(seen.old, "old", "no-jail")


def test_a_host_on_which_all_was_killed(seen: Visits):
    """Who asks for the sandbox that was lost hears of it in one line, if not of its successor; the next cell works."""
    first, second = seen.lost
    assert first.ok or "RunEnded [crashed]" in first.error, first.error
    assert second.result == "42", second.reply


# ---- files


def test_files_that_are_odd(notebook: Notebook):
    """Names of any bytes travel; what leads outside or is too large stays and is named; the cell works."""
    folder = notebook.folder
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / "new\nline").write_text("1")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9\xff")).write_text("2")
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(1 << 40)
    code = (
        "import os\nfound = {name: open(name).read() for name in sorted(os.listdir(b'.')) if name[:3] in (b'new', b'caf')}\n"
        "os.symlink('/etc/shadow', 'evil')\nopen(b'made\\xfe\\n', 'w').write('3')\nfound"
    )
    ran = _on(notebook, "box", code)
    assert ran.result == repr({b"caf\xe9\xff": "2", b"new\nline": "1"}), ran.error
    said = ran.stdout + ran.stderr
    assert "huge.bin (1.0 TiB)" in said
    assert "outside (leads outside)" in said
    assert "evil (leads outside) stays on box" in said
    assert (folder / os.fsdecode(b"made\xfe\n")).read_text() == "3"
    assert not os.path.lexists(folder / "evil")
    for name in ("outside", "huge.bin"):
        (folder / name).unlink()


def test_a_folder_of_very_many_files(notebook: Notebook):
    """100,000 files are all there for a cell that reads ten of them and changes one; the next cell sends none again."""
    folder, before = Path(tempfile.mkdtemp(dir=notebook.folder.parent)), notebook.folder
    for number in range(_VERY_MANY):
        if number % 1000 == 0:
            part = folder / f"part{number // 1000}"
            part.mkdir()
        (part / f"file{number}").write_bytes(b"%d" % number)
    notebook.run(f"%cd -q {folder}")
    code = (
        "import os\nnames = [f'part{n}/file{n * 1000 + 7}' for n in range(0, 100, 10)]\n"
        "open(names[-1], 'a').write(' there')\n"
        "' '.join(open(name).read() for name in names), sum(len(f) for _, _, f in os.walk('.'))"
    )
    try:
        ran = notebook.remote(code, "on=box session=many")
        told = "7 10007 20007 30007 40007 50007 60007 70007 80007 90007 there"
        assert ran.result == repr((told, _VERY_MANY)), ran.reply
        assert (folder / "part90/file90007").read_text() == "90007 there"
    finally:
        notebook.run("%remote stop many")
        notebook.run(f"%cd -q {before}")
        shutil.rmtree(folder)


def test_a_folder_that_is_removed_during_a_cell(notebook: Notebook, place: Place):
    """What the cell made stays on the host, and comes home when the folder is there again."""
    folder = Path(tempfile.mkdtemp(dir=place.root)) / "project"
    before = notebook.folder
    folder.mkdir()
    notebook.run(f"%cd -q {folder}")
    try:
        code = "print('begun', flush=True)\nimport time; time.sleep(0.5)\nopen('result', 'w').write('precious')"
        ran = notebook.remote(code, "on=box session=gone", on=_when("stream", folder.rmdir, "begun"))
        assert ran.ok, ran.error
        assert "is not there any more; what runs have written stays" in ran.stdout + ran.stderr
        refused = notebook.remote("1", "on=box session=gone")
        assert "make it again" in _refused(refused, "folder", "no-folder")
        folder.mkdir()
        notebook.run(f"%cd -q {folder}")
        assert notebook.remote("1", "on=box session=gone").ok
        assert (folder / "result").read_text() == "precious"
    finally:
        notebook.run("%remote stop gone")
        notebook.run(f"%cd -q {before}")


@pytest.mark.parametrize("where", ["/", "~"])
def test_a_folder_that_is_not_for_sending(notebook: Notebook, world: World, where: str):
    """The root and a home are not sent in silence: the cell runs without files, and one line says so."""
    folder = {"/": Path("/"), "~": world.home}[where]
    before = world.box.link.carried().up
    notebook.run(f"%cd -q {folder}")
    try:
        ran = notebook.remote("import os; os.listdir('.').count('.ssh')", f"on=box session=folder{ord(where)}")
    finally:
        notebook.run(f"%remote stop folder{ord(where)}")
        notebook.run(f"%cd -q {notebook.folder}")
    assert ran.result == "0", ran.error
    assert "the notebook's folder" in ran.stdout + ran.stderr
    assert "of its own" in ran.stdout + ran.stderr
    assert world.box.link.carried().up - before < 2 << 20


# ---- the command line


def test_the_same_on_the_command_line(world: World):
    """`remora run` says the same in one line, and ends with 3."""
    commands = Commands(world.place)
    commands.notebook("job.ipynb", "1")
    told = commands.run("run", "job.ipynb", "--on", "gitonly", code=3).stderr.strip().splitlines()[-1]
    assert "only git is served here" in told
    assert "ssh gitonly true" in told
