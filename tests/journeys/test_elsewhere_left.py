"""What is left on another machine, and who else uses it: logs of runs, machines that went away, another version of Remora."""

from __future__ import annotations

import json
from pathlib import Path

from journeys import parts
from journeys.commands import Commands, until
from journeys.driving import Message
from journeys.elsewhere import ON, knowing, started
from provisioner.hosts import Host

from provisioner import needs

pytestmark = needs.hosts


def test_another_version_takes_over(host: Host, small_environment: str, tmp_path: Path) -> None:
    """A newer one takes the agent's place while a run goes on; the older one is served by it, and keeps it when others go."""
    later = tmp_path / "remora-99.0.dist-info"
    later.mkdir()
    (later / "METADATA").write_text("Metadata-Version: 2.1\nName: remora\nVersion: 99.0\n")
    with knowing(host, small_environment) as place, knowing(host, small_environment) as other:
        notebook, newer = started(place), other.start("small", PYTHONPATH=str(tmp_path))
        assert newer.run("%load_ext remora").ok
        agents = [parts.agents(host)]

        def meanwhile(message: Message) -> None:
            if "prompt" in message["content"]:
                ran = newer.remote("pass", ON)
                assert ran.ok, ran.error
                agents.append(parts.agents(host))

        code = "for i in range(6):\n    print('line', i, flush=True)\n    i == 2 and input('go on?')\nmade = 1"
        ran = notebook.remote(code, ON, on=meanwhile, answers=[""])
        assert ran.ok, ran.error
        assert [line for line in ran.stdout.split("\n") if line.startswith("line")] == [f"line {i}" for i in range(6)]
        assert notebook.run("made").result == "1"
        assert agents[0] != agents[1]
        assert notebook.run("%remote stop").ok
        other.end(newer)
        other.stop_all(other.state)  # the last that had a sandbox there lets the agent leave
        assert notebook.remote("1 + 1", ON).result == "2"
        assert parts.agents(host) == agents[1]
        place.end(notebook)
        place.stop_all(place.state)
        until(lambda: not host.processes(), "the end of the agent")


def test_what_is_kept_is_said_and_removed(host: Host, small_environment: str) -> None:
    """By kind, and all of it; a machine that was marked as rented is listed so."""
    with knowing(host, small_environment) as place:
        remora = Commands(place)
        added = remora.run("machine", "add", "--rented", "--no-check", "dear", "ada@gpu.invalid")
        assert added.stderr == "dear was added\n"
        assert [row["name"] for row in json.loads(remora.run("machine", "ls", "--json").stdout) if row["rented"]] == ["dear"]
        assert "programs" in remora.run("machine", "check", "box").stdout
        assert "box was cleaned: " in remora.run("machine", "rm", "box", "--clean").stderr
        assert not host.do("ls -d .local/share/remora").stdout


def test_logs_are_found_and_what_is_out_of_reach_is_said(host: Host, small_environment: str) -> None:
    """A run there is read after its sandbox and the backend have ended; a machine out of reach gives one line, and no more."""
    with knowing(host, small_environment) as place:
        remora, notebook = Commands(place), started(place)
        assert notebook.remote("print('kept')", ON).ok
        run = json.loads(remora.run("runs", "--json").stdout)[0]["id"]
        assert notebook.run("%remote stop").ok
        parts.kill_backend(place)
        assert remora.run("logs", run).stdout == "kept\n"
        assert remora.run("logs", "-f", run).stdout == "kept\n"
        assert notebook.remote("pass", ON).ok
        assert notebook.remote("pass", "on=here session=here").ok
        sandboxes = {row["on"]: row["id"] for row in json.loads(remora.run("ps", "--json").stdout)}
        host.stop()
        said = remora.run("logs", "-f", run, code=3).stderr
        assert said == f"remora: box cannot be reached: what run {run} printed is there; ask again when box is back\n"
        stopped = remora.run("stop", "--all", code=3)
        assert stopped.stdout.split() == [sandboxes["here"]]
        assert stopped.stderr.startswith(f"remora: box cannot be reached: sandbox {sandboxes['box']} goes on there")
