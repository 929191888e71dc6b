"""A chart of decisions: questions in a column, and where each of them may lead out."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from lowrank_utils import _checks
from lowrank_utils.plotting.style import COLOURS
from lowrank_utils.plotting.style import axes as own_axes

_STEP = 1.0
_HEIGHT = 0.62
_ARROW = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.2, "shrinkA": 0, "shrinkB": 0}


def decision_chart(questions: Sequence[tuple[str, str, str]], end: str, *, ax: Axes | None = None) -> Axes:
    """Questions from top to bottom; one answer leads to the right, where you stop, the other one goes on.

    Args:
        questions: (question, the answer that leaves, what to do then), such as ("Is it hot?", "no", "Wait").
        end: What to do when no question led out.
        ax: Where to draw; None makes a figure.

    Raises:
        ValueError: If an answer is neither "yes" nor "no".
    """
    other = {"yes": "no", "no": "yes"}
    for i, (_, leaves, _) in enumerate(questions):
        _checks.choice(leaves, f"questions[{i}][1]", other)
    ax = own_axes(ax)
    for i, (question, leaves, instead) in enumerate(questions):
        y = -i * _STEP
        _box(ax, 0.0, 0.56, y, question, "#ffffff", COLOURS[0])
        _box(ax, 0.68, 1.0, y, instead, "#fdf0e6", COLOURS[1])
        ax.annotate("", (0.68, y), (0.56, y), arrowprops=_ARROW)
        ax.text(0.62, y + 0.06, leaves, ha="center", va="bottom", fontsize=9)
        bottom = y - _HEIGHT / 2
        ax.annotate("", (0.28, y - _STEP + _HEIGHT / 2), (0.28, bottom), arrowprops=_ARROW)
        ax.text(0.3, bottom - (_STEP - _HEIGHT) / 2, other[leaves], ha="left", va="center", fontsize=9)
    last = -len(questions) * _STEP
    _box(ax, 0.0, 0.56, last, end, "#e5f5ef", COLOURS[2])
    ax.set(xlim=(-0.01, 1.01), ylim=(last - 0.45, 0.45))
    ax.axis("off")
    return ax


def _box(ax: Axes, left: float, right: float, y: float, text: str, face: str, edge: str) -> None:
    corners_x = [left, right, right, left]
    corners_y = [y - _HEIGHT / 2, y - _HEIGHT / 2, y + _HEIGHT / 2, y + _HEIGHT / 2]
    ax.fill(corners_x, corners_y, facecolor=face, edgecolor=edge, lw=1.4)
    ax.text((left + right) / 2, y, text, ha="center", va="center", fontsize=9)
