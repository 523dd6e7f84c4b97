"""The step `uv_sync`: the packages of a uv project, as its uv.lock has them.

Law: the versions and hashes are the project's own; what is installed below in exactly that version is not fetched again.
"""

from __future__ import annotations

from remora.images.steps import Part, UvSync

from ..tree import Tree
from .resolver import Resolver
from .wheels import Wheel, read_lock, tree_of
from .work import Made, Work


def sync(work: Work, step: Part) -> Made:
    """Export the project's lock, keep what is missing here, and make the tree. Raises ImageFailed."""
    assert isinstance(step, UvSync)
    resolver = Resolver(work)
    lock = _lock(resolver, step) if work.task.lock is None else work.task.lock
    if not lock:
        work.say("everything is installed already")
        return Made(Tree())
    return Made(tree_of(resolver, lock), lock)


def _lock(resolver: Resolver, step: UvSync) -> str:
    """Return the part of the project's lock that is for this machine and not installed yet; empty if there is none."""
    work = resolver.work
    project = work.folder / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(step.pyproject)
    if step.lock:
        (project / "uv.lock").write_text(step.lock)
    work.say("reading the project's lock")
    target = work.folder / "pylock.project.toml"
    words = ["--project", str(project), "--python", str(resolver.environment()), "--no-emit-project", "--no-header"]
    words += [word for group in step.groups for word in ("--group", group)]
    words += [word for extra in step.extras for word in ("--extra", extra)]
    words += ["--frozen"] if step.frozen else []
    advice = "correct the project's pyproject.toml or uv.lock"
    resolver.uv("export", "--quiet", "--format", "pylock.toml", *words, "-o", str(target), advice=advice)
    head, wheels = read_lock(target.read_text(), work.base.version, work.task.key)
    missing = resolver.missing(["--no-deps", "-r", str(target)]) if wheels else {}
    kept = [wheel.text for wheel in wheels if wheel.name in missing and _is(wheel, missing[wheel.name])]
    return head + "".join(kept) if kept else ""


def _is(wheel: Wheel, requirement: str) -> bool:
    return not wheel.version or "@" in requirement or requirement == f"{wheel.name}=={wheel.version}"
