"""Magics and the system's shell: they run in the guest, and their output streams."""

import pytest


def test_time_measures_and_shows_the_value(guest):
    """%time and %%time print their line and give the value."""
    ended = guest.run("%time 1 + 1")
    assert "Wall time" in ended.text() and ended.plain() == "2"
    assert "Wall time" in guest.run("%%time\nx = 3\nprint(x)").text()


def test_shell_command_streams(guest):
    """The lines of a command come as it writes them."""
    run = guest.cell("!echo one; sleep 0.5; echo two")
    ended = guest.until(run, lambda emit: "one" in str(emit.content))
    assert "two" not in ended.text()
    assert guest.finish(run, ended).text().split() == ["one", "two"]
    assert guest.run("!exit 3\n_exit_code").plain() == "3"
    assert guest.run("lines = !echo a; echo b\nlines").plain() == "['a', 'b']"


def test_cell_in_another_language(guest):
    """%%bash runs there."""
    assert guest.run("%%bash\necho $((1 + 1))").text() == "2\n"


def test_pip_list(guest):
    """%pip is the pip of the guest's own Python."""
    assert "ipython" in guest.run("%pip list").text().lower()


def test_writefile_and_autoreload(guest):
    """A module that is written anew is reloaded."""
    guest.run("%load_ext autoreload\n%autoreload 2")
    guest.run("%%writefile module_of_mine.py\ndef f(): return 1")
    assert guest.run("import module_of_mine as m\nm.f()").plain() == "1"
    guest.run(
        "import os, time\nopen('module_of_mine.py', 'w').write('def f(): return 22')\n"
        "os.utime('module_of_mine.py', (time.time() + 5,) * 2)"
    )
    assert guest.run("m.f()").plain() == "22"


@pytest.mark.parametrize(
    "code", ["%who", "%timeit -n1 -r1 pass", "%env HOME", "%cd .", "%lsmagic", "%prun -q pass", "%whos", "%config"]
)
def test_other_magics(guest, code):
    """Magics that need a shell, a pager or a namespace work."""
    assert guest.run(code).result["ok"]


def test_editing_and_saving_are_the_front_ends(guest):
    """%edit and %autosave reach the front end, %store keeps a value."""
    assert guest.run("open('some.py', 'w').close()\n%edit some.py").result["payload"][0]["source"] == "edit_magic"
    assert "application/javascript" in guest.run("%autosave 3").outputs("display_data")[0]["content"]["data"]
    assert "Stored 'kept' (int)" in guest.run("kept = 1\n%store kept").text()


def test_unknown_magic_is_an_error(guest):
    """A magic that does not exist fails the cell, as in a local kernel."""
    assert guest.run("%nosuchmagic").result["error"]["ename"] == "UsageError"


def test_gui_event_loop_is_refused(guest):
    """There is no screen."""
    assert "screen" in str(guest.run("%gui qt").result["error"]) + guest.run("%gui qt").text("stderr")
