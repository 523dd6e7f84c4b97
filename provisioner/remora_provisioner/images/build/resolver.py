"""uv, as a step uses it: which packages are missing, what exactly they are, and how they are unpacked.

Law: uv never touches an environment that somebody uses. It sees a throw-away one that holds only the descriptions (*.dist-info)
of what counts as installed; packages are unpacked beside it. The lock is a pylock.toml (PEP 751): versions, addresses, hashes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remora.errors import ImageFailed
from remora.images.steps import Pip

from . import pinned
from .asked import Asked
from .work import Work

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
NO_INDEX = "none"
"""As an `index_url`: packages come from `find_links` alone."""
_DESCRIBING = ("METADATA", "WHEEL", "INSTALLER", "direct_url.json", "PKG-INFO", "requires.txt", "top_level.txt")
_NAME = re.compile(r'(?m)^\[\[packages\]\]\nname = "([^"]+)"')
_PLACED = re.compile(r"(?m)^ \+ (\S+) @ (\S+)$")
"""How uv says where a package lies that comes from no index."""


def uv_binary() -> str:
    """Return the uv that Remora brings along."""
    import uv  # found late: only a build needs it

    return uv.find_uv_bin()


def certificates() -> dict[str, str]:
    """Let uv trust whom the machine trusts, as pip does there, where that is written down and nobody has decided otherwise."""
    decided = "UV_SYSTEM_CERTS" in os.environ or not any(map(os.path.exists, _BUNDLES))
    return {} if decided else {"UV_SYSTEM_CERTS": "1"}


@dataclass(frozen=True)
class Resolver:
    """uv for one step; `options` say where packages come from."""

    work: Work
    options: tuple[str, ...] = ()
    believes: bool = True
    """Whether what indexes said lately will do."""

    @classmethod
    def of(cls, work: Work, step: Pip) -> Resolver:
        """Return uv with the options of a step."""
        options = ["--no-index"] if step.index_url == NO_INDEX else ["--default-index", step.index_url] if step.index_url else []
        options += [word for url in step.extra_index_url for word in ("--index", url)]
        options += [word for place in step.find_links for word in ("--find-links", place)]
        return cls(work, (*options, *(("--prerelease", "allow") if step.pre else ())), believes=not step.force)

    def uv(self, *words: str, advice: str = "", **variables: str) -> str:
        """Run uv and return its standard output; raises ImageFailed with its own words."""
        cache = {"UV_CACHE_DIR": str(self.work.root / "uv-cache"), "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
        env = cache | certificates() | {"UV_PYTHON_DOWNLOADS": "never", "UV_PREVIEW_FEATURES": "pylock"} | variables
        try:
            return self.work.run([uv_binary(), *words], env, advice or "correct the requirements, or the index they come from")
        except ImageFailed as failure:
            raise pinned.mismatch(str(failure.facts["log"])) or failure from None

    def pip(self, *words: str) -> str:
        """Run `uv pip` for the throw-away environment."""
        return self.uv("pip", words[0], "--python", str(self.environment()), *words[1:])

    def missing(self, wanted: Sequence[str], *words: str) -> dict[str, str]:
        """Return what would be installed for what `uv pip install` is told to want: name → what exactly, as a requirement."""
        self.work.log.flush()
        logged = os.path.getsize(self.work.log.name)
        answer = json.loads(self.pip("install", "--dry-run", "--output-format", "json", *self.options, *words, *wanted))
        said = Path(self.work.log.name).read_text(errors="replace")[logged:]
        places = {name: f"{name} @ {place}" for name, place in _PLACED.findall(said)}  # which the answer leaves out
        names = {change["name"]: change["version"] for change in answer.get("changes", []) if change["action"] == "installed"}
        return {name: places.get(name, f"{name}=={version}") for name, version in names.items()}

    def lock(self, requirements: Sequence[str]) -> str:
        """Return the lock for what these requirements need beyond what is installed; empty if that is nothing."""
        asked = Asked(self.work.root, self.options)
        if self.believes and asked.lately:
            with contextlib.suppress(ImageFailed):  # not all of it is known
                lock = self._lock(requirements, "--offline")
                if asked.about(_names(lock)):
                    return lock
        lock = self._lock(requirements)
        asked.note(_names(lock))
        return lock

    def _lock(self, requirements: Sequence[str], *words: str) -> str:
        bare = not self.work.base.sites and not self.work.stack.trees  # all is missing, so one look at the indexes will do
        pins = list(requirements) if bare else sorted(self.missing(["--", *requirements], *words).values())
        if not pins:
            return ""
        (self.work.folder / "pins.txt").write_text("".join(f"{pin}\n" for pin in pins))
        target = self.work.folder / "pylock.toml"
        how = ["--quiet", "--no-header", "--format", "pylock.toml", *([] if bare else ["--no-deps"]), *words]
        self.pip("compile", *how, *self.options, "-o", str(target), "pins.txt")
        return target.read_text()

    def unpack(self, lock: str, folder: Path, offline: bool) -> None:
        """Unpack what a lock names below `folder`, laid out as a prefix."""
        folder.mkdir()
        file = folder.with_name(f"pylock.{folder.name}.toml")
        file.write_text(lock)
        words = ["--no-deps", "--link-mode", "copy", "--prefix", str(folder), *(("--offline",) if offline else ())]
        self.pip("install", *words, *self.options, "-r", str(file))

    def environment(self) -> Path:
        """Make the throw-away environment, once, and return its interpreter."""
        folder, base = self.work.folder / "env", self.work.base
        python = folder / "bin" / "python"
        if not folder.exists():
            python.parent.mkdir(parents=True)
            real = Path(os.path.realpath(base.python))
            python.symlink_to(real)
            version = f"home = {real.parent}\ninclude-system-site-packages = false\nversion = {base.version}\n"
            (folder / "pyvenv.cfg").write_text(version)
            _describe(self.work, folder / base.site)
        return python


def _names(lock: str) -> list[str]:
    return _NAME.findall(lock)


def _describe(work: Work, site: Path) -> None:
    """Fill a folder with the descriptions of what counts as installed; of two with one name the upper one counts.

    The folders are real, since uv passes over links to folders; the files in them are links.
    """
    site.mkdir(parents=True)
    farms = [str(work.store.farm(tree) / work.base.site) for tree in work.stack.trees]
    every = {_project(name): (name, files) for name, files in _of_sites((*work.base.sites[::-1], *farms))}
    for name, files in every.values():
        (site / name).mkdir()
        for file, source in files.items():
            (site / name / file).symlink_to(source)


def _of_sites(sites: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each description in these folders: its name, and its files by name."""
    for site in sites:
        for entry in os.scandir(site) if os.path.isdir(site) else ():
            if entry.name.endswith((".dist-info", ".egg-info")) and entry.is_dir():
                files = {name: f"{entry.path}/{name}" for name in _DESCRIBING}
                yield entry.name, {name: path for name, path in files.items() if os.path.exists(path)}


def _project(folder: str) -> str:
    """Return the project that a description's folder is named after."""
    return re.sub(r"[-_.]+", "-", folder.rpartition(".")[0].split("-")[0]).lower()
