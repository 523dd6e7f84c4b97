"""Who can do what to whom: other users of both machines, code in a sandbox elsewhere, and whoever looks at the disk there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys.driving import Notebook, Place
from journeys.elsewhere import ON, knowing
from provisioner.hosts import Host
from provisioner.servers import OTHER
from remora.wire import PROTOCOL
from strangers import as_stranger, opened, passable, touched

from provisioner import needs

pytestmark = needs.hosts
VALUE = "value-of-a-secret-5c1e"
PLACE = "/home/ada/.local/share/remora/agent"
STATE = f"{PLACE}/state-{PROTOCOL}"
# Says what of another user's is open: files and folders anywhere, and processes.
_LOOKS = """
find / \\( -path /proc -o -path /sys -o -path /dev/pts \\) -prune -o -user ada \\( -readable -o -writable \\) -print 2>/dev/null
cd {place} 2>/dev/null && echo "cd {place}"
for known in {known}; do [ -e "$known" ] && echo "see $known"; done
for process in /proc/[0-9]*; do
    [ "$(stat -c %U $process 2>/dev/null)" = ada ] || continue
    kill -0 ${{process#/proc/}} 2>/dev/null && echo "signal $process"
    for part in environ maps mem; do head -c 1 $process/$part >/dev/null 2>&1 && echo "read $process/$part"; done
    for part in fd cwd/ root/; do ls $process/$part >/dev/null 2>&1 && echo "list $process/$part"; done
    seen=$((seen + 1))
done
echo "looked at $seen"
"""
# Run in a sandbox: what it can do to the agent, to other sandboxes and to the store of images.
_TRIES = """
import os, socket
from pathlib import Path
from remora import streams
done = []
for path in {paths!r}:
    if os.path.lexists(path):
        done.append(f"sees {{path}}")
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            done.append(f"connects to {{path}}")
    except OSError:
        pass
    try:
        with streams.dial(Path(path)) as sock:  # by way of its supervisor
            sock.settimeout(20)
            if sock.recv(1):
                done.append(f"is let in to {{path}}")
    except OSError:
        pass
shown = [line.split()[3:6] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
shown = [(target, options) for source, target, options in shown if "/agent/state-" in source and "/images" in source]
done += [f"may write {{target}}" for target, options in shown if not options.startswith("ro")]
for target in {farms!r}, {farms!r} + "/" + os.listdir({farms!r})[0]:
    try:
        Path(target, "put-there").touch()
        done.append(f"wrote into {{target}}")
    except OSError:
        pass
others = [path for path in Path("/proc").glob("[0-9]*/environ") if {value!r}.encode() in path.read_bytes()]
done, others, len(shown) > 1
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Give a host whose user lets everybody into the home and makes all files for everybody."""
    with Host(name="box") as host:
        host.do("mkdir -p .local/share && chmod 755 . .local .local/share && echo 'umask 0' >.bashrc")
        yield host


@pytest.fixture(scope="module")
def place(host: Host, small_environment: str) -> Iterator[Place]:
    """Give a place whose user makes all files for everybody, too."""
    before = os.umask(0)
    try:
        with knowing(host, small_environment) as place:
            words = [sys.executable, "-m", "remora", "secret", "set", "mine", "TOKEN"]
            subprocess.run(words, env=place.environment, input=VALUE, text=True, check=True, stdout=subprocess.DEVNULL)
            yield place
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def shared(place: Place) -> Notebook:
    """Give a kernel with a sandbox elsewhere that has a secret, another one there, and one here."""
    notebook = place.start("small")
    assert notebook.run("%load_ext remora").ok
    (notebook.folder / "data.txt").write_text("private")
    code = "import os\nprint(open('data.txt').read(), len(os.environ['TOKEN']), os.environ['TOKEN'])"
    ran = notebook.remote(code, f"{ON} secret=mine session=first")
    assert ran.stdout == f"private {len(VALUE)} ***\n"
    assert notebook.remote("pass", f"{ON} session=second").ok
    assert notebook.remote("pass", "on=here secret=mine session=third").ok
    return notebook


def sockets(host: Host) -> list[str]:
    """Return where the agent there and all supervisors listen."""
    top = host.path / STATE.lstrip("/")
    found = [top / "agent", *(top / "sandboxes").glob("*/socket")]
    assert len(found) == 3
    return [f"/{path.relative_to(host.path)}" for path in found]


def test_another_user_of_the_host(host: Host, notebook: Notebook) -> None:
    """Cannot read files, sockets or processes of ours there, nor reach, signal or change them, with an umask of 0 at that."""
    known = [*sockets(host), f"{STATE}/agent.log", f"{STATE}/images", f"{STATE}/runs", f"{STATE}/folders"]
    for path in known:
        assert (host.path / path.lstrip("/")).exists()
    host.do("touch /tmp/open-to-all")
    looked = host.run(["bash", "-c", _LOOKS.format(place=PLACE, known=" ".join(known))], user=OTHER).stdout.splitlines()
    *found, last = looked
    open_ = {"/home/ada", "/home/ada/.bashrc", "/home/ada/.local", "/home/ada/.local/share", "/tmp/open-to-all"}
    assert set(found) == open_
    assert int(last.removeprefix("looked at ")) >= 5


def test_another_user_of_the_laptop(place: Place, notebook: Notebook) -> None:
    """Cannot read files, sockets or processes of ours, nor reach, signal, trace or change them, with an umask of 0 at that."""
    state = [Path(folder, name) for folder, names, files in os.walk(place.state) for name in (*names, *files)]
    keys = [*Path(os.environ["XDG_CONFIG_HOME"], "remora").rglob("*")]
    ours = [path for path in (place.state, *state, *keys) if not path.is_symlink()]
    names = {path.name for path in ours}
    assert {"socket", "order.json", "log", "remora.db", "backend.log", "secrets", "secrets.key"} <= names
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o700
    pids = [pid for module in ("remora_backend", "remora_provisioner.supervise") for pid in place.processes(module)]
    pids += _descendants(pids)
    assert len(pids) >= 4
    with passable(place.state), passable(Path(os.environ["XDG_CONFIG_HOME"])):
        assert as_stranger(lambda: opened(ours)) == [f"read {place.state}"]  # which the test has just allowed
        assert as_stranger(lambda: touched(pids)) == []


def test_a_sandbox_elsewhere_reaches_nothing_else_there(host: Host, notebook: Notebook) -> None:
    """Neither the agent's socket nor other sandboxes', by no way; it writes no image, and finds no secret of another sandbox."""
    paths = [*sockets(host), f"{STATE}/agent.lock", f"{STATE}/runs", f"{STATE}/ends"]
    code = _TRIES.format(paths=paths, farms=f"{STATE}/images/farms", value=VALUE)
    ran = notebook.remote(code, f"{ON} session=second")
    assert ran.ok, ran.error
    assert ran.result == "([], [], True)"


def test_a_secret_is_in_no_file_there(host: Host, place: Place, notebook: Notebook) -> None:
    """Nor on any command line, nor in the environment of anything but what runs in its sandbox."""
    places = [host.path / name for name in ("home", "tmp", "var", "run", "root", "dev/shm")]
    searched = subprocess.run(
        ["grep", "-rlFa", "--devices=skip", VALUE, *places, place.state], capture_output=True, text=True, check=False
    )
    assert searched.stdout == ""
    holders = {}
    for pid, words in host.processes().items():
        assert VALUE not in words
        if VALUE.encode() in Path(f"/proc/{pid}/environ").read_bytes():
            holders[pid] = words
    assert holders
    assert all("remora_provisioner" not in words for words in holders.values()), holders


def _descendants(pids: list[int]) -> list[int]:
    """Return all processes below these."""
    found: list[int] = []
    waiting = [*pids]
    while waiting:
        pid = waiting.pop()
        children = [int(one) for tasks in Path(f"/proc/{pid}/task").iterdir() for one in (tasks / "children").read_text().split()]
        found += children
        waiting += children
    return found
