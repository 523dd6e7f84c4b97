"""Notebooks without a front end, from the command line to the written notebook, in real sandboxes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from journeys.commands import GATE, Commands, text, until
from journeys.driving import DEADLINE, Place
from journeys.elsewhere import machine

CELL_TIMES = {"start_time", "end_time", "duration", "exception", "status"}


@pytest.fixture(scope="module")
def warm() -> Iterator[Place]:
    """Give the file's tests a place whose backend runs."""
    place = Place()
    try:
        commands = Commands(place)
        commands.run("ps")
        if machine() != "here":  # it is reached before the first test, too
            commands.notebook("warm.ipynb", "pass")
            commands.run("run", "warm.ipynb", "o.ipynb")
        yield place
    finally:
        place.close()


@pytest.fixture
def commands(warm: Place) -> Iterator[Commands]:
    """Give a test the command, in a folder of its own."""
    with closing(Commands(warm)) as commands:
        yield commands


def living(commands: Commands) -> list[str]:
    """Return the ids of the sandboxes that live."""
    return [row["id"] for row in json.loads(commands.run("ps", "--json").stdout)]


def test_a_notebook_runs_with_its_parameters_and_is_written(commands: Commands) -> None:
    """Parameters, outputs, counts, timing and figures are where papermill's users look for them; the sandbox ends."""
    commands.notebook("a.ipynb", ("epochs = 1\nname = 'x'", ["parameters"]), "print(name)\nepochs * 2", "epochs += 1; epochs")
    ran = commands.run("run", "a.ipynb", "o.ipynb", "-p", "epochs", "5", "-r", "name", "7")
    done = commands.read("o.ipynb")
    assert "every cell passed" in ran.stderr
    assert done.cells[1].source == '# Parameters\nepochs = 5\nname = "7"'
    assert done.cells[1].metadata.tags == ["injected-parameters"]
    assert [cell.execution_count for cell in done.cells] == [1, 2, 3, 4]
    assert text(done.cells[2]) == "7\n"
    assert done.cells[2].outputs[1]["data"]["text/plain"] == "10"
    assert done.cells[3].outputs[0]["data"]["text/plain"] == "6"
    assert all(set(cell.metadata.papermill) == CELL_TIMES for cell in done.cells)
    assert done.metadata.papermill.parameters == {"epochs": 5, "name": "7"}
    assert done.metadata.papermill.exception is False
    assert done.metadata.papermill.duration > 0
    assert done.cells[2].metadata.remora.seconds >= 0
    until(lambda: not living(commands), "the end of the sandbox")


def test_a_failing_cell_is_kept_and_marked(commands: Commands) -> None:
    """What came before is kept, the error is in its cell, marks lead to it, the next cell did not run, and the exit code is 1."""
    commands.notebook("a.ipynb", "print('before')", "1 / 0", "print('never')")
    ran = commands.run("run", "a.ipynb", "o.ipynb", code=1)
    done = commands.read("o.ipynb")
    assert "ZeroDivisionError" in ran.stderr
    assert "Traceback (most recent call last):\n  File" not in ran.stderr
    assert [cell.cell_type for cell in done.cells] == ["markdown", "code", "markdown", "code", "code"]
    assert "In [2]" in done.cells[0].source
    assert done.cells[0].metadata.tags == done.cells[2].metadata.tags == ["papermill-error-cell-tag"]
    assert text(done.cells[1]) == "before\n"
    assert done.cells[3].outputs[0]["ename"] == "ZeroDivisionError"
    assert done.cells[3].metadata.papermill.status == "failed"
    assert (done.cells[4].outputs, done.cells[4].metadata.papermill.status) == ([], "pending")
    commands.notebook("a.ipynb", "pass")
    again = commands.run("run", "o.ipynb", "o2.ipynb", code=1)
    assert len(commands.read("o2.ipynb").cells) == 5, again.stderr


def test_the_notebook_is_written_while_a_cell_runs(commands: Commands) -> None:
    """Whoever opens the output in the middle of a cell finds a whole notebook with what was printed so far."""
    commands.gate()
    commands.notebook("a.ipynb", "print('one')", f"print('two', flush=True)\n{GATE}\nprint('three')")
    process = commands.start("run", "a.ipynb", "o.ipynb")
    out = commands.folder / "o.ipynb"
    until(lambda: out.exists() and text(commands.read("o.ipynb").cells[1]) == "two\n", "writing in the middle of a cell")
    middle = commands.read("o.ipynb")
    assert [cell.metadata.papermill.status for cell in middle.cells] == ["completed", "running"]
    commands.open_gate()
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert text(commands.read("o.ipynb").cells[1]) == "two\nthree\n"
    assert [path.name for path in commands.folder.iterdir() if path.name.endswith(".new")] == []


def test_tags_and_an_early_exit_mean_what_they_mean_to_nbclient(commands: Commands) -> None:
    """A skipped cell does not run, an expected error does not stop the notebook, and sys.exit() ends it in order."""
    cells = [("1 / 0", ["skip-execution"]), ("1 / 0", ["raises-exception"]), "print('on')", "import sys\nsys.exit()", "1 / 0"]
    commands.notebook("a.ipynb", *cells)
    commands.run("run", "a.ipynb", "o.ipynb")
    done = commands.read("o.ipynb").cells
    assert [len(cell.outputs) for cell in done[:3]] == [0, 1, 1]
    assert done[3].outputs[-1]["ename"] == "SystemExit"
    assert done[1].outputs[0]["ename"] == "ZeroDivisionError"
    assert (done[4].outputs, done[4].metadata.papermill.status) == ([], "pending")


def test_widgets_displays_and_overwritten_text_end_as_a_front_end_shows_them(commands: Commands) -> None:
    """Widget state is in the notebook's metadata, updates reach earlier cells, Output widgets hold what was printed."""
    commands.notebook(
        "a.ipynb",
        "import ipywidgets\nbar = ipywidgets.IntProgress(max=3)\nbar",
        "h = display({'text/plain': 'old'}, raw=True, display_id='d')",
        "bar.value = 2\nh.update({'text/plain': 'new'}, raw=True)",
        "out = ipywidgets.Output()\nwith out: print('inside')\nout",
        "print(10, end='\\r'); print(20, end='\\r'); print(30)",
        "import asyncio\nwhile not out.outputs:\n    await asyncio.sleep(0.02)\nout.outputs[0]['text']",
    )
    commands.run("run", "a.ipynb", "o.ipynb")
    done = commands.read("o.ipynb")
    states = [model["state"] for model in done.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()]
    assert [state["value"] for state in states if state["_model_name"] == "IntProgressModel"] == [2]
    assert done.cells[1].outputs[0]["data"]["text/plain"] == "new"
    (held,) = (state["outputs"] for state in states if state["_model_name"] == "OutputModel")
    assert held[0]["text"] == "inside\n"
    assert text(done.cells[4]) == "30\n"
    assert done.cells[5].outputs[0]["data"]["text/plain"] == "'inside\\n'"


def test_a_remote_cell_in_it_opens_its_own_sandbox_which_ends_with_it(commands: Commands) -> None:
    """`%%remote` works in a notebook's run as in a kernel: another sandbox, variables there and back, figures in the metadata."""
    commands.notebook(
        "a.ipynb",
        "%load_ext remora\nimport os\nx = 40\nouter = os.environ['REMORA_SANDBOX']",
        "%%remote\nimport os\ny = x + 2\ninner = os.environ['REMORA_SANDBOX']",
        "print(y, inner != outer)",
    )
    commands.run("run", "a.ipynb", "o.ipynb")
    done = commands.read("o.ipynb").cells
    assert text(done[2]) == "42 True\n"
    assert done[1].metadata.remora.session == "main"
    assert done[1].metadata.remora.sent > 0
    until(lambda: not living(commands), "the end of both sandboxes")


def test_the_default_of_its_metadata_holds(commands: Commands) -> None:
    """For the run itself, below what the command says, and for remote cells in it."""
    show = "import os; os.environ['A']"
    path = commands.notebook("d.ipynb", "%load_ext remora", show, f"%%remote\n{show}")
    content = json.loads(path.read_text())
    content["metadata"]["remora"] = {"default": {"env": {"A": "1"}}}
    path.write_text(json.dumps(content))
    for options, expected in (([], ["'1'", "'1'"]), (["--env", "A=2"], ["'2'", "'1'"])):
        commands.run("run", "d.ipynb", "o.ipynb", *options)
        shown = [[o for o in cell.outputs if "remora" not in o.metadata] for cell in commands.read("o.ipynb").cells[1:]]
        assert [outputs[0]["data"]["text/plain"] for outputs in shown] == expected  # beside status lines, if it took long
    until(lambda: not living(commands), "the end of all sandboxes")


def test_the_inner_sandbox_does_not_outlive_an_outer_one_that_is_killed(commands: Commands) -> None:
    """When the notebook's sandbox is stopped, so is the one that its remote cell opened, and the cell is marked."""
    commands.gate()
    commands.notebook("a.ipynb", "%%remote\nz = 1", f"print('ready', flush=True)\n{GATE}")
    process = commands.start("run", "a.ipynb", "o.ipynb", "--log-output")
    assert process.stdout is not None
    while "ready" not in process.stdout.readline():
        pass
    rows = json.loads(commands.run("ps", "--json").stdout)
    assert len(rows) == 2
    commands.run("stop", next(row["id"] for row in rows if row["session"] == "notebook"))
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 3
    assert "stopped" in err
    assert commands.read("o.ipynb").cells[-1].outputs[-1]["ename"] == "RunEnded"
    until(lambda: not living(commands), "the end of both sandboxes")


def test_a_detached_run_goes_on_and_is_written_without_a_terminal(commands: Commands) -> None:
    """`--detach` prints the run's id at once, a process of ours writes the notebook, `attach` replays and ends as the run."""
    commands.gate()
    commands.notebook("a.ipynb", f"print('one', flush=True)\n{GATE}\nprint('two')", "1 / 0")
    run = commands.run("run", "a.ipynb", "o.ipynb", "--detach").stdout.strip()
    out = commands.folder / "o.ipynb"
    until(lambda: out.exists() and text(commands.read("o.ipynb").cells[0]) == "one\n", "writing by the follower")
    assert commands.run("logs", run).stdout == "one\n"
    process = commands.start("attach", run[:6])
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    commands.open_gate()
    rest, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, rest) == (1, "two\n")
    assert "ZeroDivisionError" in err
    assert commands.read("o.ipynb").cells[0].metadata.tags == ["papermill-error-cell-tag"]
    (row,) = [r for r in json.loads(commands.run("runs", "--json").stdout) if r["id"] == run]
    assert (row["state"], row["form"], row["name"]) == ("failed", "notebook", "a.ipynb")


def test_attach_leaves_the_run_alone_when_the_person_goes(commands: Commands) -> None:
    """Ctrl-C detaches and says how to come back; the run goes on to its end."""
    commands.gate()
    commands.notebook("a.ipynb", f"print('one', flush=True)\n{GATE}\nprint('two')")
    run = commands.run("run", "a.ipynb", "o.ipynb", "--detach").stdout.strip()
    process = commands.start("attach", run)
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert f"remora attach {run}" in err
    commands.open_gate()
    assert commands.run("logs", "-f", run).stdout == "one\ntwo\n"


def test_a_killed_command_loses_nothing(commands: Commands) -> None:
    """After kill -9 of `remora run` the run goes on, and `remora attach` completes the notebook, each line once."""
    commands.gate()
    commands.notebook("a.ipynb", f"print('one', flush=True)\n{GATE}\nprint('two')", "print('three')")
    process = commands.start("run", "a.ipynb", "o.ipynb", "--log-output")
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    process.kill()
    process.communicate(timeout=DEADLINE)
    (row,) = [r for r in json.loads(commands.run("runs", "--json").stdout) if r["state"] == "running"]
    commands.open_gate()
    commands.run("attach", row["id"])
    done = commands.read("o.ipynb")
    assert [text(cell) for cell in done.cells] == ["one\ntwo\n", "three\n"]
    assert done.metadata.papermill.exception is False


def test_a_killed_follower_loses_nothing(commands: Commands) -> None:
    """After kill -9 of a detached run's follower, `remora attach` writes the notebook anew."""
    commands.gate()
    commands.notebook("a.ipynb", f"print('one', flush=True)\n{GATE}")
    run = commands.run("run", "a.ipynb", "o.ipynb", "--detach").stdout.strip()
    out = commands.folder / "o.ipynb"
    until(out.exists, "the first writing")
    (pid,) = (int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if _is_follower(p, run))
    os.kill(pid, signal.SIGKILL)
    out.unlink()
    commands.open_gate()
    commands.run("attach", run)
    assert text(commands.read("o.ipynb").cells[0]) == "one\n"


def _is_follower(path: Path, run: str) -> bool:
    try:
        words = path.read_bytes().split(b"\0")
    except OSError:
        return False
    return b"remora.headless.follower" in words and run.encode() in words


def test_ctrl_c_interrupts_the_cell_and_writes_the_notebook(commands: Commands) -> None:
    """The run ends with KeyboardInterrupt in its cell, even one that may fail, and the next cell does not run."""
    commands.notebook(
        "a.ipynb", ("import time\nprint('one', flush=True)\ntime.sleep(600)", ["raises-exception"]), "print('never')"
    )
    process = commands.start("run", "a.ipynb", "o.ipynb", "--log-output")
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    done = commands.read("o.ipynb").cells
    assert done[2].outputs[-1]["ename"] == "KeyboardInterrupt"
    assert done[3].outputs == []


@pytest.mark.parametrize(
    ("code", "options", "reason"),
    [
        ("import time\ntime.sleep(600)", ["--execution-timeout", "2"], "timeout"),
        ("sum(range(10**12))", ["--execution-timeout", "2"], "timeout"),
        ("import time\ntime.sleep(600)", ["--timeout", "5s"], "timeout"),
        ("hog = bytearray(10**9)\nimport time; time.sleep(600)", ["--memory", "256MiB"], "out of memory"),
        ("import os\nos.kill(os.getpid(), 9)", [], "signal 9"),
    ],
)
def test_an_end_from_outside_is_told_and_marked(commands: Commands, code: str, options: list[str], reason: str) -> None:
    """Timeouts, memory and crashes end with 3 and one line; the notebook is whole, its cell marked."""
    commands.notebook("a.ipynb", "print('before')", code, "print('never')")
    ran = commands.run("run", "a.ipynb", "o.ipynb", *options, code=3)
    assert reason in ran.stderr
    done = commands.read("o.ipynb").cells
    assert text(done[1]) == "before\n"
    assert done[3].metadata.papermill.status == "failed"
    assert done[3].outputs[-1]["output_type"] == "error"


def test_the_time_of_one_cell_is_not_that_of_another(commands: Commands) -> None:
    """Cells that are each quick enough pass, however long they take together."""
    commands.notebook("a.ipynb", *["import time\ntime.sleep(0.5)"] * 4)
    commands.run("run", "a.ipynb", "o.ipynb", "--execution-timeout", "1.5")


def test_standard_input_and_output_take_the_place_of_files(commands: Commands) -> None:
    """`- -` reads and writes notebooks as papermill does; an output that is left out goes to a pipe."""
    path = commands.notebook("a.ipynb", "print(3)")
    piped = json.loads(commands.run("run", "-", "-", text=path.read_text()).stdout)
    assert piped["cells"][0]["outputs"][0]["text"] == ["3\n"]
    assert json.loads(commands.run("run", "a.ipynb").stdout)["cells"][0]["execution_count"] == 1


def test_it_runs_in_the_notebooks_folder_or_the_one_given(commands: Commands) -> None:
    """The working directory is the notebook's own, its files can be written; --cwd names another."""
    other = commands.folder / "other"
    other.mkdir(mode=0o777)
    other.chmod(0o777)
    (commands.folder / "sub").mkdir()
    path = commands.notebook("sub/a.ipynb", "import os\nprint(os.getcwd())\nopen('made', 'w').write('x')")
    path.parent.chmod(0o777)
    commands.run("run", "sub/a.ipynb", "o.ipynb")
    assert text(commands.read("o.ipynb").cells[0]) == f"{path.parent}\n"
    assert (path.parent / "made").read_text() == "x"
    commands.run("run", "sub/a.ipynb", "o.ipynb", "--cwd", "other", "--files", "ro", code=1)
    assert text(commands.read("o.ipynb").cells[2]) == f"{other}\n"


def test_output_is_printed_and_copied(commands: Commands) -> None:
    """--log-output prints text and stands in for pictures; --stdout-file and --stderr-file keep the streams."""
    picture = "from IPython.display import Image, display\ndisplay(Image(data=bytes.fromhex('89504e470d0a1a0a'), format='png'))"
    commands.notebook("a.ipynb", "import sys\nprint('out')\nprint('err', file=sys.stderr)", picture, "6 * 7")
    ran = commands.run("run", "a.ipynb", "o.ipynb", "--log-output", "--stdout-file", "so", "--stderr-file", "se")
    assert ran.stdout.splitlines() == ["out", "[image/png, 8 B]", "42"]
    assert "err" in ran.stderr
    assert (commands.folder / "so").read_text() == "out\n"
    assert (commands.folder / "se").read_text() == "err\n"


def test_a_kernel_of_another_environment_brings_its_own_python(commands: Commands) -> None:
    """-k takes the interpreter of a kernelspec: the notebook sees that environment's packages, and says what it lacks."""
    environment = commands.folder / "env"
    subprocess.run([commands.python, "-m", "venv", "--without-pip", environment], check=True, timeout=DEADLINE)
    commands.place.add_kernel("bare", str(environment / "bin" / "python"))
    commands.notebook("a.ipynb", "import sys\nprint(sys.prefix)\nimport mine\nprint(mine.word)")
    lacking = commands.run("run", "a.ipynb", "o.ipynb", "-k", "bare", code=2)
    assert "lacks IPython and dill" in lacking.stderr
    (site,) = (environment / "lib").glob("python3*/site-packages")
    (site / "ours.pth").write_text(f"{commands.site}\n")
    (site / "mine.py").write_text("word = 'theirs'\n")
    commands.run("run", "a.ipynb", "o.ipynb", "-k", "bare")
    assert text(commands.read("o.ipynb").cells[0]).endswith("theirs\n")
