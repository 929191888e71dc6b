"""The nightly comparison sees one digit, and no more than it should."""

import headless
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

BOOK = headless.reader.Book(headless.ROOT)


@pytest.mark.parametrize(
    ("stored", "tags", "differs"), [("3", [], 0), ("4", [], 1), ("4", ["nbval-ignore-output"], 0)]
)
def test_a_digit_is_seen(tmp_path, stored, tags, differs):
    outputs = [new_output("stream", name="stdout", text="2\n")]
    value = [new_output("execute_result", {"text/plain": stored}, execution_count=2)]
    cells = [
        new_markdown_cell("# Cut"),
        new_code_cell("print(2)", outputs=outputs, execution_count=1),
        new_code_cell("1 + 2", outputs=value, execution_count=2, metadata={"tags": tags}),
    ]
    path = tmp_path / "09_cut.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    wrong, memory, _ = headless.differences(path, BOOK)
    assert len(wrong) == differs and 0 < memory < headless.budgets.MEMORY_GB
