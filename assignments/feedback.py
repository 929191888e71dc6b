"""What the student reads, as Markdown and as a page of HTML: points, the case that failed, what is next."""

from collections.abc import Callable, Iterator
from typing import Any

from assignments.final import Row
from assignments.hints import hints
from assignments.texts import markdown, markup, plain

STYLE = """body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:1rem/1.5 system-ui,sans-serif;
color:#1b1b1b;background:#fff}
code{background:#f0f0f0;padding:0 .2em;overflow-wrap:anywhere}table{border-collapse:collapse}
th,td{border:1px solid #767676;padding:.2rem .6rem;text-align:left}td.n{text-align:right}
li{margin:.3rem 0}.next{border-left:.3rem solid #0b5fa5;padding-left:.8rem}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}code{background:#303030}}
@media(max-width:30rem){body{margin:1rem auto}}"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head><body><main>
{body}
</main></body></html>
"""


def page(title: str, body: str) -> str:
    """A page of HTML that needs nothing else and runs nothing."""
    return PAGE.format(title=markup(title), style=STYLE.replace("\n", ""), body=body)


def shown(points: float | None) -> str:
    """Points, or that there are none yet."""
    return "not marked yet" if points is None else f"{points:g}"


def misses(question: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """For each mark that was missed its sentence, and lines on the first case that failed."""
    for miss in question["missed"]:
        lines = []
        if miss["said"]:
            lines.append(f"your code: {miss['said']}")
        if case := miss["case"]:
            lines += [f"call: {case['call']}", f"came: {case['came']}", f"wanted: {case['wanted']}"]
        yield f"{miss['points']:g} missed: {miss['sentence']}", lines


def question_text(
    name: str, question: str, part: dict[str, Any]
) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """(marks missed, what to do next) of one question."""
    found = list(misses(part))
    if part.get("comment"):
        found.append((f"The tutor says: \x02{part['comment']}\x03", []))
    if not found:
        found = [("To be marked by hand." if part["points"] is None else "All there.", [])]
    return found, hints(name).for_question(question, part["missed"])


def as_markdown(name: str, row: Row) -> str:
    """The file feedback/STUDENT.md."""
    total = f"{shown(row['points'])} of {row['out_of']:g} points"
    lines = [f"# {name}: {total}", ""]
    for question, part in row["questions"].items():
        found, say = question_text(name, question, part)
        lines += [f"## {question}: {shown(part['points'])} of {part['out_of']:g}", ""]
        for sentence, more in found:
            lines += [f"- {markdown(sentence)}", *(f"    - {markdown(line)}" for line in more)]
        lines += ["", *(f"**Next:** {markdown(text)}\n" for text in say)]
    for title, entries in sections(row):
        lines += [f"## {title}", "", *(f"- {markdown(text)}" for text in entries), ""]
    return "\n".join(lines)


def sections(row: Row) -> Iterator[tuple[str, list[str]]]:
    """What does not belong to one question."""
    if row["penalty"]:
        yield "Handed in late", [f"{row['penalty']:g} of {row['raw']:g} points are lost."]
    if row["leaderboard"]:
        yield "Leaderboard", [f"{k}: {v:g}" for k, v in row["leaderboard"].items()]
    if row["remarks"]:
        yield "Remarks", row["remarks"]


def bullets(entries: list[str]) -> str:
    """A list in HTML."""
    return "<ul>" + "".join(f"<li>{entry}</li>" for entry in entries) + "</ul>" if entries else ""


def as_html(name: str, row: Row) -> str:
    """The file feedback/STUDENT.html."""
    title = f"{name}: {shown(row['points'])} of {row['out_of']:g} points"
    rows = "".join(
        f'<tr><th scope="row">{markup(question)}</th><td class="n">{shown(part["points"])}</td>'
        f'<td class="n">{part["out_of"]:g}</td></tr>'
        for question, part in row["questions"].items()
    )
    head = '<tr><th scope="col">Question</th><th scope="col">Points</th><th scope="col">Out of</th></tr>'
    body = [f"<h1>{markup(title)}</h1>", f"<table><caption>Points by question</caption>{head}{rows}</table>"]
    for question, part in row["questions"].items():
        found, say = question_text(name, question, part)
        body.append(f"<h2>{markup(question)}: {shown(part['points'])} of {part['out_of']:g}</h2>")
        body.append(
            bullets([markup(sentence) + bullets([markup(m) for m in more]) for sentence, more in found])
        )
        body += [f'<p class="next"><strong>Next:</strong> {markup(text)}</p>' for text in say]
    for heading, entries in sections(row):
        body.append(f"<h2>{heading}</h2>{bullets([markup(text) for text in entries])}")
    return page(title, "\n".join(body))


def as_text(name: str, question: str, part: dict[str, Any]) -> str:
    """One question for Gradescope, as plain text."""
    found, say = question_text(name, question, part)
    lines: list[str] = []
    for sentence, more in found:
        lines += [plain(sentence), *(f"    {plain(line)}" for line in more)]
    return "\n".join([*lines, *(f"Next: {plain(text)}" for text in say)])


Renderer = Callable[[str, Row], str]
RENDERERS: dict[str, Renderer] = {".md": as_markdown, ".html": as_html}
