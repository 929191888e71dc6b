"""Questions that a person marks: a page with the answers, without names, and the table for the points."""

from typing import TYPE_CHECKING

from assignments import feedback
from assignments.checks import hidden
from assignments.files import table
from assignments.files import write as write_file
from assignments.final import digest_of
from assignments.roster import MANUAL, read_manual
from assignments.texts import markup, quoted

if TYPE_CHECKING:
    from assignments.classroom import Class


def write(class_: "Class") -> None:
    """Add whoever is new to manual.csv; what a tutor entered stays. Nothing where no question needs it."""
    answers = {
        (who, question): text
        for who, row in sorted(class_.rows.items())
        for question, text in row.get("texts", {}).items()
    }
    known = read_manual(class_.folder, class_.worth)  # again: a tutor may have been at it meanwhile
    if not answers:
        return
    rows = []
    for (who, question), text in answers.items():
        answer, given = known.get((who, question), (digest_of(text), None))
        if given is None:
            answer = digest_of(text)
        rows.append([who, question, answer, given.points if given else None, given.reason if given else ""])
    gone = [
        [*key, answer, g.points, g.reason] for key, (answer, g) in known.items() if g and key not in answers
    ]
    write_file(class_.folder / "manual.csv", table(MANUAL, rows + gone))
    write_file(class_.folder / "manual.html", tutors_page(class_.name, answers))


def tutors_page(name: str, answers: dict[tuple[str, str], str]) -> str:
    """The rubric, then each answer under its digest, in the order of these: no names, no favourites."""
    body = [f"<h1>{name}: answers to mark by hand</h1>"]
    body.append("<p>Write the points into manual.csv, in the row with the same answer.</p>")
    for question in dict.fromkeys(question for _, question in answers):
        rubric = hidden(name).RUBRIC[question]
        body.append(f"<h2>{markup(question)}</h2>")
        body.append(feedback.bullets([f"{points:g}: {markup(text)}" for points, text in rubric]))
        texts = {digest_of(text): text for (_, asked), text in answers.items() if asked == question}
        for digest, text in sorted(texts.items()):
            lines = [markup(quoted(line)) for line in text.splitlines() if line.strip()]
            body.append(f"<h3>{digest}</h3>" + "".join(f"<p>{line}</p>" for line in lines))
    return feedback.page(f"{name}: answers to mark by hand", "\n".join(body))
