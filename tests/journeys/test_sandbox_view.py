"""What code in a sandbox can see and reach of the machine it runs on, tried from inside a remote cell."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from journeys.driving import Notebook, Place
from remora.wire import PROTOCOL


def ask(notebook: Notebook, code: str, line: str = "") -> object:
    """Run code there that sets `found`, and return that."""
    ran = notebook.remote(f"import json, os\n{code}\nprint(json.dumps(found))", line)
    assert ran.ok, ran.error
    return json.loads(ran.stdout)


TRY = """
def tried(what):
    try:
        what()
    except OSError as error:
        return error.__class__.__name__
    return 'done'
"""


def test_home_and_other_users(place: Place, notebook: Notebook) -> None:
    """The home holds nothing but what leads to the environment and the notebook; other homes and files are not there."""
    home = Path.home()
    secret = place.root / "another-folder" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("secret")
    code = f"found = [os.path.exists(p) for p in ({str(secret)!r}, {str(home / '.ssh')!r}, {str(home / '.bashrc')!r})]"
    assert ask(notebook, code) == [False] * 3
    homes = ask(notebook, "found = os.listdir('/home') if os.path.exists('/home') else []")
    assert set(homes) <= {home.name}
    names = ask(notebook, "found = [n for n in os.listdir(os.path.expanduser('~'))]")
    needed = {
        Path(p).relative_to(home).parts[0]
        for p in (sys.prefix, sys.base_prefix, str(notebook.folder))
        if Path(p).is_relative_to(home)
    }
    assert set(names) - {".ipython", ".cache", ".config", ".local"} <= needed


def test_state_directory_token_and_backend(place: Place, notebook: Notebook) -> None:
    """The state directory, its sockets and logs are not there to be opened, and nothing of ours listens on an abstract name."""
    code = f"""
found = {{
    'state': os.path.exists({str(place.state / f"backend-{PROTOCOL}" / "runs")!r}),
    'socket': os.path.exists({str(place.state / f"backend-{PROTOCOL}" / "socket")!r}),
    'abstract': [line for line in open('/proc/net/unix') if '@' in line and 'remora' in line],
}}"""
    assert ask(notebook, code) == {"state": False, "socket": False, "abstract": []}


def test_host_processes(notebook: Notebook) -> None:
    """Only the sandbox's own processes are there, and the kernel cannot be signalled."""
    pids = ask(notebook, "found = [int(p) for p in os.listdir('/proc') if p.isdigit()]")
    assert isinstance(pids, list)
    assert max(pids) < 1000
    assert len(pids) < 10
    kernel = notebook.manager.provisioner.process.pid
    assert ask(notebook, f"{TRY}found = tried(lambda: os.kill({kernel}, 0))") == "ProcessLookupError"


def test_caches_outlive_the_sandbox(notebook: Notebook) -> None:
    """What is fetched into the caches of models and packages is there in the next sandbox; the rest of ~/.cache is not."""
    code = """
from pathlib import Path
cache = Path.home() / '.cache'
places = [cache / name / 'model' for name in ('huggingface', 'torch', 'uv', 'pip')]
other = cache / 'other'
"""
    write = "[place.write_text('kept') for place in [*places, other]]\nfound = True"
    read = "found = [place.read_text() if place.exists() else None for place in [*places, other]]"
    assert ask(notebook, code + write, "session=first") is True
    assert ask(notebook, code + read, "session=second") == [*["kept"] * 4, None]
    assert notebook.run("%remote stop first").ok and notebook.run("%remote stop second").ok


def test_folder_is_there_under_its_own_path(notebook: Notebook) -> None:
    """What the cell writes is in the folder, and belongs to the user."""
    (notebook.folder / "in.txt").write_text("from here")
    assert ask(notebook, "open('out.txt', 'w').write(open('in.txt').read() + ' and there')\nfound = os.getcwd()") == str(
        notebook.folder
    )
    assert (notebook.folder / "out.txt").read_text() == "from here and there"
    assert (notebook.folder / "out.txt").stat().st_uid == os.getuid()


@pytest.mark.parametrize(("files", "expected"), [("ro", ["in.txt", "OSError"]), ("none", [None, "done"])])
def test_folder_modes(notebook: Notebook, files: str, expected: list[str | None]) -> None:
    """With files=ro the folder can be read, with files=none it is an empty private one."""
    (notebook.folder / "in.txt").write_text("x")
    code = f"{TRY}found = ['in.txt' if os.path.exists('in.txt') else None, tried(lambda: open('new.txt', 'w'))]"
    found = ask(notebook, code, f"session=files-{files} files={files}")
    assert notebook.run(f"%remote stop files-{files}").ok
    assert found == expected
    assert not (notebook.folder / "new.txt").exists()


def test_image_cannot_be_written(notebook: Notebook) -> None:
    """Neither the kernel's environment nor the system can be written; the private rest can."""
    paths = [Path(os.__file__), Path(sys.prefix) / "new", Path(json.__file__), Path("/usr/new"), Path("/etc/new")]
    code = f"{TRY}found = [tried(lambda p=p: open(p, 'a')) for p in {[str(p) for p in paths]!r}]"
    assert set(ask(notebook, code)) <= {"OSError", "PermissionError"}
    private = ("/tmp/x", "~/x", "/dev/shm/x", "/var/tmp/x")
    code = f"{TRY}found = [tried(lambda p=p: open(os.path.expanduser(p), 'w')) for p in {private}]"
    assert ask(notebook, code) == ["done"] * 4


def test_host_root_is_out_of_reach(notebook: Notebook) -> None:
    """No capability, no mount, no kernel setting: whatever user it looks like inside, it is not the machine's root."""
    code = f"""{TRY}
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
found = {{
    'capabilities': int(status['CapEff'], 16),
    'privileges': status['NoNewPrivs'].strip(),
    'core_pattern': tried(lambda: open('/proc/sys/kernel/core_pattern', 'w')),
    'mount': libc.mount(b'none', b'/tmp', b'tmpfs', 0, None),
    'shadow': tried(lambda: open('/etc/shadow').read()),
}}"""
    found = ask(notebook, code)
    assert isinstance(found, dict)
    assert found["capabilities"] == 0
    assert found["privileges"] == "1"
    assert found["core_pattern"] in ("PermissionError", "OSError")
    assert found["mount"] == -1
    assert found["shadow"] in ("PermissionError", "FileNotFoundError")


def test_no_process_of_a_sandbox_is_root_outside(place: Place, notebook: Notebook) -> None:
    """Seen from the machine, what runs in the sandbox has a user id of its own when root started it, and the user's otherwise."""
    notebook.remote("import subprocess; sleeper = subprocess.Popen(['sleep', '600'])")
    users = {path.stat().st_uid for path in Path("/proc").glob("[0-9]*") if _command(path) == b"sleep\x00600\x00"}
    notebook.remote("sleeper.kill()")
    assert users
    assert (min(users) >= 0x70000000) if os.getuid() == 0 else (users == {os.getuid()})


def _command(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:
        return b""


def test_environment_holds_no_secrets(place: Place) -> None:
    """The sandbox is given what changes results and what installing needs, not the rest of the kernel's environment."""
    notebook = place.start(AWS_SECRET_ACCESS_KEY="hidden", OMP_NUM_THREADS="3")
    assert ask(notebook, "found = [os.environ.get('AWS_SECRET_ACCESS_KEY'), os.environ.get('OMP_NUM_THREADS')]") == [None, "3"]
    assert ask(notebook, "found = os.environ['WANTED']", "session=env env=WANTED=yes") == "yes"
    place.end(notebook)


def test_threads_follow_cpu(notebook: Notebook) -> None:
    """Libraries start as many threads as there are cores asked for, and the sandbox runs on as many."""
    code = "found = [os.environ['OMP_NUM_THREADS'], len(os.sched_getaffinity(0))]"
    assert ask(notebook, code, "session=narrow cpu=1") == ["1", 1]
    assert notebook.run("%remote stop narrow").ok


def test_workers_share_memory(notebook: Notebook) -> None:
    """Worker processes can pass large arrays through /dev/shm, as data loaders do."""
    code = """
from multiprocessing import shared_memory
block = shared_memory.SharedMemory(create=True, size=300 << 20)
block.buf[-1] = 7
found = block.buf[-1]
block.close(); block.unlink()"""
    assert ask(notebook, code, "session=shared") == 7
    assert notebook.run("%remote stop shared").ok


def test_options_of_a_living_sandbox(notebook: Notebook) -> None:
    """An option that a living sandbox cannot take on is named once, and counts with --fresh."""
    code = "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    assert notebook.remote(code, "session=late").stdout == "None\n"
    told = notebook.remote(code, "session=late cpu=1")
    assert told.stdout == "None\n"
    assert "cpu= will count when session late gets its next sandbox" in told.stderr
    assert notebook.remote(code, "session=late cpu=1").stderr == ""
    assert notebook.remote(code, "session=late cpu=1 --fresh").stdout == "1\n"
    assert notebook.run("%remote stop late").ok
