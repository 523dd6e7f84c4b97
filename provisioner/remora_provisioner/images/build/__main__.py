"""`python -m remora_provisioner.images.build ROOT [PARENT]`: an image as JSON on standard input, lines of JSON for what happens.

Beside the image stands `registry`: variables of the secret that it begins with, which no child of ours inherits.

Lines: {"stage", "text", "step", "of", "seconds"} …, and at last {"built": …} or {"error": …}. Exit status 0 if it was built, 1 if
not. Law: ends with its parent, and takes every command that it started along.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from remora.errors import InternalError, RemoraError
from remora.images import Image

from .run import build

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Build what standard input describes."""
    gc.disable()  # a build makes many thousands of entries and few cycles, and ends soon
    signal.signal(signal.SIGTERM, _leave)
    _end_with_parent(int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())  # which may have died while we started
    try:
        told = json.load(sys.stdin)
        image, registry = Image.from_dict(told), told.get("registry") or {}
        built = build(image, Path(sys.argv[1]).absolute(), lambda progress: _write(asdict(progress)), registry)
    except RemoraError as error:
        _write({"error": error.to_dict()})
        return 1
    except Exception as error:  # the one line that the agent waits for, whatever went wrong
        text = f"building failed inside Remora: {type(error).__name__}: {error}; please report it"
        _write({"error": InternalError(text).to_dict()})
        return 1
    _write({"built": built.to_dict()})
    return 0


def _end_with_parent(parent: int) -> None:
    """Ask the kernel for a signal when the thread that started this process ends; leave at once if it is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), *[ctypes.c_ulong(0)] * 3)
    if os.getppid() != parent:
        sys.exit(1)


def _write(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    os._exit(main())  # everything is closed and flushed; taking the interpreter apart would keep the agent waiting
