"""The stop button: what it stops, how soon, and what is still there afterwards.

Law: the button is pressed as a front end does it; kernel `remora` gets a message, a plain ipykernel a signal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from journeys.driving import Message, Notebook, Place, Ran

SOON = 1.0  # seconds from the button to the cell's end
LONG = "sum(range(10**11))"


@pytest.fixture(scope="module", params=["remora", "plain"])
def shared(place: Place, request: pytest.FixtureRequest) -> Iterator[Notebook]:
    """Give the tests a kernel of each kind whose session has a sandbox."""
    notebook = place.start(request.param)
    if request.param == "plain":
        assert notebook.run("%load_ext remora").ok
    assert notebook.remote("kept = [1]\nheld = open('/dev/null')").ok
    yield notebook
    place.end(notebook)


class Button:
    """Presses the stop button when the cell says that it has begun, and takes the time."""

    def __init__(self, notebook: Notebook, sign: Callable[[Message], bool]) -> None:
        """Press at the first message for which `sign` is true."""
        self._notebook, self._sign = notebook, sign
        self.pressed: list[float] = []

    def __call__(self, message: Message) -> None:
        """Look at one message."""
        if not self.pressed and self._sign(message):
            self.press()

    def press(self) -> None:
        """Press now."""
        self._notebook.interrupt()
        self.pressed.append(time.monotonic())

    def reaction(self, ran: Ran) -> float:
        """Return the seconds from the last press to the end of the cell."""
        return float(ran.messages[-1]["at"] - self.pressed[-1])


def prints(word: str) -> Callable[[Message], bool]:
    """Return a sign: the cell prints this word."""
    return lambda message: message["msg_type"] == "stream" and word in message["content"]["text"]


def _session_is_fine(notebook: Notebook) -> None:
    assert notebook.remote("kept.append(2)\nheld.closed").result == "False"
    assert notebook.run("kept[:2]").result == "[1, 2]"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import asyncio; await asyncio.sleep(60)",
        "import subprocess; subprocess.run(['sleep', '60'])",
        "!sleep 60",
        "import threading; threading.Event().wait()",
    ],
)
def test_code_stops_within_a_second(notebook: Notebook, code: str):
    """A stopped cell ends with KeyboardInterrupt within a second; the session keeps its variables and the next cell runs."""
    button = Button(notebook, prints("go"))
    ran = notebook.remote(f"print('go', flush=True)\n{code}", on=button)
    assert button.reaction(ran) < SOON
    if code != "!sleep 60":  # the shell's command is what is stopped, as in any kernel
        assert ran.reply["status"] == "error" and ran.reply["ename"] == "KeyboardInterrupt"
    _session_is_fine(notebook)


def test_what_is_queued_behind_a_stopped_cell_is_aborted(notebook: Notebook):
    """Stop ends Run All, too: the cells behind the stopped one do not run."""
    sent = [notebook.send("%%remote\nprint('go', flush=True)\nwhile True: pass"), notebook.send("%%remote\nprint('never')")]
    first, second = notebook.collect(*sent, on=Button(notebook, prints("go")))
    assert (first.reply["status"], second.reply["status"]) == ("error", "aborted")
    _session_is_fine(notebook)


def test_input_stops(notebook: Notebook):
    """A cell that waits for an answer is stopped as any other, and the next question is asked anew."""
    button = Button(notebook, lambda message: message["msg_type"] == "input_request")
    ran = notebook.remote("input('never answered? ')", on=button)
    assert ran.reply["ename"] == "KeyboardInterrupt"
    assert button.reaction(ran) < SOON
    assert notebook.remote("input('now? ')", answers=["yes"]).result == "'yes'"
    _session_is_fine(notebook)


def test_code_may_catch_the_interrupt(notebook: Notebook):
    """Code that catches KeyboardInterrupt goes on to its own end, and what it made comes home."""
    code = "try:\n    print('go', flush=True)\n    while True: pass\nexcept KeyboardInterrupt:\n    caught = True\ncaught"
    ran = notebook.remote(code, on=Button(notebook, prints("go")))
    assert ran.ok and ran.result == "True"
    assert notebook.run("caught").result == "True"


def test_a_local_cell_stops_as_ever(notebook: Notebook):
    """The kernel's own cells are stopped as before."""
    button = Button(notebook, prints("go"))
    ran = notebook.run("import time\nprint('go', flush=True)\nfor _ in range(600): time.sleep(.1)", on=button)
    assert ran.reply["ename"] == "KeyboardInterrupt" and button.reaction(ran) < 2


def test_code_that_ignores_signals_needs_a_second_stop(notebook: Notebook):
    """C code does not react: the status line says so after 3 s; the second stop ends the sandbox and says what was lost."""
    first = Button(notebook, prints("go"))
    second = Button(notebook, lambda m: "does not react" in m["content"].get("data", {}).get("text/plain", ""))

    def on(message: Message) -> None:
        first(message)
        second(message)

    there = "session=deaf"
    assert notebook.remote("stayed = open('/dev/null')\ncame = 5", there).ok
    ran = notebook.remote(f"print('go', flush=True)\n{LONG}", there, on=on)
    assert 2.5 < second.pressed[0] - first.pressed[0] < 4.5
    assert second.reaction(ran) < SOON
    assert ran.reply["status"] == "error" and ran.reply["ename"] == "RunEnded"
    assert "Lost with it" in ran.error and "stayed" in ran.error and "came" not in ran.error
    assert "cancelled" in ran.status_lines[-1]
    again = notebook.remote("came, 'stayed' in globals()", there)
    assert again.ok and again.result == "(5, False)", again.error
    assert notebook.run("%remote stop deaf").ok
    _session_is_fine(notebook)
