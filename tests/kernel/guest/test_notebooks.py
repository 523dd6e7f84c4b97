"""Notebooks: every cell in turn, as one run."""


def cells(ended):
    """Return what was said about cells."""
    return [(e.content["index"], e.content["status"], e.content.get("ok")) for e in ended.emits if e.type == "cell"]


def test_cells_run_in_turn(guest):
    """Each cell says when it starts and ends, and owns its output."""
    ended = guest.notebook("x = 1\nprint('one')", "x + 1")
    assert ended.result["ok"] and cells(ended) == [
        (0, "started", None),
        (0, "ended", True),
        (1, "started", None),
        (1, "ended", True),
    ]
    assert [(one["cell"], one["msg_type"]) for one in ended.outputs()] == [(0, "stream"), (1, "execute_result")]
    assert ended.outputs("execute_result")[0]["content"]["execution_count"] == 2


def test_first_error_ends_it(guest):
    """The cells after an error do not run; the error is the run's."""
    ended = guest.notebook("1", "1 / 0", "print('never')")
    assert ended.error["ename"] == "ZeroDivisionError" and isinstance(ended.exception, ZeroDivisionError)
    assert cells(ended)[-1] == (1, "ended", False) and ended.text() == ""
    assert [e.content["error"]["ename"] for e in ended.emits if e.type == "cell" and "error" in e.content] == [
        "ZeroDivisionError"
    ]


def test_tags(guest):
    """skip-execution skips; raises-exception goes on."""
    ended = guest.notebook(("print('skipped')", ["skip-execution"]), ("1 / 0", ["raises-exception"]), "print('on')")
    assert ended.result["ok"] and ended.text() == "on\n" and cells(ended)[1] == (1, "ended", False)


def test_errors_may_be_allowed(guest):
    """With allow_errors every cell runs."""
    ended = guest.notebook("1 / 0", "print('on')", allow_errors=True)
    assert ended.result["ok"] and ended.text() == "on\n"


def test_other_cells_are_passed_over(guest):
    """Markdown and empty cells keep their index and do nothing; a source may be a list of lines."""
    nodes = [
        {"cell_type": "markdown", "source": "# title", "metadata": {}},
        {"cell_type": "code", "source": " \n", "metadata": {}},
        {"cell_type": "code", "source": ["a = 1\n", "a"], "metadata": {}},
    ]
    ended = guest.finish(guest.start("notebook", {"notebook": {"cells": nodes}, "allow_errors": False}))
    assert cells(ended) == [(2, "started", None), (2, "ended", True)] and ended.plain() == "1"


def test_figures_widgets_and_awaits(guest):
    """What cells of a session can do, cells of a notebook can."""
    ended = guest.notebook(
        ("import matplotlib.pyplot as plt\nplt.plot([1]);"), "import asyncio\nawait asyncio.sleep(0, 5)", "!echo hi"
    )
    assert [one["cell"] for one in ended.outputs()] == [0, 1, 2] and ended.text().strip() == "hi"


def test_late_output_knows_its_cell(guest):
    """A thread that prints later prints into the cell that started it."""
    ended = guest.notebook(
        ("import threading\ngo = threading.Event()\nt = threading.Thread(target=lambda: (go.wait(), print('late')))\nt.start()"),
        "go.set()\nt.join()",
    )
    assert [one["cell"] for one in ended.outputs("stream")] == [0]


def test_interrupt_ends_the_notebook(guest):
    """The stop button ends the running cell and with it the notebook."""
    nodes = [{"cell_type": "code", "source": s, "metadata": {}} for s in ("print('go')\nwhile True: pass", "print('never')")]
    run = guest.start("notebook", {"notebook": {"cells": nodes}, "allow_errors": False})
    ended = guest.until(run, lambda emit: "go" in str(emit.content))
    guest.interrupt(run)
    ended = guest.finish(run, ended)
    assert ended.error["ename"] == "KeyboardInterrupt" and ended.text() == "go\n"
