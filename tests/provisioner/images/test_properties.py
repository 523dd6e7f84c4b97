"""Whatever is done to a store in whatever order: every kept tree's farm is whole and nothing in the store is wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from remora.errors import StoreRefused
from remora_provisioner.images.gc import collect
from remora_provisioner.images.store import Store
from remora_provisioner.images.transfer import receive, send
from remora_provisioner.images.tree import File, Tree

CONTENTS = [b"", b"a", b"bb", b"c" * 70_000]
some = st.integers(0, len(CONTENTS) - 1).map(lambda at: CONTENTS[at])
contents = st.dictionaries(st.sampled_from(["x", "d/y", "d/e/z", "w"]), some, max_size=4)


def sha(data: bytes) -> str:
    """Return the digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


class Stores(RuleBasedStateMachine):
    """Two stores, and what must be in the first one by its leases."""

    trees = Bundle("trees")
    names = st.sampled_from(["one", "two"])

    @initialize()
    def begin(self) -> None:
        """Make the stores."""
        self.folder = Path(tempfile.mkdtemp())
        self.here, self.there = Store(self.folder / "here"), Store(self.folder / "there")
        self.leases: dict[str, str] = {}
        self.models: dict[str, dict[str, bytes]] = {}
        self.count = 0

    @rule(target=trees, files=contents, known=st.booleans(), link=st.booleans())
    def scan_and_save(self, files: dict[str, bytes], known: bool, link: bool) -> str:
        """Take in a folder, which is thrown away."""
        folder = self._folder(files)
        tree = self.here.scan(folder, {path: sha(data) for path, data in files.items()} if known else {}, link)
        shutil.rmtree(folder)
        digest = self.here.save(tree)
        self.models[digest] = files
        return digest

    @rule(files=contents, data=some)
    def scan_and_die(self, files: dict[str, bytes], data: bytes) -> None:
        """Take in a folder and go no further, with half an object and half a farm in the workshop."""
        self.here.scan(self._folder(files))
        Path(self.here.work.place()).write_bytes(data[: len(data) // 2])
        Path(self.here.work.place(), "half").mkdir(parents=True)
        (self.here.root / "work" / "1-1-1").write_bytes(data)

    @rule(tree=trees, name=names)
    def lease(self, tree: str, name: str) -> None:
        """Keep a tree if it is still there."""
        if tree in self.here.trees():
            self.here.lease(name, [tree])
            self.leases[name] = tree

    @rule(name=names)
    def release(self, name: str) -> None:
        """Keep it no longer."""
        self.here.release(name)
        self.leases.pop(name, None)

    @rule(tree=trees)
    def farm(self, tree: str) -> None:
        """Make a tree real if it is there."""
        try:
            self._check(self.here, self.here.farm(tree), tree)
        except StoreRefused:
            assert tree not in self.here.trees()

    @rule(tree=trees)
    def remove(self, tree: str) -> None:
        """Remove a tree that nobody keeps."""
        if tree not in self.leases.values():
            self.here.remove_tree(tree)
            assert tree not in self.here.trees()

    @rule(roots=st.lists(trees, max_size=2), grace=st.sampled_from([0.0, 3600.0]))
    def collect(self, roots: list[str], grace: float) -> None:
        """Remove what neither these nor leases keep."""
        before = self.here.trees()
        collect(self.here, roots, grace=grace)
        kept = before & {*roots, *self.leases.values()}
        assert self.here.trees() == (before if grace else kept)
        if not grace:
            needed = set[tuple[str, bool]]().union(*(self.here.load(digest).objects() for digest in kept))
            assert {(digest, x) for digest, x, _ in self.here.objects.every()} == needed

    @rule(tree=trees)
    def send(self, tree: str) -> None:
        """Send a tree that is there to the second store."""
        if tree not in self.here.trees():
            return
        left, right = socket.socketpair()
        with left, right, left.makefile("rwb") as mine, right.makefile("rwb") as other:
            sender = threading.Thread(target=send, args=(self.here, tree, mine, mine))
            sender.start()
            received = receive(self.there, other, other)
            sender.join()
        self._check(self.there, self.there.farm(received.digest), tree)

    @invariant()
    def kept_trees_are_whole(self) -> None:
        """Every leased tree can be made real and has its content; no store holds anything wrong."""
        if hasattr(self, "here"):
            for tree in self.leases.values():
                self._check(self.here, self.here.farm(tree), tree)
            assert self.here.verify() == self.there.verify() == []

    def teardown(self) -> None:
        """Remove everything."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def _folder(self, files: dict[str, bytes]) -> Path:
        self.count += 1
        folder = self.folder / f"f{self.count}"
        folder.mkdir()
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return folder

    def _check(self, store: Store, farm: Path, tree: str) -> None:
        assert store.load(tree) == Tree.of(store.load(tree).entries)
        assert {file.path for file in store.load(tree).files()} == self.models[tree].keys()
        for path, data in self.models[tree].items():
            assert (farm / path).read_bytes() == data
            assert File(path, sha(data), len(data)) in store.load(tree).entries
            assert os.stat(farm / path).st_mode & 0o222 == 0


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=30, stateful_step_count=20)
