"""The other commands: looking, stopping, shells and functions, as a user types them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest
from journeys import elsewhere
from journeys.commands import GATE, Commands, Terminal, until
from journeys.driving import DEADLINE, Place
from remora_provisioner import runlog

SCRIPT = """
import os
from pathlib import Path
import remora

def scaled(x): return x * 10

@remora.function(cpu=1)
def fit(n: int, deep: bool = False):
    print("there" if "REMORA_SANDBOX" in os.environ else "here", deep)
    return scaled(n)

def bad(): return {}["missing"]
def dies(): os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def warm() -> Iterator[Place]:
    """Give the file's tests a place whose backend runs, and whose functions' sandboxes end at once."""
    place = Place(REMORA_POOL_IDLE="0")
    try:
        Commands(place).run("ps")
        elsewhere.reached(place)
        yield place
    finally:
        place.close()


@pytest.fixture
def commands(warm: Place) -> Commands:
    """Give a test the command, in a folder of its own."""
    return Commands(warm)


@pytest.fixture(scope="module")
def waiting(warm: Place) -> Iterator[tuple[Commands, str]]:
    """Give the file's tests a run that waits at its gate, and its id."""
    commands = Commands(warm)
    commands.gate()
    commands.notebook("w.ipynb", f"print('one', flush=True)\n{GATE}")
    run = commands.run("run", "w.ipynb", "w.out.ipynb", "--detach").stdout.strip()
    until(lambda: commands.run("logs", run).stdout == "one\n", "the first line")
    yield commands, run
    commands.open_gate()
    commands.run("attach", run)


def test_listings_show_what_lives_and_what_ran(waiting: tuple[Commands, str]) -> None:
    """A table for people, JSON for programs, the same things in both."""
    commands, run = waiting
    (box,) = json.loads(commands.run("ps", "--json").stdout)
    assert (box["state"], box["session"]) == ("busy", "notebook")
    assert box["id"] in commands.run("ps").stdout
    first = json.loads(commands.run("runs", "--json", "-n", "1").stdout)[0]
    assert (first["id"], first["state"], first["sandbox"]) == (run, "running", box["id"])
    assert "w.ipynb" in commands.run("runs").stdout


def test_a_port_of_a_sandbox_here(waiting: tuple[Commands, str]) -> None:
    """Is one of this machine's own already, which is said; what is no port, and what cannot be had, is refused."""
    commands, _ = waiting
    (box,) = json.loads(commands.run("ps", "--json").stdout)
    found = json.loads(commands.run("port", box["id"][:4], "6006", "--json").stdout)
    assert (found["address"], found["on"], found["sandbox"]) == ("http://127.0.0.1:6006", "here", box["id"])
    assert "such as 6006" in commands.run("port", box["id"], "6006x", code=2).stderr
    assert "share this machine's loopback" in commands.run("port", box["id"], "6006", "--here", "7", code=2).stderr


class Screen(Terminal):
    """`remora shell` in a terminal of its own."""

    def __init__(self, commands: Commands, *words: str) -> None:
        """Start it."""
        super().__init__(commands, "shell", *words)

    def wait_prompt(self) -> None:
        """Read until the shell waits for a command."""
        self.wait("# " if os.getuid() == 0 and elsewhere.machine() == "here" else "$ ")

    def __enter__(self) -> Screen:
        """Wait for the prompt."""
        try:
            self.wait_prompt()
        except BaseException:
            self.__exit__()
            raise
        return self


def test_a_shell_is_a_terminal_in_the_sandbox_beside_what_runs(waiting: tuple[Commands, str]) -> None:
    """A real terminal: prompts, window size and its changes, Ctrl-C, exit code; it is in the sandbox while a cell runs there."""
    commands, _ = waiting
    with Screen(commands) as screen:
        screen.type("echo $((6 * 7))=$REMORA_SANDBOX; stty size; tty\n")
        screen.wait("42=")
        screen.wait("31 97")
        screen.wait("/dev/pts/")
        fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 70, 0, 0))
        screen.process.send_signal(signal.SIGWINCH)
        screen.type("until test \"$(stty size)\" = '20 70'; do :; done; echo slee''ping; sleep 4218\n")  # keys may overtake it
        screen.wait("sleeping")
        until(lambda: _running("sleep\x004218"), "the start of the command")  # bash loses what is typed while it starts one
        screen.type("\x03")
        screen.wait_prompt()
        screen.type("seq 200000 | tail -n 1; exit 7\n")
        screen.wait("200000\r\n")
        assert screen.process.wait(DEADLINE) == 7


def test_a_shell_ends_when_its_window_is_closed(waiting: tuple[Commands, str]) -> None:
    """After kill -9 of the command nothing of the shell is left in the sandbox."""
    commands, _ = waiting
    with Screen(commands) as screen:
        screen.type("sleep 4217\n")
        until(lambda: _running("sleep\x004217"), "the start of the command")
    until(lambda: not _running("sleep\x004217"), "the end of the command")


def _running(line: str) -> bool:
    found = False
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                found = found or line in file.read()
        except OSError:
            continue
    return found


def test_a_shell_works_in_a_pipe(waiting: tuple[Commands, str]) -> None:
    """Commands come from standard input; its end ends the shell."""
    commands, _ = waiting
    assert "42\n" in commands.run("shell", text="echo $((6 * 7))\nexit 3\n", code=3).stdout.replace("\r", "")


def test_what_is_not_there_is_said(waiting: tuple[Commands, str]) -> None:
    """Unknown runs and sandboxes name the command that lists them."""
    commands, _ = waiting
    for words in (["logs", "zz"], ["attach", "zz"], ["cancel", "zz"], ["stop", "zz"], ["shell", "zz"]):
        said = commands.run(*words, code=2).stderr
        assert said.startswith("remora: "), words
        assert said.count("\n") == 1, words


def test_cancel_ends_a_run_softly_or_hard(commands: Commands) -> None:
    """Sleeping code is interrupted; what does not react goes with its sandbox; a run that has ended is left alone."""
    for code, words in (("import time\ntime.sleep(600)", []), ("import time\ntime.sleep(600)", ["--hard"])):
        commands.notebook("a.ipynb", f"print('one', flush=True)\n{code}")
        run = commands.run("run", "a.ipynb", "o.ipynb", "--detach").stdout.strip()
        until(lambda run=run: commands.run("logs", run).stdout == "one\n", "the first line")
        commands.run("cancel", run, *words)
        assert "cancelled" in commands.run("attach", run, code=3).stderr
        assert "has ended already" in commands.run("cancel", run).stderr


def test_a_function_of_a_script_runs_there(commands: Commands) -> None:
    """Its output and value are printed, its exception is its own with exit code 1, its crash is told with 3."""
    (commands.folder / "s.py").write_text(SCRIPT)
    done = commands.run("run", "--memory", "1GiB", "s.py::fit", "4", "--deep")
    assert done.stdout == "there True\n40\n"
    failed = commands.run("run", "s.py::bad", code=1)
    assert "KeyError: 'missing'" in failed.stderr
    assert "remora/" not in failed.stderr
    assert "signal 9" in commands.run("run", "s.py::dies", code=3).stderr
    assert "did you mean fit" in commands.run("run", "s.py::fti", code=2).stderr


def test_the_doctor_says_what_works_and_what_to_do(commands: Commands) -> None:
    """Jails, limits, room and versions are looked at; nothing is started; what is wrong comes with advice."""
    found = {one["name"]: one for one in json.loads(commands.run("doctor", "--json").stdout)}
    assert {"versions", "system", "kernel", "state directory", "disk", "sandboxes", "images", "limits", "jail bubblewrap"} <= set(
        found
    )
    assert all(one["advice"] or one["text"] for one in found.values())
    commands.environment["REMORA_STATE_DIR"] = "/proc/nowhere"
    said = commands.run("doctor", code=3).stdout
    assert "MISSING  state directory" in said
    assert "REMORA_STATE_DIR" in said


def test_a_state_directory_that_cannot_be_written_is_one_line(commands: Commands) -> None:
    """Every command that needs it says so with 3."""
    commands.environment["REMORA_STATE_DIR"] = "/proc/nowhere"
    said = commands.run("ps", code=3).stderr
    assert said.startswith("remora: the state directory /proc/nowhere cannot be used")
    assert said.count("\n") == 1


def test_stop_all_leaves_nothing_and_starts_nothing() -> None:
    """Every sandbox ends, then the backend, before the command does; again it finds nothing to do."""
    place = Place()
    try:
        commands = Commands(place)
        commands.notebook("a.ipynb", "import time\ntime.sleep(600)")
        commands.run("run", "a.ipynb", "o.ipynb", "--detach")
        assert len(commands.run("stop", "--all").stdout.split()) == 1
        left = subprocess.run(["ps", "axo", "args"], capture_output=True, text=True, check=True).stdout
        assert not [line for line in left.splitlines() if str(place.state) in line and "follower" not in line]
        assert "nothing is running" in commands.run("stop", "--all").stderr
        assert 'status="failed"' not in (commands.folder / "o.ipynb").read_text()
    finally:
        place.close()


def test_a_stopped_run_has_one_end_with_its_reason(warm: Place) -> None:
    """Stopping the sandbox under a run ends the run as stopped, in its listing and once in its log."""
    commands = Commands(warm)
    commands.notebook("a.ipynb", "print('one', flush=True)\nimport time\ntime.sleep(600)")
    run = commands.run("run", "a.ipynb", "o.ipynb", "--detach").stdout.strip()
    until(lambda: commands.run("logs", run).stdout == "one\n", "the first line")
    (facts,) = (one for one in json.loads(commands.run("runs", "--json").stdout) if one["id"] == run)
    commands.run("stop", facts["sandbox"])
    (facts,) = (one for one in json.loads(commands.run("runs", "--json").stdout) if one["id"] == run)
    assert (facts["state"], facts["reason"]) == ("ended", "stopped")
    log = elsewhere.kept(warm) / "runs" / run / "log"
    assert [record.type for record, _ in runlog.read(log)].count("result") == 1


def test_python_dash_m_is_the_command() -> None:
    """`python -m remora` is there for those whose path lacks the script."""
    said = subprocess.run([sys.executable, "-m", "remora", "--version"], capture_output=True, text=True, timeout=DEADLINE)
    assert said.stdout.startswith("remora ")
