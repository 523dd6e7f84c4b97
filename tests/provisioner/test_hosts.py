"""Hosts for tests keep what they promise: nothing of this machine, files that last, every difficulty asked for."""

from __future__ import annotations

import os
import pwd
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from provisioner.hosts import Host
from provisioner.servers import NOISE, OTHER
from provisioner.sessions import PATIENCE, connected, session

from provisioner import needs

pytestmark = needs.hosts
_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from provisioner.hosts import Host
with Host() as host:
    print(host.link.device, host._process, host.ssh("whoami").stdout.strip(), flush=True)
    sys.stdin.read()
"""

# Leaves behind a program that waits for ever, and has shown that it runs.
_STAYS = "mkfifo pipe; setsid sh -c 'echo >pipe; read -r never <pipe' >/dev/null 2>&1 & read -r ready <pipe"


@pytest.fixture(scope="module")
def box() -> Iterator[Host]:
    """Give a host to tests that change nothing about it."""
    with Host() as host:
        yield host


# ---- what a host is


def test_a_host_is_reached_by_ssh_alone_and_has_an_empty_home(box: Host) -> None:
    """OpenSSH's client gets in by the configuration that is given, as a user that this machine does not have."""
    there = box.ssh("whoami; hostname; pwd; ls -A | wc -l; echo $0; id -u")
    assert there.stdout.split() == ["ada", "box", "/home/ada", "0", "bash", str(box.uid)], there.stderr
    assert box.ssh("echo text >file && cat file && rm file").stdout == "text\n"
    with pytest.raises(KeyError):
        pwd.getpwuid(box.uid)
    assert box.run(["whoami"], user=OTHER).stdout == "eve\n"
    assert "Permission denied" in box.run(["ls", "/home/ada"], user=OTHER).stderr


def test_there_is_no_python_and_nothing_of_this_machine(box: Host) -> None:
    """Neither Python nor files, users, processes or tools of this machine are there."""
    assert box.run(["find", "/", "-xdev", "-iname", "*python*"]).stdout == ""
    tools = "python python3 perl gcc git uv bwrap rsync curl pip"
    assert box.ssh(f"for name in {tools}; do command -v $name; done; command -v tar").stdout == "/usr/bin/tar\n"
    ours = [Path(__file__), Path(sys.executable), Path(tempfile.gettempdir()), Path(os.environ["XDG_STATE_HOME"]), box.folder]
    assert not [path for path in ours if box.run(["test", "-e", str(path)]).returncode == 0]
    folders = ["/root", "/home", "/tmp", "/var/tmp", "/mnt", "/opt", "/srv", "/var/lib"]
    assert set(box.run(["find", *folders, "-mindepth", "1"]).stdout.split()) == {f"/home/{name}" for name in ("ada", OTHER)}
    users = {line.split(":")[0] for line in box.run(["cat", "/etc/passwd"]).stdout.split()}
    assert users == {"root", "sshd", "nobody", "ada", OTHER}
    assert box.ssh("ps -e -o args=").stdout.splitlines()[0].startswith("sshd")
    assert int(box.ssh("ps -e | wc -l").stdout) < 12
    assert int(box.do("ls /usr/lib/*-linux-*/*.so* | wc -l").stdout) < 200


def test_no_route_leads_anywhere_but_to_the_client(box: Host) -> None:
    """This machine and the host itself can be reached, and nothing else: it is said at once that there is no way."""
    away = box.do("echo >/dev/tcp/192.0.2.1/80")
    assert away.returncode != 0
    assert "Network is unreachable" in away.stderr
    assert box.do("read -r line </dev/tcp/127.0.0.1/22; echo $line").stdout.startswith("SSH-2.0")
    with socket.create_server((box.link.near, 0)) as server:
        assert box.do(f"echo >/dev/tcp/{box.link.near}/{server.getsockname()[1]}").returncode == 0


def test_a_host_ends_with_all_that_is_in_it() -> None:
    """Processes, devices and files of a host are gone when its block has ended."""
    with Host() as host:
        host.do(_STAYS)
        (running,) = host.processes()
        assert Path("/sys/class/net", host.link.device).exists()
    assert not Path(f"/proc/{running}").exists()
    assert not Path("/sys/class/net", host.link.device).exists()
    assert not host.folder.exists()
    host.close()


def test_two_processes_have_hosts_at_once_and_a_killed_one_leaves_none(box: Host, tmp_path: Path) -> None:
    """Another test process makes a host beside ours, of the same name; when it is killed, its host goes with it."""
    words = [sys.executable, "-c", _CHILD, str(Path(__file__).parents[1])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}, **pipes) as child:
        assert child.stdout
        device, first, user = child.stdout.readline().split()
        assert user == box.ssh("whoami").stdout.strip()
        assert device != box.link.device
        process = os.pidfd_open(int(first))
        child.kill()
    assert select.select([process], [], [], PATIENCE)[0]
    os.close(process)
    deadline = time.monotonic() + PATIENCE
    while Path("/sys/class/net", device).exists() and time.monotonic() < deadline:
        select.select([], [], [], 0.02)  # the kernel takes networks away when it finds the time, and tells nobody
    assert not Path("/sys/class/net", device).exists()


def test_hosts_do_not_see_each_other(box: Host) -> None:
    """Two hosts of one test have no way to each other."""
    with Host(name="other") as other:
        assert other.ssh("hostname").stdout == "other\n"
        assert box.do(f"echo >/dev/tcp/{other.link.far}/22").returncode != 0


# ---- its life


def test_a_reboot_ends_all_processes_and_keeps_files() -> None:
    """Sessions and what runs without one end, what a home holds stays, /run and /dev/shm are empty."""
    with Host() as host, session(host) as opened:
        host.do(f"echo kept >file; echo lost >/dev/shm/file; {_STAYS}")
        assert sorted(words.split()[0] for words in host.processes().values()) == ["cat", "sh"]
        host.reboot()
        assert not host.processes()
        assert opened.wait(PATIENCE) == 255
        assert host.do("cat file; ls /dev/shm").stdout == "kept\n"


def test_a_host_that_lost_its_power_says_no_word() -> None:
    """After a silent reboot a connection is found out to be gone only by using it."""
    with Host() as host, connected(host) as connection:
        host.reboot(silently=True)
        assert not select.select([connection], [], [], 0.3)[0]
        connection.sendall(b"SSH-2.0-test\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_a_host_can_be_off() -> None:
    """Switched off it refuses connections; its files can be looked at all the same."""
    with Host() as host:
        host.do("echo text >file")
        host.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host.link.far, host.port), timeout=PATIENCE)
        assert (host.home_path / "file").read_text() == "text\n"
        host.start()
        assert host.do("cat file").stdout == "text\n"


# ---- difficulties


@pytest.mark.parametrize(("known", "words"), [("other", "HAS CHANGED"), ("nothing", "key is known for")])
def test_a_host_key_is_not_the_known_one(known: str, words: str) -> None:
    """OpenSSH refuses a host whose key is another than the known one, or unknown."""
    with Host(known=known, port=2222) as host:
        refused = host.ssh("true")
        assert refused.returncode == 255
        assert words in refused.stderr


def test_a_key_has_a_passphrase() -> None:
    """The key opens nothing until its passphrase is given."""
    with Host(passphrase="correct horse", port=2222) as host:
        assert host.ssh("true").returncode == 255
        change = ["ssh-keygen", "-q", "-p", "-N", "", "-f", str(host.folder / "key"), "-P"]
        assert subprocess.run([*change, "wrong horse"], capture_output=True, check=False).returncode != 0
        subprocess.run([*change, "correct horse"], capture_output=True, check=True)
        assert host.ssh("whoami").stdout == "ada\n"


@pytest.mark.parametrize(
    ("shell", "first"), [("/bin/bash", f"{NOISE}\n"), ("/bin/dash", ""), pytest.param("/bin/csh", f"{NOISE}\n", marks=needs.csh)]
)
def test_shells_are_noisy(shell: str, first: str) -> None:
    """The banner goes to standard error, and what the login shell's start files print stands before a command's output."""
    with Host(shell=shell, noise=True) as host:
        there = host.ssh("ps -p $$ -o comm=")
        assert NOISE in there.stderr
        assert there.stdout.startswith(first)
        assert there.stdout.removeprefix(first).strip() in {"bash", "dash", "csh", "bsd-csh", "ps"}
        with_terminal = host.ssh(options=["-tt"], given="exit\n")
        assert NOISE in with_terminal.stdout


def test_disks_are_full_read_only_or_run_nothing() -> None:
    """What is asked of /home and /tmp holds at once, and can be taken back."""
    with Host(home="size=4m", tmp="size=4m,noexec") as host:
        assert "Permission denied" in host.do("cp /bin/true /tmp && /tmp/true").stderr
        host.remount("/tmp", "exec")
        assert host.do("/tmp/true").returncode == 0
        with host.full("/home"):
            assert "No space left" in host.do("echo text >file").stderr
        assert host.do("echo text >file && cat file").stdout == "text\n"
        host.remount("/home", "ro")
        assert "Read-only" in host.do("echo text >file").stderr
        host.remount("/home", "rw")
        assert host.do("echo text >file").returncode == 0
        assert "No space left" in host.do("head -c 5M /dev/zero >file").stderr


def test_programs_come_and_go() -> None:
    """A host can lack a program that every Debian has, and have one that few do."""
    with Host(without=["tar"], programs=["git"]) as host:
        assert host.do("command -v tar; command -v git; command -v gzip").stdout.split() == ["/usr/bin/git", "/usr/bin/gzip"]
        assert host.do("git --version").returncode == 0


@pytest.mark.parametrize("allowed", [True, False])
def test_namespaces_of_users_can_be_denied(allowed: bool) -> None:
    """As in a kernel without them, nobody can make one; otherwise the host's user can."""
    with Host(namespaces=allowed) as host:
        assert (host.do("unshare --user --map-root-user true").returncode == 0) is allowed
        assert host.run(["ls", "/home"]).stdout.split() == ["ada", "eve"]
        host.reboot()
        assert (host.do("unshare --user --map-root-user true").returncode == 0) is allowed


def test_landlock_can_be_lacking() -> None:
    """What runs in such a host finds a kernel without Landlock."""
    asked = f"{sys.executable} -c 'from remora_provisioner.jails import rules; raise SystemExit(rules.abi())'"
    with Host(landlock=False, namespaces=False) as host:
        assert host.ssh("whoami").stdout == "ada\n"
        host._keeper.tell(asked)  # alone can still see this machine's Python


def test_a_host_stands_behind_another(box: Host) -> None:
    """Its link is none of this machine's, and OpenSSH gets there by the host in between."""
    with Host(name="inner", behind=box) as inner:
        inner.link.shape(delay_ms=2)
        assert inner.ssh("hostname").stdout == "inner\n"
        assert inner.link.carried().down > 1000
        assert not Path("/sys/class/net", inner.link.device).exists()


def test_a_server_answers_garbage() -> None:
    """What listens on the port is no SSH server, and OpenSSH says so."""
    with Host(garbage=True) as host:
        with socket.create_connection((host.link.far, host.port), timeout=PATIENCE) as connection:
            assert len(connection.recv(100, socket.MSG_WAITALL)) == 100
        refused = host.ssh("true")
        assert refused.returncode == 255
        assert "invalid" in refused.stderr
        assert not host.processes()
