"""Displays: figures, HTML, updates, clearing, hooks."""

import base64


def test_figure_is_shown_as_png(guest):
    """A matplotlib figure appears by itself at the end of its cell."""
    ended = guest.run("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);")
    data = ended.outputs("display_data")[0]["content"]["data"]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert len(guest.run("%matplotlib inline\nplt.plot([1])\nplt.show()").outputs("display_data")) == 1


def test_html_of_libraries(guest):
    """Pandas shows its table, HTML objects their text."""
    assert (
        "<table"
        in guest.run("import pandas\npandas.DataFrame({'a': [1]})").outputs("execute_result")[0]["content"]["data"]["text/html"]
    )
    ended = guest.run("from IPython.display import HTML\ndisplay(HTML('<b>x</b>'), metadata={'k': 1})")
    assert ended.outputs("display_data")[0]["content"]["data"]["text/html"] == "<b>x</b>"
    assert ended.outputs("display_data")[0]["content"]["metadata"] == {"k": 1}


def test_display_is_updated(guest):
    """A display with an id is updated, and the id stays in `transient`."""
    ended = guest.run("handle = display('a', display_id=True)\nhandle.update('b')")
    shown, updated = (one["content"] for one in ended.outputs())
    assert [one["msg_type"] for one in ended.outputs()] == ["display_data", "update_display_data"]
    assert shown["transient"] == updated["transient"] and shown["transient"]["display_id"]
    assert updated["data"]["text/plain"] == "'b'"


def test_output_is_cleared(guest):
    """clear_output comes in its place, with what it waits for."""
    ended = guest.run("from IPython.display import clear_output\nprint('a')\nclear_output(wait=True)\nprint('b')")
    assert [one["msg_type"] for one in ended.outputs()] == ["stream", "clear_output", "stream"]
    assert ended.outputs("clear_output")[0]["content"] == {"wait": True}


def test_captured_output_does_not_leave(guest):
    """%%capture takes text, displays and the result, for `show()` later."""
    ended = guest.run("%%capture seen\nprint('a')\ndisplay(1)\n2")
    assert ended.outputs() == []
    ended = guest.run("seen.show()")
    assert ended.text() == "a\n" and len(ended.outputs("display_data")) == 2


def test_raw_bytes_and_odd_values_are_made_plain(guest):
    """A representation in bytes, numpy numbers and unknown objects in a bundle arrive as JSON."""
    code = (
        "import numpy as np\n"
        "numbers = {'n': np.int64(3), 1: (np.float32(.5), None)}\n"
        "display({'image/png': b'\\x89PNG', 'application/json': numbers, 'x/y': object}, raw=True)"
    )
    data = guest.run(code).outputs("display_data")[0]["content"]["data"]
    assert data["image/png"] == base64.b64encode(b"\x89PNG").decode()
    assert data["application/json"] == {"n": 3, "1": [0.5, None]} and "object" in data["x/y"]


def test_hook_sees_and_swallows_messages(guest):
    """A display hook of ipykernel's kind can take messages out."""
    code = (
        "seen = []\nget_ipython().display_pub.register_hook(seen.append)\ndisplay(1)\n"
        "get_ipython().display_pub.unregister_hook(seen.append)\n"
    )
    ended = guest.run(code + "len(seen), seen[0]['msg_type']")
    assert ended.outputs("display_data") == [] and ended.plain() == "(1, 'display_data')"


def test_rich_knows_the_notebook(guest):
    """Rich prints HTML, as it does in a notebook."""
    ended = guest.run("from rich.console import Console\nConsole().print('[b]bold[/b]')")
    assert "bold" in ended.outputs("display_data")[0]["content"]["data"]["text/html"]


def test_failing_repr_is_the_cells_error_or_its_text(guest):
    """A repr that raises shows its traceback and the guest lives on."""
    ended = guest.run("class Bad:\n    def __repr__(self): raise ValueError('unshowable')\nBad()")
    assert "unshowable" in str(ended.outputs("error"))
    assert guest.run("1").plain() == "1"
