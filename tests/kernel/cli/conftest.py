"""The command line, run in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from remora import cli


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return what runs a command line in this process, and gives its exit code, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(list(words), prog_name="remora")
        return left.value.code, *capsys.readouterr()  # type: ignore[return-value]  # always a number here

    return run
