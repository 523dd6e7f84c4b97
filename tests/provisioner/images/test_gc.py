"""Collection: what is kept stays whole, what nobody keeps goes, and a crash at any point harms nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from remora.errors import StoreRefused
from remora_provisioner.images.gc import Freed, collect
from remora_provisioner.images.store import Store
from remora_provisioner.images.tree import File, Tree


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")


def keep(store: Store, *contents: bytes) -> str:
    """Save a tree with these files, and make it real."""
    stored = [store.put_bytes(data) for data in contents]
    digest = store.save(Tree.of([File(f"f{at}", digest, size) for at, (digest, size) in enumerate(stored)]))
    store.farm(digest)
    return digest


def there(store: Store) -> tuple[set[str], set[str], int]:
    """Return the trees, the farms and the number of objects."""
    return store.trees(), set(os.listdir(store.root / "farms")), len(list(store.objects.every()))


def test_roots_and_leases_keep_and_the_rest_goes(store: Store):
    """Shared objects stay for whoever still needs them; the numbers say what was freed."""
    root, leased, gone = keep(store, b"1", b"22"), keep(store, b"22", b"333"), keep(store, b"333", b"4444", b"55555")
    store.lease("s", [leased])
    assert collect(store, [root], grace=0) == Freed(1, 2, 9)
    assert there(store) == ({root, leased}, {root, leased}, 3)
    assert gone not in store.trees()
    store.release("s")
    assert collect(store, [root], grace=0) == Freed(1, 1, 3)
    assert store.verify() == []


def test_what_is_young_stays(store: Store):
    """Between a scan and the lease on its result lies time."""
    digest = keep(store, b"1")
    store.put_bytes(b"2")
    assert collect(store, []) == Freed(0, 0, 0)
    assert there(store) == ({digest}, {digest}, 2)


def test_roots_that_are_not_there_are_no_matter(store: Store):
    """A lease may outlive its tree."""
    store.lease("s", ["b" * 64])
    assert collect(store, ["a" * 64], grace=0) == Freed(0, 0, 0)


def test_a_damaged_tree_that_is_to_be_kept_stops_the_collection(store: Store):
    """Which objects it needs is not known, so none goes."""
    damaged, other = keep(store, b"1"), keep(store, b"2")
    (store.root / "trees" / damaged).write_bytes(b"garbage")
    with pytest.raises(StoreRefused):
        collect(store, [damaged], grace=0)
    assert there(store) == ({damaged, other}, {damaged, other}, 2)


def test_what_dead_processes_left_is_cleared_and_the_living_keep_theirs(store: Store):
    """Half-made files and farms carry the name of their process."""
    imports = "import sys; from pathlib import Path; from remora_provisioner.images.work import Work"
    code = f"{imports}; print(Work(Path(sys.argv[1])).place())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    left = [
        Path(subprocess.check_output([sys.executable, "-c", code, str(store.work.root)], env=environment, text=True).strip())
        for _ in range(2)
    ]
    left[0].write_bytes(b"half")
    (left[1] / "folder").mkdir(parents=True)
    (store.work.root / "strange").touch()
    mine = Path(store.work.place())
    mine.touch()
    collect(store, [])
    assert list(store.work.root.iterdir()) == [mine]


def test_a_collection_waits_for_a_scan(store: Store):
    """Who adds holds the lock, and a collection does not begin before it is free."""
    keep(store, b"1")
    collector = threading.Thread(target=collect, args=(store, []), kwargs={"grace": 0})
    with store.lock.shared():
        collector.start()
        collector.join(0.1)
        waited = collector.is_alive()
        whole = store.verify() == [] and len(store.trees()) == 1
    collector.join()
    assert waited
    assert whole
    assert there(store) == (set(), set(), 0)


def _die_at(store: Store, root: str, step: int) -> bool:
    """Collect in a process that dies before its step-th change of the disk; True if it died."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, _: object) -> None:
            nonlocal left
            if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
                left -= 1
                if left < 0:
                    os._exit(9)

        sys.addaudithook(count)
        try:
            collect(store, [root], grace=0)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_a_crash_at_any_point_harms_nothing(store: Store):
    """Every tree is whole after each crash, and the next collection finishes what is left."""
    root = keep(store, b"1", b"22")
    steps = 0
    while True:
        keep(store, b"22", b"333", b"4444")
        keep(store, b"4444", b"55555")
        died = _die_at(store, root, steps)
        assert store.verify() == []
        for digest in store.trees():
            assert store.scan(store.farm(digest), link=False).files() == store.load(digest).files()
        collect(store, [root], grace=0)
        assert there(store) == ({root}, {root}, 2)
        assert list(store.work.root.iterdir()) == []
        if not died:
            break
        steps += 1
    assert steps >= 8
