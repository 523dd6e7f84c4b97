"""Every setting once, with its help text. Nothing else in Remora reads the environment for its own settings.

A setting is read when it is asked for, so that tests and notebooks may change the environment.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import OptionError


@dataclass(frozen=True)
class Setting:
    """One setting: the environment variable that holds it, its default as text, and what it does."""

    name: str
    default: str
    help: str

    @property
    def text(self) -> str:
        """Return the value as text."""
        return os.environ.get(self.name, "") or self.default

    @property
    def seconds(self) -> float:
        """Return the value as a number of seconds; OptionError if it is none."""
        try:
            value = float(self.text)
        except ValueError:
            value = -1.0
        if not value >= 0:
            raise OptionError(f"{self.name}={self.text!r} is not a number of seconds")
        return value


STATE_DIRECTORY = Setting(
    "REMORA_STATE_DIR",
    "",
    "Folder for all that is kept: the backend's socket and database, sandboxes, run logs; by default remora in ~/.local/state.",
)
KEY_FILE = Setting(
    "REMORA_KEY_FILE", "", "File with the key that the secrets are encrypted with; by default remora/secrets.key in ~/.config."
)
JAIL = Setting(
    "REMORA_JAIL", "", "The least isolation a sandbox must have: bubblewrap, landlock or process; by default the best there is."
)
LIMITS = Setting(
    "REMORA_LIMITS", "", "How limits are kept: groups-v2, groups-v1 or watching; by default the first of them that works."
)
BACKEND_IDLE = Setting("REMORA_BACKEND_IDLE", "1800", "Seconds without sandboxes and connections after which the backend leaves.")
KERNEL_GRACE = Setting(
    "REMORA_KERNEL_GRACE", "600", "Seconds for which a vanished kernel's sandboxes are kept for whoever attaches."
)
POOL_IDLE = Setting("REMORA_POOL_IDLE", "60", "Seconds after which an unused sandbox of functions is ended.")
RUN_RETENTION = Setting("REMORA_RUN_RETENTION", "604800", "Seconds for which the log of an ended run is kept.")
RENTED_LEASE = Setting(
    "REMORA_RENTED_LEASE", "86400", "Seconds for which a rented machine goes on without having heard of any backend of yours."
)
IMAGES_MOST = Setting("REMORA_IMAGES_MOST", "50GiB", "What images may take on the disk; beyond it, those used longest ago go.")
CDI_FOLDERS = Setting(
    "REMORA_CDI_DIRS",
    "",
    "Further folders with CDI specs of this machine's GPUs, with colons between; beside /etc/cdi and /var/run/cdi.",
)
FILES_MOST = Setting(
    "REMORA_FILES_MOST", "1GiB", "What may move of a notebook's folder to or from another machine at once; larger files stay."
)
SSH = Setting(
    "REMORA_SSH",
    "ssh",
    "What carries the bytes of other machines: ssh (the system's, where nothing has to be asked, else paramiko), or paramiko.",
)
UPLINK = Setting("REMORA_UPLINK_FD", "", "Set inside sandboxes: the descriptor through which Remora there reaches the backend.")
NO_UPLINK = "none"
"""What that says where no way leads to the backend."""
SANDBOX = Setting("REMORA_SANDBOX", "", "Set inside sandboxes: the sandbox's id.")

SETTINGS = [
    STATE_DIRECTORY,
    KEY_FILE,
    JAIL,
    LIMITS,
    BACKEND_IDLE,
    KERNEL_GRACE,
    POOL_IDLE,
    RUN_RETENTION,
    RENTED_LEASE,
    IMAGES_MOST,
    FILES_MOST,
    CDI_FOLDERS,
    SSH,
    UPLINK,
    SANDBOX,
]


def state_directory() -> Path:
    """Return the state directory's path; it need not exist."""
    if STATE_DIRECTORY.text:
        return Path(STATE_DIRECTORY.text).expanduser().absolute()
    return _users_folder("XDG_STATE_HOME", ".local/state")


def key_file() -> Path:
    """Return the path of the key of the secrets; it need not exist."""
    if KEY_FILE.text:
        return Path(KEY_FILE.text).expanduser().absolute()
    return _users_folder("XDG_CONFIG_HOME", ".config") / "secrets.key"


def _users_folder(variable: str, otherwise: str) -> Path:
    """Return our folder in one of this user's, which a variable of the desktop's standard may name."""
    named = os.environ.get(variable)
    try:
        return (Path(named) if named else Path.home() / otherwise) / "remora"
    except RuntimeError:  # a user without a home directory
        return Path(tempfile.gettempdir()) / f"remora-{os.getuid()}"
