"""The options of cells, functions and commands: the table, how each value is read, and the one value that several of them become.

Law: pure; whatever is wrong is an OptionError that says what to write instead. A value is text or any object. How values are read
is in readings.py, how a line falls into options in jupyter/options.py. An option is added by one line in OPTIONS and a
field of CellOptions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from difflib import get_close_matches

from . import readings as v
from .errors import OptionError
from .images import Image
from .resources import Resources, parse_cpu, parse_memory

# ---- the table -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One option: its name, how its value is read (None: a flag, which has none), what it means, and its default in words."""

    name: str
    help: str
    default: str
    read: Callable[[object], object] | None = None
    attribute: str = ""
    """The field of CellOptions or Resources, if it is not the name."""
    aliases: tuple[str, ...] = ()
    lasting: bool = False
    """Used again by the next line that does not say otherwise; the others are for their own cell."""
    repeats: bool = False

    @property
    def takes_value(self) -> bool:
        """Tell whether it is more than a flag."""
        return self.read is not None


OPTIONS = [
    Option("on", "the machine: a name, or here", "the first machine that has what is asked", v.name("on"), lasting=True),
    Option(
        "gpu",
        "A100, A100:2, A100,H100 (by preference), any, H100! (no substitute)",
        "none",
        v.or_none(v.gpu, default=()),
        lasting=True,
    ),
    Option("cpu", "cores", "what is free", v.or_none(lambda cores: parse_cpu(str(cores))), lasting=True),
    Option(
        "memory", "16GiB, 512MiB; a unit is needed", "what is free", v.or_none(lambda size: parse_memory(str(size))), lasting=True
    ),
    Option("timeout", "end the cell after 90s, 30m, 2h", "none", v.or_none(v.seconds("timeout"), "never")),
    Option("idle", "end the sandbox after so long without use", "never", v.or_none(v.seconds("idle"), "never"), lasting=True),
    Option("files", "the notebook's folder there: rw, ro, none", "rw", v.choice("files", "rw", "ro", "none"), lasting=True),
    Option("session", "which of the notebook's sandboxes", "main", v.name("session"), lasting=True),
    Option(
        "jail",
        "the least isolation: bubblewrap, landlock, process",
        "the best there is",
        v.or_none(v.choice("jail", "bubblewrap", "landlock", "process")),
        lasting=True,
    ),
    Option(
        "env",
        'environment variables: NAME=VALUE or {"NAME": "value"}',
        "none",
        v.environment,
        "environment",
        lasting=True,
        repeats=True,
    ),
    Option(
        "secret",
        "names of secrets, or a .env file: hf,wandb",
        "none",
        v.or_none(v.secrets, default=()),
        "secrets",
        lasting=True,
        repeats=True,
    ),
    Option("pip", 'packages on top: "torch>=2.1,<3 transformers[torch]"', "none", v.requirements, lasting=True, repeats=True),
    Option("apt", 'packages of the system: ffmpeg, "ffmpeg graphviz"', "none", v.packages, lasting=True, repeats=True),
    Option("requirements", "a file of requirements, on top", "none", v.files, lasting=True, repeats=True),
    Option("python", "a bare Python of this version: 3.12", "the kernel's own environment", v.python, lasting=True),
    Option("image", "a published image, or {a remora.Image}", "the kernel's own environment", v.image, lasting=True),
    Option("in", "variables that go there: x,y", "found out", v.variables, "inputs", ("-i",), repeats=True),
    Option("out", "variables that come home: model", "found out", v.variables, "outputs", ("-o",), repeats=True),
    Option("no-sync", "find out no variables; only -i and -o travel", "off", attribute="sync"),
    Option("detach", "return a run handle at once", "off"),
    Option("fresh", "in a new sandbox", "off"),
    Option("both", "run the cell here as well: seeds, themes, imports", "off"),
]
LATER = {
    "budget": "timeout= ends the cell after a time",
    "volume": "the notebook's folder keeps what a remote cell writes there",
}
"""Options of later versions, and what works instead."""

_DOUBLE_QUOTED = re.compile(r'[\\"{]')
_NAMED = {option.name: option for option in OPTIONS}
SPELLED = _NAMED | {alias.lstrip("-"): option for option in OPTIONS for alias in option.aliases}
_RESOURCES = frozenset(f.name for f in fields(Resources))


@dataclass(frozen=True)
class CellOptions:
    """What the options of one cell come to."""

    resources: Resources = field(default_factory=Resources)
    on: str = ""
    """Nothing: the first machine that has what is asked."""
    files: str = "rw"
    session: str = "main"
    jail: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    """Names of secrets, or paths of .env files."""
    pip: tuple[str, ...] = ()
    """Requirements by PEP 508."""
    apt: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    """Paths of files."""
    python: str | None = None
    image: Image | str | None = None
    """A recipe, or the name of a published one."""
    timeout: float | None = None
    """Seconds."""
    idle: float | None = None
    """Seconds."""
    inputs: tuple[str, ...] | None = None
    """None: found out."""
    outputs: tuple[str, ...] | None = None
    sync: bool = True
    detach: bool = False
    fresh: bool = False
    both: bool = False
    given: frozenset[str] = frozenset()
    """The options that were written, by name; the others have their defaults."""

    def over(self, lower: CellOptions) -> CellOptions:
        """Return these options where they were given, and `lower` where they were not."""
        return assemble({name: (self if name in self.given else lower).value(name) for name in self.given | lower.given})

    def lasting(self) -> CellOptions:
        """Return what the next cell uses again: what describes the sandbox, nothing that is for one cell."""
        return assemble({name: self.value(name) for name in self.given if _NAMED[name].lasting})

    def without(self, name: str) -> CellOptions:
        """Return the options as if this one had not been written."""
        return assemble({other: self.value(other) for other in self.given - {name}})

    def value(self, name: str) -> object:
        """Return the value of the option of this name."""
        return getattr(self.resources if name in _RESOURCES else self, _NAMED[name].attribute or name)

    def __str__(self) -> str:
        """Return the given options as a line that `parse` reads again."""
        return " ".join(_written(option, self.value(option.name)) for option in OPTIONS if option.name in self.given)


def assemble(values: Mapping[str, object]) -> CellOptions:
    """Return options from values that have been read."""
    resources = {name: value for name, value in values.items() if name in _RESOURCES}
    rest = {_NAMED[name].attribute or name: value for name, value in values.items() if name not in _RESOURCES}
    return CellOptions(Resources(**resources), given=frozenset(values), **rest)  # type: ignore[arg-type]  # each read by its option


def _written(option: Option, value: object) -> str:
    if not option.takes_value:
        return f"--{option.name}" + ("" if value != (option.attribute == "sync") else "=false")
    if option.name == "env":
        return f"env={quote(json.dumps(dict(value)))}"  # type: ignore[call-overload]  # pairs
    if option.name in ("requirements", "secret") and value:
        return " ".join(f"{option.name}={quote(path)}" for path in value)  # type: ignore[attr-defined]  # texts
    return f"{option.name}={quote(_text(option.name, value))}"


def _text(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return (" " if name == "pip" else ",").join(map(str, value)) or ("none" if name in ("gpu", "secret") else "")
    if isinstance(value, (int, float)):
        return format(Decimal(value), "f") + {"memory": "B", "timeout": "s", "idle": "s"}.get(name, "")
    return str(value)


def build(values: Mapping[str, object]) -> CellOptions:
    """Return options from values by name, as the command line and Python signatures have them; None is not given."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if value is not None:
            add(found, find(name), value)
    return assemble(found)


def find(name: str) -> Option:
    """Return the option of this name, written in whatever way; OptionError if there is none in this version."""
    plain = name.lstrip("-").replace("_", "-")
    if plain in LATER:
        raise OptionError(f"this version of Remora cannot do {plain}= yet; {LATER[plain]}")
    if plain in SPELLED:
        return SPELLED[plain]
    near = get_close_matches(plain.lower(), [*_NAMED, *LATER], 1)
    raise OptionError(
        f"there is no option {name[:40]!r}{f'; did you mean {near[0]}?' if near else ';'} `%remote?` lists them all"
    )


def add(values: dict[str, object], option: Option, value: object) -> None:
    """Read a value and put it beside the others under its option's name."""
    name = option.name
    if name in values and not option.repeats:
        raise OptionError(f"{name} is given twice; give it once")
    try:
        found = (option.read or _flag)(value)
    except OptionError:
        raise
    except Exception as error:  # an object of the notebook may raise anything when it is compared or written as text
        raise OptionError(f"{name}= cannot use a value of type {type(value).__name__} ({type(error).__name__})") from None
    if option.attribute == "sync":
        found = not found
    if name in values:
        found = v.together(values[name], found)
    values[name] = found


def _flag(value: object) -> bool:
    found = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return found[str(value).lower()]
    except KeyError:
        raise OptionError(
            f"a flag is on when it is written, and takes no value but true or false; not {str(value)[:40]!r}"
        ) from None


def quote(text: str) -> str:
    """Return the text so that it is read as one value, unchanged."""
    return '"' + _DOUBLE_QUOTED.sub(lambda match: "\\" + match[0], text) + '"'


def help_text() -> str:
    """Return what `%remote?` and the documentation say about the options."""
    rows = [(", ".join([*o.aliases, f"--{o.name}" if o.aliases or not o.takes_value else f"{o.name}="]), o) for o in OPTIONS]
    width = max(len(left) for left, _ in rows)
    lines = [f"  {left:<{width}}  {o.help} (default: {o.default})" for left, o in rows]
    return "\n".join(
        [
            "Options are key=value or --key value, in any order; quote values that hold spaces; {expr} is a value from here.",
            *lines,
            f"Not in this version: {', '.join(sorted(LATER))}.",
        ]
    )
