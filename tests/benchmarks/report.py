"""The table of `make bench`, for the terminal and as a page of the book."""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import version

from claims import Row

HEAD = ("claim", "ours", "peer", "ratio", "floor")


def table(rows: list[Row]) -> str:
    """Plain text, a line each."""
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )


Cells = tuple[str, str, str, str, str]


def merged(stored: str, new: list[Cells]) -> list[Cells]:
    """The rows of a stored page, those measured anew replaced; new ones at the end."""
    table_lines = [line for line in stored.splitlines() if line.startswith("| ")][1:]
    old = [tuple(line.strip("| ").split(" | ")) for line in table_lines]
    fresh = {cells[0].split(" (")[0]: cells for cells in new}
    kept = [fresh.pop(cells[0].split(" (")[0], cells) for cells in old]
    return [*kept, *fresh.values()]  # type: ignore[list-item]


def page(rows: list[Cells]) -> str:
    """The page of the book, with machine, versions and date."""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        names = {line.split(":")[1].strip() for line in info if line.startswith("model name")}
    peers = ("torch", "numpy", "scipy", "tensorly", "tensorly-torch", "opt-einsum")
    versions = ", ".join(f"{peer} {version(peer)}" for peer in peers)
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "What the book claims about speed and about whole networks, measured by `make bench`: ours and",
            "its peer side by side in one run, on one thread, medians of interleaved rounds. Read the",
            "ratios; times depend on the machine. A floor is the least that the project promises.",
            "",
            f"Machine: {', '.join(sorted(names))}, {platform.system()}; "
            f"Python {platform.python_version()}, {versions}.",
            f"Date: {datetime.date.today().isoformat()}.",
            "",
            f"| {' | '.join(HEAD)} |",
            "|---" * len(HEAD) + "|",
            *lines,
            "",
            "Accuracies are means over 5 seeds on 1000 test samples (MNIST-5k) or 360 (digits), without any",
            "fine-tuning unless the row says so. *Uniform SVD* gives every layer, the head included, the",
            "same share of its weights. It fails because of the head alone: chapter 6 shows it with the",
            "head left dense.",
            "",
        ]
    )
