"""What a user of parallel magics expects of `%%remote`: blocking or not, names for results, expressions, streams, errors.

Law: one small case a test, in one session; what a cell shows beyond that is in test_cell_behaviour.py.
"""

from __future__ import annotations

import pytest
from journeys.driving import Notebook


def _run_of(text: str) -> str:
    return text.split()[1].rstrip(":")


def test_cell_blocks_by_default(notebook: Notebook):
    """The cell is over when its code is, and the next local line sees what it made."""
    assert notebook.remote("import time\ntime.sleep(.2)\nblocked = 'done'").ok
    assert notebook.run("blocked").result == "'done'"


def test_detach_returns_a_handle(notebook: Notebook):
    """`--detach` returns at once; the handle knows the run, waits for it, and has what it made."""
    sent = notebook.run(
        "job = get_ipython().run_cell_magic('remote', '--detach', 'import time\\ntime.sleep(.3)\\nslow = 6 * 7')\njob"
    )
    assert sent.result.startswith("<run ")
    assert notebook.run("job.wait(30)\njob['slow'], slow, job.state.value").result == "(42, 42, 'done')"
    assert _run_of(sent.result) in notebook.run("%remote runs").result


@pytest.mark.parametrize("line", ["detach=false", "--detach=no"])
def test_flag_can_be_taken_back(notebook: Notebook, line: str):
    """A flag written with a false value is off."""
    assert notebook.remote("'blocks'", line).result == "'blocks'"


def test_detached_run_leaves_names_touched_since_alone(notebook: Notebook):
    """A detached run binds its results only to names untouched since, says so in one line, and its handle has them all."""
    assert notebook.run("a = b = 0").ok
    notebook.run("job = get_ipython().run_cell_magic('remote', '--detach', 'import time\\ntime.sleep(.3)\\na = b = 9')")
    assert notebook.run("a = 'mine'\njob.wait(30)").ok
    ran = notebook.run("a, b, job['a']")
    assert ran.result == "('mine', 9, 9)"


def test_detached_failure_raises_when_waited_for(notebook: Notebook):
    """A detached run's error is shown when it happens and raised by `wait`."""
    notebook.run("bad = get_ipython().run_cell_magic('remote', '--detach', '1 / 0')")
    ran = notebook.run("try:\n    bad.wait(30)\nexcept ZeroDivisionError as e:\n    print('raised', e)")
    assert ran.stdout == "raised division by zero\n"


def test_out_names_say_what_comes_home(notebook: Notebook):
    """With `-o` only these names come home, however they are written."""
    assert notebook.remote("left, brought, other = 1, 2, 3", "-o brought").ok
    assert notebook.run("brought, 'left' in globals(), 'other' in globals()").result == "(2, False, False)"
    assert notebook.remote("p, q, r = 1, 2, 3", "--out p,q").ok
    assert notebook.run("p, q, 'r' in globals()").result == "(1, 2, False)"
    assert notebook.remote("u = 5", "out=u").ok
    assert notebook.run("u").result == "5"


def test_in_names_say_what_goes(notebook: Notebook):
    """With `-i` exactly these names go, read or not."""
    assert notebook.run("sent, unsent = 1, 2").ok
    assert notebook.remote("sent", "-i sent").result == "1"
    assert notebook.remote("unsent", "-i sent").reply["ename"] == "NameError"
    missing = notebook.remote("1", "-i no_such_name")
    assert not missing.ok and "no_such_name" in missing.error


def test_no_sync_moves_nothing(notebook: Notebook):
    """With `--no-sync` nothing goes and nothing comes."""
    assert notebook.run("unmoved = 1").ok
    assert notebook.remote("unmoved", "--no-sync").reply["ename"] == "NameError"
    assert notebook.remote("stays_there = 1", "--no-sync").ok
    assert notebook.run("stays_there").reply["ename"] == "NameError"


def test_expressions_in_options(notebook: Notebook):
    """`{expr}` in an option is a value of the notebook; braces that are no expression stay, and so do those of the code."""
    assert notebook.run("limit = 30\nwhere = {'name': 'ma'}").ok
    code = "n = 3\nf'{n} {{n}}', '{limit}', '$limit'"
    assert notebook.remote(code, "timeout={limit * 2}s session={where['name'] + 'in'}").result == "('3 {n}', '{limit}', '$limit')"
    assert notebook.remote("import os\nos.environ['J']", """session=main2 env={"J": "{a: 1}"}""").result == "'{a: 1}'"
    assert notebook.run("%remote stop main2").ok
    ran = notebook.remote("1", "timeout={no_such_name}")
    assert not ran.ok and "timeout" in ran.error and "NameError" in ran.error and "no_such_name" in ran.error


def test_streams(notebook: Notebook):
    """What is printed to either stream arrives on it, unchanged and complete, also without a newline at the end."""
    ran = notebook.remote(
        "import sys\nprint('plain äöü \U0001f40d')\nprint('wrong', file=sys.stderr)\nsys.stdout.write('no newline');"
    )
    assert ran.stdout == "plain äöü \U0001f40d\nno newline" and ran.stderr == "wrong\n"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("undefined_there", "NameError"),
        ("raise KeyError('k')", "KeyError"),
        ("assert 0", "AssertionError"),
    ],
)
def test_errors_propagate(notebook: Notebook, code: str, name: str):
    """The reply of a failed cell says error, with the exception's own name; what ran before it has happened."""
    ran = notebook.remote(f"before = {name!r}\n{code}")
    assert ran.reply["status"] == "error" and ran.reply["ename"] == name
    assert ran.of("error")[0]["ename"] == name
    assert notebook.run("before").result == f"{name!r}"


def test_errors_can_be_caught_around_the_magic(notebook: Notebook):
    """Around the magic's call, an error of the code is caught by its own type."""
    ran = notebook.run(
        "try:\n    get_ipython().run_cell_magic('remote', '', '{}[1]')\nexcept KeyError as e:\n    print('caught', e.args)"
    )
    assert ran.stdout == "caught (1,)\n"


def test_results_are_those_of_the_last_expression(notebook: Notebook):
    """Only the last expression is displayed, `_` there is the last result there, and a local `_` stays local."""
    assert notebook.remote("1\n2\n3").result == "3"
    assert notebook.remote("_ + 1", "--no-sync").result == "4"


def test_both_runs_here_and_there(notebook: Notebook):
    """`--both` runs the cell here as well, and its output is shown once from each place."""
    assert notebook.remote("import random\nrandom.seed(3)\nhere_too = 1", "--both").ok
    there = notebook.remote("random.random()").result
    assert notebook.run("random.random()").result == there


def test_fresh_is_a_new_sandbox(notebook: Notebook):
    """`--fresh` begins in a new sandbox of the session, and says what is gone."""
    assert notebook.remote("import os\nmark = open('/dev/null')", "session=renewed").ok
    ran = notebook.remote("'mark' in dir()", "session=renewed --fresh")
    assert ran.result == "False"
    assert notebook.run("%remote stop renewed").ok


def test_help_lists_options(notebook: Notebook):
    """`%remote?` shows every option and command."""
    text = notebook.run("%remote?").reply["payload"][0]["data"]["text/plain"]
    assert all(word in text for word in ("gpu=", "memory=", "--detach", "%remote pull", "-o"))


def test_nested_and_programmatic_use(notebook: Notebook):
    """The magic works from a function, in a loop, and inside another remote cell's output capture."""
    ran = notebook.run("for i in range(3):\n    get_ipython().run_cell_magic('remote', '-i i', 'print(i * i)')")
    assert ran.stdout == "0\n1\n4\n"
