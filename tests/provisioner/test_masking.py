"""Masking: every spelling, however the text is cut; what it must leave alone; nothing kept back for ever."""

from __future__ import annotations

import html
import itertools
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remora_provisioner.masking import Mask, Veil

KEY = "-----BEGIN KEY-----\nabcdefghijk\nlmnopqrstuv\n-----END KEY-----\n"
ODD = "a\"b'c\\d<e>&f/ü"


def stream(text, name="stdout", **more):
    """Return a message of a stream."""
    return {"msg_type": "stream", "content": {"name": name, "text": text}, "metadata": {}} | more


def shown(veil, *messages):
    """Return the texts of what comes through, and of what waited, by stream."""
    passed = [one for message in messages for one in veil.through("output", message)]
    found: dict[str, str] = {}
    for message in [*passed, *veil.rest()]:
        name = message["content"]["name"]
        found[name] = found.get(name, "") + message["content"]["text"]
    return found


@pytest.mark.parametrize(
    "text",
    [
        ODD,
        repr(ODD)[1:-1],
        json.dumps(ODD),
        json.dumps(ODD, ensure_ascii=False),
        html.escape(ODD),
        quote(ODD),
        quote(ODD, safe=""),
    ],
)
def test_spellings(text):
    """A value is found as it is and as Python, JSON, HTML and addresses write it."""
    assert ODD not in Mask({"A": ODD}).text(f"<{text}>")
    assert Mask({"A": ODD}).text(f"<{text.strip(chr(34))}>") == "<***>"


def test_values_with_lines():
    """A key is found as a whole, without its last line's end, as Python writes it, and line by line."""
    mask = Mask({"A": KEY})
    assert mask.text(f"[{KEY}]") == "[***]" and mask.text(f"[{KEY.strip()}]") == "[***]" and mask.text(repr(KEY)) == "'***'"
    assert mask.text("> abcdefghijk\n> lmnopqrstuv\n") == "> ***\n> ***\n"


def test_what_is_too_common():
    """Short values and the words of settings stay."""
    assert not Mask({"A": "abc", "B": "true", "C": "None"})
    assert Mask({"A": "abc"}).text("abc") == "abc"


def test_the_longest_value_counts():
    """Of two values where one begins with the other, nothing of the longer one is left."""
    mask = Mask({"A": "abcd", "B": "abcdefgh"})
    assert mask.text("abcdefgh abcd") == "*** ***"
    veil = Veil(mask)
    assert shown(veil, stream("x abcd"), stream("efgh y abcd")) == {"stdout": "x *** y ***"}


@given(st.lists(st.integers(0, 40), max_size=6), st.sampled_from(["hunter22", KEY, ODD, "aaaaab", "abab abab"]))
def test_however_it_is_cut(cuts, value):
    """Cut anywhere, the text comes out as if it had come in one piece."""
    text = f"before {value}{value[:3]} middle {value} aab {value[:-1]}"
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    mask = Mask({"A": value})
    assert shown(Veil(mask), *map(stream, pieces)) == {"stdout": mask.text(text)}


def test_streams_are_apart():
    """A half on one stream waits for its own stream's next text, whatever comes between; other cells are other streams."""
    veil = Veil(Mask({"A": "hunter22"}))
    assert shown(veil, stream("x hunt"), stream("warn\n", "stderr"), stream("er22 y")) == {
        "stdout": "x *** y",
        "stderr": "warn\n",
    }
    assert shown(veil, stream("hunt", cell=1), stream("er22", cell=2)) == {"stdout": "er22hunt"}
    assert list(veil.rest()) == []


def test_displays_and_errors():
    """Texts of all depths and names of fields below a MIME type are masked; names, kinds and numbers stay."""
    veil = Veil(Mask({"A": "hunter22", "B": "stdout"}))
    data = {"text/plain": "'hunter22'", "application/json": {"hunter22": ["hunter22", 1, None]}}
    (out,) = veil.through("output", {"msg_type": "display_data", "content": {"data": data, "metadata": {}}, "metadata": {}})
    assert out["content"]["data"] == {"text/plain": "'***'", "application/json": {"***": ["***", 1, None]}}
    error = {"ename": "E", "evalue": "bad hunter22", "traceback": ["at hunter22"]}
    result = {"ok": False, "error": error, "remote": {"hunter22": {"repr": "hunter22"}}, "away": ["hunter22"]}
    (out,) = veil.through("result", result)
    assert out["error"] == {"ename": "E", "evalue": "bad ***", "traceback": ["at ***"]}
    assert out["away"] == ["hunter22"] and out["remote"] == {"hunter22": {"repr": "***"}}


def test_bytes_keep_their_length():
    """In bulk bytes stars take the place of a value, byte for byte, so that what encloses it stays whole."""
    mask = Mask({"A": "hunter22"})
    assert mask.buffer(b"<hunter22>") == b"<********>"
    assert mask.buffer(memoryview("hunter22".encode("utf-32-le"))) == b"*" * 32
    plain = memoryview(b"nothing")
    assert mask.buffer(plain) is plain


def test_more_secrets_later():
    """What is added counts from then on, and an older value of a variable stays masked."""
    mask = Mask({})
    veil = Veil(mask)
    assert shown(veil, stream("hunter22")) == {"stdout": "hunter22"}
    mask.add({"A": "hunter22"})
    mask.add({"A": "correct horse"})
    assert shown(veil, stream("hunter22 correct horse")) == {"stdout": "*** ***"}
    assert mask.variables == {"A": "correct horse"}


def test_a_large_value_that_looks_alike():
    """Of a value that is one letter many times, what may begin it waits, and what cannot does not."""
    mask = Mask({"A": "a" * 100_000 + "b"})
    assert mask.split("a" * 1_000 + "c") == ("a" * 1_000 + "c", "")
    assert mask.split("x" + "a" * 50_000)[0] == "x"
