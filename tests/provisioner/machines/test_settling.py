"""How a Python and our code get onto a machine that has a shell and little else, and what is said when they cannot."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from provisioner.machines.bare import ECHO, KINDS, LOGIN_SHELLS, OWN, Machine, exchange, lay_out, make, reached, small_bundle
from remora.errors import PlaceError, RemoraError, StateError, Unavailable
from remora_provisioner.machines.settling import bundle as bundles
from remora_provisioner.machines.settling import dialogue as settling
from remora_provisioner.machines.settling.bundle import Bundle
from remora_provisioner.machines.settling.dialogue import COMMAND, Program, Settled, settle

from provisioner import disks, needs

pytestmark = needs.namespaces
_ALL_OF_OURS = """
import hashlib, importlib, pkgutil, pwd, subprocess, sys, remora_provisioner
HERE = tuple(f"remora_provisioner.{name}" for name in ("testing", "machines.ssh", "machines.reached"))
names = [found.name for found in pkgutil.walk_packages(remora_provisioner.__path__, "remora_provisioner.")]
for name in ("remora.wire", "remora.frames", "remora.streams", "remora.images", "remora.settings", *names):
    if not name.startswith(HERE) and not name.endswith("__main__"):
        importlib.import_module(name)
again = subprocess.run([sys.executable, "-P", "-c", "import remora, sys; print(sys.executable)"], capture_output=True, text=True)
assert again.stdout.strip() == sys.executable, again
assert remora_provisioner.__file__.startswith(sys.prefix)
print(hashlib.new("sha256").hexdigest()[:4], len(pwd.getpwall()) > 0)
"""


def _quiet(text: str) -> None:
    del text


def _settle(machine: Machine, bundle: Bundle, before: str = "", say: Callable[[str], None] = _quiet) -> tuple[Settled, bytes]:
    """Settle, and return what came of it and what the program then says."""
    with reached(machine.argv("sh", "-c", before + COMMAND)) as sock:
        settled = asyncio.run(settle(sock, bundle, say, Program("talk", ("one two",))))
        return settled, exchange(sock, b"hello\n")


def _refused(machine: Machine, bundle: Bundle) -> RemoraError:
    with reached(machine.argv("sh", "-c", COMMAND)) as sock, pytest.raises(RemoraError) as caught:
        asyncio.run(settle(sock, bundle, _quiet, Program("talk")))
    return caught.value


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a root for each kind of machine."""
    return {kind: lay_out(tmp_path_factory.mktemp(kind) / "root", kind) for kind in KINDS}


@pytest.fixture
def machine(tmp_path: Path, templates: dict[str, Path]) -> Machine:
    """Return a machine with the programs of GNU."""
    return make(tmp_path, templates["gnu"])


@pytest.fixture(params=KINDS)
def any_machine(request: pytest.FixtureRequest, tmp_path: Path, templates: dict[str, Path]) -> Machine:
    """Return a machine, of each kind in turn."""
    return make(tmp_path, templates[request.param])


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the bundle of the Python that runs the tests."""
    return bundles.prepare(tmp_path_factory.getbasetemp() / "bundles")


@pytest.fixture(scope="module", params=KINDS)
def inhabited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, templates: dict[str, Path], real: Bundle
) -> tuple[Machine, Settled]:
    """Return a machine of each kind on which a real Python has been settled, which was then spoken with."""
    machine = make(tmp_path_factory.mktemp("inhabited"), templates[request.param])
    told: list[str] = []
    with reached(machine.argv("sh", "-c", COMMAND)) as sock:
        settled = asyncio.run(settle(sock, real, told.append, ECHO))
        assert exchange(sock, b"hello\n") == b"uryyb\n"
    assert "sending a Python and Remora: 0 B of" in told[0]
    return machine, settled


@pytest.fixture
def small(tmp_path: Path) -> Bundle:
    """Return a bundle that is quickly sent: some pieces for its Python, one for the code."""
    return small_bundle(tmp_path / "store", size=2 * bundles.PIECE)


def test_our_code_runs_where_there_was_no_python(inhabited: tuple[Machine, Settled]) -> None:
    """All of our modules can be imported on a machine without Python, or without any library, and start a Python in turn."""
    machine, settled = inhabited
    assert settled.place == "/home/ada/.local/share/remora/agent"
    assert machine.run(settled.python, "-c", _ALL_OF_OURS).split() == ["e3b0", "False"]


def test_the_second_time_nothing_is_sent(inhabited: tuple[Machine, Settled], real: Bundle) -> None:
    """What is there already is started; only questions travel."""
    machine, settled = inhabited
    with reached(machine.argv("sh", "-c", COMMAND)) as sock:
        again = asyncio.run(settle(sock, real, _quiet, ECHO))
    assert settled.sent > real.python.file.stat().st_size
    assert again.sent < 6000
    assert again.python == settled.python


def test_a_sandbox_opens_with_what_was_brought(inhabited: tuple[Machine, Settled], real: Bundle, tmp_path: Path) -> None:
    """The bwrap that came along is found by the agent's code, and starts a sandbox, whoever one is."""
    python = inhabited[0].agent / "bundles" / real.digest / "bin/python"
    asked = "from remora_provisioner.jails.bubblewrap import *; print(Bubblewrap(lambda: programs(search='')).obstacle())"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    told = subprocess.run([python, "-P", "-c", asked], capture_output=True, text=True, check=True, env=environment)
    assert told.stdout == "None\n"


def test_facts_of_the_machine(any_machine: Machine, small: Bundle) -> None:
    """What the machine is like comes along, in bytes and seconds."""
    settled, said = _settle(any_machine, small)
    facts, here = settled.facts, os.uname()
    assert (facts.architecture, facts.kernel, facts.user, facts.home) == (
        here.machine,
        here.release,
        os.getuid(),
        "/home/ada",
    )
    assert facts.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert facts.cores == len(os.sched_getaffinity(0))
    assert facts.free is not None and facts.free > 0
    assert facts.clock is not None and abs(facts.clock) < 5
    assert said.splitlines() == [settled.place.encode(), b"one two", b"hello"]


def test_noise_before_the_first_word_is_passed_over(any_machine: Machine, small: Bundle) -> None:
    """Whatever login files print, with or without a last newline, is none of ours."""
    settled, said = _settle(any_machine, small, before="echo Welcome; echo; echo fact cores 900; printf 'You have mail'; ")
    assert settled.facts.cores != 900
    assert said.endswith(b"hello\n")


def test_a_shell_that_reads_its_own_file_first(inhabited: tuple[Machine, Settled], real: Bundle) -> None:
    """A .bashrc that prints and sets variables of Python's and the loader's is no hindrance."""
    machine, settled = inhabited
    odd = "export PYTHONHOME=/nowhere PYTHONPATH=/tmp PYTHONINSPECT=1 LD_PRELOAD=/nowhere.so LD_LIBRARY_PATH=/tmp CDPATH=/tmp"
    (machine.home / ".bashrc").write_text(f"echo hello; cat /nowhere; alias sh=false; umask 000\n{odd}\n")
    with reached(machine.argv("sh", "-c", f". ~/.bashrc 2>&1\n{COMMAND}")) as sock:
        assert asyncio.run(settle(sock, real, _quiet, ECHO)).place == settled.place
        assert exchange(sock, b"bye\n") == b"olr\n"
    assert machine.agent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_any_login_shell_runs_the_command(shell: str, tmp_path: Path, small: Bundle) -> None:
    """The command means the same to each shell that somebody may have."""
    argv = ["busybox", "sh", "-c", COMMAND] if shell == "busybox" else [shell, "-c", COMMAND]
    with reached(argv, {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}) as sock:
        settled = asyncio.run(settle(sock, small, _quiet, Program("talk", ("a'b", '"c"', "$HOME; false", "*"))))
        said = exchange(sock, b"")
    assert said.decode().splitlines() == [settled.place, "a'b", '"c"', "$HOME; false", "*"]


def test_the_command_is_for_every_shell() -> None:
    """Nothing in it is special between single quotes in any shell."""
    before, inside, after = COMMAND.split("'")
    assert (before, after) == ("exec sh -c ", "")
    assert not set(inside) & set("!\\\n'`")


def test_an_argument_is_one_line() -> None:
    """A word with a newline is refused before anything is sent."""
    with pytest.raises(ValueError, match="newline"):
        Program("talk", ("a\nb",))


def test_programs_that_are_missing(machine: Machine, small: Bundle) -> None:
    """Without gzip, sha256sum and whatever is not of POSIX, all arrives as it was sent."""
    machine.without("gzip", "sha256sum", "nproc", "unshare", "getconf", "find")
    (machine.root / "bin/dd").rename(machine.root / "bin/dd-new")
    machine.instead_of("dd", 'case $* in *fullblock*) exit 1 ;; esac; exec dd-new "$@"')
    settled, said = _settle(machine, small)
    assert said.endswith(b"hello\n")
    (noise,) = machine.agent.glob("pythons/*/libs/noise")
    assert noise.stat().st_size == 2 * bundles.PIECE
    assert settled.sent > 2 * bundles.PIECE


def test_a_home_that_cannot_be_written(any_machine: Machine, small: Bundle) -> None:
    """Another folder that is ours alone is taken, and the reason is told."""
    any_machine.options += ["--ro-bind", str(any_machine.home), "/home/ada"]
    settled, said = _settle(any_machine, small)
    assert settled.place == OWN
    assert said.endswith(b"hello\n")
    (told,) = settled.tried
    assert told == "/home/ada/.local/share/remora/agent: Read-only file system"


def test_nowhere_to_be(any_machine: Machine, small: Bundle) -> None:
    """When no folder will do, each that was tried is named with its reason."""
    any_machine.options += [
        "--ro-bind",
        str(any_machine.home),
        "/home/ada",
        *_read_only(any_machine, "/tmp", "/var/tmp", "/dev/shm"),
    ]
    problem = _refused(any_machine, small)
    assert (type(problem), problem.reason) == (Unavailable, "no-place")
    assert str(problem).count("Read-only file system") >= 4
    assert OWN in str(problem)


def _read_only(machine: Machine, *places: str) -> list[str]:
    return [word for place in places for word in ("--ro-bind", str(machine.root / "tmp"), place)]


def test_folders_laid_out_by_others_are_not_used(any_machine: Machine, small: Bundle) -> None:
    """A link in place of our folder, or one that others can write to, is passed over."""
    any_machine.options += ["--ro-bind", str(any_machine.home), "/home/ada", "--symlink", "/tmp", OWN]
    any_machine.options += ["--perms", "0777", "--dir", OWN.replace("/var/tmp", "/tmp")]
    settled, _ = _settle(any_machine, small)
    assert settled.place == OWN.replace("/var/tmp", "/dev/shm")
    assert [told.partition(": ")[2] for told in settled.tried[1:3]] == ["it is not a folder", "others may write there"]


@needs.root
def test_a_folder_of_somebody_else_is_not_used(machine: Machine, small: Bundle, tmp_path: Path) -> None:
    """What another user owns is passed over, however it is protected."""
    squatted = tmp_path / "squatted"
    squatted.mkdir(0o700)
    os.chown(squatted, 12345, 12345)
    machine.options += ["--ro-bind", str(machine.home), "/home/ada", "--bind", str(squatted), OWN]
    settled, _ = _settle(machine, small)
    assert settled.place == OWN.replace("/var/tmp", "/tmp")
    assert "it belongs to user" in settled.tried[1]


@needs.root
def test_a_home_where_nothing_may_be_executed(machine: Machine, small: Bundle) -> None:
    """Things go to where they can be started."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=700", "tmpfs", str(machine.home)], check=True)
    try:
        settled, said = _settle(machine, small)
    finally:
        subprocess.run(["umount", "-l", str(machine.home)], check=True)
    assert settled.place == OWN
    assert said.endswith(b"hello\n")
    assert "nothing may be executed there" in settled.tried[0]


@needs.root
def test_a_home_with_too_little_room(machine: Machine, small: Bundle) -> None:
    """What is free is looked at before anything is sent."""
    with disks.tiny(machine.home, 512):
        settled, _ = _settle(machine, small)
    assert settled.place == OWN
    assert "it has 0 MiB free, and 1 are needed" in settled.tried[0]


@needs.root
def test_a_disk_that_fills_up_meanwhile(machine: Machine, small: Bundle) -> None:
    """The error says so, nothing half written is left, and with more room it works."""
    machine.without("df")
    with disks.tiny(machine.home, 700) as freed:
        problem = _refused(machine, small)
        assert (type(problem), problem.reason) == (StateError, "machine-full")
        assert not [p for folder in (".", "pythons", "bundles") for p in (machine.agent / folder).glob(".new-*")]
        assert not list((machine.agent / "bundles").iterdir())
        freed()
        _, said = _settle(machine, small)
    assert said.endswith(b"hello\n")


def test_a_transfer_that_was_cut_goes_on(any_machine: Machine, small: Bundle) -> None:
    """Pieces that had arrived whole are not sent again, and what was half written is gone."""

    def cut(text: str) -> None:
        if not text.startswith("sending a Python and Remora: 0 B"):
            raise ConnectionAbortedError

    with reached(any_machine.argv("sh", "-c", COMMAND)) as sock, pytest.raises(ConnectionAbortedError):
        asyncio.run(settle(sock, small, cut, Program("talk")))
    assert _names(any_machine.agent) == {"bundles", "incoming", "pythons"}
    arrived = sum(path.stat().st_size for path in (any_machine.agent / "incoming").iterdir())
    assert arrived >= bundles.PIECE
    settled, said = _settle(any_machine, small)
    assert said.endswith(b"hello\n")
    assert settled.sent < 3 * bundles.PIECE - arrived
    assert not _names(any_machine.agent / "incoming")


def test_what_was_torn_by_a_crash_is_sent_again(machine: Machine, small: Bundle) -> None:
    """A piece that is shorter than it should be does not count as arrived."""
    (machine.agent / "incoming").mkdir(parents=True)
    (machine.agent / "incoming" / small.python.pieces(compressed=True)[0].digest).touch()
    assert _settle(machine, small)[1].endswith(b"hello\n")


def test_what_a_crash_spoiled_is_found_and_sent_again(machine: Machine, small: Bundle) -> None:
    """A piece with other bytes than it should have is told of, and not kept for the next time."""
    (machine.agent / "incoming").mkdir(parents=True)
    first = small.python.pieces(compressed=True)[0]
    (machine.agent / "incoming" / first.digest).write_bytes(bytes(len(first.data)))
    problem = _refused(machine, small)
    assert (type(problem), problem.reason) == (PlaceError, "transfer")
    assert _settle(machine, small)[1].endswith(b"hello\n")


def test_tidying_services_leave_it_alone(machine: Machine, small: Bundle) -> None:
    """Each file has the bit that keeps it from being removed for its age."""
    _settle(machine, small)
    files = [path for name in ("pythons", "bundles") for path in (machine.agent / name).rglob("*")]
    assert all(path.lstat().st_mode & stat.S_ISVTX for path in files if path.name != "used" and not path.is_symlink())


def test_an_update_sends_what_has_changed(machine: Machine, small: Bundle, tmp_path: Path) -> None:
    """With another version of our code, the Python stays where it is."""
    _settle(machine, small)
    told: list[str] = []
    settled, said = _settle(machine, small_bundle(tmp_path / "store", b"2", 2 * bundles.PIECE), say=told.append)
    assert said.endswith(b"hello\n")
    assert settled.sent < 12000
    assert told[0].startswith("sending this version of Remora: 0 B of")
    assert len(_names(machine.agent / "bundles")) == 2
    assert len(_names(machine.agent / "pythons")) == 1


def test_two_at_once(any_machine: Machine, small: Bundle) -> None:
    """Both get what they need, there is one of each afterwards, and nothing else."""

    async def both() -> list[Settled]:
        return await asyncio.gather(*(settle(sock, small, _quiet, Program("talk")) for sock in socks))

    command = any_machine.argv("sh", "-c", COMMAND)
    with reached(command) as one, reached(command) as two:
        socks = [one, two]
        first, second = asyncio.run(both())
        assert [exchange(sock, b"hello\n").endswith(b"hello\n") for sock in socks] == [True, True]
    assert first.python == second.python
    assert _names(any_machine.agent) == {"bundles", "incoming", "pythons"}
    assert len(_names(any_machine.agent / "bundles")) == len(_names(any_machine.agent / "pythons")) == 1


def test_another_architecture(machine: Machine, small: Bundle) -> None:
    """It is told before anything is sent or made."""
    machine.instead_of("uname", "echo riscv64")
    problem = _refused(machine, small)
    assert (type(problem), problem.reason) == (Unavailable, "architecture")
    assert "riscv64" in str(problem)
    assert not list(machine.home.iterdir())


def test_a_python_that_does_not_run_there(machine: Machine, tmp_path: Path) -> None:
    """What it said is told, and nothing is left of it."""
    loader = 'echo "FATAL: kernel too old" >&2; exit 127'
    problem = _refused(machine, small_bundle(tmp_path / "store", loader=loader))
    assert (type(problem), problem.reason) == (PlaceError, "python-there")
    assert "FATAL: kernel too old (Linux" in str(problem)
    assert not [name for name in ("pythons", "bundles") if _names(machine.agent / name)]


def test_a_shell_without_its_programs(machine: Machine, small: Bundle) -> None:
    """A machine without dd cannot be used, and says why."""
    machine.without("dd")
    problem = _refused(machine, small)
    assert "no dd" in str(problem)


def test_what_nobody_has_used_for_long_is_removed(tmp_path: Path, small: Bundle) -> None:
    """Old bundles go, and the Pythons that only they need; those that a process runs from, or that are newer, stay."""
    home, place = tmp_path / "home", tmp_path / "home/.local/share/remora/agent"
    for name, python, days in (("unused", "old", 20), ("running", "needed", 20), ("recent", "needed", 3)):
        _lay(place / "bundles" / name / "used", days)
        (place / "bundles" / name / "needs").write_text(f"{python}\n")
        _lay(place / "pythons" / python / "loader", days)
        os.utime(place / "pythons" / python, (time.time() - days * 86400,) * 2)
    _lay(place / "incoming/forgotten", 5)
    running = [sys.executable, "-c", "import sys; sys.stdin.read()", str(place / "bundles/running/bin/python")]
    with subprocess.Popen(running, stdin=subprocess.PIPE) as process:
        with reached(["sh", "-c", COMMAND], {"HOME": str(home), "PATH": "/usr/bin:/bin"}) as sock:
            asyncio.run(settle(sock, small, _quiet, Program("talk")))
        assert process.stdin is not None
        process.stdin.close()
    assert _names(place / "bundles") == {"running", "recent", small.digest}
    assert _names(place / "pythons") == {"needed", small.python.digest}
    assert not _names(place / "incoming")


def _lay(file: Path, days: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (time.time() - days * 86400,) * 2)


def test_the_script_is_sent_without_its_comments() -> None:
    """What only readers need does not travel, and the shell still understands the rest."""
    for script in (settling._SETTLING, settling._INSTALLING):
        assert b"\n# " not in script and not script.startswith(b"#")
        subprocess.run(["sh", "-n"], input=script, check=True)
