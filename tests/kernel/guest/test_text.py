"""Text: order, timing, attribution, descriptors, volume."""

import time


def pieces(ended):
    """Return stream outputs as (name, text)."""
    return [(one["content"]["name"], one["content"]["text"]) for one in ended.outputs("stream")]


def test_both_streams_in_order(guest):
    """Stdout and stderr come in the order in which they were written."""
    ended = guest.run("import sys\nfor i in range(3):\n    print('out', i)\n    print('err', i, file=sys.stderr)")
    assert pieces(ended) == [(n, f"{n[3:]} {i}\n") for i in range(3) for n in ("stdout", "stderr")]


def test_displays_keep_their_place(guest):
    """A display stands where it was made between the lines of text."""
    ended = guest.run("print('a')\ndisplay(1)\nprint('b')\n2")
    assert [one["msg_type"] for one in ended.outputs()] == ["stream", "display_data", "stream", "execute_result"]


def test_first_line_is_visible_while_the_cell_runs(guest):
    """The first line comes at once, not when the cell ends."""
    run = guest.cell("print('first')\nanswer = input()\nprint(answer)", allow_stdin=True)
    ended = guest.until(run, lambda emit: emit.type == "input_request")
    assert pieces(ended) == [("stdout", "first\n")]
    guest.reply(run, "second")
    assert guest.finish(run, ended).text() == "first\nsecond\n"


def test_line_printed_before_a_crash_is_not_lost(guest):
    """A line after a pause is out before the next statement runs, even if that kills the process."""
    run = guest.cell("print('last words')\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert guest.until(run, lambda emit: True).text() == "last words\n"


def test_many_prints_are_coalesced_and_complete(guest):
    """Twenty thousand prints make at most twenty messages a second, and nothing is lost."""
    ended = guest.run("import time\nfor i in range(20_000):\n    print(i)\n    if not i % 20: time.sleep(0.0005)")
    assert ended.text() == "".join(f"{i}\n" for i in range(20_000))
    seconds = ended.times[-1] - ended.times[0]
    assert len(pieces(ended)) <= 20 * seconds + 3


def test_progress_line_is_updated_at_most_twenty_times_a_second(guest):
    """A line that is flushed again and again does not flood the front end."""
    ended = guest.run(
        "import time, sys\nend = time.time() + 1\nwhile time.time() < end:\n"
        "    print('\\rx', end='', flush=True)\n    time.sleep(0.002)"
    )
    assert 10 <= len(pieces(ended)) <= 25


def test_huge_text_arrives_whole(guest):
    """A hundred megabytes arrive, in messages of bearable size, without quadratic work."""
    begun = time.monotonic()
    ended = guest.run("print('x' * 100_000_000)")
    assert len(ended.text()) == 100_000_001 and max(len(text) for _, text in pieces(ended)) <= 1 << 22
    assert time.monotonic() - begun < 20


def test_text_that_is_no_unicode_arrives(guest):
    """Lone surrogates and bytes that are no UTF-8 break nothing."""
    ended = guest.run("import os\nprint('\\udc80')\nos.write(1, b'\\xff!\\n');")
    assert ended.text() == "\udc80\n\ufffd!\n"


def test_descriptors_are_captured(guest):
    """What C code and child processes write to descriptors 1 and 2 belongs to the cell, before its result."""
    code = (
        "import os, subprocess\nos.write(1, b'one\\n')\nos.write(2, b'two\\n')\n"
        "subprocess.run(['sh', '-c', 'echo three; echo four >&2']);"
    )
    ended = guest.run(code)
    assert ended.text() == "one\nthree\n" and ended.text("stderr") == "two\nfour\n"


def test_buffers_of_c_are_flushed(guest):
    """What C code printed and did not flush comes with its cell."""
    assert guest.run("import ctypes\nctypes.CDLL(None).printf(b'from C');").text() == "from C"


def test_text_after_a_child_process_comes_after_it(guest):
    """A print after a child process stands below what the child wrote."""
    ended = guest.run("import subprocess\nprint('a')\nsubprocess.run(['echo', 'b'])\nprint('c')")
    assert ended.text() == "a\nb\nc\n"


def test_streams_look_like_a_notebooks(guest):
    """The streams are no terminals, have a descriptor, a buffer, an encoding."""
    code = (
        "import sys\nsys.stdout.buffer.write(b'raw\\n')\nsys.stdout.writelines(['a', 'b', '\\n'])\n"
        "sys.stdout.reconfigure(line_buffering=True)\n"
    )
    ended = guest.run(
        code + "(sys.stdout.isatty(), sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.encoding, sys.stdout.writable())"
    )
    assert ended.text() == "raw\nab\n" and ended.plain() == "(False, 1, 2, 'utf-8', True)"
    assert guest.run("sys.stdout.write(b'x')").error["ename"] == "TypeError"


def test_threads_belong_to_the_cell_that_started_them(guest):
    """Late output of a thread goes with the run of the cell that started it, even while another one runs."""
    first = guest.cell(
        "import threading\ngo = threading.Event()\ndef late():\n    go.wait()\n    print('late')\n"
        "t = threading.Thread(target=late)\nt.start()"
    )
    guest.finish(first)
    second = guest.cell("print('second')\ngo.set()\nt.join()\nprint('end')")
    seen = []
    while True:
        emit = guest.receive()
        if emit.type == "result":
            break
        seen.append((emit.run, emit.content["content"]["text"]))
    assert (first, "late\n") in seen and "".join(text for run, text in seen if run == second) == "second\nend\n"


def test_executor_jobs_belong_to_the_cell_that_submits_them(guest):
    """A pool made in one cell prints into the cell that gives it work."""
    guest.run(
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\npool.submit(print, 'one').result()"
    )
    assert guest.run("pool.submit(print, 'two').result()").text() == "two\n"


def test_signal_handler_that_prints_breaks_nothing(guest):
    """A handler that prints or raises in the middle of printing tears no message."""
    code = """
import signal
class Alarm(Exception): pass
def ring(*_):
    print('ring')
    raise Alarm
signal.signal(signal.SIGALRM, ring)
rings = 0
while rings < 200:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        while True: print('x' * 1000)
    except Alarm:
        rings += 1
"""
    ended = guest.run(code)
    assert ended.result["ok"] and ended.text().count("ring\n") == 200


def test_forgotten_alarm_harms_nobody(guest):
    """A handler that raises when nothing runs is shown, and the guest lives on."""
    run = guest.cell(
        "import signal\ndef ring(*_): raise TimeoutError('too late')\n"
        "signal.signal(signal.SIGALRM, ring)\nsignal.setitimer(signal.ITIMER_REAL, 0.2);"
    )
    guest.finish(run)
    text = ""
    while "too late" not in text:
        text += guest.receive().content["content"]["text"]
    assert guest.run("1").plain() == "1"
