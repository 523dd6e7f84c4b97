"""Trees: what they take, what they refuse, and that equal content has equal bytes."""

from __future__ import annotations

import hashlib
import os
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remora.errors import StoreRefused
from remora_provisioner.images.tree import Entry, File, Folder, Gone, Link, Tree

A, B = "a" * 64, "b" * 64


def reason(*entries: Entry, system: bool = False) -> str:
    """Return why these entries make no tree."""
    with pytest.raises(StoreRefused) as refused:
        Tree.of(entries, system=system)
    return refused.value.reason


def test_entries_are_sorted_and_the_digest_does_not_depend_on_their_order():
    """Two orders make one tree, named by the sha256 of its bytes."""
    one, two = Tree.of([File("b", A, 1), Folder("a")]), Tree.of([Folder("a"), File("b", A, 1)])
    assert one == two
    assert [e.path for e in one.entries] == ["a", "b"]
    assert one.digest == hashlib.sha256(two.to_bytes()).hexdigest()


@pytest.mark.parametrize("path", ["/a", "..", "a/../b", "a//b", "", "a/", "./a", "a\0b"])
def test_a_path_that_leads_out_or_is_not_plain_is_refused(path: str):
    """No spelling of a path escapes."""
    assert reason(File(path, A, 1)) == "path-escapes"
    assert reason(Gone(path)) == "path-escapes"


@pytest.mark.parametrize("above", [File("a", A, 1), Link("a", "b")])
def test_nothing_lies_below_what_is_no_folder(above: Entry):
    """A file written through a link of the same tree would land elsewhere."""
    assert reason(above, File("a/x/y", A, 1)) == "path-escapes"


def test_twice_the_same_path_is_malformed():
    """A path has one entry; only a folder may be empty at first and then filled."""
    assert reason(File("a", A, 1), Link("a", "b")) == "malformed"
    assert reason(Gone("a"), File("a", A, 1)) == "malformed"
    assert Tree.of([Folder("a"), Gone("a")]).entries == (Gone("a"), Folder("a"))


@pytest.mark.parametrize(
    "entry",
    [
        File("a", "A" * 64, 1),
        File("a", "a", 1),
        File("a", A, -1),
        File("a", A, True),
        File("\ud800", A, 1),
        File("x" * 256, A, 1),
    ],
)
def test_nonsense_is_malformed(entry: Entry):
    """Digests, sizes and names that cannot be."""
    assert reason(entry) == "malformed"


@pytest.mark.parametrize("target", ["..", "../x", "b/../../x", "/etc/passwd", "./../.."])
def test_a_link_that_leads_out_is_refused(target: str):
    """Neither up nor to the top of the machine."""
    assert reason(Link("a", target)) == "link-escapes"


def test_a_link_that_leads_out_through_another_link_is_refused():
    """By its letters the second link stays inside; followed through the first it does not."""
    assert reason(Link("d/e/f/up", "../../.."), Link("out", "d/e/f/up/../x")) == "link-escapes"


def test_links_that_stay_inside_and_loops_are_taken():
    """A loop leads nowhere."""
    Tree.of([Link("lib/a", "../b"), Link("x", "y"), Link("y", "x"), Link("z", "not/there")])


def test_absolute_links_are_for_root_file_systems():
    """They count from the top of that system, and may not climb above it either."""
    assert Tree.of([Link("bin", "/usr/bin")], system=True).entries
    assert reason(Link("bin", "/../x"), system=True) == "link-escapes"
    data = Tree.of([Link("bin", "/usr/bin")], system=True).to_bytes()
    with pytest.raises(StoreRefused, match="bin"):
        Tree.from_bytes(data)
    assert Tree.from_bytes(data, system=True).to_bytes() == data


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"[]\n",
        b'["q","a"]\n',
        b'["d"]\n',
        b'["d","a","b"]\n',
        b'["d", "a"]\n',
        b'["d","b"]\n["d","a"]\n',
        b'["d","a"]',
        b"[" * 99999,
    ],
)
def test_bytes_that_are_no_index_are_malformed(data: bytes):
    """Only the one canonical form is read."""
    with pytest.raises(StoreRefused) as refused:
        Tree.from_bytes(data)
    assert refused.value.reason == "malformed"


def test_upper_covers_lower():
    """Whiteouts are applied; files and links replace folders, folders replace files, folders unite."""
    lower = Tree.of([File("a/x", A, 1), File("a/y", A, 1), File("b/x", A, 1), File("c", A, 1), Folder("d"), File("e/x", A, 1)])
    upper = Tree.of([Gone("a/x"), Link("b", "c"), File("c/x", B, 1), File("d/x", B, 1), Gone("e"), File("e/y", B, 1)])
    assert lower.merged(upper).entries == (
        File("a/y", A, 1),
        Link("b", "c"),
        File("c/x", B, 1),
        Folder("d"),
        File("d/x", B, 1),
        File("e/y", B, 1),
    )


def test_two_harmless_trees_that_together_lead_out_are_refused():
    """A union is checked like any other tree."""
    with pytest.raises(StoreRefused) as refused:
        Tree.of([Link("d/e/f/up", "../../..")]).merged(Tree.of([Link("out", "d/e/f/up/../x")]))
    assert refused.value.reason == "link-escapes"


def test_under_moves_everything():
    """Paths go below the prefix, which is checked."""
    moved = Tree.of([File("a", A, 3, True), Link("b", "a")]).under("p/q")
    assert moved.entries == (File("p/q/a", A, 3, True), Link("p/q/b", "a"))
    with pytest.raises(StoreRefused):
        Tree.of([]).under("../x")


def test_sizes_and_objects():
    """Each path counts for the size, each content and mode once for the objects."""
    tree = Tree.of([File("a", A, 3), File("b", A, 3), File("c", A, 3, True)])
    assert (tree.size, tree.objects()) == (9, {(A, False), (A, True)})


names = st.binary(min_size=1, max_size=4).map(os.fsdecode).filter(lambda name: name not in (".", ".."))
paths = st.lists(names.filter(lambda n: not set(n) & {"/", "\0"}), min_size=1, max_size=3).map("/".join)
leaves = st.one_of(st.builds(File, paths, st.sampled_from([A, B]), st.integers(0, 9), st.booleans()), st.builds(Folder, paths))
trees = st.lists(st.one_of(leaves, st.builds(Gone, paths)), max_size=6)


@given(trees, trees)
@settings(max_examples=150)
def test_whatever_is_a_tree_survives_the_way_through_bytes_and_unions(first: list[Entry], second: list[Entry]):
    """Reading gives back the same tree, undecodable names included; a union is a tree, and uniting it again changes nothing."""
    try:
        lower, upper = Tree.of(first), Tree.of(second)
    except StoreRefused:
        return
    assert Tree.from_bytes(lower.to_bytes()) == lower
    united = lower.merged(upper)
    assert Tree.of(united.entries) == united
    assert united.merged(upper) == united


@given(st.lists(trees, max_size=4))
@settings(max_examples=200)
def test_a_union_of_many_is_that_of_one_after_the_other(many: list[list[Entry]]):
    """Whatever the trees are, and whether they meet or not."""
    try:
        found = [Tree.of(entries) for entries in many]
    except StoreRefused:
        return
    assert Tree.union(found) == reduce(Tree.merged, found, Tree())
    united = Tree.union(found)
    assert Tree.from_known_bytes(united.to_bytes()) == united
    assert united.to_bytes() == Tree(united.entries).to_bytes()
