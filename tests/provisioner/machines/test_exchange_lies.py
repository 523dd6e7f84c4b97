"""Whoever is at the other end of an exchange is not believed: nothing is written, read or removed outside of the folder."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from provisioner.machines.exchanging import Pair, Spoiled, meet, tree, write
from remora.errors import ProtocolError, RemoraError, StateError, Unavailable
from remora_provisioner.machines.exchange.applying import Changes
from remora_provisioner.machines.exchange.entries import FOLDER, Entry, Kind, packed
from remora_provisioner.machines.exchange.letters import PROTOCOL, Letters
from remora_provisioner.machines.exchange.serving import serve

HELLO = b"hello"
DIGEST = bytes.fromhex("ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f")
FILE = Entry(Kind.FILE, len(HELLO), DIGEST)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return two sides with a file each, and a file outside of both."""
    pair = Pair(tmp_path / "inner")
    write(pair.here / "mine", "here")
    write(pair.there / "its", "there")
    write(tmp_path / "inner" / "outside", "outside")
    return pair


def untouched(pair: Pair) -> bool:
    """Tell whether nothing has changed on either side, nor outside."""
    kept = tree(pair.here) == {b"mine": ("file", b"here")} and tree(pair.there) == {b"its": ("file", b"there")}
    return kept and (pair.here.parent / "outside").read_text() == "outside"


# ---- a machine that lies -----------------------------------------------------------------------------------------------------


def machine(entries: dict[bytes, Entry], *letters: tuple[bytes, bytes]) -> Callable[[socket.socket], None]:
    """Return the other half of an exchange that has these entries and sends these letters as contents."""

    def half(sock: socket.socket) -> None:
        said = Letters(sock, "the user's side")
        said.get_values(b"H")
        said.put_values(b"F", {"token": "", "arriving": {}}, packed({b"": Entry(Kind.FOLDER, 0, bytes(32))}))
        said.get_values(b"A")
        said.put_values(b"I", {}, packed(entries))
        said.get_values(b"P")
        for letter, content in letters:
            said.put(letter, content)
        said.put(b"E")
        while said.get(b"C", b"E")[0] != b"E":
            pass
        said.put_values(b"D", {"failures": {}})
        said.get_values(b"T")

    return half


def small(number: int, content: bytes, size: int | None = None) -> tuple[bytes, bytes]:
    """Return a pack of one file."""
    return b"C", struct.pack("<IIIq", 1, number, len(content) if size is None else size, 5) + content


@pytest.mark.parametrize(
    "path", [b"../outside", b"/tmp/outside", b"a/../../outside", b"..", b".", b"a//b", b"", b"n" * 256, b"d/" * 2000 + b"x"]
)
def test_a_path_that_leads_outside_is_refused(pair: Pair, path: bytes):
    """A machine that has files at such paths is a ProtocolError that names the path; nothing moves."""
    raised = meet(pair.home.exchange, machine({path: FILE}, small(0, HELLO)))
    assert isinstance(raised[0], ProtocolError)
    assert raised[0].reason == "path-escapes"
    assert untouched(pair)


@pytest.mark.parametrize("target", [b"/etc", b"../outside", b"x/../../outside", b"", b"./../outside"])
def test_a_link_that_leads_outside_is_refused(pair: Pair, target: bytes):
    """So is a machine whose links lead out of the folder."""
    raised = meet(pair.home.exchange, machine({b"link": Entry(Kind.LINK, 0, target)}))
    assert isinstance(raised[0], ProtocolError)
    assert untouched(pair)


def test_what_the_rules_leave_out_does_not_come_home(pair: Pair):
    """A machine that has all the same what is not exchanged (hooks of git, compiled modules, rules of its own) is not heeded."""
    write(pair.here / ".remoraignore", "private/\n*.key\n")
    before = tree(pair.here)
    names = [b".git", b".git/hooks", b"__pycache__", b"pkg", b"pkg/__pycache__"]
    folders = dict.fromkeys(names, FOLDER)
    names = [b".git/hooks/post-commit", b"__pycache__/m.pyc", b"pkg/__pycache__/m.pyc", b"lone/.git/config", b"sub/.git"]
    files = dict.fromkeys([*names, b".remoraignore", b"private/x", b"pkg/my.key"], FILE)
    meet(pair.home.exchange, machine(folders | files))
    assert tree(pair.here) == before | {b"pkg": ("folder", b"")}


def test_what_is_behind_a_link_of_the_users_is_not_touched(pair: Pair, tmp_path: Path):
    """A machine that claims a folder where the user has a link outside writes nothing through it."""
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (pair.here / "out").symlink_to(outside)
    raised = meet(pair.home.exchange, machine({b"out": FOLDER, b"out/x": FILE}, small(0, HELLO)))
    assert not list(outside.iterdir())
    assert raised[0] is None or isinstance(raised[0], ProtocolError)


@pytest.mark.parametrize(
    "letter",
    [
        small(0, b"other"),
        small(0, b"longer than it was"),
        (b"L", struct.pack("<IQq", 0, 0, 5) + b"other"),
        (b"E", b""),
    ],
)
def test_content_that_is_not_as_promised_is_not_taken(pair: Pair, letter: tuple[bytes, bytes]):
    """A file whose content has another digest or size, or never comes, is named, and nothing of it is there."""
    letters = () if letter[0] == b"E" else (letter,)
    received: list[Any] = []
    raised = meet(lambda sock: received.append(pair.home.exchange(sock)), machine({b"new": FILE}, *letters))
    if raised[0] is None:
        assert [stay.path for stay in received[0].stays] == ["new"]
    else:
        assert isinstance(raised[0], ProtocolError)
    assert untouched(pair)


@pytest.mark.parametrize(
    "letter",
    [
        small(7, HELLO),
        small(0, HELLO, size=4),
        (b"C", b"\xff" * 40),
        (b"L", struct.pack("<IQq", 0, 2, 5) + b"llo"),
        (b"L", struct.pack("<IQq", 0, 0, 5) + HELLO * 2),
        (b"L", struct.pack("<IQq", 0, 0, 5)),
        (b"Z", struct.pack("<IQqQ", 0, 0, 5, 1 << 40)),
        (b"Z", b""),
        (b"L", b""),
    ],
)
def test_letters_that_make_no_sense_are_refused(pair: Pair, letter: tuple[bytes, bytes]):
    """Contents that nobody asked for, or pieces that do not fit, end the exchange; nothing half remains."""
    raised = meet(pair.home.exchange, machine({b"new": FILE}, letter))
    assert isinstance(raised[0], ProtocolError) or raised[0] is None
    assert untouched(pair) or (pair.here / "new").read_bytes() == HELLO


@pytest.mark.parametrize("time", [-(1 << 63), (1 << 63) - 1, 0])
def test_times_that_no_disk_knows_do_no_harm(pair: Pair, time: int):
    """A file with an absurd time arrives, and nothing breaks then or later."""
    raised = meet(pair.home.exchange, machine({b"new": FILE}, (b"C", struct.pack("<IIIq", 1, 0, 5, time) + HELLO)))
    assert raised[0] is None
    assert tree(pair.here) == {b"mine": ("file", b"here"), b"new": ("file", HELLO)}
    pair.exchange()
    assert tree(pair.here) == tree(pair.there)


# ---- a user's side that lies -------------------------------------------------------------------------------------------------


def user(values: dict[str, Any], entries: dict[bytes, Entry], *letters: tuple[bytes, bytes]) -> Callable[[socket.socket], None]:
    """Return the home half of an exchange that gives this plan, and sends these letters as contents."""

    def half(sock: socket.socket) -> None:
        said = Letters(sock, "the machine")
        said.put_values(b"H", {"protocol": PROTOCOL, "most": 1 << 40, "seen": ""}, b"")
        said.get_values(b"F")
        plan = {"moves": [], "deletes": [], "copies": [], "wants": []} | values
        said.put_values(b"P", plan, packed(entries))
        for letter, content in letters:
            said.put(letter, content)
        said.put(b"E")
        while said.get(b"C", b"L", b"E")[0] != b"E":
            pass
        failures.update(said.get_values(b"D")[1]["failures"])
        said.put_values(b"B", {})

    failures: dict[str, str] = {}
    half.__dict__["failures"] = failures
    return half


def serving(pair: Pair) -> Callable[[socket.socket], None]:
    """Return the machine's half."""
    return lambda sock: serve(pair.there, pair.state, sock)


@pytest.mark.parametrize(
    "values",
    [
        {"moves": [["../outside", "taken"]]},
        {"moves": [["its", "../given"]]},
        {"deletes": ["../outside"]},
        {"deletes": ["/etc/passwd"]},
        {"copies": [["x", "../outside"]]},
        {"wants": [["../outside", 0]]},
        {"wants": [["its", "many"]]},
        {"deletes": 7},
        {"copies": [["x", "not there"]]},
    ],
)
def test_a_plan_that_leads_outside_is_refused(pair: Pair, values: dict[str, Any]):
    """Paths outside in any part of a plan, and parts that make no sense, are a ProtocolError; nothing is done."""
    raised = meet(serving(pair), user(values, {b"x": FILE}))
    assert isinstance(raised[0], ProtocolError)
    assert untouched(pair)


def test_a_plan_cannot_reach_through_a_link(pair: Pair, tmp_path: Path):
    """What lies behind a link is neither read, removed, moved nor overwritten; each is named as failed."""
    outside = write(tmp_path / "elsewhere" / "secret", "secret")
    (pair.there / "out").symlink_to(outside.parent)
    names = {"moves": [["out/secret", "taken"]], "deletes": ["out/secret"], "wants": [["out/secret", 0]]}
    asking = user(names, {b"out/new": FILE, b"out/folder": FOLDER})
    raised = meet(serving(pair), asking)
    assert raised[0] is None
    assert tree(outside.parent) == {b"secret": ("file", b"secret")}
    assert set(asking.__dict__["failures"]) == {"out/secret", "out/new", "out/folder"}


def test_what_changed_since_it_was_looked_at_is_not_removed(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """A plan speaks of what there was: a file that another process has written since stays, and is named."""
    real = Changes.carry_out

    def meanwhile(*arguments: Any) -> None:
        write(pair.there / "its", "written meanwhile")
        real(*arguments)

    monkeypatch.setattr(Changes, "carry_out", meanwhile)
    asking = user({"deletes": ["its", "never there"]}, {b"its": FILE})
    assert meet(serving(pair), asking)[0] is None
    assert asking.__dict__["failures"] == {"its": "it was changed meanwhile"}
    assert (pair.there / "its").read_text() == "written meanwhile"


LATE = FILE._replace(content=b"")


@pytest.mark.parametrize(
    "content", [DIGEST + b"hullo", bytes(32) + HELLO, HELLO, DIGEST[:31] + HELLO, DIGEST * 2 + HELLO, DIGEST, b""]
)
def test_a_digest_that_comes_late_is_no_less_right(pair: Pair, content: bytes):
    """A file whose digest goes with it is verified by it; where that is missing or too long the letter is none."""
    asking = user({}, {b"new": LATE}, (b"C", struct.pack("<IIIq", 1, 0, 5, 0) + content))
    assert isinstance(meet(serving(pair), asking)[0], ProtocolError if len(content) != 37 else type(None))
    assert asking.__dict__["failures"].keys() == ({"new"} if len(content) == 37 else set())
    assert untouched(pair)


@pytest.mark.parametrize("entry", [LATE._replace(size=(1 << 19) + 1), LATE._replace(size=0), FILE._replace(content=DIGEST[:31])])
def test_a_digest_comes_late_only_where_it_can(pair: Pair, entry: Entry):
    """Only what is whole in a letter has room for one there; and a machine has read what it says that it has."""
    assert isinstance(meet(serving(pair), user({}, {b"new": entry}))[0], ProtocolError)
    assert isinstance(meet(serving(pair), user({"copies": [["new", "its"]]}, {b"new": LATE}))[0], ProtocolError)
    assert isinstance(meet(pair.home.exchange, machine({b"new": LATE}))[0], ProtocolError)
    assert untouched(pair)


# ---- noise -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n" * 10,
        bytes(9),
        b"F" + bytes(7) + b"\x05hello",
        b"F" + b"\xff" * 8,
        b"X" + bytes(7) + b"\x02{}",
        b"",
    ],
)
def test_garbage_is_refused_on_both_sides(pair: Pair, noise: bytes):
    """A peer that answers nonsense, or nothing, is an error that says so, and changes nothing."""
    halves: list[Callable[[socket.socket], object]] = [pair.home.exchange, serving(pair)]
    for half in halves:
        raised = meet(half, lambda sock: sock.sendall(noise))
        assert isinstance(raised[0], (ProtocolError, Unavailable)), raised
        assert untouched(pair)


def test_an_error_of_the_other_side_is_told_with_its_name(pair: Pair):
    """A folder that cannot be made there is an error here that names the machine."""
    pair.there = pair.there / "its" / "below"
    with pytest.raises(StateError, match=r"^gpubox: .*cannot be used"):
        pair.exchange()


@settings(max_examples=30)
@given(to_home=st.booleans(), at=st.integers(0, 900), bits=st.integers(1, 255))
def test_a_spoiled_byte_loses_nothing(to_home: bool, at: int, bits: int):
    """Whichever byte of a conversation is wrong, only our errors are raised, nothing is lost, and the next exchange completes."""
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(Path(name) / "inner")
        write(pair.here / "d/mine", "here")
        write(pair.there / "its", "there")
        outside = {os.path.join(at, file) for at, _, files in os.walk(Path(name)) for file in files}
        try:
            pair.exchange(spoiled=Spoiled(to_home, at, bits))
        except RemoraError as error:
            assert isinstance(error, (ProtocolError, Unavailable, StateError))
        assert {"d/mine", "its"} & {path.decode() for path in tree(pair.here) | tree(pair.there)}
        assert all(os.path.exists(path) for path in outside)
        pair.exchange()
        assert (
            tree(pair.here)
            == tree(pair.there)
            == {b"d": ("folder", b""), b"d/mine": ("file", b"here"), b"its": ("file", b"there")}
        )
