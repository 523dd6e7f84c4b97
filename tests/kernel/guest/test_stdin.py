"""Questions to the user: input, getpass, the debugger."""


def ask(guest, run, ended=None):
    """Collect until the run asks, and return the question."""
    ended = guest.until(run, lambda emit: emit.type in {"input_request", "result"}, ended)
    assert ended.emits[-1].type == "input_request", ended.result
    return ended


def test_input_is_asked_and_answered(guest):
    """input() shows what came before, asks, and returns the answer."""
    run = guest.cell("name = input('Who? ')\nf'I am {name}'", allow_stdin=True)
    ended = ask(guest, run)
    assert ended.emits[-1].content == {"prompt": "Who? ", "password": False}
    guest.reply(run, "me")
    assert guest.finish(run, ended).plain() == "'I am me'"


def test_getpass_is_asked_hidden(guest):
    """getpass() asks for a password."""
    run = guest.cell("import getpass\ngetpass.getpass('Key: ')", allow_stdin=True)
    ended = ask(guest, run)
    assert ended.emits[-1].content == {"prompt": "Key: ", "password": True}
    guest.reply(run, "secret")
    assert guest.finish(run, ended).plain() == "'secret'"


def test_input_without_a_front_end_fails_at_once(guest):
    """Where nobody can be asked, Jupyter's own error says so."""
    assert guest.run("input()", allow_stdin=False).error["ename"] == "StdinNotImplementedError"


def test_input_that_cannot_be_answered_fails_with_the_reason(guest):
    """The other side may say why there is no answer."""
    run = guest.cell("input()", allow_stdin=True)
    ask(guest, run)
    guest.reply(run, error="the front end has gone")
    assert guest.finish(run).error["evalue"] == "the front end has gone"


def test_late_answer_is_not_taken_for_the_next_question(guest):
    """An answer that nobody waits for is not kept."""
    run = guest.cell("input('a')", allow_stdin=True)
    ended = ask(guest, run)
    guest.reply(run, "one")
    guest.finish(run, ended)
    guest.reply(run, "stale")
    run = guest.cell("input('b')", allow_stdin=True)
    ended = ask(guest, run)
    guest.reply(run, "two")
    assert guest.finish(run, ended).plain() == "'two'"


def test_waiting_for_input_can_be_interrupted(guest):
    """The stop button ends a question."""
    run = guest.cell("input()", allow_stdin=True)
    ask(guest, run)
    guest.interrupt(run)
    assert guest.finish(run).error["ename"] == "KeyboardInterrupt"


def test_debugger_after_an_error(guest):
    """%debug looks into the frames of the last error, by questions."""
    guest.run("def f(secret):\n    return 1 / 0\nf(41 + 1)")
    run = guest.cell("%debug", allow_stdin=True)
    ended = ask(guest, run)
    assert ended.emits[-1].content["prompt"] == "ipdb> "
    guest.reply(run, "p secret")
    ended = ask(guest, run, ended)
    guest.reply(run, "q")
    assert "42" in guest.finish(run, ended).text()
