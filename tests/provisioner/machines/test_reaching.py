"""A machine is reached by SSH: real servers of OpenSSH on the loopback, and others that only pretend."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from loops import in_loop
from provisioner.machines.ssh_servers import SSHD, USER, Home, Person, Server, agent, children, doorkeeper, free_port
from remora.errors import InputError, RemoraError, Unavailable
from remora_provisioner.machines.ssh.line import Line
from remora_provisioner.machines.ssh.reaching import Ask, Ended, Reached, Target, nobody, reach

pytestmark = pytest.mark.skipif(SSHD is None, reason="needs sshd: an ordinary user cannot install openssh-server")

BOX = Target("box")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Give the user a home without anything, and no agent."""
    made = Home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(made.folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server for all tests that leave it as it is."""
    started = Server(tmp_path_factory.mktemp("s") / "server")
    yield started
    started.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Server]:
    """Run a second server, for this test alone."""
    started = Server(tmp_path / "other")
    yield started
    started.close()


@pytest.fixture
def box(home: Home, server: Server) -> Home:
    """Let the home know the server as `box`, and have a key that opens it."""
    server.permit(home.key())
    home.knows(server)
    home.configure(section("box", server.port))
    return home


def section(name: str, port: int, *lines: str) -> str:
    """Return a section of an SSH configuration for a server of this machine."""
    return "\n  ".join([f"Host {name}", "HostName 127.0.0.1", f"Port {port}", *lines]) + "\n"


@contextlib.asynccontextmanager
async def reached(command: str, target: Target = BOX, ask: Ask = nobody) -> AsyncIterator[Reached]:
    """Reach a machine for a while; the connection's process has ended afterwards."""
    with await reach(target, command, ask) as sock:
        sock.setblocking(False)
        yield sock
    await sock.ended()


async def rest(sock: Reached) -> bytes:
    """Return all that comes until the end."""
    loop, pieces = asyncio.get_running_loop(), []
    while piece := await loop.sock_recv(sock, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


async def output(command: str = "echo hello", target: Target = BOX, ask: Ask = nobody) -> str:
    """Return what a command on the machine says."""
    async with reached(command, target, ask) as sock:
        return (await rest(sock)).decode().strip()


async def refused(reason: str, target: Target = BOX, ask: Ask = nobody) -> str:
    """Return what is said when the machine cannot be reached, for this reason; in one line."""
    with pytest.raises(RemoraError) as caught:
        await reach(target, "true", ask)
    assert caught.value.reason == reason, caught.value
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- bytes --------------------------------------------------------------------------------------------------------------


@in_loop
@pytest.mark.parametrize("carrier", ["ssh", "paramiko"])
async def test_bytes_go_both_ways_exactly(box: Home, monkeypatch: pytest.MonkeyPatch, carrier: str) -> None:
    """What is sent in pieces of any size comes back from `cat` as it was, and the end of one side is the end of the other.

    Where nothing has to be asked, the system's ssh carries, and paramiko if that is wanted.
    """
    monkeypatch.setenv("REMORA_SSH", carrier)
    before = set(children())
    chance = random.Random(4)
    pieces = [chance.randbytes(chance.choice([1, 7, 300, 4096, 70_000, 300_000])) for _ in range(40)]
    loop = asyncio.get_running_loop()
    async with reached("cat") as sock, asyncio.TaskGroup() as group:
        (process,) = set(children()) - before
        assert [Path(os.readlink(f"/proc/{pid}/exe")).name for pid in children(process)] == ["ssh"] * (carrier == "ssh")
        coming = group.create_task(rest(sock))
        for piece in pieces:
            await loop.sock_sendall(sock, piece)
        sock.shutdown(socket.SHUT_WR)
        assert await coming == b"".join(pieces)
        assert await sock.ended() == Ended(0, False, "")


@in_loop
async def test_a_hundred_megabytes_come_back(box: Home) -> None:
    """100 MB go there and come back, and neither side piles them up or loses any."""
    piece, count = random.Random(5).randbytes(1 << 20), 100
    loop, sent, came = asyncio.get_running_loop(), hashlib.sha256(), hashlib.sha256()

    async def send(sock: Reached) -> None:
        for _ in range(count):
            await loop.sock_sendall(sock, piece)
            sent.update(piece)
        sock.shutdown(socket.SHUT_WR)

    async with reached("cat") as sock, asyncio.TaskGroup() as group:
        group.create_task(send(sock))
        while data := await loop.sock_recv(sock, 1 << 20):
            came.update(data)
    assert came.digest() == sent.digest()


@in_loop
async def test_the_machine_may_end_its_output_first(box: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that closes its output still gets input, until it ends by itself; the system's ssh tells only of the end."""
    monkeypatch.setenv("REMORA_SSH", "paramiko")
    loop = asyncio.get_running_loop()
    async with reached("exec >&- 2>&-; read line; exit $line") as sock:
        assert await rest(sock) == b""
        await loop.sock_sendall(sock, b"7\n")
        assert (await sock.ended()).status == 7


@in_loop
async def test_the_end_of_the_errors_is_kept(box: Home) -> None:
    """What the command says to its errors is not among its bytes; the end of it is told when it has ended."""
    async with reached("seq 100000 >&2; echo out; exit 3") as sock:
        assert await rest(sock) == b"out\n"
        ended = await sock.ended()
    assert (ended.status, ended.lost) == (3, False)
    assert ended.said.endswith("100000")
    assert 1000 < len(ended.said) <= 2000


@in_loop
async def test_a_command_that_is_not_there_is_told(box: Home) -> None:
    """A missing program ends the socket, and its end says in one line what was missing."""
    async with reached("/nowhere/shell -c true") as sock:
        assert await rest(sock) == b""
        error = (await sock.ended()).error("box")
    assert error.reason == "command-ended"
    assert "127" in str(error)
    assert "/nowhere/shell" in str(error)


# ---- the end of it ------------------------------------------------------------------------------------------------------


@in_loop
async def test_closing_ends_the_process_and_the_command(box: Home) -> None:
    """Once the socket is closed no process is left, here or there."""
    before = set(children())
    async with reached("echo $$; exec cat") as sock:
        there = os.pidfd_open(int(await asyncio.get_running_loop().sock_recv(sock, 100)))
        assert set(children()) - before
    assert set(children()) == before
    await readable(there)
    os.close(there)


@in_loop
async def test_what_is_sent_last_arrives(box: Home, tmp_path: Path) -> None:
    """What was sent before the socket was closed is given to the command, if it takes it."""
    loop, last = asyncio.get_running_loop(), tmp_path / "last"
    async with reached(f"echo $$; exec cat >{last}") as sock:
        there = os.pidfd_open(int(await loop.sock_recv(sock, 100)))
        await loop.sock_sendall(sock, bytes(300_000))
    await readable(there)
    os.close(there)
    assert last.stat().st_size == 300_000


@in_loop
async def test_a_command_that_takes_nothing_keeps_nobody(box: Home) -> None:
    """Closing ends the process though the command has not taken its input."""
    before = set(children())
    loop = asyncio.get_running_loop()
    async with reached("echo $$; exec sleep 60") as sock:
        there = int(await loop.sock_recv(sock, 100))
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.wait_for(loop.sock_sendall(sock, bytes(1 << 20)), 0.3)
    assert set(children()) == before
    os.kill(there, signal.SIGKILL)  # it has not noticed, as is its right


@in_loop
async def test_a_killed_process_closes_the_socket(box: Home) -> None:
    """By kill -9 of the connection's process the socket ends, which is told as a lost connection."""
    before = set(children())
    async with reached("cat") as sock:
        (process,) = set(children()) - before
        os.kill(process, signal.SIGKILL)
        assert await rest(sock) == b""
        assert (await sock.ended()).error("box").reason == "connection-lost"


@in_loop
async def test_a_killed_user_of_it_ends_the_process(box: Home) -> None:
    """By kill -9 of whoever reached the machine the process ends too."""
    script = (
        "import asyncio, os, signal\n"
        "from remora_provisioner.machines.ssh.reaching import *\n"
        "async def main():\n"
        "    sock = await reach(Target('box'), 'cat')\n"
        "    children = open(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read()\n"
        "    print(children, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    user = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    said, _ = await user.communicate()
    with contextlib.suppress(ProcessLookupError):  # it is gone already
        process = os.pidfd_open(int(said))
        await readable(process)
        os.close(process)
    assert user.returncode == -signal.SIGKILL


@in_loop
async def test_a_connection_that_is_cut_closes_the_socket(home: Home, other: Server) -> None:
    """When the server's side dies in mid-stream the socket ends, and the end is told as a lost connection."""
    other.permit(home.key())
    home.knows(other)
    home.configure(section("box", other.port))
    async with reached("yes") as sock:
        assert await asyncio.get_running_loop().sock_recv(sock, 10)
        for pid in other.sessions():
            os.kill(pid, signal.SIGKILL)
        await rest(sock)
        assert (await sock.ended()).lost


@in_loop
async def test_a_machine_that_gives_no_sign_is_lost(home: Home, other: Server) -> None:
    """A server that is there but does not react ends the connection after ServerAliveInterval and its count."""
    other.permit(home.key())
    home.knows(other)
    home.configure(section("box", other.port, "ServerAliveInterval 0.3", "ServerAliveCountMax 2"))
    async with reached("cat") as sock:
        for pid in other.sessions():
            os.kill(pid, signal.SIGSTOP)
        assert await rest(sock) == b""
        assert (await sock.ended()).lost


@in_loop
async def test_giving_up_leaves_no_process(home: Home) -> None:
    """Cancelled while the machine has not answered, reach leaves nothing."""
    before = set(children())
    async with pretender() as (port, came):
        home.configure(section("box", port))
        reaching = asyncio.create_task(reach(BOX, "true"))
        await came.wait()
        reaching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reaching
    assert set(children()) == before


# ---- the way there ------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_jump_host_is_met_like_any_other(home: Home, server: Server, other: Server) -> None:
    """ProxyJump leads through another host; each of the two is asked about, the first one first."""
    key = home.key()
    server.permit(key)
    other.permit(key)
    home.configure(section("step", server.port) + section("box", other.port, "ProxyJump step"))
    person = Person(host_key=["yes", "yes"])
    connection = (await output("echo $SSH_CONNECTION", ask=person)).split()
    assert [question.facts["host"] for question in person.questions] == [f"[127.0.0.1]:{s.port}" for s in (server, other)]
    assert connection[3] == str(other.port)
    assert await output() == "hello"  # both are known now


@in_loop
async def test_a_jump_host_that_does_not_let_through_is_named(home: Home, server: Server) -> None:
    """When the host behind a jump host cannot be reached, both are named."""
    server.permit(home.key())
    home.knows(server)
    home.configure(section("step", server.port) + section("box", free_port(), "ProxyJump step"))
    text = await refused("unreachable")
    assert "from step" in text
    assert "box" in text


@in_loop
async def test_a_proxy_command_is_run(home: Home, server: Server) -> None:
    """ProxyCommand is what the connection is spoken over."""
    server.permit(home.key())
    home.configure(section("box", server.port, f"ProxyCommand {SSHD} -i -f {server.configuration}"))
    assert await output(ask=Person(host_key=["yes"])) == "hello"


@in_loop
async def test_a_proxy_command_that_fails_is_quoted(home: Home) -> None:
    """What a failing ProxyCommand complains about is in the error."""
    home.configure(section("box", 1, "ProxyCommand echo no way >&2"))
    assert "no way" in await refused("unreachable")


@in_loop
async def test_what_the_target_says_goes_before_the_configuration(home: Home, server: Server) -> None:
    """Host, user, port and key of the target win over the SSH configuration."""
    key = home.key("mine")
    server.permit(key)
    home.knows(server)
    home.configure("Host box\n  HostName nowhere.invalid\n  Port 1\n  User somebody\n  IdentityFile /nowhere\n")
    assert await output("id -un", Target("box", "127.0.0.1", USER, server.port, str(key))) == USER


@in_loop
async def test_an_included_file_counts(home: Home, server: Server) -> None:
    """Include is followed, relative to ~/.ssh."""
    server.permit(home.key())
    home.knows(server)
    home.configure("Include more/*.conf\n")
    (home.ssh / "more").mkdir()
    (home.ssh / "more" / "a.conf").write_text(section("box", server.port))
    assert await output() == "hello"


@in_loop
async def test_a_configuration_that_cannot_be_read_is_named(home: Home) -> None:
    """A broken line of the configuration is an error that quotes it."""
    home.configure("Host box\n  Port\n")
    with pytest.raises(InputError, match="Port"):
        await reach(BOX, "true")


# ---- who the host is ----------------------------------------------------------------------------------------------------


@in_loop
async def test_an_unknown_host_is_a_question(home: Home, server: Server) -> None:
    """A host that was never met is asked about with type and fingerprint; after a yes it is known."""
    server.permit(home.key())
    home.configure(section("box", server.port, "HashKnownHosts no"))
    person = Person(host_key=["yes"])
    assert await output(ask=person) == "hello"
    (question,) = person.questions
    assert server.fingerprint() in question.text
    assert "ssh-ed25519" in question.text
    assert home.known.read_text() == f"[127.0.0.1]:{server.port} {server.public()}\n"
    assert await output() == "hello"


@in_loop
async def test_an_unknown_host_that_is_refused_stays_unknown(home: Home, server: Server) -> None:
    """After a no, or with nobody to answer, nothing is written, and the error says what to do."""
    server.permit(home.key())
    home.configure(section("box", server.port))
    await refused("host-key-unknown", ask=Person(host_key=["no"]))
    assert "ssh box" in await refused("host-key-unknown")
    assert not home.known.exists()


@pytest.mark.parametrize(("said", "met"), [("accept-new", True), ("no", True), ("yes", False)])
def test_the_configuration_may_say_what_to_do_about_unknown_hosts(home: Home, server: Server, said: str, met: bool) -> None:
    """StrictHostKeyChecking is kept: nobody is asked, and the host is written down or refused."""

    @in_loop
    async def run() -> None:
        server.permit(home.key())
        home.configure(section("box", server.port, f"StrictHostKeyChecking {said}", "HashKnownHosts yes"))
        person = Person(host_key=["yes"])
        if met:
            assert await output(ask=person) == "hello"
            assert home.known.read_text().startswith("|1|")
        else:
            await refused("host-key-unknown", ask=person)
        assert not person.questions

    run()


@in_loop
async def test_a_changed_key_is_never_asked_about(home: Home, server: Server) -> None:
    """A host whose key is another one than known_hosts has is refused, with file and line and what to do."""
    home.configure(section("box", server.port, "StrictHostKeyChecking no"))
    line = f"[127.0.0.1]:{server.port} {server.public()}"
    home.known.write_text(f"# mine\n\n{line[:-8]}AAAAAAAA\n")
    person = Person(host_key=["yes"])
    text = await refused("host-key-changed", ask=person)
    assert f"{home.known}:3" in text
    assert "ssh-keygen" in text
    assert not person.questions


@in_loop
async def test_a_revoked_key_is_refused(box: Home, server: Server) -> None:
    """A key that known_hosts calls revoked opens nothing, though it is known."""
    with box.known.open("a") as file:
        file.write(f"@revoked * {server.public()}\n@cert-authority *.example.org {server.public()}\n")
    assert f"{box.known}:2" in await refused("host-key-revoked")


@in_loop
async def test_the_type_of_key_that_is_known_is_asked_for(home: Home, server: Server) -> None:
    """Where only one type of a host's keys is known, that one is asked for, and no question arises."""
    server.permit(home.key())
    home.knows(server, "ecdsa")
    home.configure(section("box", server.port))
    assert await output() == "hello"


# ---- who comes ----------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_passphrase_is_asked_for_once(home: Home, server: Server, other: Server) -> None:
    """A key with a passphrase opens two hosts on one way for one answer, and a wrong answer is asked again."""
    key = home.key(passphrase="open")
    for each in (server, other):
        each.permit(key)
        home.knows(each)
    home.configure(section("step", server.port) + section("box", other.port, "ProxyJump step"))
    person = Person(passphrase=["wrong", "open"])
    assert await output(ask=person) == "hello"
    assert [(q.kind, q.secret, q.again) for q in person.questions] == [("passphrase", True, False), ("passphrase", True, True)]
    assert str(key) in person.questions[0].text


@in_loop
async def test_a_wrong_passphrase_is_told(home: Home, server: Server) -> None:
    """A passphrase that stays wrong, and one that nobody gives, are one line that names the key and what to do."""
    key = home.key(passphrase="open")
    server.permit(key)
    home.knows(server)
    home.configure(section("box", server.port))
    assert f"passphrase of {key} was wrong" in await refused("not-authorised", ask=Person(passphrase=["a", "b", "c"]))
    assert f"ssh-add {key}" in await refused("not-authorised")


@in_loop
async def test_a_key_without_a_passphrase_goes_first(home: Home, server: Server) -> None:
    """No passphrase is asked for as long as another key opens."""
    home.key(passphrase="open")
    server.permit(home.key("id_ecdsa", kind="ecdsa"))
    home.knows(server)
    home.configure(section("box", server.port))
    assert await output() == "hello"


@in_loop
async def test_a_key_that_is_not_let_in_is_named(box: Home, other: Server) -> None:
    """Where no key opens, the error names those that were shown, and files that hold none."""
    (box.ssh / "id_rsa").write_text("not a key")
    box.configure(section("box", other.port))
    box.knows(other)
    text = await refused("not-authorised")
    assert str(box.ssh / "id_ed25519") in text
    assert f"{box.ssh / 'id_rsa'} cannot be used" in text


@in_loop
async def test_an_agents_keys_are_shown(home: Home, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of an ssh-agent open, if the configuration does not forbid it; with IdentitiesOnly only those that are named."""
    key = home.key("held")
    server.permit(key)
    home.knows(server)
    with agent(tmp_path, key) as place:
        sections = [("box", "IdentityAgent none"), ("named", f"IdentityAgent {place}"), ("strict", "IdentitiesOnly yes")]
        home.configure("".join(section(name, server.port, line) for name, line in sections))
        await refused("not-authorised")
        assert await output(target=Target("named")) == "hello"
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        await refused("not-authorised")
        await refused("not-authorised", Target("strict"))
        assert await output(target=Target("strict", identity=str(key))) == "hello"


@in_loop
async def test_too_many_keys_are_told(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has seen too many keys ends the connection; the error has its words and names the remedy."""
    server = Server(tmp_path / "strict", "MaxAuthTries 2")
    try:
        home.knows(server)
        home.configure(section("box", server.port))
        with agent(tmp_path, *(home.key(f"k{n}") for n in range(4))) as place:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
            text = await refused("not-authorised")
    finally:
        server.close()
    assert "Too many authentication failures" in text
    assert "IdentitiesOnly" in text


@in_loop
async def test_a_password_is_asked_for(home: Home, tmp_path: Path) -> None:
    """A host that wants a password gets the person's, asked again after a wrong one."""
    with doorkeeper(tmp_path, "password") as port:
        home.configure(section("box", port))
        person = Person(host_key=["yes"], password=["wrong", "sesame"])
        assert await output(ask=person) == "hello"
    assert [(q.kind, q.secret, q.again) for q in person.questions[1:]] == [("password", True, False), ("password", True, True)]


@in_loop
async def test_a_hosts_own_questions_are_handed_on(home: Home, tmp_path: Path) -> None:
    """Keyboard-interactive questions reach the person, with what must not be seen marked."""
    with doorkeeper(tmp_path, "keyboard-interactive") as port:
        home.configure(section("box", port))
        person = Person(host_key=["yes"], prompt=["sesame", "red"])
        assert await output(ask=person) == "hello"
    assert [(q.kind, q.secret) for q in person.questions[1:]] == [("prompt", True), ("prompt", False)]
    assert "Colour:" in person.questions[2].text


@in_loop
async def test_a_password_that_nobody_gives_is_told(home: Home, tmp_path: Path) -> None:
    """Where nobody answers, the error says how to find out what the host wants."""
    with doorkeeper(tmp_path, "password,keyboard-interactive") as port:
        home.configure(section("box", port))
        person = Person(host_key=["yes"])
        text = await refused("not-authorised", ask=person)
    assert "ssh box" in text
    assert "nobody answered" in text
    assert len(person.questions) == 2  # the host's key, and its own question once


# ---- what answers is no such host ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def pretender(*says: bytes, stays: bool = True) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Listen on a port, say something to whoever comes, and go away or stay; yields the port, and whether somebody came."""
    came = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        with contextlib.suppress(ConnectionError):
            for piece in says:
                writer.write(piece)
                await writer.drain()
            if stays:
                await reader.read()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], came


@pytest.mark.parametrize(
    ("says", "stays", "reason", "words"),
    [
        ([], True, "unreachable", "within 0.5 s"),
        ([], False, "unreachable", "before it said anything"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], False, "not-ssh", "HTTP/1.1 400"),
        ([b"\xff\x00\xfe" * 50, b"\n" * 200], True, "not-ssh", "no text"),
        ([b"y" * 65536] * 40, True, "not-ssh", "yyyy"),
        ([b"SSH-2.0-x\r\n", b"\x00\x00\x00\x0c" + b"\x99" * 200], True, "not-ssh", "agree on keys"),
        ([b"SSH-1.5-old\r\n"], True, "not-ssh", "1.5"),
    ],
    ids=["silent", "closes", "http", "binary", "endless", "broken", "old"],
)
def test_what_is_no_ssh_server_is_told(home: Home, says: list[bytes], stays: bool, reason: str, words: str) -> None:
    """Servers that say nothing, go away or speak something else are one line each, in time."""

    @in_loop
    async def run() -> None:
        async with pretender(*says, stays=stays) as (port, came):
            home.configure(section("box", port, *["ConnectTimeout 0.5"] * (not says and stays)))
            assert words in await refused(reason)
            assert came.is_set()

    run()


@in_loop
async def test_a_host_that_is_not_there_is_told(home: Home) -> None:
    """A port on which nobody listens is said to refuse, and a name that can be none is not known."""
    home.configure(section("box", free_port()))
    assert "Connection refused" in await refused("unreachable")
    assert "'a..b'" in await refused("no-such-host", Target("a..b"))


@in_loop
async def test_nothing_in_common_is_told(home: Home, tmp_path: Path) -> None:
    """A server with which no way to exchange keys is shared is named, with what was missing."""
    server = Server(tmp_path / "strange", "Ciphers chacha20-poly1305@openssh.com")
    try:
        home.configure(section("box", server.port))
        assert "ciphers" in await refused("not-ssh")
    finally:
        server.close()


@in_loop
async def test_noise_is_no_matter(home: Home, tmp_path: Path) -> None:
    """Lines before the server's greeting, and a banner before the sign-in, change nothing of the bytes."""
    (tmp_path / "banner").write_text("WELCOME\n" * 50)
    server = Server(tmp_path / "noisy", f"Banner {tmp_path / 'banner'}")
    try:
        server.permit(home.key())
        home.knows(server)
        noisy = f"ProxyCommand sh -c 'seq 20; exec {SSHD} -i -f {server.configuration}'"
        home.configure(section("box", server.port, noisy))
        assert await output() == "hello"
    finally:
        server.close()


@in_loop
async def test_a_command_that_is_not_started_is_told(home: Home, tmp_path: Path) -> None:
    """A server that opens no session says so, and so does the error."""
    server = Server(tmp_path / "closed", "MaxSessions 0")
    try:
        server.permit(home.key())
        home.knows(server)
        home.configure(section("box", server.port))
        assert "ssh box true" in await refused("no-command")
    finally:
        server.close()


@in_loop
async def test_without_paramiko_the_remedy_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where paramiko is not installed, the error has the line that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"pip install 'remora\[ssh\]'"):
        await reach(BOX, "true")


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read: a process has ended."""
    loop = asyncio.get_running_loop()
    told = loop.create_future()
    loop.add_reader(descriptor, told.set_result, None)
    await told
    loop.remove_reader(descriptor)


def test_a_line_may_end_before_it_is_settled() -> None:
    """A host that ends the connection as soon as the command has run is no error of ours."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = Line(ours)
        line.close()
        line.settle()
        assert line.over
