"""The bases and steps that an image is made of: what each means, as a frozen value that turns into plain JSON and back.

Law: a kind of base or step is one class here, found by the name that it has on the wire. What a step means is all in its fields
(files are read when the step is written down), so equal fields make the same thing. Checked when made: OptionError says what to
write instead.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ..errors import OptionError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(:[A-Za-z0-9._-]{1,50})?")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+)?")
_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_VERSION = re.compile(r"3\.[1-9][0-9](\.[0-9]+)?")


@dataclass(frozen=True)
class Part:
    """Base of bases and steps."""

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Part]]] = {}

    def __init_subclass__(cls) -> None:
        """Register the class under its kind."""
        Part.kinds[cls.kind] = cls

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; what has its default is left out, so that a new field changes no old key."""
        defaults = {f.name: f.default for f in fields(self)}
        values = {name: value for name, value in asdict(self).items() if value != defaults[name]}
        return {"kind": self.kind} | {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}


def from_dict(data: dict[str, Any]) -> Part:
    """Rebuild a base or step; OptionError for what this version does not know."""
    values = dict(data) if isinstance(data, dict) else {"kind": data}
    part = Part.kinds.get(str(values.pop("kind", "")))
    if part is None:
        raise OptionError(f"an image step of kind {data!r:.80} is not known here; use the same version of Remora")
    unknown = values.keys() - {one.name for one in fields(part)}
    if unknown:
        raise OptionError(
            f"an image step of kind {part.kind!r} has no {', '.join(sorted(map(str, unknown)))} in this version of Remora"
        )
    return part(**{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


# ---- bases -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MirrorBase(Part):
    """The environment of the process that asks, under its own paths; see `mirror.Mirror`, whose fields these are."""

    kind: ClassVar[str] = "mirror"
    executable: str = ""
    prefix: str = ""
    base_prefix: str = ""
    version: str = ""
    site_packages: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()


@dataclass(frozen=True)
class PythonBase(Part):
    """A bare Python of this version (such as "3.12") on the machine's own system."""

    kind: ClassVar[str] = "python"
    version: str = ""

    def __post_init__(self) -> None:
        """Check the version."""
        check_version(self.version)


@dataclass(frozen=True)
class DebianBase(Part):
    """Debian with little more than Python: a system of its own."""

    kind: ClassVar[str] = "debian"
    version: str = ""
    """Of Python; empty for the release's own."""
    release: str = "bookworm"

    def __post_init__(self) -> None:
        """Check both names."""
        if self.version:
            check_version(self.version)
        if not re.fullmatch(r"[a-z]{3,20}", self.release):
            raise OptionError(f"{self.release!r} is no release of Debian; write it like bookworm")


@dataclass(frozen=True)
class RegistryBase(Part):
    """An image of a container registry, such as "docker.io/library/python:3.12-slim"."""

    kind: ClassVar[str] = "registry"
    reference: str = ""
    secret: str = ""
    """The name of a secret that holds REGISTRY_USERNAME and REGISTRY_PASSWORD."""

    def __post_init__(self) -> None:
        """Check the reference."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.:/@-]{1,300}", self.reference):
            raise OptionError(f"{self.reference!r} is no image of a registry; write it like docker.io/library/python:3.12-slim")


@dataclass(frozen=True)
class DockerfileBase(Part):
    """What a Dockerfile makes."""

    kind: ClassVar[str] = "dockerfile"
    text: str = ""
    context: str = ""
    """The folder that it may copy from, absolute."""
    digest: str = ""
    """Of the files in the folder."""


@dataclass(frozen=True)
class NamedBase(Part):
    """An image that was published under a name."""

    kind: ClassVar[str] = "named"
    name: str = ""

    def __post_init__(self) -> None:
        """Check the name."""
        check_name(self.name)


BASES = (MirrorBase, PythonBase, DebianBase, RegistryBase, DockerfileBase, NamedBase)


# ---- steps -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pip(Part):
    """Python packages by PEP 508 requirements."""

    kind: ClassVar[str] = "pip"
    requirements: tuple[str, ...] = ()
    index_url: str = ""
    extra_index_url: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    pre: bool = False
    force: str = ""
    """Differs for a step that is to be built anew."""


@dataclass(frozen=True)
class UvSync(Part):
    """The packages of a uv project."""

    kind: ClassVar[str] = "uv_sync"
    pyproject: str = ""
    """The text of pyproject.toml."""
    lock: str = ""
    """The text of uv.lock; empty if there is none."""
    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    frozen: bool = True
    force: str = ""


@dataclass(frozen=True)
class Apt(Part):
    """Packages of the system."""

    kind: ClassVar[str] = "apt"
    packages: tuple[str, ...] = ()
    force: str = ""

    def __post_init__(self) -> None:
        """Check the packages' names, which become words of a command."""
        for package in self.packages:
            if not _PACKAGE.fullmatch(package):
                raise OptionError(f"{package!r} is no package of Debian; write it like ffmpeg or ffmpeg=7:5.1.6-0+deb12u1")


@dataclass(frozen=True)
class Run(Part):
    """Commands of the shell, one after the other; what they change becomes part of the image."""

    kind: ClassVar[str] = "run"
    commands: tuple[str, ...] = ()
    force: str = ""


@dataclass(frozen=True)
class RunFunction(Part):
    """A script that calls a function, run by the image's Python; what it changes becomes part of the image."""

    kind: ClassVar[str] = "run_function"
    name: str = ""
    script: str = ""
    force: str = ""


@dataclass(frozen=True)
class Env(Part):
    """Environment variables."""

    kind: ClassVar[str] = "env"
    pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check the names."""
        for name, _ in self.pairs:
            if not _VARIABLE.fullmatch(name):
                raise OptionError(f"{name!r} is no name of an environment variable; letters, digits and _ make one")


@dataclass(frozen=True)
class Workdir(Part):
    """The folder in which commands of later steps run, and code if it has no folder of its own."""

    kind: ClassVar[str] = "workdir"
    path: str = ""

    def __post_init__(self) -> None:
        """Check the path."""
        check_target(self.path)


@dataclass(frozen=True)
class Local(Part):
    """Files of this machine: in the image (`copy`), or seen by its sandboxes as they are when one starts."""

    kind: ClassVar[str] = "local"
    source: str = ""
    target: str = ""
    """Where it is seen, absolute; empty for a package that is to be imported."""
    copy: bool = False
    ignore: tuple[str, ...] = ()
    digest: str = ""
    """Of the state of the files, put in when a sandbox or a build is asked for; see `Image.as_of_now`."""

    def __post_init__(self) -> None:
        """Check the target."""
        if self.target:
            check_target(self.target)


METADATA = (Env, Workdir)
"""Steps that change no file."""


def check_version(version: str) -> str:
    """Return a version of Python; OptionError if it is none."""
    if not _VERSION.fullmatch(version):
        raise OptionError(f"python={version} is no version of Python that sandboxes can have; write it like python=3.12")
    return version


def check_name(name: str) -> str:
    """Return the name of a published image; OptionError if it is none."""
    if not _NAME.fullmatch(name):
        raise OptionError(f"{name[:40]!r} is no name of an image; letters, digits, - _ and . make one, a tag may follow :")
    return name


def check_target(path: str) -> str:
    """Return a path inside an image; OptionError if it is not absolute or leads elsewhere."""
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise OptionError(f"{path!r} is no path inside an image; it begins with / and has no .. in it")
    return path
