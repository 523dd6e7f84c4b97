"""Cells on another machine: reached by SSH, with nothing there but a shell."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from journeys.commands import Commands, Terminal, until
from journeys.driving import Notebook, Place, Ran
from journeys.elsewhere import ON, kill_when, knowing, started
from provisioner.hosts import Host

from provisioner import needs

pytestmark = needs.hosts
_FAR = 0.4
"""Seconds of a round trip beside which all else is short."""
_SERVES = """
def serve():
    import http.server, threading
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port
port = serve()
"""


@pytest.fixture(scope="module")
def place(host: Host, small_environment: str) -> Iterator[Place]:
    """Give a file's tests a place."""
    with knowing(host, small_environment) as place:
        yield place


@pytest.fixture(scope="module")
def shared(place: Place) -> Notebook:
    """Give a file's tests one kernel."""
    return started(place)


@pytest.fixture
def cell(notebook: Notebook) -> Callable[..., Ran]:
    """Give a test what runs a cell there."""
    return lambda code, line="", **options: notebook.remote(code, f"{ON} {line}", **options)


def test_a_cell_runs_there(host: Host, notebook: Notebook, cell: Callable[..., Ran]):
    """Its process is one of the host's; variables go and come; output, results and errors are as here."""
    notebook.run("numbers = [1, 2, 3]")
    ran = cell("import os, socket\nprint(socket.gethostname().startswith('remora-'), os.getcwd())\ntotal = sum(numbers)\ntotal")
    assert ran.ok, ran.error
    assert ran.stdout == f"True {notebook.folder}\n"
    assert ran.result == "6"
    assert notebook.run("total + 1").result == "7"
    assert any("remora/guest" in words for words in host.processes().values())
    failed = cell("1 / 0")
    assert "ZeroDivisionError" in failed.error


def test_libraries_of_the_interpreter_go_along(cell: Callable[..., Ran]):
    """Those that the host has none of: modules of the standard library that need them are imported as here."""
    ran = cell("import ctypes, sqlite3\nsqlite3.connect(':memory:').execute('select 6 * 7').fetchone()")
    assert ran.result == "(42,)", ran.error


@pytest.mark.usefixtures("shared")
def test_modules_that_were_edited_go_along(tmp_path: Path, place: Place):
    """A sandbox that was begun with what was there before makes room for one with what is there now."""
    notebook = place.start("small", PYTHONPATH=str(tmp_path))
    assert notebook.run("%load_ext remora").ok
    for number in range(4):
        (tmp_path / "edited.py").write_text(f"NUMBER = {number}")
        ran = notebook.remote("import edited\nedited.NUMBER", f"{ON} --fresh")
        assert ran.result == str(number), ran.error
    place.end(notebook)


def test_code_there_calls_and_opens_nothing(cell: Callable[..., Ran]):
    """What it asks of Remora cannot be answered there, and it is told so in one line."""
    ran = cell("import remora\nremora.function(lambda: 1).remote()")
    assert "code on another machine cannot call functions" in ran.error
    assert cell("1").result == "1"


def test_files_go_and_come(notebook: Notebook, cell: Callable[..., Ran], host: Host):
    """What the folder holds is read there, what a cell writes is here afterwards; what has not changed does not move."""
    folder = notebook.folder
    (folder / "numbers.csv").write_text("1\n2\n" * 50_000)
    (folder / "helping.py").write_text("FACTOR = 2\n")
    code = (
        "import helping\ntotal = helping.FACTOR * sum(map(int, open('numbers.csv')))\n"
        "import os; os.makedirs('made', exist_ok=True); open('made/total.txt', 'w').write(str(total))"
    )
    ran = cell(code)
    assert ran.ok, ran.error
    assert (folder / "made/total.txt").read_text() == "300000"
    assert "2 files sent" in ran.stdout + ran.stderr
    before = host.link.carried()
    assert cell("open('numbers.csv').readline()").result == "'1\\n'"
    assert host.link.carried().up - before.up < 60_000
    (folder / "helping.py").write_text("FACTOR = 30\n")
    assert cell("import importlib; importlib.reload(helping).FACTOR").result == "30"


def test_it_is_said_how_far_files_have_come(notebook: Notebook, cell: Callable[..., Ran], host: Host):
    """On the status line, before the cell and after it, where that takes its time."""
    assert cell("pass").ok
    (notebook.folder / "large.bin").write_bytes(os.urandom(8 << 20))
    host.link.shape(rate_mbit=32)
    try:
        ran = cell("import os; open('made.bin', 'wb').write(os.urandom(8 << 20)); os.remove('large.bin')")
    finally:
        host.link.shape()
    assert ran.ok, ran.error
    lines = json.dumps([message["content"] for message in ran.messages])  # what follows the first goes to the widget beside it
    for words in ("sending files to box", "bringing files home from box"):
        assert re.search(rf"{words}: \d\.\d MiB of 8\.0 MiB", lines), lines
    (notebook.folder / "made.bin").unlink()
    assert cell("pass").ok


def test_a_warm_cell_takes_one_round_trip(notebook: Notebook, cell: Callable[..., Ran], host: Host):
    """Variables and files included: what is saved before it is seen, what it writes is home, and nothing is asked twice."""

    def took(code: str) -> float:
        began = time.monotonic()
        assert cell(code).ok
        return time.monotonic() - began

    folder = notebook.folder
    notebook.run("number = 1")
    assert cell("number += 1").ok
    host.link.shape(delay_ms=1000 * _FAR)
    try:
        assert min(took("number + 1") for _ in range(3)) < 1.9 * _FAR
        (folder / "saved.txt").write_text("saved")
        assert cell("text = open('saved.txt').read(); open('made.txt', 'w').write(text[::-1])").ok
        assert (folder / "made.txt").read_text() == "devas"
        assert min(took("pass") for _ in range(2)) < 1.9 * _FAR  # what was exchanged is at rest again
    finally:
        host.link.shape()
    assert notebook.run("number").result == "2"


def test_changed_on_both_sides(notebook: Notebook, cell: Callable[..., Ran]):
    """Neither version is lost: mine keeps its name, the other one is named."""
    note = notebook.folder / "note.txt"
    note.write_text("first")
    assert cell("open('note.txt').read()").result == "'first'"
    wait = "import time\nprint('begun', flush=True)\ntime.sleep(1)\nopen('note.txt', 'w').write('theirs')"
    ran = notebook.remote(wait, ON, on=kill_when("begun", lambda: note.write_text("mine")))
    assert ran.ok, ran.error
    assert note.read_text() == "mine"
    assert (notebook.folder / "note.txt.from-box").read_text() == "theirs"
    assert "note.txt.from-box" in ran.stdout + ran.stderr


FUNCTIONS = """
import remora
from adding import more
class Refusal(Exception): pass
@remora.function(on="box", cpu=1, timeout=60, idle="1s")
def work(x):
    print("working on", x)
    if x < 0: raise Refusal(x)
    with open(f"result-{x}.txt", "w") as file: file.write(open("given.txt").read() * x)
    return more(x)
"""


def test_what_a_sandbox_has_written_that_dies(notebook: Notebook):
    """It is here when the cell is over, and named."""
    ran = notebook.remote("open('last.txt', 'w').write('words')\nimport os; os._exit(1)", f"{ON} session=dies")
    assert not ran.ok
    assert (notebook.folder / "last.txt").read_text() == "words"
    assert "1 file fetched" in ran.stdout + ran.stderr, ran


def test_functions(place: Place, notebook: Notebook):
    """Calls run there, several at once, with the files of the folder; what they print, write, return and raise comes home."""
    folder = notebook.folder
    (folder / "adding.py").write_text("def more(x): return x + 100\n")
    (folder / "given.txt").write_text("ab")
    assert notebook.run(FUNCTIONS).ok
    ran = notebook.run("work.remote(2)")
    assert ran.ok, ran.error
    assert (ran.result, ran.stdout) == ("102", "working on 2\n")
    listed = json.loads(Commands(place).run("ps", "--json").stdout)
    assert [row["on"] for row in listed if row.get("pool")] == ["box"]
    assert (folder / "result-2.txt").read_text() == "abab"
    (folder / "given.txt").write_text("c")
    ran = notebook.run("job = work.spawn(1)\nlist(work.map([3, 4, 5])), job.get(timeout=60), str(job.state.value)")
    assert ran.ok, ran.error
    assert ran.result == "([103, 104, 105], 101, 'done')"
    assert [(folder / f"result-{x}.txt").read_text() for x in (1, 3, 4, 5)] == ["c", "ccc", "cccc", "ccccc"]
    ran = notebook.run("try: work.remote(-1)\nexcept Refusal as error: print('refused', error.args)")
    assert ran.stdout == "working on -1\nrefused (-1,)\n", ran.error
    again = notebook.run("remora.Run.from_id(job.id).get()")
    assert again.result == "101", again.error
    ran = notebook.run("import time\njob = remora.function(on='box', idle='0.1s')(time.sleep).spawn(60)\njob.cancel()\njob.get()")
    assert "[cancelled]" in ran.error
    until(lambda: '"pool"' not in Commands(place).run("ps", "--json").stdout, "the end of unused sandboxes")


def test_the_second_kernel_finds_everything_there(place: Place, host: Host):
    """Nothing but a few messages goes over the link."""
    before = host.link.carried()
    notebook = place.start("small")
    assert notebook.run("%load_ext remora").ok
    assert notebook.remote("there = 1", ON).ok
    after = host.link.carried()
    assert after.up - before.up < 300_000
    assert notebook.run("%remote stop").ok
    place.end(notebook)


def test_what_a_new_kernel_needs_is_looked_at_again(place: Place, small_environment: str, host: Host):
    """It gets a sandbox at once by what was needed last, and another one if a package came to be there meanwhile."""
    module = next(Path(small_environment).parents[1].glob("lib/python*/site-packages")) / "remora_test_added.py"
    before = host.link.carried()
    try:
        module.write_text("VALUE = 42\n")
        notebook = place.start("small")
        assert notebook.run("%load_ext remora").ok
        assert notebook.remote("import remora_test_added\nremora_test_added.VALUE", ON).result == "42"
    finally:
        module.unlink()
    assert host.link.carried().up - before.up < 5_000_000
    assert notebook.run("%remote stop").ok
    place.end(notebook)


def test_input_and_widgets(cell: Callable[..., Ran]):
    """Both ways, while the cell runs."""
    assert cell("name = input('who? ')\nprint('hello', name)", answers=["ada"]).stdout == "hello ada\n"


def test_a_port_opens_here(place: Place, notebook: Notebook, cell: Callable[..., Ran]):
    """What listens in the sandbox is reached here, from the notebook or the command line, until the sandbox ends."""
    (notebook.folder / "page.txt").write_text("from there")
    assert (ran := cell(_SERVES, "session=serving")).ok, ran.error
    port = int(notebook.run("port").result)
    said = notebook.run(f"%remote port {port} serving").result
    address, sandbox = said.partition(" ")[0], said.split(" of sandbox ")[1].split()[0]
    assert said.endswith(f"leads to port {port} of sandbox {sandbox} on box")
    place_here = address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(place_here[0], int(place_here[1]), timeout=60)
    connection.request("GET", "/page.txt")
    assert connection.getresponse().read() == b"from there"
    connection.close()
    assert "nothing listens there yet" in notebook.run("%remote port 9 serving").result
    commands, path = Commands(place), place.root / "own.sock"
    listed = json.loads(commands.run("port", sandbox, "--json").stdout)
    assert [one["port"] for one in listed] == [9, port]
    commands.run("port", sandbox, "9", "--close")
    assert commands.run("port", sandbox, str(port), "--socket", str(path)).stdout.startswith(f"{path} leads to port {port}")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"GET /page.txt HTTP/1.0\r\n\r\n")
        assert b"".join(iter(lambda: sock.recv(1000), b"")).endswith(b"from there")
    assert notebook.run("%remote stop serving").ok
    assert not path.exists()


def test_an_unknown_host_key_is_a_question(place: Place, notebook: Notebook):
    """It is asked in the cell, or at the terminal; no means no, and yes is written down."""
    with Host(name="other", known="nothing") as other:
        configuration = Path(place.environment["HOME"]) / ".ssh/config"
        asking = other.config.read_text().replace("StrictHostKeyChecking yes", "StrictHostKeyChecking ask")
        configuration.write_text(f"{configuration.read_text()}\n{asking}")
        asked: list[str] = []
        seen = {"answers": ["no"], "on": lambda message: asked.append(message["content"].get("prompt", ""))}
        ran = notebook.remote("pass", "on=other session=asked", **seen)
        assert "SHA256:" in "".join(asked)
        assert "other" in ran.error
        assert not other.known_hosts.read_text()
        with Terminal(Commands(place), "machine", "check", "other") as terminal:
            terminal.wait("SHA256:")
            terminal.type("yes\n")
            terminal.wait("run in jail bubblewrap")
        assert other.known_hosts.read_text()


def test_a_full_disk_here(place: Place, notebook: Notebook):
    """What goes there is packed here first: without room for that one line says so, and what to do."""
    folder = place.root / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", folder], check=True)
    other = place.start("small", REMORA_STATE_DIR=str(folder))
    try:
        assert other.run("%load_ext remora").ok
        said = other.remote("pass", ON).error
        assert all(word in said for word in (str(folder), "No space left", "REMORA_STATE_DIR")), said
    finally:
        place.end(other)
        place.stop_all(folder)
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_here_that_is_full_by_now(place: Place, cell: Callable[..., Ran], host: Host):
    """Of a sandbox that could be started there, but not be noted down here, nothing is left; the next one is started."""
    assert cell("pass").ok
    other, folder, before = place.start("small"), place.backend / "links", host.processes()
    assert other.run("%load_ext remora").ok
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1,mode=0700", "none", folder], check=True)
    try:
        said = other.remote("pass", ON).error
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    assert all(word in said for word in ("StateError", "No space left", "REMORA_STATE_DIR")), said
    until(lambda: not host.processes().keys() - before.keys(), "the end of what was started there")
    assert (ran := other.remote("pass", ON)).ok, ran.error
    place.end(other)


def test_machines_on_the_command_line(place: Place, host: Host):
    """Added, listed, checked, removed."""

    def remora(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "remora", "machine", *words],
            env=place.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    destination = f"ada@{host.link.far}"
    known = Path(place.environment["HOME"]) / ".ssh/known_hosts"
    known.write_text(host.known_hosts.read_text())
    assert "run in jail bubblewrap" in remora("add", "added", destination, "--identity", str(host.folder / "key"))
    listed = {one["name"]: one for one in json.loads(remora("ls", "--json"))}
    assert (listed["added"]["destination"], listed["box"]["reached"]) == (destination, True)
    assert json.loads(remora("check", "added", "--json").partition("\nremora:")[0])["cores"] == os.cpu_count()
    assert "did you mean added?" in remora("check", "aded", status=2)
    remora("rm", "added")
    assert "there is no machine 'added'" in remora("check", "added", status=2)


def test_a_machine_that_nobody_knows(notebook: Notebook):
    """One line, which says how to add it."""
    ran = notebook.remote("pass", "on=nowhere")
    assert "there is no machine 'nowhere'" in ran.error
    assert "remora machine add" in ran.error


LOOK = "import os, time\ntime.sleep(1.2)\nprint(sorted(name for name in os.listdir('/dev') if name.startswith('acme')))"
CALLS = f"""
import os, remora, time
def wait(file):
    while not os.path.exists(file): time.sleep(0.05)
@remora.function(cpu=1, idle="1s")
def on_box():
    if not os.path.exists("/etc/cdi/acme.json"): wait("go")
    return os.path.exists("/etc/cdi/acme.json")
@remora.function(on="here", cpu={os.cpu_count()}, idle="1s")
def full(): wait("go")
"""


def test_where_nothing_is_said(place: Place, notebook: Notebook, host: Host):
    """A machine that was added and has the GPU is taken, and the status line says so; calls spread, and say why they wait."""
    commands = Commands(place)
    notes = {"acme.example/model": "Acme A9000", "acme.example/memory": "48GiB"}
    devices = [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/acme0", "hostPath": "/dev/zero"}]}}]
    (host.path / "etc/cdi").mkdir()
    spec = {"cdiVersion": "0.6.0", "kind": "acme.example/gpu", "annotations": notes, "devices": devices}
    (host.path / "etc/cdi/acme.json").write_text(json.dumps(spec))
    assert "no machine has gpu=A9000. There is: here:" in notebook.remote("pass", "session=gpu gpu=A9000").error
    living = json.loads(commands.run("ps", "--json").stdout)
    commands.run("stop", *(row["id"] for row in living if row["on"] == "box"))
    (Path(place.environment["HOME"]) / ".ssh/known_hosts").write_text(host.known_hosts.read_text())
    commands.run("machine", "add", "box", f"ada@{host.link.far}", "--identity", str(host.folder / "key"))
    ran = notebook.remote(LOOK, "session=gpu gpu=A9000")
    assert ran.ok, ran.error
    assert ran.stdout == "['acme0']\n"
    assert "Remora · gpu · box · Acme A9000 (48.0 GiB)" in ran.status_lines[-1]
    assert notebook.remote("'again'", "on=box session=gpu gpu=A9000").result == "'again'"
    refused = notebook.remote("pass", "session=other gpu=H100! cpu=1").error
    assert "no machine has gpu=H100! cpu=1. There is: here:" in refused
    assert "of memory; no GPU. box:" in refused and "Acme A9000 (48.0 GiB), held; leave gpu= out" in refused
    assert notebook.run(CALLS).ok
    assert notebook.run(f"jobs = [on_box.spawn() for _ in range({(os.cpu_count() or 1) + 1})]").ok
    until(lambda: notebook.run("[job for job in jobs if job.state.value == 'done'][0].get()").result == "True", "a call on box")
    assert notebook.run("waiting = [full.spawn() for _ in range(3)]").ok
    until(lambda: "1 call before it" in notebook.run("%remote").result, "a call that waits")
    listed = commands.run("ps").stdout
    assert "(full) waits for" in listed and "on here" in listed
    (notebook.folder / "go").touch()
    assert notebook.run("[job.get(timeout=60) for job in [*waiting, *jobs]].count(True) > 0").result == "True"
    assert notebook.run("%remote stop gpu").ok
    until(lambda: '"box"' not in commands.run("ps", "--json").stdout, "the end of unused sandboxes")
    commands.run("machine", "rm", "box")
