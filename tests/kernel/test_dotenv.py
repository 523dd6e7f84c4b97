"""`.env` files: what is read, and that no complaint shows what may be a value."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remora import dotenv
from remora.errors import InputError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("# a comment\n\n  \t\n", {}),
        ("A=1", {"A": "1"}),
        ("A = some words \nexport B=2\n", {"A": "some words", "B": "2"}),
        ("A=1 # why\nB=1#2\n", {"A": "1", "B": "1#2"}),
        ("A=x\r\nB=y\r\n", {"A": "x", "B": "y"}),
        ("\ufeffA=x", {"A": "x"}),
        ("A='it is \"so\" $B \\n'  # why\n", {"A": 'it is "so" $B \\n'}),
        ('A="two\\nlines, a \\"quote\\", a \\\\ and \\$B"', {"A": 'two\nlines, a "quote", a \\ and $B'}),
        ("KEY='-----BEGIN\nabc\n-----END'\nB=2", {"KEY": "-----BEGIN\nabc\n-----END", "B": "2"}),
        ("A=a=b==\n", {"A": "a=b=="}),
        ("A=${B}\nA=last", {"A": "last"}),
    ],
)
def test_what_is_read(text, found):
    """Comments, `export`, quotes of both kinds, several lines, = in values; the last one counts."""
    assert dotenv.parse(text, "x.env") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hidden", "x.env, line 1 is not understood"),
        ("A=1\n\nhidden value\n", "line 3 is not understood"),
        ("=hidden", "line 1 is not understood"),
        ("A='hidden\nB=2", "line 1: the quotes do not end"),
        ('A="hidden" more', "line 1: the quotes do not end"),
        ("1A=hidden", "'1A' is no name of a variable"),
        ("Ä=hidden", "is no name of a variable"),
        ("A-B=hidden", "'A-B' is no name"),
        ("A=", "A has no value"),
        ("PATH=hidden", "PATH is set by Remora itself"),
        ("REMORA_UPLINK_FD=hidden", "is set by Remora itself"),
        ("A=hidden\0", "null byte"),
        (f"A={'hidden' * 20_000}", "larger than the 100 KiB"),
        ("\n".join(f"A{n}={'h' * 100_000}" for n in range(11)), "all variables together"),
    ],
)
def test_what_is_refused(text, words):
    """The place is named, and nothing of a value is shown."""
    with pytest.raises(InputError, match=words) as refused:
        dotenv.parse(text, "x.env")
    assert "hidden" not in str(refused.value) and "hhh" not in str(refused.value)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    """Nothing but an InputError comes of whatever stands in a file."""
    with suppress(InputError):
        dotenv.parse(text, "x.env")


@given(st.text(st.characters(blacklist_characters="\0\r'", blacklist_categories=["Cs"]), min_size=1))
def test_single_quotes_keep_all(value):
    """What stands in single quotes is the value."""
    assert dotenv.parse(f"A='{value}'", "x.env") == {"A": value}
