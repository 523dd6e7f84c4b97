"""Comms: widgets, their callbacks, targets of user code."""


def opened(ended, model):
    """Return the comm id of a widget's model by its name."""
    comms = [one["content"] for one in ended.outputs("comm_open")]
    return next(one["comm_id"] for one in comms if one["data"]["state"]["_model_name"] == model)


def updates(ended, key):
    """Return the values that a widget's state took."""
    states = [one["content"]["data"].get("state", {}) for one in ended.outputs("comm_msg")]
    return [state[key] for state in states if key in state]


def test_progress_bar_moves(guest):
    """An IntProgress opens comms, is displayed and sends its values as they change."""
    ended = guest.run("import ipywidgets as w\np = w.IntProgress(max=3)\ndisplay(p)\nfor i in range(4): p.value = i", sync=False)
    comm = opened(ended, "IntProgressModel")
    view = ended.outputs("display_data")[0]["content"]["data"]["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == comm and updates(ended, "value") == [1, 2, 3]


def test_button_callback_runs_between_cells(guest):
    """A click runs the callback here; its output belongs to the run that made the button, under the click's request."""
    run = guest.cell(
        (
            "import ipywidgets as w\nb = w.Button()\nclicks = []\n"
            "b.on_click(lambda _: (clicks.append(1), print('clicked')))\ndisplay(b)"
        ),
        sync=False,
    )
    button = opened(guest.finish(run), "ButtonModel")
    guest.comm(button, {"method": "custom", "content": {"event": "click"}})
    emit = guest.receive()
    assert (
        emit.run == run
        and emit.content["content"]["text"] == "clicked\n"
        and emit.content["parent"]["header"]["msg_id"] == "front"
    )
    assert guest.run("len(clicks)").plain() == "1"


def test_button_callback_that_fails_shows_its_error(guest):
    """An error in a callback is shown and harms nothing."""
    run = guest.cell("import ipywidgets as w\nb = w.Button()\nb.on_click(lambda _: 1 / 0)", sync=False)
    guest.comm(opened(guest.finish(run), "ButtonModel"), {"method": "custom", "content": {"event": "click"}})
    emit = guest.receive()
    assert emit.content["msg_type"] == "error" and emit.content["content"]["ename"] == "ZeroDivisionError"
    assert guest.run("1").plain() == "1"


def test_callback_runs_while_a_cell_awaits(guest):
    """A cell that awaits lets clicks through."""
    made = guest.run(
        ("import ipywidgets as w, asyncio\nclicked = asyncio.Event()\nb = w.Button()\nb.on_click(lambda _: clicked.set())"),
        sync=False,
    )
    run = guest.cell("print('waiting')\nawait clicked.wait()\nprint('done')", sync=False)
    ended = guest.until(run, lambda emit: "waiting" in str(emit.content))
    guest.comm(opened(made, "ButtonModel"), {"method": "custom", "content": {"event": "click"}})
    assert guest.finish(run, ended).text() == "waiting\ndone\n"


def test_output_widget_takes_output(guest):
    """An Output widget is told whose output to catch, before and after it."""
    ended = guest.run("import ipywidgets as w\nout = w.Output()\nwith out:\n    print('inside')\nprint('outside')", sync=False)
    assert updates(ended, "msg_id") == ["msg1", ""]
    kinds = [
        one["content"].get("text") or one["content"]["data"].get("state", {}).get("msg_id")
        for one in ended.outputs("stream", "comm_msg")
    ]
    assert kinds == ["msg1", "inside\n", "", "outside\n"]


def test_tqdm_makes_its_widget(guest):
    """tqdm.auto takes this for a notebook and counts to the end."""
    ended = guest.run("from tqdm.auto import tqdm\nfor i in tqdm(range(3)): pass", sync=False)
    assert opened(ended, "FloatProgressModel") and 3 in updates(ended, "value")


def test_target_registered_by_user_code(guest):
    """A front end opens a comm of a target that user code registered, and both sides talk."""
    code = """
import comm
def arrived(c, message):
    c.on_msg(lambda m: c.send({'got': m['content']['data']}, buffers=[b'raw', *m['buffers']]))
comm.get_comm_manager().register_target('mine', arrived)
get_ipython().kernel.comm_manager is comm.get_comm_manager()
"""
    assert guest.run(code).plain() == "True"
    guest.comm("c1", {}, "comm_open", target_name="mine")
    guest.comm("c1", {"x": 1})
    emit = guest.receive()
    assert emit.content["msg_type"] == "comm_msg" and emit.content["content"]["data"] == {"got": {"x": 1}}
    assert [bytes(buffer) for buffer in emit.buffers] == [b"raw"]


def test_comm_for_an_unknown_target_is_closed(guest):
    """A comm that nobody serves is closed again, with a line that says so."""
    guest.run("1")
    guest.comm("c2", {}, "comm_open", target_name="nobody")
    seen = [guest.receive().content for _ in range(2)]
    assert {one["msg_type"] for one in seen} == {"stream", "comm_close"}


def test_binary_state_goes_as_buffers(guest):
    """A widget's bytes travel as buffers, never inside JSON."""
    run = guest.cell("import ipywidgets as w\nimage = w.Image(value=b'\\x89PNG')", sync=False)
    emits = [
        emit
        for emit in guest.finish(run).emits
        if emit.type == "output" and emit.content["msg_type"] == "comm_open" and emit.buffers
    ]
    assert [bytes(buffer) for buffer in emits[-1].buffers] == [b"\x89PNG"]
