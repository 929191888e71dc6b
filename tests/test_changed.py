"""Which tests a change asks for."""

from pathlib import Path

import pytest
from changed import asked_for

TESTS = {
    Path("tests/factors/test_svd.py"): "from oracles import tail\nfrom lowrank_utils import truncated_svd",
    Path("tests/factors/test_leading.py"): "from lowrank_utils.factors import svd",
    Path("tests/exercises/test_ch2.py"): "from lowrank_utils.exercises import chapter2",
    Path("tests/test_book.py"): "import ast",
    Path("tests/test_checks.py"): "import pytest",
    Path("tests/test_plotting.py"): "from lowrank_utils import plotting",
}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("lowrank_utils/factors/svd.py", ["factors/test_leading", "factors/test_svd"]),
        ("lowrank_utils/exercises/chapter2.py", ["exercises/test_ch2"]),
        ("lowrank_utils/exercises/chapter3.py", ["exercises/test_ch2"]),
        ("tests/answers/chapter3.py", ["exercises/test_ch2"]),
        ("lowrank_utils/factors/new.py", ["factors/test_leading", "factors/test_svd"]),
        ("lowrank_utils/plotting/style.py", ["test_plotting"]),
        ("lowrank_utils/_checks/words.py", ["test_checks"]),
        ("tests/oracles.py", ["factors/test_svd"]),
        ("tests/factors/test_svd.py", ["factors/test_svd"]),
        ("tests/test_gone.py", []),
        ("book/02_svd_approximation.ipynb", ["test_book"]),
        ("README.md", []),
    ],
)
def test_asked_for(path, names):
    assert asked_for(Path(path), TESTS) == {Path(f"tests/{name}.py") for name in names}
