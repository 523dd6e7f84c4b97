"""What a recipe reads of this machine when it is written: texts, requirements, and where modules lie.

Law: reads and changes nothing; what cannot be read is an InputError.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError


def text_of(path: Path) -> str:
    """Return the text of a file. Raises InputError."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def requirements_of(path: Path) -> list[str]:
    """Return the requirements of a file; nested files are read. InputError for options other than -r."""
    found: list[str] = []
    for line in text_of(path).replace("\\\n", " ").splitlines():
        text = line.split(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        option, _, value = text.partition(" ")
        if option in ("-r", "--requirement"):
            found += requirements_of(path.parent / value.strip())
        elif text.startswith("-"):
            raise InputError(f"{path}: the line {text!r} cannot be used; give pip_install the option (index_url=, find_links=)")
        else:
            found.append(text)
    return found


def source_of(module: str) -> Path:
    """Return the file or folder of a module that can be imported here. Raises InputError for any other."""
    from importlib.util import find_spec

    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise InputError(f"the module {module!r} cannot be imported here, so its source cannot be added")
    origin = Path(os.path.realpath(spec.origin))
    return origin.parent if origin.name == "__init__.py" else origin
