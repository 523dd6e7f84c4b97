"""The text of a CDI spec as plain values. JSON is always understood; YAML where PyYAML is installed, and as plain text only.

Law: of YAML, numbers and dates stay text, and anchors are refused: a few lines of them could stand for gigabytes.
"""

from __future__ import annotations

import json
from typing import Any

_ADVICE = "write it as JSON, for NVIDIA with `nvidia-ctk cdi generate --format=json --output=…`"


def parse(data: bytes, yaml: bool) -> Any:
    """Return the values of a text; ValueError says why it is not understood."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        if not yaml:
            raise ValueError(f"it is no JSON ({error})") from None
    try:
        from . import plainyaml
    except ImportError:
        raise ValueError(f"PyYAML is not installed where Remora's agent runs; {_ADVICE}") from None
    return plainyaml.load(data)
