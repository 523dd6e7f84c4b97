"""Cells: their results, numbers, errors, and what is left of the guest after them."""

import re

import pytest

ANSI = re.compile(r"\x1b\[[\d;]*m")


def shown(error):
    """Return a traceback as a person reads it."""
    return ANSI.sub("", "\n".join(error["traceback"]))


def test_last_expression_is_displayed(guest):
    """The value of the last expression comes as execute_result, under the notebook's own number."""
    ended = guest.run("x = 20\nx + 22", execution_count=7)
    assert ended.result["ok"] and ended.plain() == "42"
    assert ended.outputs("execute_result")[0]["content"]["execution_count"] == 7
    assert guest.run("Out[7]", execution_count=8).plain() == "42"


def test_silent_cell_displays_nothing(guest):
    """A silent cell runs, but its value is not shown; a trailing semicolon does the same."""
    assert guest.run("y = 1\ny", silent=True, store_history=False).outputs() == []
    assert guest.run("y;").outputs() == []


def test_names_of_the_cell_live_in_main(guest):
    """The user's module is __main__, as in every notebook."""
    ended = guest.run("import sys\nclass A: pass\n(A.__module__, sys.modules['__main__'].A is A, __name__, sys.argv)")
    assert ended.plain() == "('__main__', True, '__main__', [''])"


def test_syntax_error_shows_the_line(guest):
    """A SyntaxError is an error of the cell, with its own line number."""
    error = guest.run("a = 1\nb = = 2", execution_count=3).error
    assert error["ename"] == "SyntaxError"
    assert "Cell In[3], line 2" in shown(error)


def test_nested_traceback_has_the_cells_own_lines(guest):
    """Frames of functions from earlier cells show under those cells' numbers."""
    guest.run("def inner(x):\n    return 1 / x\n\ndef outer(x):\n    return inner(x)", execution_count=4)
    error = guest.run("# a comment\nouter(0)", execution_count=5).error
    text = shown(error)
    assert error["ename"] == "ZeroDivisionError" and error["evalue"] == "division by zero"
    assert (
        "Cell In[5], line 2" in text and "Cell In[4], line 5, in outer(x)" in text and "Cell In[4], line 2, in inner(x)" in text
    )
    assert "remora" not in text


def test_exception_object_comes_home(guest):
    """The exception travels as an object with its arguments and attributes."""
    ended = guest.run("error = KeyError('k', 3)\nerror.extra = 5\nraise error")
    assert isinstance(ended.exception, KeyError) and ended.exception.args == ("k", 3) and ended.exception.extra == 5


def test_unknown_name_is_a_name_error(guest):
    """A name that exists nowhere gives Python's own error."""
    assert guest.run("nowhere", reads=["nowhere"]).error["evalue"] == "name 'nowhere' is not defined"


def test_memory_error_gives_its_reason(guest):
    """A MemoryError is an error as any other, and says that memory has run out."""
    ended = guest.run("b = bytearray(1 << 60)")
    assert ended.error["ename"] == "MemoryError" and ended.result["reason"] == "out-of-memory"
    assert guest.run("1").plain() == "1"


@pytest.mark.parametrize("code", ["import sys; sys.exit(3)", "raise SystemExit(3)"])
def test_system_exit_is_shown_and_ends_nothing(guest, code):
    """SystemExit shows as IPython shows it, and the guest lives on."""
    ended = guest.run(code)
    assert ended.error["ename"] == "SystemExit" and "To exit: use" in ended.text("stderr")
    assert guest.run("1").plain() == "1"


@pytest.mark.parametrize("code", ["exit", "quit()", "exit(keep_kernel=True)"])
def test_exit_asks_the_front_end(guest, code):
    """`exit` ends nothing here; the front end is asked."""
    ended = guest.run(code)
    assert ended.result["ok"] and ended.result["payload"][0]["source"] == "ask_exit"
    assert guest.run("1").plain() == "1"


def test_pager_and_next_input_come_as_payload(guest):
    """`name?` fills the pager, `%load`-like magics the next cell."""
    page = guest.run("print?").result["payload"]
    assert page[0]["source"] == "page" and "file" in page[0]["data"]["text/plain"]
    assert guest.run("get_ipython().set_next_input('a = 1')").result["payload"][0]["text"] == "a = 1"
    assert guest.run("1").result["payload"] == []


def test_error_of_a_run_script_is_shown_but_not_the_cells(guest):
    """What `%run` reports is output; the cell goes on, as in a local kernel."""
    ended = guest.run("open('script.py', 'w').write('1/0')\n%run script.py\nprint('after')")
    assert ended.result["ok"] and ended.text() == "after\n"
    assert ended.outputs("error")[0]["content"]["ename"] == "ZeroDivisionError"


def test_cell_that_runs_a_failing_cell_itself_fails_not(guest):
    """`run_cell` within a cell shows the inner error; the outer cell decides for itself."""
    ended = guest.run("r = get_ipython().run_cell('1/0')\nr.success")
    assert (
        ended.result["ok"] and ended.plain() == "False" and ended.outputs("error")[0]["content"]["ename"] == "ZeroDivisionError"
    )


def test_exception_group_reaches_the_user(guest):
    """An exception group fails the cell, with its text on stderr as IPython prints it."""
    ended = guest.run(
        "import sys\nif sys.version_info < (3, 11): raise ValueError('a')\nraise ExceptionGroup('many', [ValueError('a')])"
    )
    assert ended.error["ename"] in {"ExceptionGroup", "ValueError"}


def test_huge_cell_runs(guest):
    """A cell of a megabyte is a cell."""
    lines = "\n".join(f"v{i} = {i}" for i in range(20_000))
    assert guest.run(f"{lines}\nv19999 + {'1 + ' * 500}0", sync=False).plain() == "20499"


def test_hundred_cells_leave_no_threads_or_descriptors(guest):
    """A hundred cells leave as many threads and descriptors as one."""
    count = "import os, threading\n(len(os.listdir('/proc/self/fd')), threading.active_count())"
    guest.run("import matplotlib.pyplot as plt")
    before = guest.run(count).plain()
    for i in range(100):
        assert guest.run(f"x{i} = {i}\nprint(x{i})\nx{i}").plain() == str(i)
    assert guest.run(count).plain() == before


def test_history_is_kept_in_memory(guest):
    """`In`, `_` and `%history` work; no database is made."""
    guest.run("a = 1", execution_count=1)
    guest.run("a + 1", execution_count=2)
    assert guest.run("_, _2, In[1], _i", execution_count=3).plain() == "(2, 2, 'a = 1', 'a + 1')"
    assert "a = 1" in guest.run("%history", execution_count=4).text()


def test_parent_of_the_request_is_known(guest):
    """`get_parent` returns the front end's request, to the shell and to the kernel."""
    assert (
        guest.run("ip = get_ipython()\nip.get_parent()['header']['msg_id'], ip.kernel.get_parent('shell')['msg_id']").plain()
        == "('msg1', 'msg1')"
    )


def test_shell_is_taken_for_a_notebooks(guest):
    """rich, pandas, tqdm and others know it by these marks."""
    code = "ip = get_ipython()\n(type(ip).__name__, 'IPKernelApp' in ip.config, ip.has_trait('kernel'), __IPYTHON__)"
    assert guest.run(code).plain() == "('ZMQInteractiveShell', True, True, True)"
