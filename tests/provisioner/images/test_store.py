"""The store: what is in it is whole, what is refused leaves nothing, and a farm is the tree."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from remora.errors import StoreRefused
from remora_provisioner.images.farms import make_farm
from remora_provisioner.images.store import Store
from remora_provisioner.images.tree import File, Folder, Gone, Link, Tree


def sha(data: bytes) -> str:
    """Return the digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def fill(folder: Path, **files: bytes) -> Path:
    """Make a folder with these files; `__` in a name stands for a slash."""
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")


def objects(store: Store) -> list[str]:
    """Return the digests that are in a store."""
    return [digest for digest, _, _ in store.objects.every()]


def test_the_store_is_private(store: Store):
    """Only its owner can enter."""
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in [store.root, *store.root.iterdir()] if p.is_dir()} == dict.fromkeys(
        ["store", "objects", "trees", "farms", "leases", "work"], 0o700
    )


def test_put_copies_and_never_changes_what_is_there(store: Store, tmp_path: Path):
    """Content is kept by digest and mode, read-only, once."""
    source = fill(tmp_path, a=b"hello") / "a"
    assert store.put(source) == (sha(b"hello"), 5) == store.put(source) == store.put_bytes(b"hello")
    assert store.put(source, executable=True) == (sha(b"hello"), 5)
    source.write_bytes(b"HELLO")
    assert store.verify() == []
    assert sorted(stat.S_IMODE(facts.st_mode) for *_, facts in store.objects.every()) == [0o444, 0o555]
    assert store.size() == 10


def test_put_by_moving_uses_the_source_up(store: Store, tmp_path: Path):
    """The file itself becomes the object."""
    source = fill(tmp_path, a=b"hello") / "a"
    inode = source.stat().st_ino
    digest, _ = store.put(source, move=True)
    assert not source.exists()
    assert os.stat(store.objects.place(digest, False)).st_ino == inode


@pytest.mark.parametrize("move", [False, True])
def test_a_wrong_digest_stores_nothing(store: Store, tmp_path: Path, move: bool):
    """Nothing is seen under either name, nothing is left in the workshop."""
    source = fill(tmp_path, a=b"hello") / "a"
    with pytest.raises(StoreRefused) as refused:
        store.put(source, sha(b"other"), move=move)
    assert refused.value.reason == "wrong-digest"
    assert objects(store) == list((store.root / "work").iterdir()) == []


def test_what_is_there_is_not_read_again(store: Store, tmp_path: Path):
    """A digest from an earlier hash is enough."""
    digest, _ = store.put_bytes(b"hello")
    assert store.put(fill(tmp_path, a=b"other") / "a", digest) == (digest, 5)
    assert store.has(digest, False)
    assert not store.has(digest, True)


def test_scan_takes_a_folder_in_and_the_farm_gives_it_back(store: Store, tmp_path: Path):
    """Files, modes, links, folders, names that are no text."""
    folder = fill(tmp_path / "f", a=b"1", d__e__b=b"2", c=b"1")
    (folder / "c").chmod(0o755)
    (folder / "link").symlink_to("d/e/b")
    (folder / "empty").mkdir()
    (folder / os.fsdecode(b"\xff")).write_bytes(b"3")
    tree = store.scan(folder)
    farm = store.farm(store.save(tree))
    assert store.scan(farm, link=False) == tree
    assert store.farm(tree.digest) == farm
    assert (farm / "link").read_bytes() == b"2"
    assert os.access(farm / "c", os.X_OK)
    assert {stat.S_IMODE(p.stat().st_mode) for p in [farm, farm / "d" / "e", farm / "empty"]} == {0o755}
    assert store.verify() == []


def test_folders_of_a_farm_do_not_depend_on_the_umask(store: Store):
    """Others than the owner must be able to enter."""
    digest = store.save(Tree.of([Folder("a/b")]))
    before = os.umask(0o077)
    try:
        farm = store.farm(digest)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in [farm, farm / "a", farm / "a/b"]} == {0o755}


def test_scan_links_what_is_its_own_and_copies_what_has_other_names(store: Store, tmp_path: Path):
    """A file that uv linked from its cache keeps its mode, and writing to the cache does not change the object."""
    folder = fill(tmp_path / "f", mine=b"mine", shared=b"shared")
    os.link(folder / "shared", tmp_path / "cache")
    tree = store.scan(folder)
    mine, shared = (os.stat(store.objects.place(f.digest, False)) for f in tree.files())
    assert mine.st_ino == (folder / "mine").stat().st_ino
    assert shared.st_ino != (folder / "shared").stat().st_ino
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o644
    (tmp_path / "cache").write_bytes(b"poison")
    assert store.verify() == []


def test_scan_believes_a_record_only_about_what_is_there(store: Store, tmp_path: Path):
    """Known and there: not read. Known and not there: hashed. Not as promised: refused."""
    digest, _ = store.put_bytes(b"hello")
    folder = fill(tmp_path / "f", a=b"HELLO")
    assert store.scan(folder, known={"a": digest}).files() == [File("a", digest, 5)]
    assert store.scan(fill(tmp_path / "g", b=b"new"), known={"b": sha(b"new")}).files() == [File("b", sha(b"new"), 3)]
    for known in (sha(b"another"), digest):
        with pytest.raises(StoreRefused) as refused:
            store.scan(fill(tmp_path / "h", c=b"forged"), known={"c": known})
        assert refused.value.reason == "wrong-digest"


def test_scan_refuses_pipes_and_setuid(store: Store, tmp_path: Path):
    """A root file system may have setuid bits, which are dropped."""
    folder = fill(tmp_path / "f", su=b"su")
    (folder / "su").chmod(0o4755)
    with pytest.raises(StoreRefused) as refused:
        store.scan(folder)
    assert refused.value.reason == "setuid"
    tree = store.scan(folder, system=True)
    assert stat.S_IMODE((store.farm(store.save(tree)) / "su").stat().st_mode) == 0o555
    os.mkfifo(folder / "pipe")
    with pytest.raises(StoreRefused) as refused:
        store.scan(folder, system=True)
    assert refused.value.reason == "device-node"


def test_scan_refuses_links_that_lead_out(store: Store, tmp_path: Path):
    """As a tree does."""
    folder = fill(tmp_path / "f", a=b"a")
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(StoreRefused) as refused:
        store.scan(folder)
    assert refused.value.reason == "link-escapes"
    assert Link("link", "/etc/passwd") in store.scan(folder, system=True).entries


def test_a_tree_is_saved_only_with_its_objects(store: Store):
    """A missing object or another size is malformed."""
    digest, _ = store.put_bytes(b"hello")
    for file in (File("a", sha(b"x"), 1), File("a", digest, 4), File("a", digest, 5, True)):
        with pytest.raises(StoreRefused) as refused:
            store.save(Tree.of([file]))
        assert refused.value.reason == "malformed"
    assert store.load(store.save(Tree.of([File("a", digest, 5), Gone("b")]))).size == 5


def test_a_tree_is_saved_and_made_real_in_one_go(store: Store, tmp_path: Path):
    """The same as one after the other; nothing is kept of a tree whose objects are not all there."""
    tree = store.scan(fill(tmp_path / "f", a=b"a", d__b=b"b"))
    digest = store.save_real(tree)
    assert store.load(digest) == tree
    assert store.scan(store.root / "farms" / digest, link=False) == tree
    assert store.save_real(tree) == store.save(tree) == digest
    with pytest.raises(StoreRefused) as refused:
        store.save_real(Tree.of([*tree.entries, File("d/c", sha(b"x"), 1)]))
    assert refused.value.reason == "malformed"
    assert (store.trees(), os.listdir(store.root / "farms"), os.listdir(store.root / "work")) == ({digest}, [digest], [])


def test_what_cannot_be_made_real_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Only who finds that somebody else was faster may leave it at that."""
    tree = Tree.of([File("a", store.put_bytes(b"a")[0], 1)])
    digest = store.save(tree)

    def exists(*_: object, **__: object) -> None:
        raise FileExistsError(errno.EEXIST, "File exists")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", exists)
        with pytest.raises(FileExistsError):
            store.farm(digest)
    (store.root / "farms" / digest).mkdir()
    make_farm(tree, store.objects, store.work, store.root / "farms" / digest)
    assert os.listdir(store.root / "work") == []


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x78\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_tree_is_not_loaded(store: Store, damage: bytes):
    """Nor is one that is whole and not itself; verify says so."""
    digest = store.save(Tree.of([Folder("a")]))
    (store.root / "trees" / digest).write_bytes(damage)
    with pytest.raises(StoreRefused):
        store.load(digest)
    assert len(store.verify()) == 1


def test_verify_finds_each_kind_of_damage(store: Store):
    """Another content, another mode, a missing object."""
    one, two, three = (store.put_bytes(data)[0] for data in (b"one", b"two", b"three"))
    store.save(Tree.of([File("a", three, 5)]))
    place = Path(store.objects.place(one, False))
    place.chmod(0o644)
    place.write_bytes(b"ONE")
    place.chmod(0o444)
    os.chmod(store.objects.place(two, False), 0o644)
    os.unlink(store.objects.place(three, False))
    lines = store.verify()
    assert len(lines) == 3
    assert all(any(word in line for line in lines) for word in (one, two, "'a'"))


def test_a_tree_is_removed_with_its_farm(store: Store, tmp_path: Path):
    """Its objects stay until a collection; removing it twice is no matter."""
    digest = store.save(store.scan(fill(tmp_path / "f", a=b"a")))
    farm = store.farm(digest)
    store.remove_tree(digest)
    store.remove_tree(digest)
    assert not farm.exists()
    assert objects(store) == [sha(b"a")]
    with pytest.raises(StoreRefused):
        store.farm(digest)


def test_more_names_than_a_file_can_have(store: Store):
    """ext4 gives a file 65,000 names; those beyond are copies."""
    digest, _ = store.put_bytes(b"")
    tree = Tree.of([File(f"{at // 1000}/{at}", digest, 0) for at in range(65_100)])
    farm = store.farm(store.save(tree))
    last = (farm / "65" / "65099").stat()
    assert (last.st_size, stat.S_IMODE(last.st_mode)) == (0, 0o444)
    assert sum(len(os.listdir(folder)) for folder in farm.iterdir()) == 65_100


def test_two_threads_and_a_process_make_one_farm(store: Store, tmp_path: Path):
    """All get the same folder, whole, and leave nothing in the workshop."""
    digest = store.save(store.scan(fill(tmp_path / "f", **{f"d{i % 9}__f{i}": b"%d" % i for i in range(400)})))
    imports = "import sys; from pathlib import Path; from remora_provisioner.images.store import Store"
    code = f"{imports}; Store(Path(sys.argv[1])).farm(sys.argv[2])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code, str(store.root), digest], env=environment)
    threads = [threading.Thread(target=store.farm, args=(digest,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait() == 0
    assert store.scan(store.farm(digest), link=False).files() == store.load(digest).files()
    assert list((store.root / "work").iterdir()) == []


def test_leases(store: Store):
    """A lease replaces its own earlier one, and another store object sees it; names and digests are checked."""
    one, two = sha(b"1"), sha(b"2")
    store.lease("s1", [one])
    store.lease("s2", [two])
    store.lease("s1", [two, two])
    assert Store(store.root).leased() == {two}
    store.release("s1")
    store.release("s1")
    store.release("s2")
    assert store.leased() == set()
    for name, digest in (("../x", one), ("", one), (".hidden", one), ("ok", "no")):
        with pytest.raises(StoreRefused):
            store.lease(name, [digest])
