"""How the value of an option is read: text, or an object that a `{expr}` gave, becomes what the option means. Pure.

Law: one function for one kind of value; what cannot be understood is an OptionError that shows how to write it.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping
from keyword import iskeyword

from .errors import OptionError
from .giving import is_path
from .images import Image
from .images.steps import Apt, check_name, check_version
from .resources import parse_gpu, parse_seconds
from .vault import check_name as check_secret

Read = Callable[[object], object]


def or_none(read: Read, *words: str, default: object = None) -> Read:
    """Let None and "none" (and these words) stand for the default."""
    return lambda value: default if value is None or str(value).lower() in ("none", *words) else read(value)


def gpu(value: object) -> object:
    """Return the acceptable devices of "A100,H100" or of a list."""
    return parse_gpu([str(v) for v in value] if isinstance(value, (list, tuple)) else str(value))


def seconds(name: str) -> Read:
    """Read a time for this option, in seconds."""

    def read(value: object) -> float:
        found = parse_seconds(str(value), name)
        if math.isinf(found):
            raise OptionError(f"{name}={str(value)[:20]}… is longer than any cell runs; leave {name} out for no limit")
        return found

    return read


def choice(name: str, *words: str) -> Read:
    """Read one of these words."""

    def read(value: object) -> str:
        if value not in words:
            raise OptionError(f"{name}={value} is not understood; it is one of {', '.join(words)}")
        return str(value)

    return read


def name(option: str) -> Read:
    """Read the name of a machine or session."""

    def read(value: object) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,99}", str(value)):
            raise OptionError(f"{option}={value} is no name; use letters, digits and . _ -")
        return str(value)

    return read


def variables(value: object) -> tuple[str, ...]:
    """Return names of variables from "a,b", "a b" or a list."""
    if value is None:
        return ()
    several = isinstance(value, (list, tuple, set, frozenset))
    names = [str(v) for v in value] if several else re.split(r"[\s,]+", str(value).strip())  # type: ignore[attr-defined]  # checked
    for name in names:
        if (name or several) and (not name.isidentifier() or iskeyword(name)):
            raise OptionError(f"{name!r} is no variable's name; write it like -i x,y or -o model")
    return tuple(dict.fromkeys(name for name in names if name))


def environment(value: object) -> tuple[tuple[str, str], ...]:
    """Return pairs from a mapping, the text of one, or NAME=VALUE. Errors show no values, since they may be secret."""
    pairs = _mapping(value)
    for name, content in pairs.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", str(name)) or not isinstance(content, (str, int, float)) or "\0" in str(content):
            raise OptionError(f"env: {str(name)!r} needs a name of letters and digits, and a text or number as value")
    return tuple((str(name), str(content)) for name, content in pairs.items())


def _mapping(value: object) -> Mapping[object, object]:
    text = str(value)
    if isinstance(value, Mapping):
        return value
    if re.match(r"[^{=]+=", text):
        left, _, right = text.partition("=")
        return {left: right}
    for load in (json.loads, ast.literal_eval):
        try:
            found = load(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, dict):
            return found
    raise OptionError('env is not understood; write it like env=NAME=VALUE, env={"NAME": "value"} or env={a_dict}')


_WORD = re.compile(
    r"""\s*,?\s*(
        [A-Za-z0-9][\w.-]*\s*(?:\[[^\]]*\])?                        # a project, with its extras
        (?: \s*@\s*\S+                                           # that lies somewhere
          | \s*\(?\s*(?:===|~=|==|!=|<=|>=|<|>)\s*[\w.*+!-]+       # in certain versions
            (?:\s*,\s*(?:===|~=|==|!=|<=|>=|<|>)\s*[\w.*+!-]+)*\s*\)? )?
        (?=\s|,|;|$) (?:\s*;[^;]+)?                               # a marker goes to the end
      | (?:[\w+]+://|\.|/|~)\S+                                  # an address or a path
    )\s*""",
    re.VERBOSE,
)


def requirements(value: object) -> tuple[str, ...]:
    """Return PEP 508 requirements from text, in which a comma or a space stands before each new one, or from a list of them."""
    found: list[str] = []
    for text in value if isinstance(value, (list, tuple)) else [str(value)]:
        rest = str(text).strip()
        while rest:
            word = _WORD.match(rest)
            if word is None:
                advice = 'write it like pip="torch>=2.1,<3 transformers[torch]"'
                where = "; options of pip go to remora.Image.pip_install" if rest.startswith("-") else ""
                raise OptionError(f"pip={rest[:40]!r} is no requirement; {advice}{where}")
            found.append(" ".join(word[1].split()))
            rest = rest[word.end() :]
    return tuple(dict.fromkeys(found))


def packages(value: object) -> tuple[str, ...]:
    """Return names of Debian packages from "a b", "a,b" or a list."""
    words = [str(word) for word in value] if isinstance(value, (list, tuple)) else re.split(r"[\s,]+", str(value).strip())
    return Apt(tuple(dict.fromkeys(word for word in words if word))).packages


def files(value: object) -> tuple[str, ...]:
    """Return paths from one path or a list of them."""
    found = tuple(str(path) for path in (value if isinstance(value, (list, tuple)) else [value]))
    if not all(found) or any("\0" in path for path in found):
        raise OptionError("requirements= wants the path of a file")
    return found


def secrets(value: object) -> tuple[str, ...]:
    """Return names of secrets and paths of .env files from "a,b" or a list. Errors show nothing behind a =."""
    words = [str(word) for word in value] if isinstance(value, (list, tuple)) else str(value).split(",")
    found = tuple(dict.fromkeys(word.strip() for word in words))
    for word in found:
        if "," in word or "\0" in word:
            raise OptionError("secret: the path of a .env file cannot have a comma in it; rename the file")
        if not is_path(word):
            check_secret(word)
    return found


def python(value: object) -> str:
    """Return a version of Python."""
    return check_version(str(value))


def image(value: object) -> object:
    """Return a recipe as it is, or the name of a published one."""
    return value if isinstance(value, Image) else check_name(str(value))


def together(first: object, more: object) -> object:
    """Return what an option that was given twice comes to: names once each, pairs with the later value."""
    pairs: dict[object, object] = {}
    for item in (*first, *more):  # type: ignore[misc]  # what repeats is read as a tuple
        pairs.update([item if isinstance(item, tuple) else (item, None)])
    return tuple(name if value is None else (name, value) for name, value in pairs.items())
