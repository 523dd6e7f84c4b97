"""What a cell or function asks of a machine: parse, check, print. Pure values, standard library only.

Text forms: gpu "A100", "A100:2", "A100,H100", "any", "H100!"; memory "16GiB" (a bare number is refused); time "90s", "30m",
"2h", "1d"; cpu a number of cores; budget "5 EUR" style amounts are numbers of the machine's currency.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import OptionError

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_LOWER_UNITS = {name.lower(): size for name, size in _UNITS.items()} | {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DIGITS = 30
"""More than any amount has, and few enough for a number."""
_GPU = re.compile(r"^(?P<name>[A-Za-z][A-Za-z0-9_.-]*)(?P<exact>!)?(?::(?P<count>[1-9][0-9]*))?$")


def parse_memory(text: str | int, option: str = "memory") -> int:
    """Return bytes for "16GiB"; OptionError for a bare number, since nobody knows its unit."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", str(text))
    size = _LOWER_UNITS.get(match[2].lower()) if match else None
    if match is None or size is None or len(match[1]) > _DIGITS:
        shown = f"{option}={text} is no amount with a unit that is known"
        raise OptionError(f"{shown}; write it like {option}=16GiB or {option}=512MiB")
    amount = int(float(match[1]) * size)
    if amount < 16 * 2**20:
        raise OptionError(f"{option}={text} is less than any use has; ask for at least 16MiB")
    return amount


def format_bytes(count: float) -> str:
    """Return "3.2 GiB" for a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def parse_seconds(text: str | float, option: str = "timeout") -> float:
    """Return seconds for "30m", "1.5h", "90" or 90; OptionError if it is no positive time."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(text))
    unit = _SECONDS.get(match[2].lower() or "s") if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise OptionError(f"{option}={text} is no time; write it like {option}=90s, {option}=30m or {option}=2h")
    return float(match[1]) * unit


def format_seconds(seconds: float) -> str:
    """Return "0.4 s", "12 s", "3 min 20 s" or "2 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def parse_cpu(text: str | float) -> float:
    """Return a number of cores."""
    try:
        cores = float(text)
    except ValueError:
        cores = 0.0
    if not 0 < cores <= 4096:
        raise OptionError(f"cpu={text} is no number of cores; write it like cpu=4 or cpu=0.5")
    return cores


@dataclass(frozen=True)
class Gpu:
    """One acceptable kind of device: `exact` forbids substitutes; the name "any" takes what there is."""

    name: str
    count: int = 1
    exact: bool = False

    def __str__(self) -> str:
        """Return the text form."""
        return f"{self.name}{'!' if self.exact else ''}{f':{self.count}' if self.count > 1 else ''}"


def parse_gpu(text: str | list[str]) -> tuple[Gpu, ...]:
    """Return the acceptable devices in order of preference."""
    parts = text.split(",") if isinstance(text, str) else list(text)
    found = [_GPU.match(part.strip()) for part in parts]
    if not parts or any(match is None for match in found):
        raise OptionError(
            f"gpu={text} is not understood; write it like gpu=A100, gpu=A100:2, gpu=A100,H100, gpu=H100! or gpu=any"
        )
    return tuple(Gpu(m["name"], int(m["count"] or 1), bool(m["exact"])) for m in found if m)


def device_name(facts: dict[str, Any]) -> str:
    """Return what a person is told of a device that a machine has: "NVIDIA L4 (23.0 GiB)"."""
    memory = facts.get("memory")
    return str(facts.get("model") or facts["id"]) + (f" ({format_bytes(memory)})" if memory else "")


@dataclass(frozen=True)
class Resources:
    """What one sandbox asks for; None means: what is free."""

    gpu: tuple[Gpu, ...] = ()
    cpu: float | None = None
    memory: int | None = None
    """Bytes."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"gpu": [str(g) for g in self.gpu], "cpu": self.cpu, "memory": self.memory}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Resources:
        """Rebuild from `to_dict`."""
        gpu = data.get("gpu")
        return cls(parse_gpu(gpu) if gpu else (), data.get("cpu"), data.get("memory"))


_OF_THE_SYSTEM = frozenset({"apt", "run", "run_function", "local"})
"""Kinds of image steps that a sandbox cannot be given while it lives."""


@dataclass(frozen=True)
class SandboxSpec:
    """How a sandbox is to be made. Session, machine, image and devices identify it; the rest may change from cell to cell."""

    image: dict[str, Any]
    """`images.Image.to_spec()`: the recipe of what the sandbox runs in, and the file that starts its guest."""
    resources: Resources = Resources()
    folder: str | None = None
    """The notebook's folder, absolute."""
    files: str = "rw"
    on: str = "here"
    """The machine's name; nothing: the first one that has what is asked."""
    jail: str | None = None
    home: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    """Names of secrets or paths of .env files, never what they hold."""
    idle: float | None = None
    """Seconds without a run after which the sandbox ends; None: never."""
    machines: tuple[str, ...] = ()
    """Machines elsewhere on which code in it may open sandboxes, too."""

    def __post_init__(self) -> None:
        """Check the closed sets."""
        if self.files not in ("rw", "ro", "none"):
            raise OptionError(f"files={self.files} is not understood; it is rw, ro or none")

    @property
    def identity(self) -> tuple[str, str, str]:
        """Return what, beside the session, decides whether a living sandbox will do: machine, system, devices.

        Of its image these are the base and the steps that change the system below what runs; packages can be given later.
        """
        steps = [step for step in self.image.get("steps", ()) if step["kind"] in _OF_THE_SYSTEM]
        system = [part | {"digest": ""} for part in (self.image["base"], *steps)]  # whatever has become of the files since
        return (self.on, json.dumps(system, sort_keys=True), ",".join(map(str, self.resources.gpu)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"resources": self.resources.to_dict(), "environment": [list(pair) for pair in self.environment]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SandboxSpec:
        """Rebuild from `to_dict`, passing over what another version added."""
        known = {f.name for f in fields(cls)}
        kept = {k: v for k, v in data.items() if k in known}
        kept["resources"] = Resources.from_dict(data.get("resources") or {})
        kept["environment"] = tuple((str(k), str(v)) for k, v in data.get("environment") or ())
        kept["secrets"] = tuple(map(str, data.get("secrets") or ()))
        kept["machines"] = tuple(map(str, data.get("machines") or ()))
        return cls(**kept)
