"""Pairs of submissions whose answers look alike, found by copydetect (winnowing, as in MOSS).

What it does not prove: these answers are short, there are few good ways to write them, the book shows some.
Reference: Schleimer, Wilkerson and Aiken (2003), Winnowing: local algorithms for document fingerprinting.
"""

import logging
import tempfile
from pathlib import Path

import nbformat

from assignments.files import table

NOTE = (
    "Alike is not copied: short answers to the same question often are. Read both before you ask anybody, "
    "and ask before you judge. Renamed variables are seen through, reordered or rewritten code is not."
)


def answers(notebook: Path) -> str:
    """The code of the answer cells."""
    cells = nbformat.read(notebook, as_version=4).cells
    ours = [c for c in cells if c.cell_type == "code" and c.metadata.get("nbgrader", {}).get("solution")]
    return "\n\n".join(c.source for c in ours)


def similar(
    notebooks: dict[str, Path], handed_out: Path, least: float
) -> list[tuple[str, str, float, float]]:
    """(student, student, share of the first, share of the second), the most alike first.

    Args:
        notebooks: student -> the notebook that was marked.
        handed_out: the student version; what everybody was given does not count.
        least: pairs of which neither share is at least this are left out.
    """
    from copydetect import CopyDetector

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "given").mkdir()
        (root / "theirs").mkdir()
        (root / "given" / "given.py").write_text(answers(handed_out))
        names = {}
        for i, (student, path) in enumerate(sorted(notebooks.items())):
            file = root / "theirs" / f"{i}.py"
            file.write_text(answers(path))
            names[str(file)] = student
        logging.disable(logging.WARNING)
        detector = CopyDetector(
            test_dirs=[str(root / "theirs")], boilerplate_dirs=[str(root / "given")], extensions=["py"],
            display_t=least, silent=True, autoopen=False,
        )  # fmt: skip
        detector.run()
        found = detector.get_copied_code_list()
    pairs = {}
    for first, second, one, two, *_ in found:
        a, b = (names[str(path)] for path in (one, two)) if str(one) in names else (names[str(first)], "")
        pairs[tuple(sorted((a, b)))] = (a, b, float(first), float(second))
    return sorted(pairs.values(), key=lambda pair: -max(pair[2:]))


def similar_csv(pairs: list[tuple[str, str, float, float]]) -> str:
    """The pairs as a table, with the note at its end."""
    rows = [[a, b, round(100 * x), round(100 * y)] for a, b, x, y in pairs]
    return table(
        ["student", "like", "percent_of_first", "percent_of_second"], [*rows, [NOTE, "", None, None]]
    )
