"""Real OpenSSH servers on the loopback, keys, and a home with an SSH configuration, for tests.

Law: everything lies in the test's own folder, and whoever starts a server ends it. No test framework.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from remora_provisioner.machines.ssh.reaching import Question

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
USER = pwd.getpwuid(os.getuid()).pw_name

# Lets in whoever knows the word, by a password or by an answer to two questions, and says hello to any command.
_DOORKEEPER = """
import socket, sys, threading, paramiko

asked = threading.Event()

class Keeper(paramiko.ServerInterface):
    def get_allowed_auths(self, user): return sys.argv[3]
    def check_auth_password(self, user, password):
        return paramiko.AUTH_SUCCESSFUL if password == "sesame" else paramiko.AUTH_FAILED
    def check_auth_interactive(self, user, ways):
        return paramiko.InteractiveQuery("Two questions", "", ("Word:", False), ("Colour:", True))
    def check_auth_interactive_response(self, answers):
        return paramiko.AUTH_SUCCESSFUL if answers == ["sesame", "red"] else paramiko.AUTH_FAILED
    def check_channel_request(self, kind, number): return paramiko.OPEN_SUCCEEDED
    def check_channel_exec_request(self, channel, command):
        asked.set()
        return True

listening = socket.socket(fileno=int(sys.argv[1]))
taken, _ = listening.accept()
transport = paramiko.Transport(taken)
transport.add_server_key(paramiko.PKey.from_path(sys.argv[2]))
transport.start_server(server=Keeper())
channel = transport.accept()
asked.wait()
channel.sendall(b"hello")
channel.send_exit_status(0)
channel.close()
transport.join()
"""


class Person:
    """Somebody who answers questions with what was prepared for their kind, and remembers them."""

    def __init__(self, **answers: list[str | None]) -> None:
        """Answer each kind of question (host_key for host-key) with these, one after the other."""
        self._answers = {kind.replace("_", "-"): list(given) for kind, given in answers.items()}
        self.questions: list[Question] = []

    async def __call__(self, question: Question) -> str | None:
        """Answer a question."""
        self.questions.append(question)
        given = self._answers.get(question.kind)
        return given.pop(0) if given else None


class Home:
    """A user's home: keys, a configuration, and hosts that are known."""

    def __init__(self, folder: Path) -> None:
        """Make it."""
        self.folder = folder
        self.ssh = folder / ".ssh"
        self.ssh.mkdir(parents=True)
        self.known = self.ssh / "known_hosts"

    def key(self, name: str = "id_ed25519", passphrase: str = "", kind: str = "ed25519") -> Path:
        """Make a key."""
        file = self.ssh / name
        make_key(file, passphrase, kind)
        return file

    def configure(self, text: str) -> None:
        """Write the SSH configuration."""
        (self.ssh / "config").write_text(text)

    def knows(self, server: Server, kind: str = "ed25519") -> None:
        """Let a server be known."""
        with self.known.open("a") as file:
            file.write(f"[127.0.0.1]:{server.port} {server.public(kind)}\n")


class Server:
    """One sshd."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Start it in a folder of its own, with further lines of its configuration; it lets in no key."""
        self.folder = folder
        folder.mkdir()
        for kind in ("ed25519", "ecdsa"):
            make_key(folder / kind, "", kind)
        self._permitted = folder / "authorized_keys"
        self._permitted.touch()
        self.configuration = folder / "configuration"
        self.configuration.write_text("\n".join([*self._lines(), *options]) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # what the package's service makes
        self.port, self.process = self._start()

    def permit(self, *keys: Path) -> None:
        """Let keys in."""
        with self._permitted.open("a") as file:
            file.writelines(key.with_name(key.name + ".pub").read_text() for key in keys)

    def public(self, kind: str = "ed25519") -> str:
        """Return type and public half of a host key, as they stand in known_hosts."""
        return " ".join((self.folder / f"{kind}.pub").read_text().split()[:2])

    def fingerprint(self) -> str:
        """Return the fingerprint of its first host key, as ssh-keygen has it."""
        listed = subprocess.run(["ssh-keygen", "-lf", self.folder / "ed25519.pub"], capture_output=True, text=True, check=True)
        return listed.stdout.split()[1]

    def sessions(self) -> list[int]:
        """Return the processes that serve its connections, and the commands that these have started."""
        parents, found = _parents(), {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found - {self.process.pid})

    def close(self) -> None:
        """End it and its connections."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _lines(self) -> Iterator[str]:
        yield from (f"HostKey {self.folder / kind}" for kind in ("ed25519", "ecdsa"))
        yield from (f"AuthorizedKeysFile {self._permitted}", "PidFile none", "StrictModes no", "ListenAddress 127.0.0.1")
        yield f"SetEnv HOME={self.folder}"  # the shell there reads nothing of the person's
        yield from ("PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password")

    def _start(self) -> tuple[int, subprocess.Popen[bytes]]:
        assert SSHD is not None
        for _ in range(5):  # somebody may take the port meanwhile
            port = free_port()
            argv = [SSHD, "-D", "-e", "-f", str(self.configuration), "-p", str(port)]
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if line.startswith(b"Server listening"):
                    return port, process
            process.wait()
            process.stderr.close()
        raise AssertionError(b"".join(said).decode())


@contextlib.contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """Run an ssh-agent that holds these keys; yields its socket."""
    place = folder / "agent"
    argv = ["ssh-agent", "-D", "-a", str(place)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        environment = os.environ | {"SSH_AUTH_SOCK": str(place)}
        subprocess.run(["ssh-add", "-q", *map(str, keys)], env=environment, check=True, capture_output=True)
        try:
            yield place
        finally:
            process.kill()


@contextlib.contextmanager
def doorkeeper(folder: Path, ways: str) -> Iterator[int]:
    """Run a server for one visitor that wants a password or answers; yields its port."""
    make_key(folder / "keeper", "", "ed25519")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        argv = [sys.executable, "-c", _DOORKEEPER, str(number), str(folder / "keeper"), ways]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[number]) as process:
            try:
                yield listening.getsockname()[1]
            finally:
                process.kill()


def make_key(file: Path, passphrase: str, kind: str) -> None:
    """Make a key with few rounds of its passphrase's hash, for the sake of time."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-a", "1", "-N", passphrase, "-C", file.name, "-f", str(file)], check=True)


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def children(of: int | None = None) -> list[int]:
    """Return the processes that one, by default this one, has started and that live."""
    return [pid for pid, parent in _parents().items() if parent == (of or os.getpid())]


def _parents() -> dict[int, int]:
    found = {}
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit():
                state, parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:2]
                found |= {int(name): int(parent)} if state not in "ZX" else {}
    return found
