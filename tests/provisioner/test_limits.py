"""Limits: v1 for real where root has it, v2 against a folder that behaves like the kernel's, watching for real."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from remora_provisioner import limits
from remora_provisioner.limits import LimitKeeper, Limits, groups, v1, v2, watching
from remora_provisioner.testing import JailContract, Visit

from provisioner import needs

MIB = 1 << 20
_enter = type("Way", (JailContract,), {"jail_name": "bubblewrap"})().visit
_HOG = "kept = []\nfor _ in range(100):\n    kept.append(bytearray(b'x' * 10_000_000))\n"

_BOMB = """
import signal
made = 0
try:
    while made < 100:
        if not os.fork():
            signal.pause()
        made += 1
except OSError:
    pass
say(made)
"""
_SHARERS = """
import os, signal
kept = bytearray(b"x" * 100_000_000)
for _ in range(3):
    if not os.fork():
        signal.pause()
print(flush=True)
signal.pause()
"""


class FakeKernel:
    """Makes and removes groups in a plain folder, with the files that a v2 kernel would put there."""

    files = ("cgroup.procs", "memory.max", "memory.swap.max", "memory.current", "memory.peak", "memory.events", "pids.max")

    def __init__(self, *more: str) -> None:
        self.more = more

    def make(self, group: Path) -> None:
        """Do what mkdir does there."""
        group.mkdir()
        for name in (*self.files, *self.more):
            (group / name).write_text("")

    def remove(self, group: Path) -> None:
        """Do what rmdir does there."""
        shutil.rmtree(group)

    def open(self, limits_wanted: Limits, parents: list[Path]) -> v2.V2:
        """Open a keeper on this kernel."""
        return v2.V2("one", limits_wanted, parents, self.make, self.remove)


def _parent(place: Path, offered: str, handed: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "cgroup.controllers").write_text(offered)
    (place / "cgroup.subtree_control").write_text(handed)
    return place


async def _run(visit: Visit, keeper: LimitKeeper) -> int:
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        watching_it = tasks.create_task(keeper.watch(visit.sandbox.processes, visit.sandbox.kill))
        code = await visit.sandbox.wait()
        watching_it.cancel()
    return code


def _run_out_of_memory(place: Path, keeper: LimitKeeper) -> None:
    try:
        with _enter(place, _HOG + "say('survived')", groups=keeper.entrances) as visit:
            assert asyncio.run(_run(visit, keeper)) == -signal.SIGKILL
            assert keeper.oom_happened()
            assert 250 * MIB < (keeper.peak() or 0) < 700 * MIB
            assert visit.hear() is None
    finally:
        keeper.close()
    keeper.close()
    assert not any(entrance.parent.exists() for entrance in keeper.entrances)


@needs.v1_groups
def test_v1_ends_what_takes_too_much(tmp_path: Path) -> None:
    """With v1 a sandbox over its memory is ended, the peak and the reason are known, and no group is left."""
    keeper = v1.V1("out-of-memory", Limits(memory=256 * MIB))
    assert not keeper.warnings
    _run_out_of_memory(tmp_path, keeper)


@needs.namespaces
def test_watching_ends_what_takes_too_much(tmp_path: Path) -> None:
    """By watching alone the same is found within a few looks."""
    _run_out_of_memory(tmp_path, watching.Watching("out-of-memory", Limits(memory=256 * MIB)))


@needs.namespaces
def test_enough_memory_is_left_alone(tmp_path: Path) -> None:
    """Below the limit nothing happens, and the peak is known where it was watched."""
    keeper = limits.keep("enough", Limits(memory=4096 * MIB))
    with _enter(tmp_path, _HOG, groups=keeper.entrances) as visit:
        assert asyncio.run(_run(visit, keeper)) == 0
        assert not keeper.oom_happened() and (keeper.peak() or 0) > 500 * MIB
    keeper.close()


@needs.v1_groups
def test_v1_counts_processes(tmp_path: Path) -> None:
    """A fork bomb meets the number of processes."""
    keeper = v1.V1("bomb", Limits(pids=30))
    with _enter(tmp_path, _BOMB, groups=keeper.entrances) as visit:
        assert visit.hear() < 30
    keeper.close()


@needs.v1_groups
def test_v1_writes_the_cores() -> None:
    """Half a core is half of each period; swap is off."""
    keeper = v1.V1("cores", Limits(cpu=0.5, memory=64 * MIB))
    folders = {entrance.parts[4]: entrance.parent for entrance in keeper.entrances}
    assert (folders["cpu"] / "cpu.cfs_quota_us").read_text() == "50000\n"
    assert (folders["memory"] / "memory.limit_in_bytes").read_text() == f"{64 * MIB}\n"
    swap = folders["memory"] / "memory.memsw.limit_in_bytes"
    assert not swap.exists() or swap.read_text() == f"{64 * MIB}\n"
    assert keeper.usage() is not None
    keeper.close()


@needs.v1_groups
def test_v1_takes_a_running_process_and_ends_it() -> None:
    """A process can be attached later, and closing ends what still runs inside."""
    keeper = v1.V1("attached", Limits(memory=64 * MIB))
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        keeper.attach(process.pid)
        keeper.close()
        assert process.wait(10) == -signal.SIGKILL


def test_v1_without_controllers(tmp_path: Path) -> None:
    """With nothing mounted v1 steps aside; with only memory the other limits are warned of."""
    with pytest.raises(OSError):
        v1.V1("none", Limits(memory=MIB), {})
    with pytest.raises(OSError):
        v1.V1("none", Limits(memory=MIB), {"memory": tmp_path / "missing", "pids": tmp_path})
    assert list(tmp_path.iterdir()) == []


def test_v1_warns_of_what_it_cannot_keep(tmp_path: Path) -> None:
    """A missing controller other than memory leaves a line."""
    keeper = v1.V1("some", Limits(cpu=1), {"memory": tmp_path})
    assert ["cpu" in line or "pids" in line for line in keeper.warnings] == [True, True]
    keeper.close()


def test_v2_writes_the_limits(tmp_path: Path) -> None:
    """The limits go into the files that v2 has for them; swap is off; closing removes the group."""
    parent = _parent(tmp_path / "user", "cpu memory pids", "cpu memory pids")
    keeper = FakeKernel("cpu.max").open(Limits(memory=256 * MIB, cpu=1.5, pids=99), [parent])
    group = parent / "remora-one"
    written = {name: (group / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")}
    assert written == {"memory.max": str(256 * MIB), "memory.swap.max": "0", "pids.max": "99", "cpu.max": "150000 100000"}
    assert keeper.entrances == (group / "cgroup.procs",) and keeper.entrances[0].read_text() == "0"
    keeper.attach(4711)
    assert keeper.entrances[0].read_text() == "4711"
    keeper.close()
    keeper.close()
    assert not group.exists()


def test_v2_reads_what_happened(tmp_path: Path) -> None:
    """Usage, peak and the count of kills come from the kernel's files."""
    parent = _parent(tmp_path / "user", "memory pids", "memory pids")
    keeper = FakeKernel().open(Limits(memory=MIB), [parent])
    group = parent / "remora-one"
    assert (keeper.usage(), keeper.peak(), keeper.oom_happened()) == (None, None, False)
    (group / "memory.current").write_text("10\n")
    (group / "memory.peak").write_text("20\n")
    (group / "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 1\n")
    assert (keeper.usage(), keeper.peak(), keeper.oom_happened()) == (10, 20, True)
    assert asyncio.run(keeper.watch(list, lambda: None)) is None
    keeper.close()


def test_v2_takes_the_nearest_that_hands_down(tmp_path: Path) -> None:
    """A group that hands nothing down is passed over for one above it."""
    above = _parent(tmp_path / "user", "memory pids", "memory pids")
    own = _parent(tmp_path / "user/session", "", "")
    keeper = FakeKernel().open(Limits(memory=MIB, cpu=2), [own, above])
    assert keeper.entrances[0].parent.parent == above
    assert ["affinity" in line for line in keeper.warnings] == [True]
    keeper.close()


def test_v2_asks_for_controllers(tmp_path: Path) -> None:
    """A group that offers the controllers is asked to hand them down; one that then does not is passed over."""
    parent = _parent(tmp_path / "user", "memory pids", "")
    with pytest.raises(OSError):
        FakeKernel().open(Limits(memory=MIB), [parent])
    assert (parent / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_v2_needs_an_entrance(tmp_path: Path) -> None:
    """A group that lets nobody in is removed again."""
    parent = _parent(tmp_path / "user", "memory pids", "memory pids")

    class Closed(FakeKernel):
        files = ("memory.max",)

        def make(self, group: Path) -> None:
            super().make(group)
            (group / "cgroup.procs").mkdir()

    with pytest.raises(OSError):
        Closed().open(Limits(memory=MIB), [parent])
    assert not (parent / "remora-one").exists()


def test_places_of_groups() -> None:
    """A group is found below its mount, or is the mount itself where only a part is mounted."""
    assert groups.place(Path("/sys/fs/cgroup"), "/", "/user.slice") == Path("/sys/fs/cgroup/user.slice")
    assert groups.place(Path("/sys/fs/cgroup"), "/docker/1", "/docker/1/x") == Path("/sys/fs/cgroup/x")
    assert groups.place(Path("/sys/fs/cgroup"), "/docker/1", "/elsewhere") == Path("/sys/fs/cgroup")


def test_shared_pages_count_once() -> None:
    """Forked children that share their parent's pages are not summed up."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _SHARERS], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        pids = [process.pid, *map(int, children)]
        assert watching.resident(pids) > 380_000_000 and watching.proportional(pids) < 200_000_000
        os.killpg(process.pid, signal.SIGKILL)


def test_watching_without_a_limit_looks_at_nothing() -> None:
    """With no memory limit the watch ends at once and never asks for processes."""
    keeper = watching.Watching("none", Limits())
    asyncio.run(keeper.watch(lambda: pytest.fail("asked"), lambda: pytest.fail("ended")))
    assert (keeper.usage(), keeper.peak(), keeper.oom_happened()) == (None, None, False)
    keeper.close()


def test_watching_counts_processes_too() -> None:
    """While it looks at memory it also ends a sandbox with too many processes, which is not called out of memory."""
    keeper = watching.Watching("many", Limits(memory=1 << 40, pids=2))
    ended: list[bool] = []
    asyncio.run(keeper.watch(lambda: [os.getpid()] * 3, lambda: ended.append(True)))
    assert ended == [True] and not keeper.oom_happened()


def test_gone_processes_count_nothing() -> None:
    """A process that ends while it is looked at is nothing."""
    assert watching.resident([2**22 + 1]) == 0 and watching.proportional([2**22 + 1]) == 0


def test_something_always_keeps() -> None:
    """There is a keeper on every machine, and without limits of its own a sandbox still has one of processes."""
    keeper = limits.keep("always", Limits())
    assert keeper.kind in {kind.kind for kind in limits.KINDS.values()}
    keeper.close()


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"cpu": -1}, {"pids": 0}])
def test_limits_of_nothing(wrong: dict[str, int]) -> None:
    """A limit under which nothing could run is refused."""
    with pytest.raises(ValueError):
        Limits(**wrong)


def test_threads_follow_cores() -> None:
    """Libraries are told whole cores, at least one; without `cpu=` nothing is said."""
    assert limits.thread_environment(None) == {}
    assert set(limits.thread_environment(2.7).values()) == {"2"} and limits.thread_environment(0.5)["OMP_NUM_THREADS"] == "1"


def test_affinity_follows_cores() -> None:
    """As many processors as cores are asked for, the same for the same sandbox; all of them when that limits nothing."""
    there = os.sched_getaffinity(0)
    assert limits.affinity(None) == limits.affinity(len(there), "x") == frozenset()
    if len(there) > 1:
        assert len(limits.affinity(0.5, "x")) == 1 and limits.affinity(1, "x") == limits.affinity(1, "x") <= there
