"""What one CDI spec (Container Device Interface, versions 0.3 to 1.x) says of a machine's GPUs.

Law: a spec comes from somewhere else. Whatever it holds, reading it ends with devices and lines that say what was passed over.
A spec that cannot be read as a whole gives nothing; in one that can, each device stands for itself. Hooks are never run.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from remora.errors import OptionError
from remora.resources import parse_memory

from .kinds import Device, Node, is_variable

_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}/gpu")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,254}")
_VERSION = re.compile(r"0\.([3-9]|[1-9][0-9])\.[0-9]+|1\.[0-9]+\.[0-9]+")
_MOST = 256
"""Entries of a list of a spec that are looked at: more than any machine has."""
_TEXT = 4096
_USUAL = (
    *("console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"),
    *("urandom", "zero"),
)
_PLAIN = frozenset("/dev/" + name for name in _USUAL)
"""What a sandbox has under /dev anyway; nothing is put in its place or below it."""
_KNOWN = frozenset({"deviceNodes", "mounts", "env", "additionalGids"})
"""Parts of the edits that are carried out, or that change nothing here: a sandbox's nodes are its own in any case."""


class PassedOver(Exception):
    """Why a part of a spec is not used."""


@dataclass
class Edits:
    """What is to be done to a sandbox, for one device or for all of a spec."""

    nodes: list[Node] = field(default_factory=list)
    mounts: list[tuple[str, str]] = field(default_factory=list)
    environment: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def real_node(path: str) -> str:
    """Return where a device node really lies; PassedOver if there is none below /dev, or it is not this user's to open."""
    real = os.path.realpath(path)
    if not real.startswith("/dev/"):
        raise PassedOver(f"{path} is not below /dev")
    try:
        facts = os.stat(real)
    except (OSError, ValueError) as error:
        raise PassedOver(f"{path} is not there") from error
    if not stat.S_ISCHR(facts.st_mode):
        raise PassedOver(f"{path} is no character device")
    if not os.access(real, os.R_OK):
        raise PassedOver(f"you may not open {path}; its group is {facts.st_gid}, and root can add you to it")
    return real


def devices_of(
    spec: Any, mounts: bool, find_node: Callable[[str], str] = real_node
) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """Return the GPUs of a spec, the same one once, and lines on what was passed over; without `mounts` it may show no files."""
    try:
        reader = _Reader(_table(spec, "the spec"), mounts, find_node)
        return reader.devices(), tuple(dict.fromkeys(reader.lines))
    except PassedOver as why:
        return (), (str(why),)


class _Reader:
    """One spec while it is read."""

    def __init__(self, spec: dict[str, Any], mounts: bool, find_node: Callable[[str], str]) -> None:
        """Look at what is said for all devices; PassedOver if that cannot be used."""
        self.lines: list[str] = []
        self._spec, self._mounts, self._find_node = spec, mounts, find_node
        self._kind = _text(spec.get("kind"), "kind")
        self._is_gpu = bool(_KIND.fullmatch(self._kind))
        version = _text(spec.get("cdiVersion"), "cdiVersion") if self._is_gpu else ""
        if self._is_gpu and not _VERSION.fullmatch(version):
            raise PassedOver(f"its version {version[:20]} is not known; 0.3.0 to 1.x are")
        self._common = self._edits(spec.get("containerEdits")) if self._is_gpu else Edits()

    def devices(self) -> tuple[Device, ...]:
        """Return its GPUs; of names for the same nodes the first, and no names for several others together."""
        found: dict[frozenset[str], Device] = {}
        for item in _list(self._spec.get("devices"), "devices") if self._is_gpu else ():
            try:
                device = self._device(_table(item, "a device"))
            except PassedOver as why:
                name = item.get("name") if isinstance(item, dict) else None
                self.lines.append(f"device {str(name)[:80]!r} is passed over: {why}")
                continue
            same = found.get(device.own)
            if same is None or same.id.endswith("=all"):
                found[device.own] = device
        return tuple(device for own, device in found.items() if not _is_union(own, [o for o in found if o < own]))

    def _device(self, item: dict[str, Any]) -> Device:
        name = _text(item.get("name"), "name")
        if not _NAME.fullmatch(name):
            raise PassedOver("its name is none")
        edits = self._edits(item.get("containerEdits"))
        together = {node.host for node in self._common.nodes}
        nodes = [node for node in edits.nodes if node.host not in together]
        if not nodes:
            raise PassedOver("it has no device node of its own")
        model, memory = self._annotations(item)
        return Device(
            id=f"{self._kind}={name}",
            nodes=tuple(nodes),
            model=model,
            memory=memory,
            told_by="annotations" if model or memory else "",
            common=tuple(self._common.nodes),
            mounts=tuple(dict.fromkeys([*self._common.mounts, *edits.mounts])),
            environment=(*self._common.environment, *edits.environment),
        )

    def _annotations(self, item: dict[str, Any]) -> tuple[str, int | None]:
        """Return model and memory, which annotations may tell whose keys end so: `acme.example/model`."""
        told: dict[str, str] = {}
        for noted in (self._spec.get("annotations"), item.get("annotations")):
            for key, value in _table(noted or {}, "annotations").items():
                told[str(key).rpartition("/")[2]] = _text(value, "an annotation")
        try:
            memory = parse_memory(told["memory"]) if "memory" in told else None
        except (OptionError, OverflowError):
            self.lines.append(f"an annotation says memory {told['memory'][:40]!r}, which is none; write it like 48GiB")
            memory = None
        return told.get("model", ""), memory

    def _edits(self, value: Any) -> Edits:
        edits, given = Edits(), _table(value or {}, "containerEdits")
        for node in _list(given.get("deviceNodes"), "deviceNodes"):
            edits.nodes.append(self._node(_table(node, "a device node")))
        for variable in _list(given.get("env"), "env"):
            name, equals, content = _text(variable, "a variable").partition("=")
            if equals and is_variable(name):
                edits.environment.append((name, content))
            else:
                self.lines.append(f"the variable {name[:80]!r} is not set")
        for mount in _list(given.get("mounts"), "mounts"):
            self._add_mount(edits, _table(mount, "a mount"))
        for hook in _list(given.get("hooks"), "hooks"):
            program = _table(hook, "a hook").get("path")
            self.lines.append(f"the hook {str(program)[:200]!r} is not run")
        self.lines += [f"{part[:80]!r} is not carried out" for part in given if part not in _KNOWN and part != "hooks"]
        return edits

    def _node(self, node: dict[str, Any]) -> Node:
        inside = _path(node.get("path"), "a device node")
        host = _path(node.get("hostPath") or inside, "a device node")
        if not inside.startswith("/dev/") or any(inside == own or inside.startswith(f"{own}/") for own in _PLAIN):
            raise PassedOver(f"a device node cannot be shown as {inside[:200]}")
        if not host.startswith("/dev/"):
            raise PassedOver(f"{host[:200]} is not below /dev")
        permissions = _text(node.get("permissions") or "rwm", "permissions")
        return Node(self._find_node(host), inside, "w" in permissions)

    def _add_mount(self, edits: Edits, mount: dict[str, Any]) -> None:
        source = _path(mount.get("hostPath"), "a mount")
        target = _path(mount.get("containerPath"), "a mount")
        if not self._mounts:
            self.lines.append(f"{source[:200]} is not shown: only a spec that root owns may show files")
        elif not os.path.exists(source):
            self.lines.append(f"{source[:200]} is not there, so it is not shown")
        else:
            edits.mounts.append((source, target))


def _is_union(own: frozenset[str], parts: list[frozenset[str]]) -> bool:
    return len(parts) > 1 and own == frozenset().union(*parts)


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PassedOver(f"{what} is no table")
    return value


def _list(value: Any, what: str) -> Iterator[Any]:
    if not isinstance(value, list | None):
        raise PassedOver(f"{what} is no list")
    if value and len(value) > _MOST:
        raise PassedOver(f"{what} has more than {_MOST} entries")
    return iter(value or ())


def _text(value: Any, what: str) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not 0 < len(text) <= _TEXT or not text.isprintable():
        raise PassedOver(f"{what} is no text")
    return text


def _path(value: Any, what: str) -> str:
    text = _text(value, what)
    if not text.startswith("/") or os.path.normpath(text) != text:
        raise PassedOver(f"{text[:200]} is no plain absolute path")
    return text
