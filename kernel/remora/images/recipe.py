"""`remora.Image`: a base and the steps on it, an immutable value; each call returns another image with one step more.

Law: see the package. Names and meanings are Modal's where it has the same thing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError, OptionError
from . import steps as s
from .elsewhere import imports_elsewhere
from .files import state_of
from .mirror import Mirror, guest_file, roots_here
from .reading import requirements_of, source_of, text_of

FORMAT = "1"
"""Part of every key: raised when the same recipe is to be built differently."""
Words = str | Sequence[str]


@dataclass(frozen=True)
class Image:
    """What a sandbox runs in. Start from a base (`mirror`, `python`, `debian_slim`, …) and add steps; order matters."""

    base: s.Part = field(default_factory=lambda: Mirror.here().base())
    steps: tuple[s.Part, ...] = ()

    # -- bases

    @classmethod
    def mirror(cls) -> Image:
        """Begin with this process's own environment, which sandboxes see read-only."""
        return cls()

    @classmethod
    def python(cls, version: str) -> Image:
        """Begin with a bare Python of this version, such as "3.12"."""
        return cls(s.PythonBase(version))

    @classmethod
    def debian_slim(cls, python_version: str = "", release: str = "bookworm") -> Image:
        """Begin with a system of its own: Debian with little more than Python."""
        return cls(s.DebianBase(python_version, release))

    @classmethod
    def from_registry(cls, tag: str, *, secret: str = "") -> Image:
        """Begin with an image of a container registry; `secret` names one with REGISTRY_USERNAME and REGISTRY_PASSWORD."""
        return cls(s.RegistryBase(tag, secret))

    @classmethod
    def from_dockerfile(cls, path: str | Path, context: str | Path | None = None) -> Image:
        """Begin with what a Dockerfile makes; files are copied from `context`, by default the file's folder."""
        file = Path(path).absolute()
        return cls(s.DockerfileBase(text_of(file), str(Path(context).absolute() if context else file.parent)))

    @classmethod
    def from_name(cls, name: str) -> Image:
        """Begin with an image that was published; nothing is built for it."""
        return cls(s.NamedBase(name))

    # -- Python packages

    def pip_install(
        self,
        *packages: Words,
        index_url: str = "",
        extra_index_url: Words = (),
        find_links: Words = (),
        pre: bool = False,
        force_build: bool = False,
    ) -> Image:
        """Add Python packages by PEP 508 requirements, installed by uv."""
        wanted = _words(packages)
        if not wanted:
            return self
        options: dict[str, Any] = {"extra_index_url": _words([extra_index_url]), "find_links": _words([find_links])}
        return self._with(s.Pip(wanted, index_url, pre=pre, force=_force(force_build), **options))

    uv_pip_install = pip_install

    def pip_install_from_requirements(self, requirements_txt: str | Path, **options: Any) -> Image:
        """Add the packages of a requirements file, with the digests that it gives; options are those of `pip_install`."""
        return self.pip_install(requirements_of(Path(requirements_txt)), **options)

    def pip_install_from_pyproject(self, pyproject_toml: str | Path, optional_dependencies: Words = (), **options: Any) -> Image:
        """Add the dependencies that a pyproject.toml names, with those of these extras; the project itself is not installed."""
        path = Path(pyproject_toml)
        try:
            project = tomllib.loads(text_of(path)).get("project", {})
            extras = project.get("optional-dependencies", {})
            wanted = [*project.get("dependencies", []), *(r for name in _words([optional_dependencies]) for r in extras[name])]
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path} is no TOML: {error}") from error
        except KeyError as error:
            raise OptionError(f"{path} has no extra {error}; it has {', '.join(sorted(extras)) or 'none'}") from error
        return self.pip_install(wanted, **options)

    def uv_sync(
        self,
        uv_project_dir: str | Path = "./",
        *,
        groups: Words = (),
        extras: Words = (),
        frozen: bool = True,
        force_build: bool = False,
    ) -> Image:
        """Add the packages of a uv project; `frozen`: exactly those of its uv.lock. The project itself is not installed."""
        folder = Path(uv_project_dir)
        lock = folder / "uv.lock"
        if frozen and not lock.exists():
            raise InputError(f"{lock} is missing; make it with `uv lock`, or write frozen=False")
        text = text_of(lock) if lock.exists() else ""
        step = s.UvSync(text_of(folder / "pyproject.toml"), text, _words([groups]), _words([extras]), frozen, _force(force_build))
        return self._with(step)

    # -- the system

    def apt_install(self, *packages: Words, force_build: bool = False) -> Image:
        """Add packages of the system, such as ffmpeg."""
        wanted = _words(packages)
        return self._with(s.Apt(wanted, _force(force_build))) if wanted else self

    def run_commands(self, *commands: Words, force_build: bool = False) -> Image:
        """Add what these commands of the shell change, run one after the other inside the image."""
        wanted = _words(commands)
        return self._with(s.Run(wanted, _force(force_build))) if wanted else self

    def run_function(
        self,
        raw_f: Callable[..., Any],
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        force_build: bool = False,
    ) -> Image:
        """Add what a function changes that is run inside the image, such as weights that it fetches.

        It goes as source text, with the modules, functions and plain values that it uses.
        """
        from .functions import script_of  # found late: whoever builds is given the script

        script = script_of(raw_f, tuple(args), kwargs or {})
        return self._with(s.RunFunction(raw_f.__name__, script, _force(force_build)))

    def env(self, vars: Mapping[str, str]) -> Image:
        """Set environment variables."""
        return self._with(s.Env(tuple((str(name), str(value)) for name, value in vars.items())))

    def workdir(self, path: str | Path) -> Image:
        """Set the folder in which later commands run."""
        return self._with(s.Workdir(str(path)))

    # -- files of this machine

    def add_local_file(self, local_path: str | Path, remote_path: str | Path, *, copy: bool = False) -> Image:
        """Add a file: seen as it is when a sandbox starts, or with `copy` as it is now."""
        return self._add_local(Path(local_path), str(remote_path), copy, ())

    def add_local_dir(self, local_path: str | Path, remote_path: str | Path, *, copy: bool = False, ignore: Words = ()) -> Image:
        """Add a folder, without what matches `ignore` (patterns as in .gitignore)."""
        return self._add_local(Path(local_path), str(remote_path), copy, _words([ignore]))

    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: Words = ()) -> Image:
        """Add modules and packages that can be imported here, so that they can be imported there."""
        image = self
        for module in modules:
            image = image._add_local(source_of(module), "", copy, _words([ignore]))
        return image

    def _add_local(self, source: Path, target: str, copy: bool, ignore: tuple[str, ...]) -> Image:
        if not source.exists():
            raise InputError(f"{source} is not there; add_local_… takes a file or folder of this machine")
        return self._with(s.Local(str(source.absolute()), target, copy, ignore))

    # -- names of what the image has

    @contextmanager
    def imports(self) -> Iterator[None]:
        """Import what only the image has: here, what is missing is no error, and its names stand for what is there."""
        with imports_elsewhere():
            yield

    # -- on this machine

    def build(self) -> Image:
        """Build the image now instead of when it is first used, and return it. Raises ImageFailed."""
        _builder().build(self)
        return self

    def publish(self, name: str) -> Image:
        """Build the image and let a name stand for it on this machine, in place of any earlier one. Raises ImageFailed."""
        check = s.check_name(name)
        _builder().publish(self, check)
        return self

    # -- the value

    def _with(self, step: s.Part) -> Image:
        late = next((one for one in self.steps if isinstance(one, s.Local) and not one.copy), None)
        if late is not None and not isinstance(step, (s.Local, *s.METADATA)):
            raise OptionError(
                f"{late.source} is added when a sandbox starts, so nothing can be built on it; add it last, or with copy=True"
            )
        return replace(self, steps=(*self.steps, step))

    def with_steps(self, steps: Iterable[s.Part]) -> Image:
        """Return the image with these steps on top."""
        image = self
        for step in steps:
            image = image._with(step)
        return image

    def as_of_now(self) -> Image:
        """Return the image with the present state of the files that it adds, so that it is built anew when they have changed.

        Raises InputError for files that are not there any more.
        """
        steps = [replace(one, digest=state_of(one.source)) if isinstance(one, s.Local) else one for one in self.steps]
        base = self.base
        if isinstance(base, s.DockerfileBase):
            base = replace(base, digest=state_of(base.context))
        return replace(self, base=base, steps=tuple(steps))

    @property
    def keys(self) -> tuple[str, ...]:
        """Return a key for the base and for what each step makes of it: equal keys make the same thing."""
        return self.keys_above("")

    def keys_above(self, there: str) -> tuple[str, ...]:
        """Return the keys where the base holds something that the recipe does not name, such as packages of a mirror."""
        keys = [_key(FORMAT + there, self.base)]
        for step in self.steps:
            keys.append(_key(keys[-1], step))
        return tuple(keys)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"base": self.base.to_dict(), "steps": [step.to_dict() for step in self.steps]}

    def to_spec(self) -> dict[str, Any]:
        """Return what a sandbox's spec says of its image: the recipe, this version's guest, and where the user's code lies."""
        roots = {} if isinstance(self.base, s.MirrorBase) else {"roots": list(roots_here())}
        return self.as_of_now().to_dict() | {"guest": guest_file()} | roots

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Image:
        """Rebuild from `to_dict`, whatever else stands beside it; OptionError for what this version does not know."""
        if not (isinstance(data, dict) and "base" in data and isinstance(data.get("steps", []), (list, tuple))):
            raise OptionError(f"this is no image: {data!r:.80}")
        base = s.from_dict(data["base"])
        if not isinstance(base, s.BASES):
            raise OptionError(f"an image cannot begin with {base.kind!r}")
        return cls(base, tuple(s.from_dict(step) for step in data.get("steps", ())))


class Builder(Protocol):
    """Who builds images when they are asked to be built."""

    def build(self, image: Image) -> None:
        """Build an image."""

    def publish(self, image: Image, name: str) -> None:
        """Build an image and let a name stand for it."""


_registered: list[Builder] = []


def register(builder: Builder) -> None:
    """Let this builder build images of this process."""
    _registered[:] = [builder]


def _builder() -> Builder:
    if not _registered:
        raise OptionError("nothing can build images here; write `import remora` and take remora.Image")
    return _registered[0]


def _key(below: str, part: s.Part) -> str:
    text = json.dumps([below, part.to_dict()], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _words(given: Iterable[object]) -> tuple[str, ...]:
    """Return words given one by one or in lists, as Modal takes them."""
    found: list[str] = []
    for item in given:
        for word in item if isinstance(item, (list, tuple)) else [item]:
            if not isinstance(word, str) or not word.strip() or "\0" in word:
                raise OptionError(f"{word!r} is no text; an image's steps are written as texts or lists of them")
            found.append(word)
    return tuple(found)


def _force(force_build: bool) -> str:
    return os.urandom(8).hex() if force_build else ""
