"""How the class did: a histogram, the share of points by question, one page without names."""

import statistics
from collections.abc import Sequence

from assignments.feedback import page as html_page
from assignments.final import Row

BARS, WIDTH, HEIGHT = 10, 560, 220


def bars(labels: list[str], heights: Sequence[float], shown: list[str], title: str, across: str) -> str:
    """A bar chart as an SVG with a title, which is what a screen reader says."""
    step, top = WIDTH / len(heights), max([*heights, 1e-9])
    parts = []
    for i, (label, height, text) in enumerate(zip(labels, heights, shown, strict=True)):
        tall, x = 150 * height / top, step * i
        middle = f'x="{x + step / 2:.1f}" text-anchor="middle" fill="currentColor" font-size="13"'
        parts.append(
            f'<rect x="{x + 3:.1f}" y="{170 - tall:.1f}" width="{step - 6:.1f}" height="{tall:.1f}" '
            'fill="#0b5fa5"/>'
        )
        parts.append(
            f'<text y="{165 - tall:.1f}" {middle}>{text}</text><text y="188" {middle}>{label}</text>'
        )
    middle = f'x="{WIDTH / 2}" text-anchor="middle" fill="currentColor" font-size="13"'
    axis = f'<text y="212" {middle}>{across}</text>'
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" style="max-width:100%"'
    return f'<svg role="img" aria-label="{title}" {size}>{"".join(parts)}{axis}</svg>'


def page(name: str, rows: list[Row], worth: dict[str, float]) -> str:
    """A page of HTML by itself."""
    most, scores = sum(worth.values()), [row["points"] for row in rows if row["points"] is not None]
    title = f"{name}: the class"
    left = len(rows) - len(scores)
    body = [f"<h1>{title}</h1>", f"<p>{len(scores)} marked{f', {left} not yet' if left else ''}.</p>"]
    if scores:
        counts = [0] * BARS
        for score in scores:
            counts[min(BARS - 1, int(BARS * score / most))] += 1
        labels = [f"{most * i / BARS:g}" for i in range(BARS)]
        middle = statistics.median(scores)
        said = f"Histogram of points: median {middle:g} of {most:g}, from {min(scores):g} to {max(scores):g}"
        body += [
            f"<h2>Points</h2><p>{said}.</p>",
            bars(labels, counts, [str(c) for c in counts], said, "points, from … on"),
        ]
        body.append("<h2>Questions</h2>" + questions(rows, worth))
    return html_page(title, "\n".join(body))


def questions(rows: list[Row], worth: dict[str, float]) -> str:
    """The mean share of the points of each question, as a chart and as a table."""
    shares, table = [], []
    for question, most in worth.items():
        got = [p for row in rows if (p := row["questions"][question]["points"]) is not None]
        share = sum(got) / (most * len(got)) if got else 0.0
        full = sum(p >= most for p in got)
        shares.append(share)
        table.append(
            f'<tr><th scope="row">{question}</th><td class="n">{share:.0%}</td>'
            f'<td class="n">{full} of {len(got)}</td></tr>'
        )
    low = min(zip(shares, worth, strict=True))
    said = f"Mean share of the points by question: lowest {low[0]:.0%}, {low[1]}"
    chart = bars(
        [str(i + 1) for i in range(len(shares))],
        shares,
        [f"{s:.0%}" for s in shares],
        said,
        "question, in the order below",
    )
    head = (
        '<tr><th scope="col">Question</th><th scope="col">Mean share</th><th scope="col">All points</th></tr>'
    )
    return f"<p>{said}.</p>{chart}<table><caption>Points by question</caption>{head}{''.join(table)}</table>"
