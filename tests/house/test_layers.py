"""Who may lean on whom: the contracts of setup.cfg hold, and the short lists of ARCHITECTURE are kept to the letter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from house import sources

# frames is the other half of wire: how a message becomes bytes.
_SEVEN = {"errors", "frames", "images", "resources", "settings", "states", "streams", "wire"}
_GUEST = {"errors", "frames", "guest", "streams", "sync", "wire"}
_SYNC = {"errors", "frames", "sync", "wire"}
_THIRD_PARTY_FREE = ("errors", "frames", "images", "resources", "settings", "states", "streams", "wire")
_JUPYTER_ONLY = {"ipykernel", "jupyter_client"}


def _rooms(path: Path, package: str) -> set[str]:
    names = [name.split(".") for name in sources.modules_imported(path, package)]
    return {parts[1] for parts in names if parts[0] == "remora" and len(parts) > 1}


def _roots(path: Path, package: str) -> set[str]:
    return {name.split(".")[0] for name in sources.modules_imported(path, package)}


def _below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def test_the_contracts_of_setup_cfg_hold() -> None:
    """import-linter keeps all contracts."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=sources.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", ["remora_provisioner", "remora_backend"])
def test_the_packages_below_see_only_the_shared_modules(package: str) -> None:
    """Backend and provisioner import nothing of remora but the shared modules."""
    seen = {sources.relative(p): _rooms(p, package) - _SEVEN for p in _below(sources.PACKAGES[package])}
    assert not {path: extra for path, extra in seen.items() if extra}


@pytest.mark.parametrize(("room", "allowed"), [("guest", _GUEST), ("sync", _SYNC)])
def test_guest_and_sync_see_only_what_travels(room: str, allowed: set[str]) -> None:
    """The guest imports wire, frames, streams, errors and sync alone; sync imports wire and errors alone."""
    seen = {sources.relative(p): _rooms(p, "remora") - allowed for p in _below(sources.PACKAGES["remora"] / room)}
    assert not {path: extra for path, extra in seen.items() if extra}


@pytest.mark.parametrize("name", _THIRD_PARTY_FREE)
def test_plain_modules_import_the_standard_library_alone(name: str) -> None:
    """The modules that every part shares import no third-party package."""
    path = sources.PACKAGES["remora"] / f"{name}.py"
    files = [path] if path.exists() else _below(path.with_suffix(""))
    assert files
    roots = {root for p in files for root in _roots(p, "remora")}
    assert roots <= {*sys.stdlib_module_names, "remora"}


def test_ipykernel_is_known_in_one_place() -> None:
    """Only files under remora/jupyter import ipykernel and jupyter_client."""
    home = sources.PACKAGES["remora"] / "jupyter"
    files = [(p, name) for name, folder in sources.PACKAGES.items() for p in _below(folder) if not p.is_relative_to(home)]
    assert not [sources.relative(p) for p, package in files if _roots(p, package) & _JUPYTER_ONLY]


def test_remora_never_imports_the_packages_that_lean_on_it() -> None:
    """The kernel's package imports neither backend nor provisioner."""
    files = _below(sources.PACKAGES["remora"])
    assert not [sources.relative(p) for p in files if _roots(p, "remora") & {"remora_backend", "remora_provisioner"}]
