"""Cells: results, text, errors."""


def test_last_expression_is_displayed(guest):
    """The value of the last expression comes as execute_result, under the notebook's own number."""
    ended = guest.run("x = 20\nx + 22", execution_count=7)
    assert ended.result["ok"] and ended.plain() == "42"
    assert ended.outputs("execute_result")[0]["content"]["execution_count"] == 7
    assert ended.values == {"x": 20}
