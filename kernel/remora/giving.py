"""What goes along with a request that opens a sandbox or builds an image: the values of the secrets that its spec names.

Law: values leave the vault here and nowhere else. They travel beside a spec, never in it: a spec is written down in many places.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import dotenv
from .errors import InputError
from .resources import SandboxSpec
from .vault import vault
from .wire import Fields


def is_path(word: str) -> bool:
    """Tell the path of a `.env` file from the name of a secret."""
    return word.startswith((".", "~")) or "/" in word or word.endswith(".env")


def absolute(word: str) -> str:
    """Return a path of a `.env` file as one that is the same from everywhere, a name as it is."""
    return os.path.abspath(os.path.expanduser(word)) if is_path(word) else word


def variables(words: Iterable[str]) -> dict[str, str]:
    """Return what these secrets and `.env` files hold, later ones over earlier ones. Raises OptionError and InputError."""
    found: dict[str, str] = {}
    for word in words:
        found |= _of_file(Path(absolute(word))) if is_path(word) else vault().get(word)
    dotenv.check(found, "secret=")
    return found


def for_spec(spec: SandboxSpec) -> Fields:
    """Return what a request to open a sandbox by this spec carries."""
    return {"environment": variables(spec.secrets)} | for_image(spec.image)


def for_image(image: Fields) -> dict[str, Any]:
    """Return what a request to build an image carries: for its registry, if that wants a password."""
    name = image["base"].get("secret")
    return {"registry": vault().get(name)} if name else {}


def _of_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} cannot be read: it is no text in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; secret= takes the name of a secret or a .env file") from error
    found = dotenv.parse(text, str(path))
    if not found:
        raise InputError(f"{path} has no variable; write lines like NAME=value into it")
    return found


def dotenv_file(path: str) -> dict[str, str]:
    """Return the variables of a `.env` file; InputError if it cannot be read."""
    return _of_file(Path(path).expanduser())
