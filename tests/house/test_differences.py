"""What is left out on another machine is there at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from journeys import differences

_JOURNEYS = Path(differences.__file__).parent


@pytest.mark.parametrize("name", differences.DIFFERENT)
def test_each_names_a_test(name: str) -> None:
    """A file, or a function in it: one that was renamed would run where it must not."""
    file, _, test = name.partition("::")
    assert re.search(rf"^(?:async )?def {re.escape(test or 'test_')}", (_JOURNEYS / file).read_text(), re.MULTILINE)
