"""Secrets, from the command line to sandboxes of cells, functions and notebooks, and where their values must never be."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import remora
from journeys.calling import backend, calling, warm_up
from journeys.commands import Commands, until
from journeys.driving import Notebook, Place, Ran
from provisioner.images.containers import Registry, needed, python_layer
from remora.client import client
from remora.errors import ImageFailed, OptionError, RunEnded
from remora.vault import vault
from remora.wire import ListAll

VALUE = "pass-7f3a\"b'c/9Zk"
OTHER = "quite-another-value"
PASSWORD = "open-sesame-42"
USERS = "reader:$2b$04$w9j7taNt8oHpIww0RUhW/ucRmZHE6jvkjgcTb3gt2/1Uec8.ZhL6y\n"


def traces(place: Place, *values: str) -> list[str]:
    """Return where a value stands: in files of the state directory, but for the vault, and in command lines."""
    found = []
    plain = [text.encode() for value in values for text in (value, json.dumps(value)[1:-1])]
    command_lines = [path for path in Path("/proc").glob("[0-9]*/cmdline") if int(path.parent.name) != os.getpid()]
    files = [Path(folder, name) for folder, _, names in os.walk(place.state) for name in names]  # some go while we look
    for path in [*files, *command_lines]:
        try:
            data = path.read_bytes() if path.is_file() else b""
        except OSError:
            continue
        found += [str(path) for text in plain if text in data]
    return found


def tell(place: Place, *words: str, text: str | None = None) -> None:
    """Run `remora secret set` as a user does in a terminal."""
    command = [sys.executable, "-m", "remora", "secret", "set", *words]
    subprocess.run(command, env=place.environment, input=text, text=True, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module", autouse=True)
def mine(place: Place) -> None:
    """Set one secret from standard input, one from a file."""
    tell(place, "mine", "TOKEN", text=VALUE + "\n")
    (place.root / "x.env").write_text(f"# theirs\nOTHER='{OTHER}'\n")
    tell(place, "theirs", "--from-dotenv", str(place.root / "x.env"))


@pytest.fixture
def cells(notebook: Notebook) -> Iterator[Callable[..., Ran]]:
    """Give what runs a cell in a session of the test's own."""
    yield lambda code, line="": notebook.remote(code, f"session=own {line}")
    assert notebook.run("%remote stop own").ok


def test_a_cell_has_it_and_nothing_shows_it(place: Place, notebook: Notebook, cells: Callable[..., Ran]) -> None:
    """Code has the value; what it prints, displays, raises and prints in two pieces shows stars; nothing else has it."""
    begin = "import os, sys, subprocess, time\nt = os.environ['TOKEN']\n"
    ran = cells(f"{begin}print(len(t), t)\nsubprocess.run(['sh', '-c', 'echo $TOKEN >&2'])\n[t]", "secret=mine")
    assert (ran.stdout, ran.stderr, ran.result) == (f"{len(VALUE)} ***\n", "***\n", "['***']")
    cut = "sys.stdout.write('<' + t[:5])\nsys.stdout.flush()\ntime.sleep(0.3)\nsys.stdout.write(t[5:] + '>' + t[:3])"
    ran = cells(cut)
    assert ran.stdout == f"<***>{VALUE[:3]}"
    ran = cells("from IPython.display import display, HTML\ndisplay(HTML(t), {'a': t})\nraise RuntimeError(t)")
    assert "***" in ran.error and not ran.ok
    assert VALUE not in json.dumps(notebook.seen, default=str) and json.dumps(VALUE)[1:-1] not in json.dumps(
        notebook.seen, default=str
    )
    assert traces(place, VALUE) == []


def test_a_variable_comes_home_beside_the_log(place: Place, notebook: Notebook, cells: Callable[..., Ran]) -> None:
    """A variable with the value is the same here, and no log has it."""
    assert cells("import os\nkept = {'token': os.environ['TOKEN']}", "secret=mine").ok
    assert notebook.run("print(kept)").stdout == f"{ {'token': VALUE} }\n"
    assert traces(place, VALUE) == []


def test_another_secret_for_a_living_sandbox(place: Place, notebook: Notebook, cells: Callable[..., Ran]) -> None:
    """It is given from then on, and masked; the variables stay; so does a value that was set anew; a file is read as it is."""
    look = "import os\nprint(x, [len(os.environ.get(n, '')) for n in ('TOKEN', 'OTHER', 'THIRD')], os.environ.get('OTHER'))"
    assert cells("x = 1", "secret=mine").ok
    assert cells(look).stdout == f"1 [{len(VALUE)}, 0, 0] None\n"
    assert cells(look, "secret=theirs").stdout == f"1 [{len(VALUE)}, {len(OTHER)}, 0] ***\n"
    (notebook.folder / ".env").write_text("THIRD=of-the-file\n")
    assert cells(look + "\nprint(os.environ['THIRD'])", "secret=mine,.env").stdout.endswith(", 11] ***\n***\n")
    tell(place, "mine", "TOKEN", text="a-new-one")
    assert cells("print(len(os.environ['TOKEN']), os.environ['TOKEN'])").stdout == "9 ***\n"
    tell(place, "mine", "TOKEN", text=VALUE)
    assert traces(place, VALUE, OTHER, "a-new-one") == []


def test_a_new_sandbox_gets_them_again(place: Place, notebook: Notebook, cells: Callable[..., Ran]) -> None:
    """When its sandbox has died, the session's next one has what the last line named; another session has nothing."""
    assert cells("import os", "secret=mine").ok
    ran = cells("os.kill(os.getpid(), 9)")
    assert "crashed" in ran.error
    assert cells("import os\nprint(len(os.environ['TOKEN']))").stdout == f"{len(VALUE)}\n"
    assert notebook.remote("import os\nprint('TOKEN' in os.environ)", "session=main").stdout == "False\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("secret=none-such", ["no secret 'none-such'", "there are mine, theirs", "remora secret set none-such"]),
        ("secret=TOKEN=hunter2", ["no name of a secret"]),
        ("secret=missing.env", ["missing.env cannot be read", "No such file"]),
        ("secret=broken.env", ["broken.env, line 2 is not understood", "NAME=value"]),
    ],
)
def test_what_is_wrong_is_said(notebook: Notebook, cells: Callable[..., Ran], line: str, words: list[str]) -> None:
    """In one line, without a value, and the sandbox goes on."""
    (notebook.folder / "broken.env").write_text("A=1\nhunter2 hunter2\n")
    ran = cells("pass", line)
    assert not ran.ok and all(word in ran.error for word in words) and "hunter2" not in ran.error.replace(line, "")
    assert cells("1 + 1", "secret=mine").result == "2"


def has(text: str, value: str) -> bool:
    """Say whether a text has a value, as it is or as JSON writes it."""
    return value in text or json.dumps(value)[1:-1] in text


def test_listings_and_a_notebook_run(place: Place, shared: Notebook) -> None:
    """`remora run --secret` gives it; notebook, listings and logs have names alone."""
    commands = Commands(place)
    commands.notebook("in.ipynb", "import os\nt = os.environ['TOKEN']\nprint(len(t), t)", "t")
    commands.run("run", "in.ipynb", "out.ipynb", "--secret", "mine")
    written = (commands.folder / "out.ipynb").read_text()
    assert f"{len(VALUE)} ***" in written and "'***'" in written and not has(written, VALUE)
    assert json.loads(commands.run("secret", "ls", "--json").stdout) == [
        {"name": "mine", "variables": ["TOKEN"]},
        {"name": "theirs", "variables": ["OTHER"]},
    ]
    told = commands.run("secret", "ls").stdout + commands.run("ps", "--json").stdout + commands.run("runs", "--json").stdout
    assert not has(told, VALUE) and not has(told, OTHER) and "mine" in told
    assert traces(place, VALUE, OTHER) == []


# ---- functions ----------------------------------------------------------------------------------------------------------------


def states() -> list[str]:
    """Return the states of all runs."""
    return [run["state"] for run in client().run(client().request(ListAll())).result["runs"]]


@pytest.fixture(scope="module")
def _warm() -> None:
    """Start once what this process keeps."""
    warm_up()


@pytest.fixture
def called(_warm: None) -> Iterator[Place]:
    """Give a test a backend of its own that this process calls."""
    with calling() as place:
        vault().set("mine", {"TOKEN": VALUE})
        yield place


@remora.function(cpu=1, secret="mine")
def measure(seconds=0.0):
    """Print the value and return its length."""
    print(os.environ["TOKEN"], flush=True)
    time.sleep(seconds)
    return len(os.environ["TOKEN"])


@remora.function(cpu=1, secret="mine")
def give_back():
    """Return the value, which cannot go home."""
    return {"token": os.environ["TOKEN"]}


@remora.function(cpu=1)
def has_none():
    """Say whether the value is there, and what asking for it from inside comes to."""
    try:
        measure.remote()
    except OptionError as error:
        return "TOKEN" in os.environ, str(error)
    return "TOKEN" in os.environ, ""


def test_functions(called: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A call has it, another function's sandbox has not, and code inside cannot ask for it; a result with it does not go home."""
    assert measure.remote() == len(VALUE)
    assert capsys.readouterr().out == "***\n"
    assert list(measure.map([0.0, 0.0])) == [len(VALUE)] * 2
    there, words = has_none.remote()
    assert not there and "code in a sandbox has no secrets to give" in words
    with pytest.raises(remora.RemoraError, match="holds the value of the secret variable TOKEN"):
        give_back.remote()
    vault().set("mine", {"TOKEN": "a-new-one"})
    assert measure.remote() == len("a-new-one")  # not by a sandbox that has the old one
    assert traces(called, VALUE, "a-new-one") == []


def test_calls_that_wait_when_the_backend_is_killed(called: Place) -> None:
    """Who still waits for a call tells the next backend again; a call whose caller has gone ends with an error that says why."""
    cores = os.cpu_count() or 1
    started = [measure.spawn(2.0) for _ in range(cores)]
    until(lambda: states().count("running") == cores, "that all run")
    queued, forgotten = measure.spawn(), measure.spawn()
    os.kill(backend(), signal.SIGKILL)
    assert queued.get(timeout=60) == len(VALUE)
    assert [run.get(timeout=60) for run in started] == [len(VALUE)] * cores
    with pytest.raises(RunEnded, match="knows no more what the secrets mine hold; call it again") as ended:
        remora.Run.from_id(forgotten.id).get(timeout=60)
    assert ended.value.reason == "secrets-lost"
    assert set(states()) <= {"done", "ended"}
    assert traces(called, VALUE) == []


@needed
def test_a_registry_that_asks_for_a_password(called: Place, tmp_path: Path) -> None:
    """The secret's two variables open it; without them, or with others, the error says what to set; nothing keeps them."""
    with closing(Registry(tmp_path / "registry", USERS)) as registry:
        reference = registry.push(tmp_path / "image", "own/image:1", [python_layer()], {}, f"reader:{PASSWORD}")
        with pytest.raises(ImageFailed, match=r"no secret= is missing|secret= is right"):
            remora.Image.from_registry(reference).build()
        with pytest.raises(OptionError, match="no secret 'reg'"):
            remora.Image.from_registry(reference, secret="reg").build()
        vault().set("reg", {"REGISTRY_USERNAME": "reader", "REGISTRY_PASSWORD": "wrong-password"})
        with pytest.raises(ImageFailed, match="secret= is right") as failed:
            remora.Image.from_registry(reference, secret="reg").build()
        assert "wrong-password" not in str(failed.value) + str(failed.value.facts)
        vault().set("reg", {"REGISTRY_PASSWORD": PASSWORD})
        vault().set("half", {"REGISTRY_USERNAME": "reader"})
        with pytest.raises(ImageFailed, match="does not give REGISTRY_USERNAME and REGISTRY_PASSWORD"):
            remora.Image.from_registry(reference, secret="half").build()
        remora.Image.from_registry(reference, secret="reg").build()
    written = [base64.b64encode(f"reader:{word}".encode()).decode() for word in (PASSWORD, "wrong-password")]
    assert traces(called, PASSWORD, "wrong-password", *written) == []
