"""Which tests a change asks for."""

from pathlib import Path

import pytest
from changed import asked_for

TESTS = {
    Path("tests/test_svd.py"): "from oracles import tail\nfrom lowrank_utils import truncated_svd",
    Path("tests/test_leading.py"): "from lowrank_utils import svd, truncated_svd",
    Path("tests/test_exercises_ch2.py"): "from lowrank_utils.exercises import chapter2",
    Path("tests/test_book.py"): "import ast",
}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("lowrank_utils/svd.py", ["leading", "svd"]),
        ("lowrank_utils/exercises/chapter2.py", ["exercises_ch2"]),
        ("tests/oracles.py", ["svd"]),
        ("tests/test_svd.py", ["svd"]),
        ("tests/test_gone.py", []),
        ("book/02_svd_approximation.ipynb", ["book"]),
        ("README.md", []),
    ],
)
def test_asked_for(path, names):
    assert asked_for(Path(path), TESTS) == {Path(f"tests/test_{name}.py") for name in names}
