"""What a terminal shows of a run, and what it stands in with."""

from __future__ import annotations

import base64
import io
import os
from typing import Any

import pytest
from remora.headless.console import Clock, Console, summary
from remora.wire import Record, RunId

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + (640).to_bytes(4, "big") + (480).to_bytes(4, "big")


def record(kind: str, **content: Any) -> Record:
    """Return a record."""
    return Record(RunId("r"), 0, 0.0, kind, content)


def message(kind: str, **content: Any) -> Record:
    """Return an output record."""
    return record("output", msg_type=kind, content=content)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"text/plain": "a", "text/html": "<b>"}, "a"),
        ({"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Figure>"}, "[image/png, 640 x 480, 24 B]"),
        ({"image/png": base64.b64encode(PNG[:12]).decode()}, "[image/png, 12 B]"),
        ({"image/svg+xml": "<svg/>"}, "[image/svg+xml, 6 B]"),
        ({"text/html": "<b>a</b>"}, "[text/html, 8 B]"),
        ({"application/x": {}}, "[application/x]"),
        ({}, ""),
    ],
)
def test_a_display_is_text_or_a_line_that_stands_for_it(data: dict[str, Any], shown: str) -> None:
    """Pictures are named with their size; text is preferred to HTML."""
    assert summary(data) == shown


def test_streams_go_where_they_belong_without_colours_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout to stdout, stderr to stderr, an error with its traceback once, a notice as ours; copies get streams alone."""
    copy = io.StringIO()
    console = Console(copies={"stdout": copy})
    console.show(message("stream", name="stdout", text="\x1b[31ma\x1b[0m\n"))
    console.show(message("stream", name="stderr", text="b\n"))
    console.show(message("execute_result", data={"text/plain": "42"}))
    console.show(record("cell", error={"traceback": ["\x1b[31mE: v\x1b[0m"]}))
    console.show(record("result", error={"traceback": ["E: v"]}))
    console.show(record("notice", text="hm"))
    console.close()
    assert capsys.readouterr() == ("a\n42\n", "b\nE: v\nRemora: hm\n")
    assert copy.getvalue() == "\x1b[31ma\x1b[0m\n"


def test_a_display_that_says_nothing_new_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """Updates are printed when their text changes."""
    console = Console()
    for text in ("a", "a", "b"):
        console.show(message("update_display_data", data={"text/plain": text}, transient={"display_id": "d"}))
    assert capsys.readouterr().out == "a\nb\n"


def test_errors_alone_are_shown_when_output_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Without output, the error that ends a run is; one that was expected is not."""
    console = Console(show=False)
    console.show(message("stream", name="stdout", text="a\n"))
    console.show(record("cell", error={"ename": "E", "evalue": "v", "traceback": []}, expected=True))
    console.show(record("cell", error={"ename": "F", "evalue": "v", "traceback": []}))
    Console(show=False, errors=False).show(record("cell", error={"ename": "G", "evalue": "v", "traceback": []}))
    assert capsys.readouterr() == ("", "F: v\n")


def test_progress_outside_of_a_terminal_is_a_line_for_each_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for, it is printed when it changes; not asked for, never."""
    console = Console(show=False, status=True)
    for line in ("cell 1 of 2 · 0:01", "cell 1 of 2 · 0:02", "cell 2 of 2 · 0:03"):
        console.status(line)
        Console(show=False, status=False).status(line)
    assert capsys.readouterr().err == "cell 1 of 2\ncell 2 of 2\n"


def test_progress_in_a_terminal_is_one_line_that_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken away before output is printed, and at the end."""
    master, slave = os.openpty()
    with open(slave, "w") as terminal, open(master, "rb", buffering=0) as screen:
        monkeypatch.setattr("sys.stderr", terminal)
        console = Console(show=False)
        console.status("one")
        console.status("one")
        console.status("two")
        console.say("line")
        console.close()
        seen = b""
        while not seen.endswith(b"\n"):
            seen += screen.read(200)
    assert seen == b"\r\x1b[Kone\r\x1b[Ktwo\r\x1b[Kline\r\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3723, "1:02:03")])
def test_the_clock_counts_minutes_then_hours(seconds: float, text: str) -> None:
    """Elapsed time as people read it."""
    moments = iter([100.0, 100.0 + seconds])
    assert str(Clock(lambda: next(moments))) == text
