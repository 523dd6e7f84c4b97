"""Which machines a notebook's run may use: those that its cells name where everybody can read it."""

from __future__ import annotations

import nbformat
import pytest
from remora.headless.naming import machines


@pytest.mark.parametrize(
    ("cells", "given", "expected"),
    [
        (["%%remote on=box gpu=A100\nx", "%%remote --on other", "%%remote on=box"], {}, ("box", "other")),
        (["machine = 'box'", "# first\n%%time\n%%remote on={machine} timeout={limit}\nx"], {}, ("box",)),
        (["machine = 'box'", "%%remote on={ machine }"], {"machine": "other"}, ("other",)),
        (["%remote default on=box\nx = 1"], {}, ("box",)),
        (["machine = pick()", "%%remote on={machine}", "%%remote on={machine.name}", "%%remote on='open", "%%remote"], {}, ()),
        (["%%remote on=here", "'%%remote on=box'", "%%local\n%%remote on=box", "# %%remote on=box"], {}, ()),
    ],
)
def test_machines(cells: list[str], given: dict[str, str], expected: tuple[str, ...]) -> None:
    """A name as it is, or a parameter's; nothing is run to find out, and no text that merely looks like it counts."""
    made = [nbformat.v4.new_code_cell(code) for code in cells]
    made[0].metadata["tags"] = ["parameters"]
    assert machines(nbformat.v4.new_notebook(cells=made), given) == expected


def test_the_metadata_name_one() -> None:
    """A default of the notebook's metadata counts first."""
    about = {"remora": {"default": {"on": "box"}}}
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%%remote on=other")], metadata=about)
    assert machines(made, {}) == ("box", "other")
