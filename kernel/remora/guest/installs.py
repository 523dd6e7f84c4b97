"""What commands of the shell have installed with pip, so that the session's next sandbox has it too.

Law: only what names packages of an index is remembered: not what lies in this sandbox alone, nor what changes where pip looks.
"""

from __future__ import annotations

import re
import shlex

_COMMAND = re.compile(r"(?:\S*python[\d.]*\s+-m\s+|\S*/)?(?:uv\s+)?pip[\d.]*\s+install\s+(.+)", re.DOTALL)
_REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*(?:\[[^\]]*\])?(?:(?:===|~=|==|!=|<=|>=|<|>)[\w.*+!,<>=~-]+)?")
_HARMLESS = frozenset({"-q", "-qq", "-U", "-v", "--quiet", "--upgrade", "--user", "--no-input", "--no-cache-dir", "--verbose"})


def installed_by(command: str) -> list[str]:
    """Return the requirements that a command which went well has installed; none if it did anything else beside."""
    found = _COMMAND.fullmatch(command.strip())
    if found is None:
        return []
    try:
        words = [word for word in shlex.split(found[1], comments=True) if word not in _HARMLESS]
    except ValueError:
        return []
    return words if all(_REQUIREMENT.fullmatch(word) for word in words) else []
