"""Top-level await, and tasks that outlive their cell."""


def test_top_level_await(guest):
    """A cell may await, with its number and its result as any other."""
    ended = guest.run("import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x\nawait f(5)", execution_count=3)
    assert ended.plain() == "5" and ended.outputs("execute_result")[0]["content"]["execution_count"] == 3


def test_task_goes_on_after_its_cell(guest):
    """A task made in one cell goes on while the guest is idle, and prints into the cell that made it."""
    run = guest.cell(
        "import asyncio\nasync def later():\n    await asyncio.sleep(0.05)\n    print('later')\n"
        "task = asyncio.create_task(later())"
    )
    guest.finish(run)
    emit = guest.receive()
    assert emit.run == run and emit.content["content"]["text"] == "later\n"
    assert guest.run("task.done()").plain() == "True"


def test_error_after_an_await_has_its_line(guest):
    """A traceback through an await shows the cell's own line."""
    error = guest.run("import asyncio\nawait asyncio.sleep(0)\n1 / 0", execution_count=2).error
    assert error["ename"] == "ZeroDivisionError" and any("line 3" in line for line in error["traceback"])


def test_questions_wait_for_their_turn(guest):
    """A question after a cell is answered after it."""
    run = guest.cell("import asyncio\nawait asyncio.sleep(0.05)\nz = 1")
    guest.finish(run)
    assert "z" in guest.ask("names").result


def test_hooks_run_around_cells_that_await(guest):
    """post_run_cell and matplotlib's figures work for cells that await."""
    ended = guest.run("import asyncio, matplotlib.pyplot as plt\nawait asyncio.sleep(0)\nplt.plot([1]);")
    assert "image/png" in ended.outputs("display_data")[0]["content"]["data"]


def test_exception_of_a_task_harms_nobody(guest):
    """SystemExit or KeyboardInterrupt in a background task ends neither loop nor guest."""
    guest.run("import asyncio\nasync def leave(): raise SystemExit(1)\ntask = asyncio.create_task(leave())")
    while True:
        if "SystemExit" in guest.receive().content["content"]["text"]:
            break
    assert guest.run("await asyncio.sleep(0)\n3").plain() == "3"
