"""The scheduler: which instructions follow which events, and what holds whatever happens."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remora.wire import RunId, SandboxId
from remora_backend import turns as plan
from remora_backend.scheduler import Scheduler


def made(cores=2.0, **others):
    """Return a scheduler that names its sandboxes s1, s2 and so on; others are machines with their cores."""
    numbers = itertools.count(1)
    return Scheduler({"here": cores} | others, lambda: SandboxId(f"s{next(numbers)}"))


def queued(run, key="a", cores=1.0, within=None, machines="here"):
    """Return the event that a call is queued."""
    return plan.CallQueued(RunId(run), key, cores, within and RunId(within), tuple(machines.split()))


def play(scheduler, *events):
    """Return the instructions that follow the last of these events."""
    done = []
    for event in events:
        done = scheduler.handle(event)
    return done


S1, S2, S3 = SandboxId("s1"), SandboxId("s2"), SandboxId("s3")
ready, ended = plan.SandboxReady, plan.CallEnded
freed = plan.DevicesFreed()


def held_up(sandbox, *holders):
    """Return the event that a sandbox cannot be made before one of these others gives its devices back."""
    return plan.SandboxHeldUp(sandbox, frozenset(holders))


TABLE = [
    ("a first call opens a sandbox", [queued("r1")], [plan.Open("a", S1)]),
    ("a ready sandbox takes the call", [queued("r1"), ready(S1)], [plan.Assign("r1", S1)]),
    ("a sandbox on its way is counted", [queued("r1"), queued("r2"), queued("r3")], []),
    ("a second call opens a second sandbox", [queued("r1"), queued("r2")], [plan.Open("a", S2)]),
    ("a free sandbox is used again", [queued("r1"), ready(S1), ended("r1"), queued("r2")], [plan.Assign("r2", S1)]),
    ("the next in line follows", [*map(queued, ("r1", "r2", "r3")), ready(S1), ready(S2), ended("r2")], [plan.Assign("r3", S2)]),
    ("a sandbox with nothing to do rests", [queued("r1"), ready(S1), ended("r1")], [plan.Rest(S1)]),
    ("one unused for long is closed", [queued("r1"), ready(S1), ended("r1"), plan.SandboxUnused(S1)], [plan.Close(S1)]),
    ("one that works is not closed", [queued("r1"), ready(S1), plan.SandboxUnused(S1)], []),
    ("one that is not known is not closed", [plan.SandboxUnused(S1)], []),
    ("a call cancelled while queued leaves its sandbox resting", [queued("r1"), ended("r1"), ready(S1)], [plan.Rest(S1)]),
    (
        "an unused sandbox of another pool makes room",
        [queued("r1", cores=2.0), ready(S1), ended("r1"), queued("r2", "b")],
        [plan.Close(S1), plan.Open("b", S2)],
    ),
    (
        "unused sandboxes stay where ending them would not make room",
        [queued("r1"), queued("r2"), ready(S1), ready(S2), ended("r1"), queued("r3", "b", 2.0)],
        [],
    ),
    ("more than the machine has is tried all the same", [queued("r1", cores=64.0)], [plan.Open("a", S1)]),
    ("a sandbox that never started fails its calls", [queued("r1"), plan.SandboxGone(S1, started=False)], [plan.Fail("r1")]),
    (
        "another that works keeps the pool's calls alive",
        [queued("r1"), queued("r2"), ready(S1), plan.SandboxGone(S2, started=False)],
        [],
    ),
    (
        "a lost sandbox is replaced for those that wait",
        [*map(queued, ("r1", "r2", "r3")), ready(S1), ready(S2), plan.SandboxGone(S1, started=True)],
        [plan.Open("a", S3)],
    ),
    ("a call that was not taken waits in front", [queued("r1"), ready(S1), plan.CallReturned("r1")], [plan.Open("a", S2)]),
    (
        "a call that was not taken goes to the next sandbox first",
        [*map(queued, ("r1", "r2", "r3")), ready(S1), plan.CallReturned("r1"), ready(S2)],
        [plan.Assign("r1", S2)],
    ),
    (
        "a call that was not taken is kept although its sandbox is gone",
        [queued("r1"), ready(S1), plan.SandboxGone(S1, started=True), plan.CallReturned("r1")],
        [plan.Open("a", S2)],
    ),
    (
        "a call that waits for another uses no cores",
        [queued("r1", cores=2.0), ready(S1), queued("r2", "b", 2.0, within="r1")],
        [plan.Open("b", S2)],
    ),
    (
        "a pool without a sandbox gets its turn from one that never rests",
        [*map(queued, ("r1", "r2")), ready(S1), ready(S2), queued("r3", "b"), queued("r4"), ended("r1")],
        [plan.Close(S1), plan.Open("b", S3)],
    ),
    (
        "what gets free is kept for a large call that waits",
        [*map(queued, ("r1", "r2")), ready(S1), ready(S2), queued("r3", "b", 2.0), queued("r4"), ended("r1")],
        [plan.Rest(S1)],
    ),
    ("one that is held up is not asked for again", [queued("r1"), held_up(S1, S2), queued("r2")], []),
    ("one that was held up is asked for when devices are freed", [queued("r1"), held_up(S1, S2), freed], [plan.Open("a", S2)]),
    ("others do not wait for what is held up", [queued("r1", cores=2.0), held_up(S1), queued("r2", "b")], [plan.Open("b", S2)]),
    (
        "an unused sandbox gives its devices to a pool that waits for them",
        [queued("r1"), ready(S1), ended("r1"), queued("r2", "b"), held_up(S2, S1)],
        [plan.Close(S1)],
    ),
    (
        "an unused sandbox whose devices nobody waits for stays",
        [queued("r1"), ready(S1), ended("r1"), queued("r2", "b"), held_up(S2, S3)],
        [plan.Rest(S1)],
    ),
    (
        "a sandbox takes no younger call while another pool waits for its devices, which has its turn first",
        [queued("r1"), ready(S1), queued("r2", "b"), held_up(S2, S1), queued("r3"), held_up(S3, S1), ended("r1"), freed],
        [plan.Open("b", SandboxId("s4")), plan.Open("a", SandboxId("s5"))],
    ),
    ("a call that is cancelled waits no more", [queued("r1"), held_up(S1, S2), ended("r1"), freed], []),
]


@pytest.mark.parametrize(("events", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_follows_an_event(events, expected):
    """The last event is followed by exactly these instructions."""
    assert play(made(), *events) == expected


BOTH = "here box"


def opened(sandbox, machine, key="a"):
    """Return the instruction to make a sandbox there."""
    return plan.Open(key, sandbox, machine)


def several(*runs, machines=BOTH):
    """Return the events that calls are queued which both machines will do for."""
    return [queued(run, machines=machines) for run in runs]


SPREAD = [
    ("what is first is taken first", several("r1"), [opened(S1, "here")]),
    ("the next machine is taken where the first is full", several("r1", "r2", "r3"), [opened(S3, "box")]),
    ("a machine of which nothing is known has room for one", several("r1", "r2", machines="new"), []),
    (
        "it has room for more as soon as that is known",
        [*several("r1", "r2", "r3", machines="new"), plan.MachineHas("new", 2.0)],
        [opened(S2, "new")],
    ),
    (
        "where one did not start another machine is tried",
        [*several("r1"), plan.SandboxGone(S1, started=False)],
        [opened(S2, "box")],
    ),
    (
        "and that machine no more while the queue lasts",
        [*several("r1"), plan.SandboxGone(S1, started=False), *several("r2", "r3")],
        [],
    ),
    (
        "calls fail when it started nowhere",
        [*several("r1"), plan.SandboxGone(S1, started=False), plan.SandboxGone(S2, started=False)],
        [plan.Fail("r1")],
    ),
    (
        "the next call is tried everywhere again",
        [*several("r1"), plan.SandboxGone(S1, started=False), plan.SandboxGone(S2, started=False), *several("r2")],
        [opened(S3, "here")],
    ),
    (
        "one that waits for devices on one machine is not failed by another",
        [*several("r1"), held_up(S1, SandboxId("x")), plan.SandboxGone(S2, started=False)],
        [],
    ),
    ("devices that are held here may be free there", [*several("r1"), held_up(S1, SandboxId("x"))], [opened(S2, "box")]),
    (
        "an unused sandbox on another machine makes no room",
        [queued("r1", "b", 2.0), ready(S1), ended("r1"), queued("r2", "c", 1.0, machines="box"), queued("r3", machines="box")],
        [],
    ),
    (
        "a sandbox yields to an older call that may be put on its machine alone",
        [*several("r1"), ready(S1), queued("r2", "b", 2.0), *several("r3"), ended("r1")],
        [plan.Close(S1), opened(S2, "here", "b"), opened(S3, "box")],
    ),
    (
        "and takes its next call where the older one finds room elsewhere",
        [*several("r1"), ready(S1), queued("r2", "b", 1.0, machines="box"), *several("r3"), ended("r1")],
        [plan.Assign("r3", S1)],
    ),
]


@pytest.mark.parametrize(("events", "expected"), [row[1:] for row in SPREAD], ids=[row[0] for row in SPREAD])
def test_where_sandboxes_are_put(events, expected):
    """The last event is followed by exactly these instructions, with two cores here and one on the other machine."""
    assert play(made(box=1.0), *events) == expected


def test_why_calls_wait():
    """Each call that no sandbox has taken says what it waits for, where, and how many are before it."""
    scheduler = made(box=1.0)
    play(scheduler, *several("r1", "r2"), ready(S1), *several("r3", "r4", "r5"), held_up(S3, SandboxId("x")))
    play(scheduler, queued("r6", "b", machines="box"), held_up(SandboxId("s4"), SandboxId("y")))
    found = {wait.run: (wait.machines, wait.lacks, set(wait.holders), wait.before) for wait in scheduler.waiting()}
    assert found == {
        "r2": (("here", "box"), "start", {"x"}, 0),
        "r3": (("here", "box"), "start", {"x"}, 1),
        "r4": (("here", "box"), "start", {"x"}, 2),
        "r5": (("here", "box"), "start", {"x"}, 3),
        "r6": (("box",), "devices", {"y"}, 4),
    }


SIZES = {"a": 1.0, "b": 0.5, "c": 2.0, "d": 1.0, "e": 1.0, "f": 1.5}
"""Pools, and the cores that their sandboxes take."""
PLACES = {"e": "here box", "f": "box"}
"""Machines of pools that are not for here alone."""
DEVICE = {"a", "d"}
"""Pools whose sandboxes need the one device of the world."""


class World:
    """Plays a machine: keeps what the scheduler should know, and checks each instruction against it."""

    def __init__(self, cores):
        """Start with nothing."""
        self.scheduler, self.cores = made(cores, box=1.0), {"here": cores, "box": 1.0}
        self.calls, self.order = {}, defaultdict(list)
        self.pools, self.starting, self.held, self.over = {}, set(), {}, set()
        self.asked, self.freed = [], False

    def tell(self, event):
        """Tell the scheduler, and carry out what it says."""
        for instruction in self.scheduler.handle(event):
            getattr(self, type(instruction).__name__.lower())(instruction)
        self.tell_of_the_device()

    def tell_of_the_device(self):
        """Report that the machine's one device is free again, then make who asked for it, or report that another one has it."""
        if self.freed:
            self.freed = False
            self.tell(plan.DevicesFreed())
        elif self.asked:
            new = self.asked.pop(0)
            if self.holders():
                self.tell(plan.SandboxHeldUp(new.sandbox, frozenset(self.holders())))
            else:
                self.make(new)
                self.tell_of_the_device()

    def holders(self):
        """Return the sandbox that has the device, if there is one."""
        return [sandbox for sandbox, (key, *_) in self.pools.items() if key in DEVICE]

    def remove(self, sandbox):
        """Take away a sandbox, and note that its device is free."""
        self.freed = self.freed or sandbox in self.holders()
        return self.pools.pop(sandbox, None)

    def parents(self):
        """Return the calls that wait for another one."""
        return {self.calls[run].within for run in self.calls if run not in self.over} - {None}

    def queue(self, call):
        """Queue a call."""
        self.calls[call.run] = call
        self.order[call.key].append(call.run)
        self.tell(call)

    def open(self, new):
        """Open a sandbox for a call that waits, in a moment if it needs the device."""
        assert self.order[new.key]
        if new.key in DEVICE:
            self.asked.append(new)
        else:
            self.make(new)

    def make(self, new):
        """Make a sandbox: never twice by one name, and only where there are cores for it."""
        assert new.sandbox not in self.pools
        assert new.machine in PLACES.get(new.key, "here").split()
        self.pools[new.sandbox] = (new.key, SIZES[new.key], new.machine)
        self.starting.add(new.sandbox)
        working = [s for s in self.pools if self.held.get(s) not in self.parents() and self.pools[s][2] == new.machine]
        assert len(working) == 1 or sum(self.pools[s][1] for s in working) <= self.cores[new.machine]

    def assign(self, given):
        """Take a call to a sandbox: of its pool, ready, free; the first of its pool that waits."""
        key, *_ = self.pools[given.sandbox]
        assert given.sandbox not in self.starting and given.sandbox not in self.held
        assert self.order[key].pop(0) == given.run
        self.held[given.sandbox] = given.run

    def rest(self, idle):
        """Let a sandbox rest that has nothing to do."""
        assert idle.sandbox not in self.held and idle.sandbox not in self.starting

    def close(self, unused):
        """End a sandbox: never one that works."""
        assert unused.sandbox not in self.held and unused.sandbox not in self.starting
        self.remove(unused.sandbox)

    def fail(self, hopeless):
        """Fail a call: one that waits."""
        self.order[self.calls[hopeless.run].key].remove(hopeless.run)
        self.over.add(hopeless.run)

    def end(self, sandbox):
        """End the call of a sandbox."""
        run = self.held.pop(sandbox)
        self.over.add(run)
        self.tell(plan.CallEnded(run))

    def cancel(self, run):
        """Cancel a call that waits."""
        self.order[self.calls[run].key].remove(run)
        self.over.add(run)
        self.tell(plan.CallEnded(run))

    def give_back(self, sandbox):
        """Give back a call that its sandbox did not take, since it had ended; then it is gone."""
        run = self.held.pop(sandbox)
        self.order[self.calls[run].key].insert(0, run)
        self.tell(plan.CallReturned(run))
        self.lose(sandbox)

    def lose(self, sandbox):
        """Kill a sandbox and its call; until the scheduler hears of it, it may give it another call, which comes back."""
        started = sandbox not in self.starting
        run = self.held.pop(sandbox, None)
        if run is not None:
            self.over.add(run)
            self.tell(plan.CallEnded(run))
        if sandbox in self.held:
            self.give_back(sandbox)
            return
        self.starting.discard(sandbox)
        self.remove(sandbox)
        self.tell(plan.SandboxGone(sandbox, started))

    def vanish(self, sandbox):
        """Kill a sandbox before it took its call, in such a way that the scheduler hears of the sandbox first."""
        run = self.held.pop(sandbox)
        self.remove(sandbox)
        self.tell(plan.SandboxGone(sandbox, started=True))
        self.order[self.calls[run].key].insert(0, run)
        self.tell(plan.CallReturned(run))

    def start(self, sandbox):
        """Let a sandbox be ready."""
        self.starting.discard(sandbox)
        self.tell(plan.SandboxReady(sandbox))


@settings(max_examples=150)
@given(st.data(), st.sampled_from([1.0, 2.0, 4.0]))
def test_no_call_is_lost_or_run_twice_and_cores_are_kept(data, cores):
    """Whatever happens: capacity holds, each pool is first in first out, and in the end every call has ended."""
    world, numbers = World(cores), itertools.count(1)
    for _ in range(data.draw(st.integers(1, 25))):
        working, waiting = list(world.held), [run for runs in world.order.values() for run in runs]
        choices = {
            "queue": sorted(SIZES),
            "start": sorted(world.starting),
            "end": [s for s in working if world.held[s] not in world.parents()],
            "cancel": [run for run in waiting if run not in world.parents()],
            "vanish": [s for s in working if world.held[s] not in world.parents()],
            "give_back": [s for s in working if world.held[s] not in world.parents()],
            "lose": sorted(s for s in world.pools if world.held.get(s) not in world.parents()),
        }
        step = data.draw(st.sampled_from([name for name, items in choices.items() if items]))
        item = data.draw(st.sampled_from(choices[step]))
        if step == "queue":
            parents = world.held.values() if item not in DEVICE else ()  # whose parent has the device would wait for ever
            within = data.draw(st.sampled_from([None, *parents]))
            item = queued(f"r{next(numbers)}", item, SIZES[item], within, PLACES.get(item, "here"))
        getattr(world, step)(item)
    for _ in range(1000):
        if world.starting:
            world.start(min(world.starting))
        elif left := [s for s in world.held if world.held[s] not in world.parents()]:
            world.end(left[0])
    assert world.over == set(world.calls)
