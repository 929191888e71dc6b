"""The table of `make bench`, for the terminal and as a page of the book."""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import version

from claims import Row
from grading import Attack

Cells = tuple[str, ...]
HEADS: list[Cells] = [
    ("claim", "ours", "peer", "ratio", "floor"),
    ("attack", "what happened", "marks of the others"),
]  # the two tables; a row belongs to the one with as many columns


def grouped(rows: list[Cells]) -> list[list[Cells]]:
    """The rows of each table, under its head."""
    return [[head, *(row for row in rows if len(row) == len(head))] for head in HEADS]


def table(rows: list[Row | Attack]) -> str:
    """Plain text, a line each."""
    out = []
    for cells in grouped([row.cells() for row in rows]):
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        out += ["\n".join(lines)] if len(cells) > 1 else []
    return "\n\n".join(out)


def merged(stored: str, new: list[Cells]) -> list[Cells]:
    """The rows of a stored page, those measured anew replaced; new ones at the end."""
    lines = [line for line in stored.splitlines() if line.startswith("| ")]
    old = [cells for line in lines if (cells := tuple(line.strip("| ").split(" | "))) not in HEADS]
    fresh = {cells[0].split(" (")[0]: cells for cells in new}
    kept = [fresh.pop(cells[0].split(" (")[0], cells) for cells in old]
    return [*kept, *fresh.values()]


def markdown(cells: list[Cells]) -> list[str]:
    """A table as the page shows it."""
    head, *rows = [f"| {' | '.join(line)} |" for line in cells]
    return [head, "|---" * len(cells[0]) + "|", *rows]


def dated(stored: str, chosen: list[str]) -> str:
    """When it was measured: all of it, or, with names of claims, these alone since the stored date."""
    today = datetime.date.today().isoformat()
    if not chosen:
        return f"Date: {today}."
    line = next(line for line in stored.splitlines() if line.startswith("Date: "))
    first, *since = line.rstrip(".").split("; ")
    kept = [part for part in since if part.split(" on ")[0] not in chosen]
    return "; ".join([first, *kept, *(f"{name} on {today}" for name in chosen)]) + "."


def page(rows: list[Cells], date: str) -> str:
    """The page of the book, with machine, versions and date."""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        names = {line.split(":")[1].strip() for line in info if line.startswith("model name")}
    peers = ("torch", "numpy", "scipy", "tensorly", "tensorly-torch", "opt-einsum")
    versions = ", ".join(f"{peer} {version(peer)}" for peer in peers)
    claims, attacks = grouped(rows)
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
            date,
            "",
            *markdown(claims),
            "",
            "Accuracies are means over 5 seeds on 1000 test samples (MNIST-5k) or 360 (digits), without any",
            "fine-tuning unless the row says so. *Uniform SVD* gives every layer, the head included, the",
            "same share of its weights. It fails because of the head alone: chapter 6 shows it with the",
            "head left dense.",
            "",
            "## Coursework under attack",
            "",
            "One class of assignment a1, marked in one run: eight students with the teacher's answers, and",
            "one for each line below, whose answer to question 4 (4 of 25 points), or whose file, does harm.",
            "What stands in code quotes is what the attacker's program said, and the feedback shows. A file",
            "that one of them wrote was on its own memory disk, and went with it.",
            "",
            *markdown(attacks),
            "",
        ]
    )
