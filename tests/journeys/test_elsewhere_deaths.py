"""Runs on another machine while something in between dies: they go on, and nothing of what they print is lost or doubled.

Each test has a place of its own, so that the leak check sees the whole life of kernel, backend, agent and sandbox.
"""

from __future__ import annotations

from collections.abc import Callable

from journeys import parts
from journeys.commands import until
from journeys.elsewhere import ON, kill_when, knowing, started
from provisioner.hosts import Host

from provisioner import needs

pytestmark = needs.hosts
COUNT = (
    "import time\nfor i in range(10):\n    print('line', i, flush=True)\n    time.sleep(0.2)\n"
    "counted = before + 1\nopen('made.txt', 'w').write(str(counted))"
)
LINES = "".join(f"line {i}\n" for i in range(10))


def test_runs_go_on(host: Host, small_environment: str):
    """Whoever dies in between: each line is there once, in order; variables and files are there when the cell is over."""
    with knowing(host, small_environment) as place:
        ways: dict[str, Callable[[], object]] = {
            "backend": lambda: parts.kill_backend(place),
            "agent": lambda: parts.kill_agent(host),
            "connection": lambda: until(lambda: parts.kill(parts.connections(place)), "a connection"),
            "link": host.link.reset,
        }
        notebook = started(place)
        for number, (what, way) in enumerate(ways.items()):
            notebook.run(f"before = {number}")
            ran = notebook.remote(COUNT, ON, on=kill_when("line 3", way))
            assert ran.ok, (what, ran.error)
            assert ran.stdout == LINES, what
            assert notebook.run("counted").result == str(number + 1), what
            assert (notebook.folder / "made.txt").read_text() == str(number + 1), what
            assert notebook.remote("counted + 1", ON).result == str(number + 2), what


FUNCTION = """
import remora, time
@remora.function(on="box", cpu=1, retries=1)
def count(value):
    for i in range(5):
        print("line", i, flush=True)
        time.sleep(0.2)
    return value
"""


def test_calls_go_on(host: Host, small_environment: str):
    """Whoever dies in between: what a call prints is there once, and its result; when all is killed there, it is tried again."""
    with knowing(host, small_environment) as place:
        ways: dict[str, Callable[[], object]] = {
            "backend": lambda: parts.kill_backend(place),
            "agent": lambda: parts.kill_agent(host),
        }
        notebook, lines = place.start("small"), "".join(f"line {i}\n" for i in range(5))
        assert notebook.run(FUNCTION).ok
        for number, (what, way) in enumerate(ways.items()):
            ran = notebook.run(f"count.remote({number})", on=kill_when("line 2", way))
            assert ran.ok, (what, ran.error)
            assert (ran.stdout, ran.result) == (lines, str(number)), what
        ran = notebook.run(
            "count.remote(7)", on=kill_when("line 2", lambda: until(lambda: parts.kill(host.processes()), "a process there"))
        )
        assert ran.ok, ran.error
        assert (ran.stdout.count("line 0"), ran.stdout[-len(lines) :], ran.result) == (2, lines, "7")
