"""The status line: when it is shown, how often, how it looks, and that the result stays. Time is a number here; nothing waits."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import ipywidgets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from remora.jupyter.cancelling import CancelButton, cancel_widget
from remora.jupyter.progress import MUCH, Progress, earns
from remora.jupyter.statusline import Final, StatusLine, figures, html, render, text


class Screen:
    """A clock, the displays that were sent, and a driver that calls `tick` exactly when `next_tick` says."""

    def __init__(self, line=StatusLine(), cancel=None):  # noqa: B008  # a frozen value
        self.now = 100.0
        self.sent = []
        self.progress = Progress(line, self.publish, lambda: self.now, "d-1", cancel)

    def publish(self, bundle, metadata, display_id, update):
        """Keep one display with its time."""
        assert display_id == "d-1"
        self.sent.append((round(self.now - 100, 3), update, bundle, metadata))

    def until(self, seconds):
        """Let time pass up to so many seconds after the start."""
        while (due := self.progress.next_tick(self.now)) is not None and due <= 100 + seconds:
            assert due > self.now or not self.sent or self.sent[-1][0] < due - 100
            self.now = max(self.now, due)
            self.progress.tick(self.now)
        self.now = 100 + seconds

    @property
    def times(self):
        """Return when something was sent."""
        return [time for time, *_ in self.sent]

    @property
    def last(self):
        """Return the plain text that is on the screen."""
        return self.sent[-1][2]["text/plain"]


# ---- when it is shown ------------------------------------------------------------------------------------------------


def test_quick_cell_shows_nothing():
    """A cell that is done within a second and moves little leaves no trace, but figures."""
    screen = Screen()
    screen.progress.stage("running")
    screen.progress.sent(1000)
    screen.until(0.9)
    screen.progress.finish(Final.DONE)
    assert screen.sent == []
    assert screen.progress.figures["sent"] == 1000
    assert screen.progress.figures["elapsed"] == 0.9
    assert screen.progress.next_tick(screen.now) is None


def test_slow_cell_shows_at_one_second():
    """A slow cell shows its line at one second, as a new display, then once a second as updates."""
    screen = Screen()
    screen.progress.stage("running")
    screen.until(3.5)
    assert screen.times == [1.0, 2.0, 3.0]
    assert [update for _, update, *_ in screen.sent] == [False, True, True]
    assert screen.last == "Remora · main · here · running · 3 s"
    screen.progress.finish(Final.DONE)
    assert screen.last == "Remora · main · here · 3.5 s"
    assert len(screen.sent) == 4


def test_nothing_before_300_ms():
    """However much moves, nothing is shown before 0.3 s."""
    screen = Screen()
    screen.now += 0.1
    screen.progress.sent(MUCH + 1)
    screen.progress.hint("wait")
    assert screen.sent == []
    screen.until(0.5)
    assert screen.times == [0.3]


def test_much_that_moves_shows_early():
    """More than 1 MB shows the line as soon as it has moved, after 0.3 s; exactly 1 MB does not."""
    screen = Screen()
    screen.until(0.5)
    screen.progress.sent(MUCH)
    assert screen.sent == []
    screen.progress.fetched(1)
    assert screen.times == [0.5]


def test_quick_cell_that_earned_it_shows_one_bundle():
    """A quick cell that moved much, or came to a bad end, shows its result once, as a new display."""
    for act in (
        lambda p: (p.sent(2 * MUCH), p.finish(Final.DONE)),
        lambda p: p.finish(Final.FAILED),
        lambda p: p.finish(Final.ENDED, "out-of-memory"),
        lambda p: p.finish(Final.CANCELLED),
    ):
        screen = Screen()
        screen.now += 0.05
        act(screen.progress)
        assert [update for _, update, *_ in screen.sent] == [False]


def test_result_replaces_a_shown_line():
    """Whatever was shown is replaced by the result, also of a cell that did not earn a line of its own."""
    screen = Screen()
    screen.until(0.5)
    screen.progress.hint("does not react")
    screen.progress.finish(Final.DONE)
    assert [update for _, update, *_ in screen.sent] == [False, True]
    assert "react" not in screen.last


def test_finish_is_once():
    """Only the first end counts, and nothing moves after it."""
    screen = Screen()
    screen.until(2)
    screen.progress.finish(Final.FAILED)
    count = len(screen.sent)
    screen.progress.finish(Final.DONE)
    screen.progress.stage("late")
    screen.progress.sent(5 * MUCH)
    screen.progress.tick(screen.now + 9)
    assert len(screen.sent) == count
    assert "failed" in screen.last
    assert screen.progress.figures["sent"] == 0


def test_changes_are_shown_soon():
    """A change in between seconds is shown at once, or as soon as the rate allows."""
    screen = Screen()
    screen.until(1.5)
    screen.progress.stage("sending")
    assert screen.times == [1.0, 1.5]
    screen.progress.stage("running")
    assert screen.times == [1.0, 1.5]
    screen.until(1.9)
    assert screen.times == [1.0, 1.5, 1.84]
    assert "running" in screen.last


def test_hours_are_shown_by_the_minute():
    """After an hour the line changes once a minute."""
    screen = Screen()
    screen.until(3600)
    count = len(screen.sent)
    screen.until(3600 + 300)
    assert len(screen.sent) - count == 5


_event = st.tuples(st.floats(0, 0.7), st.sampled_from(["stage", "sent", "fetched", "hint", "cleared", "held", "output"]))


@given(st.lists(_event, max_size=40), st.sampled_from(list(Final)))
def test_never_more_than_four_in_a_second(events, final):
    """Whatever happens: nothing before 0.3 s, at most four updates in any second, and an update only of what is there."""
    screen, there = Screen(), False
    for pause, what in events:
        screen.until(screen.now - 100 + pause)
        {
            "stage": lambda: screen.progress.stage("x"),
            "sent": lambda: screen.progress.sent(700_000),
            "fetched": lambda: screen.progress.fetched(700_000),
            "hint": lambda: screen.progress.hint("h"),
            "cleared": screen.progress.cleared,
            "held": lambda: screen.progress.cleared(wait=True),
            "output": screen.progress.output,
        }[what]()
    ran = len(screen.sent)
    screen.progress.finish(final)
    assert all(time >= 0.3 for time in screen.times[:ran])
    assert all(len([t for t in screen.times if start <= t < start + 1]) <= 4 for start in screen.times)
    for _, update, *_ in screen.sent:
        assert there or not update
        there = True
    assert bool(screen.sent) or not earns(screen.progress.line)


def test_cleared_output_brings_the_line_back():
    """After `clear_output()` the line is shown anew, not as an update of what is gone."""
    screen = Screen()
    screen.until(1.5)
    screen.progress.cleared()
    screen.until(2.5)
    assert [update for _, update, *_ in screen.sent] == [False, False]


def test_cleared_output_that_waits():
    """After `clear_output(wait=True)` nothing is shown until the cell shows something, lest its last picture be wiped out."""
    screen = Screen()
    screen.until(1.5)
    screen.progress.cleared(wait=True)
    screen.until(4.5)
    assert screen.times == [1.0]
    assert screen.progress.next_tick(screen.now) is None
    screen.progress.output()
    screen.until(5.5)
    assert [update for _, update, *_ in screen.sent][:2] == [False, False]
    screen.progress.cleared(wait=True)
    screen.progress.finish(Final.DONE)
    assert screen.sent[-1][1]


# ---- how it looks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            StatusLine(elapsed=12.34, sent=1258291, fetched=3565158, state=Final.DONE),
            "Remora · main · here · 12.3 s · sent 1.2 MiB · fetched 3.4 MiB",
        ),
        (
            StatusLine(session="b", machine="box", gpu="A100", elapsed=200, state=Final.DONE),
            "Remora · b · box · A100 · 3 min 20 s",
        ),
        (StatusLine(elapsed=0.04, state=Final.FAILED), "Remora · main · here · failed after 0.0 s"),
        (
            StatusLine(elapsed=7, state=Final.ENDED, reason="out-of-memory"),
            "Remora · main · here · ended (out of memory) after 7.0 s",
        ),
        (StatusLine(elapsed=7, state=Final.CANCELLED), "Remora · main · here · cancelled after 7.0 s"),
        (StatusLine(elapsed=1, state=Final.DETACHED), "Remora · main · here · detached after 1.0 s, runs on"),
        (StatusLine(stage="starting", elapsed=4.9), "Remora · main · here · starting · 4 s"),
        (StatusLine(elapsed=61, jail="bubblewrap"), "Remora · main · here · 1 min 01 s"),
        (
            StatusLine(elapsed=2, jail="process", message="no isolation here", hint="press stop again", cost="0.12 EUR"),
            "Remora · main · here · jail process · 2 s · 0.12 EUR · no isolation here · press stop again",
        ),
    ],
)
def test_text(line, expected):
    """The plain text says session, machine, what has become of it, how long it took and what moved; a hint only while it runs."""
    assert text(line) == expected


class _Reader(HTMLParser):
    """Reads the elements, attributes and text of a piece of HTML."""

    def __init__(self):
        super().__init__()
        self.elements, self.open, self.words = [], [], ""

    def handle_starttag(self, tag, attrs):
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        """Close it."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Note text."""
        self.words += data


def _look(line):
    reader = _Reader()
    reader.feed(html(line))
    assert reader.open == []
    return reader


_words = st.text(max_size=20)


@given(
    st.builds(
        StatusLine,
        session=_words,
        machine=_words,
        gpu=_words,
        stage=_words,
        message=_words,
        hint=_words,
        reason=_words,
        cost=_words,
    ),
    st.sampled_from([None, *Final]),
)
def test_html_is_one_safe_line(line, state):
    """Whatever the facts hold, the HTML is the same three elements, loads nothing, and is one line."""
    reader = _look(StatusLine(**{**line.__dict__, "state": state}))
    assert [tag for tag, _ in reader.elements] == ["div", "span", "b"]
    assert set(reader.elements[0][1]) <= {"role", "aria-live", "aria-label", "title", "style"}
    assert set(reader.elements[1][1]) == {"aria-hidden", "style"}
    assert "url(" not in reader.elements[0][1]["style"]
    assert "white-space:nowrap" in reader.elements[0][1]["style"]


def test_html_escapes():
    """What a machine or message is called is text, never markup."""
    shown = html(StatusLine(message="<script>alert('x')</script> & \"quoted\""))
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert '"quoted"' not in shown


def test_html_says_what_the_text_says():
    """The HTML holds the same words as the plain text, a sign beside the colour, and both are there for a screen reader."""
    signs = set()
    for state in [None, *Final]:
        line = StatusLine(elapsed=3, stage="running", state=state)
        reader = _look(line)
        sign, _, words = reader.words.partition(" ")
        assert words == text(line)
        assert reader.elements[0][1]["aria-label"] == text(line)
        signs.add(sign)
    assert len(signs) >= 5


def test_html_follows_the_theme():
    """Every colour is the theme's, so that light and dark both work; without a theme the page's own is taken."""
    for state in [None, *Final]:
        styles = [attrs.get("style", "") for _, attrs in _look(StatusLine(state=state)).elements]
        colours = [part.split(":")[1] for style in styles for part in style.split(";") if part.startswith("color:")]
        assert colours
        assert all(colour.startswith("var(--jp-") and colour.endswith(",inherit)") for colour in colours)


def test_only_the_result_is_read_out():
    """A screen reader is not interrupted every second; it hears the result."""
    assert _look(StatusLine(stage="running")).elements[0][1]["aria-live"] == "off"
    assert _look(StatusLine(state=Final.DONE)).elements[0][1]["role"] == "status"


def test_figures():
    """The metadata hold the figures as plain JSON, without what is not known."""
    line = StatusLine(elapsed=1.23456, sent=5, stages={"starting": 0.1234, "running": 0.5}, state=Final.ENDED, reason="timeout")
    bundle, metadata = render(line)
    assert json.loads(json.dumps(metadata)) == {
        "remora": {
            "session": "main",
            "machine": "here",
            "elapsed": 1.235,
            "sent": 5,
            "fetched": 0,
            "state": "ended",
            "reason": "timeout",
            "stages": {"starting": 0.123, "running": 0.5},
        }
    }
    assert set(bundle) == {"text/plain", "text/html"}
    assert figures(StatusLine())["state"] == "running"


def test_driver_fills_in_the_place():
    """Facts that become known on the way are shown and kept."""
    screen = Screen()
    screen.progress.place(machine="box", gpu="A100", jail="landlock")
    screen.progress.stage("starting", 0.2)
    screen.progress.stage("running", 0.8)
    screen.until(1)
    assert screen.last == "Remora · main · box · A100 · jail landlock · running · 1 s"
    screen.progress.stage("fetching")
    screen.progress.stage("")
    assert screen.progress.figures["stages"] == {"starting": 0.2, "running": 0.8, "fetching": 1.0}
    assert screen.progress.line.stage == ""


# ---- Cancel ----------------------------------------------------------------------------------------------------------

_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def widgets():
    """Close all widgets afterwards."""
    yield
    ipywidgets.Widget.close_all()


def test_no_button_where_widgets_are_dead():
    """Without widgets that live while a cell runs there is no button."""
    assert cancel_widget(lambda: None, live=False) is None
    assert isinstance(cancel_widget(lambda: None, live=True), CancelButton)


def test_button_is_shown_once_and_taken_away(widgets):
    """The button comes with the line at one second; the line then changes inside the widget; the result has no widget left."""
    pressed = []
    button = cancel_widget(lambda: pressed.append(1), live=True)
    screen = Screen(cancel=button)
    screen.progress.stage("running")
    screen.until(2.5)
    assert screen.times == [1.0]
    assert set(screen.sent[0][2]) == {"text/plain", "text/html", _VIEW}
    box = button._box
    assert screen.sent[0][2][_VIEW]["model_id"] == box.model_id
    assert "2 s" in box.children[0].value
    box.children[1].click()
    assert pressed == [1]
    assert box.children[1].disabled
    screen.progress.finish(Final.CANCELLED)
    assert set(screen.sent[-1][2]) == {"text/plain", "text/html"}
    assert screen.sent[-1][1]
    assert not button.opened
    assert box.comm is None
    button.close()


def test_no_button_for_quick_cells(widgets):
    """A line that is shown early, or only at the end, makes no widget: that would cost more than the cell."""
    button = cancel_widget(lambda: None, live=True)
    screen = Screen(cancel=button)
    screen.progress.sent(2 * MUCH)
    screen.until(0.9)
    assert screen.times == [0.3]
    assert not button.opened
    screen.progress.finish(Final.FAILED)
    assert _VIEW not in screen.sent[-1][2]


def test_button_comes_back_after_clearing(widgets):
    """When the cell clears its output, the same widget is shown again."""
    button = cancel_widget(lambda: None, live=True)
    screen = Screen(cancel=button)
    screen.until(1.5)
    screen.progress.cleared()
    screen.until(2.5)
    assert [update for _, update, *_ in screen.sent] == [False, False]
    assert screen.sent[0][2][_VIEW] == screen.sent[1][2][_VIEW]
    screen.progress.finish(Final.DONE)
