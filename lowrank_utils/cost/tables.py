"""Text tables: columns as wide as their widest cell, and the line below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def aligned(lines: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Lines with the first ``words`` columns to the left, as words are, and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = "<" * words + ">" * (len(widths) - words)
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True))
        for line in lines
    ]


def listed(title: str, calls: Mapping[str, int]) -> list[str]:
    """One line that names operators and how often each was called; none where there are none."""
    return [f"{title}: " + ", ".join(f"{name} ({n})" for name, n in sorted(calls.items()))] if calls else []
