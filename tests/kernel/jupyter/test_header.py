"""Headers of cells: recognised, cut off without moving a line, and turned into one call that a real IPython shell runs."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from remora.jupyter.header import CellTransformer, entry, script_block, split, stays_here, transform
from traitlets.config import Config


class Place:
    """Stands at the other end of the magic: notes what reaches it and runs the code, so that line numbers and errors are real."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.cells: list[tuple[str, str]] = []

    def __call__(self, line: str, cell: str) -> None:
        """Take one cell."""
        self.cells.append((line, cell))
        exec(compile(cell, "<there>", "exec"), self.shell.user_ns)


@pytest.fixture
def shell():
    """Return a plain IPython shell of its own."""
    return InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))


@pytest.fixture
def transformer(shell):
    """Return the transformer, installed where the extension puts it."""
    made = CellTransformer()
    shell.input_transformers_cleanup.insert(0, made)
    return made


@pytest.fixture
def place(shell, transformer):
    """Return the recorder behind the cell magic `remote`."""
    made = Place(shell)
    made._ipython_magic_no_var_expand = True
    shell.register_magic_function(made, "cell", "remote")
    return made


# ---- split: what a header is ---------------------------------------------------------------------------------------


def test_plain_remote():
    """A mark on the first line gives its options, and a body of the same number of lines."""
    header = split("%%remote gpu=A100 cpu=4\nx = 1\nx\n")
    assert header.marker == "remote"
    assert header.line == "gpu=A100 cpu=4"
    assert header.body == "# %%remote gpu=A100 cpu=4\nx = 1\nx\n"
    assert header.outer == ()
    assert header.script is None


def test_bare_remote():
    """A mark may stand without options and without a newline behind it."""
    assert split("%%remote").line == ""
    assert split("%%remote").body == "# %%remote"
    assert split("%%remote  \nx").line == ""


def test_comments_blank_lines_and_magics_above():
    """Comments, empty lines and magics that wrap may stand above; the code keeps its line numbers."""
    cell = "# note\n\n%%time\n  # more\n%%capture out --no-stderr\n%%remote cpu=2\nx = 1/0\n"
    header = split(cell)
    assert header.outer == (("time", ""), ("capture", "out --no-stderr"))
    assert header.line == "cpu=2"
    assert header.body == "# note\n\n# %%time\n  # more\n# %%capture out --no-stderr\n# %%remote cpu=2\nx = 1/0\n"


def test_continued_option_line():
    """Backslashes continue the option line; every one of its lines becomes a comment."""
    header = split("%%remote gpu=A100 \\\n    cpu=4 \\\n    timeout=30m\nx\n")
    assert header.line == "gpu=A100 cpu=4 timeout=30m"
    assert header.body == "# %%remote gpu=A100\n    # cpu=4\n    # timeout=30m\nx\n"


def test_continued_to_the_end():
    """A backslash with nothing behind it is passed over."""
    assert split("%%remote gpu=any \\").line == "gpu=any"
    assert split("%%remote gpu=any \\\n").line == "gpu=any"
    assert split("%%remote \\\\\\").line == ""


def test_script_block():
    """A PEP 723 block above the mark is found, and stays in the body for whoever sees only that."""
    block = '# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "rich",\n# ]\n#\n# ///\n'
    header = split(block + "%%remote\nimport rich\n")
    assert header.script == 'requires-python = ">=3.11"\ndependencies = [\n  "rich",\n]\n\n'
    assert header.body == block + "# %%remote\nimport rich\n"
    assert script_block(header.body) == header.script
    assert script_block("# /// script\n# x = 1\n") is None
    assert script_block("x = '# /// script'\n") is None


def test_local():
    """`%%local` is recognised likewise; magics that wrap may stand on either side of it."""
    assert split("%%local\nx\n").body == "# %%local\nx\n"
    above = split("%%time\n%%local\nx\n")
    below = split("%%local\n# why\n%%time\nx\n")
    assert above.outer == below.outer == (("time", ""),)
    assert below.body == "# %%local\n# why\n# %%time\nx\n"


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "x = 1",
        "x = '''\n%%remote\n'''",
        '"""\n%%remote gpu=A100\n"""',
        "x = 1\n%%remote\ny",
        "%%bash\n%%remote\nls",
        "%%writefile cell.txt\n%%remote\nx",
        "%%time\nx\n%%remote",
        "%%remotely\nx",
        "%%remote?",
        "%%remote??",
        "%remote gpu=A100",
        "# %%remote\nx",
        "%%REMOTE\nx",
        "%% remote\nx",
    ],
)
def test_no_header(cell):
    """What only looks like a header is left alone."""
    assert split(cell) is None
    lines = cell.splitlines(keepends=True)
    assert transform(lines) == lines


def test_magic_below_remote_runs_there():
    """A `%%magic` below the mark belongs to the code and comes first in it, as IPython there wants it."""
    assert split("%%remote cpu=1\n%%time\nx\n").body == "\n%%time\nx\n"
    assert split("# c\n%%remote\n# d\n%%bash\nls\n").body == "\n\n\n%%bash\nls\n"
    assert split("%%remote\n%%time\nx\n").outer == ()


def test_windows_line_ends():
    """Carriage returns are no part of the options."""
    header = split("# a\r\n%%remote cpu=2 \\\r\n gpu=any\r\nx = 1\r\n")
    assert header.line == "cpu=2 gpu=any"
    assert header.body.count("\n") == 4


def test_indented_cell():
    """A cell that is indented as a whole is recognised, and can still be dedented."""
    header = split("    %%remote cpu=2\n    x = 1\n")
    assert dedent(header.body) == "# %%remote cpu=2\nx = 1\n"


_PIECES = ["# c", "", "%%time", "%%capture out", "%%remote a=1", "%%remote \\", "%%local", "x = 1", "  y", "%%bash", "'''", "\\"]


@given(st.lists(st.sampled_from(_PIECES), max_size=8), st.booleans())
def test_lines_are_never_moved(pieces, ends):
    """The body has as many lines as the cell, and every line of code is where it was."""
    cell = "\n".join(pieces) + ("\n" if ends else "")
    header = split(cell)
    if header is None:
        return
    before, after = cell.split("\n"), header.body.split("\n")
    assert len(before) == len(after)
    code = next((i for i, line in enumerate(after) if line.strip() and not line.lstrip().startswith("#")), len(after))
    assert after[code:] == before[code:]


@given(st.text(alphabet="%remotlca #\n\\\r\t?'{}\x0c\u2028=x", max_size=60), st.booleans())
def test_any_text(text, everywhere):
    """Whatever is typed, the transformer answers with lines, and does nothing more to its own answer."""
    once = transform(text.splitlines(keepends=True), everywhere=everywhere)
    assert all(isinstance(line, str) for line in once)
    if once and "run_cell_magic('remote'" in once[0]:
        assert transform(once, everywhere=everywhere) == once


# ---- stays_here ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "\n \n",
        "# only words\n",
        "%remote",
        "%remote off",
        "%remote default gpu=A100 \\\n   cpu=4\n",
        "%load_ext remora\n%remote on\n",
        "# c\n%reload_ext remora\n",
        "%remote?",
        "?%%remote",
        "%%remote?",
        "%%local??",
        entry("gpu=any", "x = 'a\nb'\n"),
        entry("", "x", awaits=True),
    ],
)
def test_stays(cell):
    """Cells that only steer Remora are run here, whatever `%remote on` says."""
    assert stays_here(cell)
    lines = cell.splitlines(keepends=True)
    assert transform(lines, everywhere=True) == lines


@pytest.mark.parametrize("cell", ["x", "%load_ext remora\nx = 1", "%%time\nx", "remote?", "%matplotlib inline", "%remotely"])
def test_goes(cell):
    """Every other cell goes."""
    assert not stays_here(cell)
    assert transform([cell], everywhere=True) == [entry("", cell)]


# ---- in a real shell -------------------------------------------------------------------------------------------------


def test_shell_runs_remote_cell(shell, place):
    """The magic receives the options as they were typed, braces included, and the whole body."""
    result = shell.run_cell('# first\n%%remote gpu={g} env={"A":1}\nanswer = 42\n')
    assert result.success
    assert place.cells == [('gpu={g} env={"A":1}', '# first\n# %%remote gpu={g} env={"A":1}\nanswer = 42\n')]
    assert shell.user_ns["answer"] == 42


def test_shell_keeps_line_numbers(shell, place):
    """An error is on the line of the cell on which the user sees it, and the cell has failed."""
    result = shell.run_cell("\n# first\n%%remote cpu=1 \\\n   gpu=any\nok = 1\n1/0\n")
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    trace = result.error_in_exec.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    assert trace.tb_lineno == 6


def test_shell_time_above(shell, place, capsys):
    """`%%time` with a comment above measures the remote cell."""
    assert shell.run_cell("# first\n%%time\n%%remote cpu=1\nanswer = 1\n").success
    assert "Wall time" in capsys.readouterr().out
    assert place.cells == [("cpu=1", "# first\n# %%time\n# %%remote cpu=1\nanswer = 1\n")]


def test_shell_capture_above(shell, place, capsys):
    """`%%capture` keeps what the remote cell prints, with `%%time` in between, also while every cell is remote."""
    for everywhere in (False, True):
        shell.input_transformers_cleanup[0].everywhere = everywhere
        place.cells.clear()
        assert shell.run_cell("%%capture got\n%%time\n%%remote\nprint('hello')\n").success
        assert shell.user_ns["got"].stdout.startswith("hello\n")
        assert len(place.cells) == 1
        assert capsys.readouterr().out == ""


def test_shell_timeit_above(shell, place, capsys):
    """`%%timeit` runs the remote cell as often as it is told."""
    assert shell.run_cell("%%timeit -n3 -r1\n%%remote\nanswer = 1\n").success
    assert len(place.cells) == 3


def test_shell_everywhere(shell, place, transformer):
    """`%remote on` sends plain cells and cells with magics; `%%local` and steering cells stay."""
    transformer.everywhere = True
    shell.register_magic_function(lambda line: None, "line", "remote")
    assert shell.run_cell("here = 1\n").success
    assert shell.run_cell("%%local\nhere = 2\n").success
    assert shell.run_cell("%remote off\n").success
    assert shell.run_cell("# nothing\n").success
    assert place.cells == [("", "here = 1\n")]
    assert shell.user_ns["here"] == 2


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize(
    "cell",
    [
        "%%local\n%%time\nhere = 2\n",
        "# why\n%%time\n%%local\nhere = 2\n",
        "%%capture got\n# why\n%%local\n%%time\nhere = 2\n",
        "    %%time\n    %%local\n    here = 2\n",
        "%%local\n# why\n%%python_here\nhere = 2\n",
    ],
)
def test_shell_local_below_magics(shell, place, transformer, everywhere, cell, capsys):
    """A local cell stays here below and above other magics, in both modes."""
    transformer.everywhere = everywhere
    shell.register_magic_function(lambda line, cell: exec(cell, shell.user_ns), "cell", "python_here")
    assert shell.run_cell(cell).success
    assert place.cells == []
    assert shell.user_ns["here"] == 2


def test_shell_local_keeps_line_numbers(shell, transformer):
    """An error in a local cell is on the line of the cell on which the user sees it."""
    result = shell.run_cell("# why\n%%local\n\n1/0\n")
    assert result.error_in_exec.__traceback__.tb_next.tb_lineno == 4


def test_shell_leaves_strings_alone(shell, place):
    """A plain cell with the mark in the middle of a string is untouched."""
    assert shell.run_cell("text = '''\n%%remote gpu=A100\n%%local\n'''\n").success
    assert shell.user_ns["text"] == "\n%%remote gpu=A100\n%%local\n"
    assert place.cells == []


def test_shell_awaits(shell, transformer):
    """With `awaits` the call is awaited at top level, but not below `%%time`, which cannot await."""
    reached = []

    async def remote(line, cell):
        reached.append(cell)

    shell.register_magic_function(remote, "cell", "remote")
    transformer.awaits = True
    assert shell.run_cell("%%remote\nx\n").success
    assert reached == ["# %%remote\nx\n"]
    assert transform(["%%time\n", "%%remote\n", "x\n"], awaits=True)[0].startswith("get_ipython()")
    assert "await" not in transform(["%%time\n", "%%remote\n", "x\n"], awaits=True)[0]


def test_shell_asks_whether_complete(shell, place):
    """A half-typed remote cell is incomplete, as any `%%` cell is, until an empty line; plain cells are judged as ever."""
    complete = shell.input_transformer_manager.check_complete
    assert complete("%%remote gpu=A100")[0] == "incomplete"
    assert complete("%%remote gpu=A100\nx = 1")[0] == "incomplete"
    assert complete("%%remote gpu=A100\nx = 1\n\n")[0] == "complete"
    assert complete("%%remote gpu=A100 \\")[0] == "incomplete"
    assert complete("x = 1")[0] == "complete"
    assert complete("for i in x:")[0] == "incomplete"


def test_shell_completes(shell, place):
    """Completion offers the mark, and names within a remote cell."""
    shell.user_ns["measurement"] = 1

    def offered(code):
        with provisionalcompleter():
            return {found.text for found in shell.Completer.completions(code, len(code))}

    assert "%%remote" in offered("%%remo")
    assert "measurement" in offered("%%remote cpu=1\nmeasur")
    assert "measurement" in offered("# why\n%%remote cpu=1\nx = measur")
