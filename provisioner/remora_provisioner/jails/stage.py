"""As root: gives a sandbox's trees to an unused host id, and becomes that id.

Law: `prepare` runs in the opener and does all that can fail or be warned of: it copies each tree as a detached mount that is
id-mapped, so that its owner on disk appears as the sandbox's host id (what the sandbox writes belongs to that owner on disk).
`Stage.enter` runs in the forked child: it attaches the copies in a mount namespace of its own, over /tmp, and gives up root.
Paths above a tree do not matter any more, so a tree below a 0700 home can be read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import calls

_ROOT = "/tmp"  # exists everywhere; what lies there is hidden in the child's own mount namespace only
_NODES = f"{_ROOT}/nodes"


@dataclass(frozen=True)
class Tree:
    """A folder or file to hand over; its owner on disk becomes the host id, unless `mapped` is false."""

    source: Path
    mapped: bool = True


@dataclass(frozen=True)
class Stage:
    """Detached trees, ready to be attached by the child that becomes `host_id`, and nodes to be made for it."""

    host_id: int
    trees: tuple[tuple[int, bool], ...]
    """Descriptor of the detached mount, and whether it is a folder."""
    unmapped: frozenset[Path]
    """Sources whose file system cannot be id-mapped: others may read them, nobody may write."""
    nodes: tuple[tuple[int, bool], ...] = ()
    """Numbers of the character devices that it gets nodes of its own for, and whether it may write them."""

    @staticmethod
    def path(index: int) -> Path:
        """Return where the tree of that index is seen by the child."""
        return Path(_ROOT, str(index))

    @staticmethod
    def node(index: int) -> Path:
        """Return where the device node of that index is seen by the child."""
        return Path(_NODES, str(index))

    def enter(self) -> None:
        """Attach the trees in a new mount namespace and become the host id, for good. For the forked child only."""
        calls.unshare(calls.CLONE_NEWNS)
        calls.mount("", "/", calls.MS_REC | calls.MS_PRIVATE)
        calls.mount("tmpfs", _ROOT, calls.MS_NOSUID | calls.MS_NODEV, "mode=0755,size=1m")
        for index, (tree, is_folder) in enumerate(self.trees):
            target = f"{_ROOT}/{index}"
            if is_folder:
                os.mkdir(target, 0o755)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
            calls.attach_tree(tree, target)
        self._make_nodes()
        os.chdir("/")
        os.setgroups([])
        os.setresgid(self.host_id, self.host_id, self.host_id)
        os.setresuid(self.host_id, self.host_id, self.host_id)

    def _make_nodes(self) -> None:
        """Make nodes that belong to the host id: those of the machine may be root's alone, and cannot be id-mapped."""
        if not self.nodes:
            return
        os.mkdir(_NODES, 0o755)
        calls.mount("tmpfs", _NODES, calls.MS_NOSUID, "mode=0755,size=1m")
        for index, (number, writable) in enumerate(self.nodes):
            place = self.node(index)
            os.mknod(place, stat.S_IFCHR, number)
            os.chown(place, self.host_id, self.host_id)
            os.chmod(place, 0o600 if writable else 0o400)


@contextlib.contextmanager
def prepare(trees: Iterable[Tree], host_id: int, nodes: tuple[tuple[int, bool], ...] = ()) -> Iterator[Stage]:
    """Detach and id-map the trees; the descriptors are closed at the end. Raises OSError where root lacks the power."""
    with contextlib.ExitStack() as opened:
        namespaces: dict[tuple[int, int], int] = {}
        detached, unmapped = [], set()
        for tree in trees:
            facts = os.stat(tree.source)
            copy = calls.clone_tree(str(tree.source))
            opened.callback(os.close, copy)
            owner = (facts.st_uid, facts.st_gid)
            if tree.mapped and owner not in namespaces:
                namespaces[owner] = _mapping(owner, host_id)
                opened.callback(os.close, namespaces[owner])
            if not _hand_over(copy, namespaces[owner] if tree.mapped else None):
                unmapped.add(tree.source)
            detached.append((copy, tree.source.is_dir()))
        yield Stage(host_id, tuple(detached), frozenset(unmapped), nodes)


def _hand_over(copy: int, namespace: int | None) -> bool:
    plain = calls.MOUNT_ATTR_NOSUID | calls.MOUNT_ATTR_NODEV
    try:
        if namespace is not None:
            calls.change_tree(copy, plain | calls.MOUNT_ATTR_IDMAP, namespace)
            return True
    except OSError:  # the file system (or one mounted below) knows no id-mapping: it stays as it is
        calls.change_tree(copy, plain)
        return False
    calls.change_tree(copy, plain)
    return True


def _extents(owner: int, host_id: int) -> str:
    """Return a mapping that shows `owner` as `host_id` and leaves every other id alone."""
    below = f"0 0 {owner}\n" if owner else ""
    return f"{below}{owner} {host_id} 1\n{owner + 1} {owner + 1} {host_id - owner - 1}\n"


def _mapping(owner: tuple[int, int], host_id: int) -> int:
    """Return a user namespace that holds the mapping for `owner` (uid, gid); its process does not outlive this call."""
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            calls.unshare(calls.CLONE_NEWUSER)
            os.write(done, b"+")
            signal.pause()
        finally:
            os._exit(1)
    os.close(done)
    try:
        if not os.read(ready, 1):
            raise OSError("user namespaces cannot be made")
        Path(f"/proc/{child}/uid_map").write_text(_extents(owner[0], host_id))
        Path(f"/proc/{child}/gid_map").write_text(_extents(owner[1], host_id))
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
