"""What backends have said of a machine elsewhere, kept there: whether it is rented, and how long and how much may be kept.

Law: of what several backends say, the most lenient counts: nothing of one is thrown away because another one keeps less.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from remora.errors import OptionError
from remora.resources import parse_memory
from remora.settings import IMAGES_MOST, RENTED_LEASE, RUN_RETENTION
from remora.wire import Fields

from ..order import write_whole

_FOLDER = "backends"
_RENTED_IDLE = 20 * 60.0
"""Seconds that a sandbox of a rented machine may be unused where nobody says otherwise."""


@dataclass(frozen=True)
class Terms:
    """What one backend, or all of them, want of a machine. Seconds and bytes."""

    rented: bool = False
    lease: float = 24 * 3600.0
    """For how long a rented machine goes on without having heard of any backend."""
    runs: float = 7 * 24 * 3600.0
    """For how long the log of an ended run is kept."""
    images: int = 50 << 30
    """What images may take."""

    def to_dict(self) -> Fields:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def of_settings(cls, rented: bool) -> Terms:
        """Return what the settings of this machine say; the defaults if one of them is malformed."""
        with contextlib.suppress(OptionError):
            images = parse_memory(IMAGES_MOST.text, IMAGES_MOST.name)
            return cls(rented, RENTED_LEASE.seconds, RUN_RETENTION.seconds, images)
        return cls(rented)

    @classmethod
    def from_dict(cls, data: Fields) -> Terms:
        """Rebuild from `to_dict`, passing over what is not known. Raises ValueError or TypeError for what is no number."""
        said = {name: type(default)(data.get(name, default)) for name, default in asdict(cls()).items()}
        return cls(**said)

    def idle(self, spec: Fields, pool: bool) -> float | None:
        """Return the seconds that a sandbox by this spec may be unused; None: for ever, or its backend knows."""
        idle = spec.get("idle")
        if pool or (idle is None and not self.rented):
            return None
        return _RENTED_IDLE if idle is None else float(idle)


def note(state: Path, backend: str, said: Fields) -> None:
    """Keep what a backend says; what is malformed is passed over."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        (state / _FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(state / _FOLDER / f"{backend}.json", json.dumps(Terms.from_dict(said).to_dict()))


def kept(state: Path) -> Terms:
    """Return what counts of all that backends have said; rented if any of them says so."""
    found = []
    for path in (state / _FOLDER).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            found.append(Terms.from_dict(json.loads(path.read_text())))
    if not found:
        return Terms()
    rented = [one.lease for one in found if one.rented]
    return Terms(bool(rented), max(rented or [0.0]), max(one.runs for one in found), max(one.images for one in found))
