"""Parameters of a notebook run: from papermill's options to Python code. Pure but for reading parameter files.

Law: values mean what they mean to papermill: the same words are numbers, the same option wins, the code reads the same.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from keyword import iskeyword
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError

Parameters = dict[str, Any]
_WORDS = {"True": True, "False": False, "None": None}
_SHOWN = 60


class _Loader(yaml.SafeLoader):
    """YAML whose dates stay text, as a notebook that computes with text expects them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Given:
    """What the options of one command line say, in the order in which later ones win."""

    base64: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    yaml: tuple[str, ...] = ()
    typed: tuple[tuple[str, str], ...] = ()
    raw: tuple[tuple[str, str], ...] = ()

    def values(self, first: Mapping[str, Any]) -> Parameters:
        """Return all parameters on top of `first`; InputError for what cannot be read or is no name."""
        found = dict(first)
        sources = [("--parameters_base64", _decoded(text)) for text in self.base64]
        sources += [(f"the parameter file {path}", _text_of(path)) for path in self.files]
        sources += [("--parameters_yaml", text) for text in self.yaml]
        for place, text in sources:
            found.update(_mapping(place, text))
        found.update((name, typed(value)) for name, value in self.typed)
        found.update(self.raw)
        _check_names(found)
        return found


def typed(text: str) -> Any:
    """Return the value of a word: True, False, None, a whole number, a number, else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"the parameter file {path} cannot be read: {why}") from None


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InputError(f"--parameters_base64 {text[:_SHOWN]} is not base64 of YAML: {error}") from None


def _mapping(place: str, text: str) -> Parameters:
    try:
        found = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{place} is not YAML: {' '.join(str(error).split())}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{place} holds no names with values; write it like `epochs: 3`")
    return found


def _check_names(names: Iterable[Any]) -> None:
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or iskeyword(name):
            raise InputError(f"the parameter {str(name)[:_SHOWN]!r} is no Python name; use letters, digits and _")


def code(parameters: Mapping[str, Any]) -> str:
    """Return the source of the cell that sets the parameters."""
    return "".join(["# Parameters\n", *(f"{name} = {literal(value)}\n" for name, value in parameters.items())])


def literal(value: Any) -> str:
    """Return a Python expression for a plain value; what is none is passed as its text."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(literal, value)) + "]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no file can hold as it is
        return ascii(text)
    return json.dumps(text, ensure_ascii=False)


def fill(path: str, parameters: Mapping[str, Any]) -> str:
    """Return a path with its {names} replaced by parameters, as in out-{epochs}.ipynb; one that exists as written stays so."""
    if "{" not in path or Path(path).exists():
        return path
    moments = {"current_datetime_local": datetime.now(), "current_datetime_utc": datetime.now(UTC)}
    try:
        return path.format(**{"pm": {"run_uuid": str(uuid.uuid4()), **moments}, **parameters})
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"the path {path} has a {{name}} that is no parameter: {error}; pass it with -p") from None
