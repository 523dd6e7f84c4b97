"""The lid is shut: training goes on elsewhere while kernel, backend, agent and link die, in every order; a new kernel has it all.

In the faults ABLABALBA (agent, backend, link) each order of the three stands side by side somewhere. One kernel is killed before,
between and after any two of them; so of the four deaths, each of the 24 orders happens to one of the runs, whose epochs go on
meanwhile, as the test lets them: it makes files on the machine.
"""

from __future__ import annotations

import contextlib
import io
import json
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
    """The runs, and what is done to them."""

    def __init__(self, host: Host, place: Place) -> None:
        """Begin with no run."""
        self.host, self.place, self.commands = host, place, Commands(place)
        self.folder = Path(tempfile.mkdtemp(prefix="notebook-", dir=place.root))
        (self.folder / ".remoraignore").write_text("go\nsaving-*\n")
        self.notebooks: list[Notebook] = []
        self.runs: list[str] = []

    def start(self, seed: int) -> None:
        """Have a new kernel send off a training, and keep following it."""
        notebook = self.place.start("small", folder=self.folder)
        assert notebook.run(f"%load_ext remora\nseed, EPOCHS, model = {seed}, {EPOCHS}, None").ok
        sent = notebook.remote(GATE + TRAIN, f"{ON} --detach")
        assert sent.ok, sent.error
        self.notebooks.append(notebook)
        self.runs.append(sent.result.removeprefix("<run ").partition(":")[0])

    def allow(self, epochs: int) -> None:
        """Let all go on to this epoch, and return when they have: whatever is dead, they are not."""
        (files,) = self.host.home_path.glob(".local/share/remora/agent/state-*/folders/*/files")
        (files / "go").mkdir(mode=0o755, exist_ok=True)
        for epoch in range(1, epochs + 1):
            (files / "go" / str(epoch)).touch()
        for seed in range(len(self.runs)):
            until((files / f"checkpoint-{seed}-{epochs}.json").exists, f"epoch {epochs} of run {seed}", parts.RETURN)

    def kill_kernel(self, seed: int) -> None:
        """Kill the kernel that has sent this run off."""
        self.notebooks[seed].manager.provisioner.process.kill()

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
    with Host(name="box") as host, knowing(host, small_environment) as place:
        story = Story(host, place)
        for seed in range(len(FAULTS) + 2):
            story.start(seed)
        last = len(FAULTS) + 1
        followers = [story.commands.start(*words, story.runs[last]) for words in (("attach",), ("logs", "-f"))]
        story.notebooks[last].run("model = 'mine'")
        for at in story.strike(FAULTS):
            story.allow(EACH * (at + 1))
            story.kill_kernel(at)
        story.allow(EPOCHS)
        story.kill_kernel(len(FAULTS))
        expected = [trained(seed) for seed in range(len(story.runs))]
        other = place.start("small", folder=story.folder)
        assert other.run("%load_ext remora\nmodel = 'mine'").ok
        assert "model is bound here already" in attached(other, story.runs[0], expected[0]).stderr
        assert other.run("model").result == "'mine'"
        for run, one in zip(story.runs[1:last], expected[1:], strict=False):
            other.run("del model")
            attached(other, run, one)
            assert json.loads(other.run("import json; print(json.dumps(model))").stdout) == one.model
        check_the_kernel_that_lived(story, expected[last])
        for follower in followers:
            out, err = follower.communicate(timeout=parts.RETURN)
            assert (follower.returncode, out) == (0, expected[last].lines), err
        for seed, one in enumerate(expected):
            assert json.loads((story.folder / f"checkpoint-{seed}-{EPOCHS}.json").read_text()) == one.model
        assert len([*story.folder.glob("checkpoint-*.json")]) == EPOCHS * len(story.runs)


def check_the_kernel_that_lived(story: Story, expected: Expected) -> None:
    """Its cell has all that was printed, and the model that was bound meanwhile is still bound."""
    notebook = story.notebooks[-1]
    until(lambda: notebook.run("pass").ok and printed(notebook).endswith(expected.lines[-40:]), "the last line", parts.RETURN)
    assert printed(notebook) == expected.lines
    assert notebook.run("model").result == "'mine'"


def printed(notebook: Notebook) -> str:
    """Return what has come on stdout, under any cell."""
    streams = [message["content"] for message in notebook.seen if message["msg_type"] == "stream"]
    return "".join(content["text"] for content in streams if content["name"] == "stdout")
