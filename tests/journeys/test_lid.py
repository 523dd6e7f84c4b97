"""The lid is shut: training goes on elsewhere while kernel, backend, agent and link die, in every order; a new kernel has it all.

In the faults ABLABALBA (agent, backend, link) each order of the three stands side by side somewhere. Ten kernels show runs from
their first epoch on, and one of them is killed before, between and after any two of the faults; so each of the 24 orders of the
four deaths happens to a run and a kernel that shows it. The epochs go on meanwhile, as the test lets them: it makes files on the
machine.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from journeys import parts
from journeys.commands import Commands, until
from journeys.driving import Notebook, Place, Ran
from journeys.elsewhere import ON, knowing
from jupyter_core.utils import ensure_event_loop
from provisioner.hosts import Host
from tqdm import tqdm

from provisioner import needs

pytestmark = needs.hosts
EPOCHS, FAULTS, LONG = 60, "ABLABALBA", 90.0
EACH = EPOCHS // (len(FAULTS) + 1)
GATE = "import os, time\ndef wait(epoch):\n    while not os.path.exists(f'go/{epoch}'): time.sleep(0.1)\n"
TRAIN = """
import json, os, random
from tqdm import tqdm
chance, model = random.Random(seed), {'weights': [0.0, 0.0, 0.0], 'loss': None}
for epoch in tqdm(range(1, EPOCHS + 1), mininterval=0):
    wait(epoch)
    loss = 0.0
    for _ in range(20):
        x = [chance.gauss(0, 1) for _ in range(3)]
        error = sum(w * v for w, v in zip(model['weights'], x)) - (2 * x[0] - x[1] + chance.gauss(0, 0.1))
        model['weights'] = [w - 0.05 * error * v for w, v in zip(model['weights'], x)]
        loss += error ** 2
    model['loss'] = loss
    print(f'epoch {epoch} of {seed}: {loss!r}', flush=True)
    with open(f'saving-{seed}', 'w') as file: json.dump(model, file)
    os.replace(f'saving-{seed}', f'checkpoint-{seed}-{epoch}.json')
"""


@pytest.fixture(scope="module", autouse=True)
def _loop() -> None:
    """Make the event loop that jupyter_client keeps, before the leak check of the first test looks."""
    ensure_event_loop()


@dataclass
class Expected:
    """What one training comes to, done here."""

    model: dict[str, Any]
    lines: str


def trained(seed: int) -> Expected:
    """Train here, alone, with this seed."""
    names: dict[str, Any] = {"seed": seed, "EPOCHS": EPOCHS, "wait": lambda _: None}
    printed, tqdm.monitor_interval = io.StringIO(), 0  # no thread
    with contextlib.ExitStack() as here:
        here.enter_context(contextlib.chdir(here.enter_context(tempfile.TemporaryDirectory())))
        here.enter_context(contextlib.redirect_stdout(printed))
        here.enter_context(contextlib.redirect_stderr(io.StringIO()))
        exec(TRAIN, names)
    return Expected(names["model"], printed.getvalue())


class Story:
    """The runs, those who show them, and what is done to both."""

    def __init__(self, host: Host, place: Place, stack: contextlib.ExitStack) -> None:
        """Begin with no run; the stack ends the commands that are started."""
        self.host, self.place, self.commands, self._stack = host, place, Commands(place), stack
        self.folder = Path(tempfile.mkdtemp(prefix="notebook-", dir=place.root))
        (self.folder / ".remoraignore").write_text("go\nsaving-*\n")
        self.runs: list[str] = []

    def kernel(self, code: str) -> Notebook:
        """Start a kernel that knows Remora."""
        notebook = self.place.start("small", folder=self.folder)
        assert notebook.run(f"%load_ext remora\n{code}").ok
        return notebook

    def start(self) -> Notebook:
        """Have a new kernel send off a training, and keep following it."""
        notebook = self.kernel(f"seed, EPOCHS, model = {len(self.runs)}, {EPOCHS}, None")
        sent = notebook.remote(GATE + TRAIN, f"{ON} --detach")
        assert sent.ok, sent.error
        self.runs.append(sent.result.removeprefix("<run ").partition(":")[0])
        return notebook

    def follow(self, run: str) -> Notebook:
        """Have a new kernel attach to a run, and return when it shows the first epoch."""
        notebook = self.kernel("")
        notebook.send(f"%remote attach {run}")
        notebook.until(lambda message: "epoch 1 of" in message["content"].get("text", ""))
        return notebook

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start a command, which is ended with the story."""
        command = self._stack.enter_context(self.commands.start(*words))
        self._stack.callback(command.kill)
        return command

    def allow(self, epochs: int) -> None:
        """Let all go on to this epoch, and return when they have: whatever is dead, they are not."""
        (files,) = self.host.home_path.glob(".local/share/remora/agent/state-*/folders/*/files")
        (files / "go").mkdir(mode=0o755, exist_ok=True)
        for epoch in range(1, epochs + 1):
            (files / "go" / str(epoch)).touch()
        for seed in range(len(self.runs)):
            until((files / f"checkpoint-{seed}-{epochs}.json").exists, f"epoch {epochs} of run {seed}", parts.RETURN)

    def strike(self, faults: str) -> Iterator[int]:
        """Let one fault after the other happen, with the place of each yielded before it; a link stays cut over the next one."""
        for at, fault in enumerate(faults):
            yield at
            cut = self.host.link.is_cut
            if fault == "A":
                parts.kill_agent(self.host)
            elif fault == "B":
                parts.kill_backend(self.place)
            else:
                until(lambda: parts.agents(self.host), "an agent that the cut leaves alone", parts.RETURN)
                self.host.link.cut()
                self.host.link.reset()
                if "L" not in faults[at + 1 :]:
                    time.sleep(LONG / 2)
            if cut:
                if "L" not in faults[at:]:
                    time.sleep(LONG / 2)
                self.host.link.mend()


def bars(ran: Ran) -> str:
    """Return what a terminal shows of tqdm in the end."""
    return ran.stderr.rpartition("\r")[2]


def attached(notebook: Notebook, run: str, expected: Expected) -> Ran:
    """Attach to a run in another kernel: each line is there once, in order, and tqdm ends where it should."""
    ran = notebook.run(f"%remote attach {run}", timeout=parts.RETURN)
    assert ran.ok, ran.error
    assert ran.stdout == expected.lines
    assert f" {EPOCHS}/{EPOCHS} " in bars(ran).partition("\n")[0], ran.stderr[-500:]
    return ran


@pytest.mark.timeout(600)
def test_every_order(small_environment: str) -> None:
    """Lines 1 to 60 once each, checkpoints in the folder, the model that a run here makes; a model bound meanwhile is kept."""
    with Host(name="box") as host, knowing(host, small_environment) as place, contextlib.ExitStack() as stack:
        story = Story(host, place, stack)
        living, first, last = (story.start() for _ in range(3))
        assert living.run("model = 'mine'").ok
        commands = [story.command(*words, story.runs[0]) for words in (("attach",), ("logs", "-f"))]
        story.allow(1)
        mortal = [first, *(story.follow(run) for run in story.runs[1:] for _ in range(len(FAULTS) // 2)), last]
        for at in story.strike(FAULTS):
            story.allow(EACH * (at + 1))
            mortal[at].manager.provisioner.process.kill()
        story.allow(EPOCHS)
        last.manager.provisioner.process.kill()
        expected = [trained(seed) for seed in range(len(story.runs))]
        other = story.kernel("model = 'mine'")
        assert "model is bound here already" in attached(other, story.runs[1], expected[1]).stderr
        assert other.run("model").result == "'mine'"
        for run, one in zip(story.runs[1:], expected[1:], strict=True):
            other.run("del model")
            attached(other, run, one)
            assert json.loads(other.run("import json; print(json.dumps(model))").stdout) == one.model
        check_the_kernel_that_lived(living, expected[0])
        for command in commands:
            out, err = command.communicate(timeout=parts.RETURN)
            assert (command.returncode, out) == (0, expected[0].lines), err
        for seed, one in enumerate(expected):
            assert json.loads((story.folder / f"checkpoint-{seed}-{EPOCHS}.json").read_text()) == one.model
        assert len([*story.folder.glob("checkpoint-*.json")]) == EPOCHS * len(story.runs)


def check_the_kernel_that_lived(notebook: Notebook, expected: Expected) -> None:
    """Its cell has all that was printed, and the model that was bound meanwhile is still bound."""
    until(lambda: notebook.run("pass").ok and printed(notebook).endswith(expected.lines[-40:]), "the last line", parts.RETURN)
    assert printed(notebook) == expected.lines
    assert notebook.run("model").result == "'mine'"


def printed(notebook: Notebook) -> str:
    """Return what has come on stdout, under any cell."""
    streams = [message["content"] for message in notebook.seen if message["msg_type"] == "stream"]
    return "".join(content["text"] for content in streams if content["name"] == "stdout")
