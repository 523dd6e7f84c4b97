"""Deciding what to do about a folder on two sides: every case by name, and what holds for all; and which files are left out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from remora.errors import InputError, ProtocolError
from remora_provisioner.machines.exchange.comparing import Plan, compare
from remora_provisioner.machines.exchange.entries import FOLDER, Entries, Entry, Kind, leads_inside, packed, parents, unpacked
from remora_provisioner.machines.exchange.ignoring import Rules
from remora_provisioner.machines.exchange.receipts import Receipt, Stay


def file(content: str, kind: Kind = Kind.FILE) -> Entry:
    """Return a file whose digest begins with this text."""
    return Entry(kind, len(content), content.encode().ljust(32, b"."))


A, B, C = file("a"), file("b"), file("c")
HELD = Entry(Kind.HELD, 0, b"special")
LINK = Entry(Kind.LINK, 0, b"x")


def beside(path: bytes) -> bytes:
    """Name the other version."""
    return path + b"~"


def plan(base: Entry | None, here: Entry | None, there: Entry | None, *, writable: bool = True) -> Plan:
    """Compare a single path."""
    sides = ({b"p": entry} if entry else {} for entry in (base, here, there))
    return compare(*sides, beside, writable=writable)


@pytest.mark.parametrize(
    ("base", "here", "there", "wanted"),
    [
        (A, A, A, Plan()),
        (None, A, A, Plan(equal={b"p": A})),
        (A, B, B, Plan(equal={b"p": B})),
        (A, None, None, Plan(equal={b"p": None})),
        (None, A, None, Plan(send={b"p": A})),
        (None, None, A, Plan(fetch={b"p": A})),
        (A, B, A, Plan(send={b"p": B})),
        (A, A, B, Plan(fetch={b"p": B})),
        (A, None, A, Plan(delete_there=[b"p"])),
        (A, A, None, Plan(delete_here=[b"p"])),
        (A, B, C, Plan(send={b"p": B}, fetch={b"p~": C}, move_there={b"p": b"p~"})),
        (None, B, C, Plan(send={b"p": B}, fetch={b"p~": C}, move_there={b"p": b"p~"})),
        (None, LINK, C, Plan(send={b"p": LINK}, fetch={b"p~": C}, move_there={b"p": b"p~"})),
        (A, B, None, Plan(send={b"p": B})),
        (A, None, B, Plan(fetch={b"p": B})),
        (None, file("a", Kind.PROGRAM), A, Plan(send={b"p": file("a", Kind.PROGRAM)})),
        (A, HELD, A, Plan()),
        (A, B, HELD, Plan()),
        (None, HELD, HELD, Plan()),
        (None, HELD, None, Plan()),
    ],
)
def test_one_path(base: Entry | None, here: Entry | None, there: Entry | None, wanted: Plan):
    """What was agreed on, what is here and what is there decide."""
    assert plan(base, here, there) == wanted


@pytest.mark.parametrize(
    ("base", "here", "there", "wanted"),
    [
        (A, A, B, Plan()),
        (None, None, A, Plan()),
        (A, A, None, Plan(send={b"p": A})),
        (A, B, A, Plan(send={b"p": B})),
        (A, None, A, Plan(delete_there=[b"p"])),
        (A, None, B, Plan()),
        (A, B, C, Plan(send={b"p": B}, move_there={b"p": b"p~"})),
    ],
)
def test_one_path_that_may_not_come_home(base: Entry | None, here: Entry | None, there: Entry | None, wanted: Plan):
    """When nothing comes home, nothing here changes, and no version there is overwritten that is there alone."""
    assert plan(base, here, there, writable=False) == wanted


def test_nothing_below_what_is_held_is_touched():
    """A folder that cannot be read hides what was agreed on below it."""
    base = {b"d": FOLDER, b"d/x": A, b"d/y": A}
    assert compare(base, {b"d": HELD}, base, beside) == Plan()
    assert compare(base, {b"d": HELD}, {b"d": FOLDER, b"d/x": B}, beside) == Plan()


def test_a_folder_that_is_needed_is_given_back():
    """A folder that one side deleted is made there again when the other has put something into it."""
    base = {b"d": FOLDER, b"d/e": FOLDER, b"d/e/x": A}
    assert compare(base, {}, base | {b"d/e/x": B}, beside) == Plan(fetch={b"d": FOLDER, b"d/e": FOLDER, b"d/e/x": B})
    assert compare(base, base | {b"d/e/y": B}, {}, beside) == Plan(
        send={b"d": FOLDER, b"d/e": FOLDER, b"d/e/y": B}, delete_here=[b"d/e/x"]
    )


# ---- what holds for all ------------------------------------------------------------------------------------------------------

_PATHS = [b"a", b"a/x", b"a/x/y", b"a/z", b"b", b"b/x"]
_ENTRIES = st.sampled_from([A, B, C, FOLDER, LINK])


@st.composite
def folders(draw: st.DrawFn) -> Entries:
    """Return what a folder can hold: what is below something is below a folder."""
    found: Entries = {}
    for path in _PATHS:
        above = path.rpartition(b"/")[0]
        if (not above or found.get(above) == FOLDER) and draw(st.booleans()):
            found[path] = draw(_ENTRIES)
    return found


def applied(plan: Plan, here: Entries, there: Entries) -> tuple[Entries, Entries]:
    """Return both sides after a plan."""
    here, there = dict(here), dict(there)
    for old, new in plan.move_there.items():
        for path in [path for path in there if path == old or path.startswith(old + b"/")]:
            there[new + path[len(old) :]] = there.pop(path)
    for path in plan.delete_there:
        del there[path]
    for path in plan.delete_here:
        del here[path]
    there |= plan.send
    here |= plan.fetch
    return here, there


def versions(entries: Entries) -> set[bytes]:
    """Return the contents of files."""
    return {entry.content for entry in entries.values() if entry.is_file}


@settings(max_examples=400)
@given(base=folders(), here=folders(), there=folders())
@example(base={b"a": FOLDER, b"a/x": A}, here={b"a": B}, there={b"a": FOLDER, b"a/x": C})
def test_both_sides_agree_and_no_version_is_lost(base: Entries, here: Entries, there: Entries):
    """After any plan both hold the same, as a folder can hold it, with all that either side alone had new."""
    made = compare(base, here, there, beside)
    mine, theirs = applied(made, here, there)
    assert mine == theirs
    assert all(mine.get(above) == FOLDER for path in mine for above in parents(path))
    new_here = {entry.content for path, entry in here.items() if entry.is_file and base.get(path) != entry}
    new_there = {entry.content for path, entry in there.items() if entry.is_file and base.get(path) != entry}
    assert new_here | new_there <= versions(mine)
    for path, entry in here.items():
        if base.get(path) != entry and entry.is_file:
            assert mine[path].content == entry.content
    assert compare(mine, mine, theirs, beside) == Plan()


@settings(max_examples=200)
@given(base=folders(), here=folders(), there=folders())
def test_what_may_not_come_home_does_not(base: Entries, here: Entries, there: Entries):
    """Unless the folder is writable nothing is planned for it, and what there alone is new stays there."""
    made = compare(base, here, there, beside, writable=False)
    assert not made.fetch
    assert not made.delete_here
    assert not set(made.send) & set(made.delete_there)


# ---- as bytes ----------------------------------------------------------------------------------------------------------------


@given(entries=folders())
@example(entries={})
@example(entries={b"\xff\n": LINK, b"big": Entry(Kind.FILE, 1 << 40, bytes(32)), b"h": HELD})
def test_entries_survive_as_bytes(entries: Entries):
    """What is packed is unpacked as it was."""
    assert unpacked(packed(entries)) == entries


@given(data=st.binary(max_size=200))
@example(data=packed({b"a": A})[:-1])
@example(data=packed({b"a": A}) + b"x")
@example(data=packed({b"a": Entry(9, 0, b"")}))
@example(data=packed({b"a": Entry(Kind.FILE, 0, b"short")}))
def test_other_bytes_are_refused(data: bytes):
    """What was not packed is a ProtocolError, or nothing at all."""
    try:
        assert unpacked(data) == {} or packed(unpacked(data)) == data
    except ProtocolError:
        return


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [
        (b"l", b"x", True),
        (b"l", b"d/x", True),
        (b"d/l", b"../x", True),
        (b"d/e/l", b".././../x", True),
        (b"l", b"..", False),
        (b"d/l", b"../..", False),
        (b"l", b"/etc", False),
        (b"d/l", b"x/../y", False),
        (b"l", b"", False),
    ],
)
def test_links_that_lead_inside(path: bytes, target: bytes, inside: bool):
    """A link may climb to the top of the folder, and only at its beginning."""
    assert leads_inside(path, target) is inside


# ---- what is left out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "ignored", "kept"),
    [
        ("", [".git/", ".git", "d/__pycache__/", "node_modules/", ".ipynb_checkpoints/"], ["git", "__pycache__", "a.pyc"]),
        ("*.csv", ["a.csv", "d/b.csv", ".csv"], ["a.csv2", "csv"]),
        ("/top", ["top", "top/"], ["d/top"]),
        ("build/", ["build/", "d/build/"], ["build"]),
        ("a/b", ["a/b"], ["d/a/b", "a/bc"]),
        ("a/*", ["a/x"], ["a/x/y", "a"]),
        ("a/**", ["a/x", "a/x/y"], ["a"]),
        ("**/x", ["x", "d/x", "d/e/x"], ["xx"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "b/z"]),
        ("?.txt", ["a.txt"], ["ab.txt", ".txt"]),
        ("[ab].bin\n[!c].log\n[]x]", ["a.bin", "d.log", "]", "x"], ["c.bin", "c.log", "y"]),
        ("*.csv\n!keep.csv", ["a.csv"], ["keep.csv", "d/keep.csv"]),
        ("!node_modules", [".git"], ["node_modules/"]),
        ("# a comment\n\n  \n\\#x\n\\!y", ["#x", "!y"], ["# a comment", "x", "y"]),
        ("trail   \nkept\\ ", ["trail", "kept "], ["kept"]),
        ("a.b+(c)", ["a.b+(c)"], ["aXb+(c)"]),
        ("*.tmp\r\nx*y", ["a.tmp", "x\ny"], ["x/y"]),
    ],
)
def test_rules_read_as_those_of_git(lines: str, ignored: list[str], kept: list[str]):
    """Each kind of line leaves out what it would in a .gitignore; a slash at the end stands for a folder."""
    rules = Rules(lines.encode())

    def told(names: list[str]) -> Iterator[bool]:
        return (rules.ignores(name.rstrip("/").encode(), name.endswith("/")) for name in names)

    assert all(told(ignored)), list(zip(ignored, told(ignored), strict=True))
    assert not any(told(kept)), list(zip(kept, told(kept), strict=True))


def test_a_line_that_is_no_pattern_is_named():
    """Its number is in the error, which says what to do."""
    with pytest.raises(InputError, match=r"line 3 of \.remoraignore .*mend or remove"):
        Rules(b"a\n\n[z-a]")


# ---- the receipt -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("receipt", "line"),
    [
        (Receipt("box"), ""),
        (Receipt("box", sent=1, sent_bytes=80), "1 file sent (80 B)"),
        (Receipt("box", fetched=2, fetched_bytes=3 << 20), "2 files fetched (3.0 MiB)"),
        (Receipt("box", deleted_here=1, deleted_there=3), "3 files deleted on box; 1 file deleted here"),
        (
            Receipt("box", conflicts=(("a", "a.from-box"), ("b", "b.from-box"))),
            "a was changed on both sides: the version of box is kept as a.from-box (and 1 more)",
        ),
        (Receipt("box", news=(Stay("m", "1.0 TiB"),)), "m (1.0 TiB) stays here"),
        (Receipt("box", news=(Stay("m", "no file"), Stay("n", "no file"))), "m (no file) and n (no file) stay here"),
        (Receipt("box", news=(Stay("m", "2.0 GiB", "on box"),)), "m (2.0 GiB) stays on box"),
        (Receipt("box", news=(Stay("m", "Permission denied", ""),)), "m (Permission denied) waits for the next run"),
        (Receipt("box", stays=(Stay("m", "no file"),)), ""),
    ],
)
def test_a_receipt_is_one_line(receipt: Receipt, line: str):
    """It says what happened, in the singular where it is one, and nothing when nothing happened."""
    assert receipt.line() == line
