"""A class: everybody marked, several at a time; whatever one submission does stays in that student's row."""

import contextlib
import hashlib
import signal
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
from tqdm import tqdm

from assignments import feedback, manual, overview, release, roster
from assignments.collect import HandIn, collect
from assignments.files import BadTable, safe_name, write
from assignments.final import Row, final
from assignments.gradebook import ClassBook
from assignments.mark import Marks, die_with_parent, failed, safely
from assignments.report import marks_csv
from assignments.results import Results
from assignments.texts import encodable, plain, quoted

DECIDE = (
    "cases",
    "checks",
    "child",
    "forbidden",
    "isolation",
    "mark",
    "others",
    "rebuild",
    "sandbox",
    "texts",
    "variants",
)  # modules that marks hang on


class Class:
    """One assignment of a course in the folder `course`, handed in by a class."""

    def __init__(self, name: str, seed: int, course: Path):
        self.name, self.seed, self.course = name, seed, course
        self.folder = course / name
        self.book = ClassBook(course / "nbgrader", name, seed)
        self.worth = self.book.worth()
        self.roster = roster.read_roster(course)
        self.deadlines = roster.read_deadlines(course, name)
        self.overrides = roster.read_overrides(self.folder, self.worth | {"penalty": 0.0})
        self.manual = roster.read_manual(self.folder, self.worth)
        self.results = Results(self.folder / "results")
        self.book.due(self.deadlines.get(""))
        self.rows: dict[str, Row] = {}

    def grade(
        self, submissions: Path, *, jobs: int = 2, only: Iterable[str] = (), again: bool = False
    ) -> list[Row]:
        """Mark what is new or changed in `submissions`; with `only`, nobody else's; with `again`, everything.

        Raises: BadTable if there is nothing to mark: what is there already stays.
        """
        handed_in, skipped = collect(submissions, self.name, nbformat.from_dict(self.book.release))
        gone = roster.withdrawn(self.roster)
        class_ = {one.student: one for one in handed_in if one.student not in gone}
        for sentence in skipped:
            say(sentence)
        if not class_:
            raise BadTable(
                f"submissions={submissions} holds nothing to mark: no folder and no notebook of a student"
            )
        if unknown := sorted(set(only) - set(class_)):
            raise BadTable(f"only={', '.join(unknown)} handed in nothing")
        code = code_digest(self.name, self.seed)
        digests = {who: f"{one.digest} {code}" for who, one in class_.items()}
        todo: dict[str, HandIn] = {}
        for who, one in class_.items():
            kept, remark = self.results.read(who, digests[who])
            if remark:
                one.remarks.append(remark)
                say(f"{quoted(who)}: {remark}")
            if (kept is None or again) and (not only or who in only):
                todo[who] = one
            elif kept is not None:
                self.settle(one, kept)
        if todo and len(todo) < len(class_):
            say(f"{len(class_) - len(todo)} of {len(class_)} are done already")
        self.write_table()
        with interruptible(
            lambda: f"{len(self.rows)} of {len(class_)} are done; the same command goes on from there"
        ):
            try:
                for marks in tqdm(
                    self._pool(todo, jobs), total=len(class_), initial=len(class_) - len(todo),
                    desc=self.name, unit="student",
                ):  # fmt: skip
                    who = marks["student"]
                    self.settle(class_[who], marks, digests[who])
                    self.write_table()
            finally:
                manual.write(self)  # after a stopped run too: marks.csv asks for it
        if not only:
            self.forget(list(class_))
        write(self.folder / "class.html", overview.page(self.name, list(self.rows.values()), self.worth))
        return [self.rows[who] for who in sorted(self.rows)]

    def settle(self, one: HandIn, marks: Marks, digest: str = "") -> None:
        """All that is done with one student's marks; a fault here is a remark in that student's row."""
        try:
            notebook = marks.pop("notebook", None)
            if digest and not marks.get("failed"):
                self.results.keep(one.student, digest, marks)
                if notebook:
                    self.book.keep(one.student, notebook)
            self.rows[one.student] = self._finish(one, marks)
        except Exception as error:
            reason = f"{type(error).__name__}: {quoted(error)}"
            self.rows[one.student] = self._row(one, failed(one.student, reason), {})

    def _row(self, one: HandIn, marks: Marks, entered: dict[str, float]) -> Row:
        return final(
            marks | {"remarks": one.remarks + marks["remarks"]},
            worth=self.worth, manual=self.manual, entered=entered, overrides=self.overrides,
            deadlines=self.deadlines, when=one.when,
        )  # fmt: skip

    def _finish(self, one: HandIn, marks: Marks) -> Row:
        row = self._row(one, marks, self.book.by_hand(one.student))
        row["texts"] = marks["texts"]
        own, due = self.deadlines.get(one.student), self.deadlines.get("")
        extension = own.due - due.due if own and due else None
        self.book.record(row, self.roster.get(one.student, {}), one.when, extension)
        for ending, render in feedback.RENDERERS.items():
            path = self.folder / "feedback" / f"{safe_name(one.student)}{ending}"
            if row["failed"]:
                path.unlink(missing_ok=True)
            else:
                write(path, render(self.name, row))
        return row

    def write_table(self) -> None:
        """marks.csv with everybody who is done; whoever is on the roster and handed in nothing, too."""
        gone = roster.withdrawn(self.roster)
        rows = dict(self.rows)
        for who in set(self.roster) - set(rows) - gone:
            marks = failed(who, "")
            rows[who] = self._row(
                HandIn(who, remarks=["Nothing is marked: nothing was handed in, or not yet."]), marks, {}
            )
        if rows:
            write(self.folder / "marks.csv", marks_csv([rows[who] for who in sorted(rows)], self.worth))

    def forget(self, students: list[str]) -> None:
        """Whoever is not in the class any more leaves the output."""
        self.results.forget(students)
        kept = {safe_name(who) for who in students}
        for path in (self.folder / "feedback").glob("*.*"):
            if path.suffix in feedback.RENDERERS and path.stem not in kept:
                path.unlink()
        for who in self.book.forget(students, roster.withdrawn(self.roster)):
            say(f"{quoted(who)} has left the class, and the output")

    def _pool(self, todo: dict[str, HandIn], jobs: int) -> Iterator[Marks]:
        """Marks as they are ready. If a worker is killed, each submission left gets a worker of its own."""
        for who, one in list(todo.items()):
            if one.failed:
                del todo[who]
                yield failed(who, one.failed)
        left = dict(todo)
        with contextlib.suppress(BrokenProcessPool):
            for marks in self._run(list(left.values()), jobs):
                del left[marks["student"]]
                yield marks
        for who, one in left.items():
            try:
                yield from self._run([one], 1)
            except BrokenProcessPool:
                yield failed(who, "the marker was killed while it ran this.")

    def _run(self, hand_ins: list[HandIn], jobs: int) -> Iterator[Marks]:
        if not hand_ins:
            return
        release = nbformat.from_dict(self.book.release)
        context = get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(hand_ins)), context, die_with_parent) as pool:
            waiting = [
                pool.submit(safely, self.name, self.seed, one.student, one.notebook, release)
                for one in hand_ins
            ]
            try:
                for future in as_completed(waiting):
                    yield future.result()
            except (KeyboardInterrupt, GeneratorExit):
                for process in active_children():
                    process.kill()
                raise


def code_digest(name: str, seed: int) -> str:
    """Changes when the assignment or the marker does: then an old mark is not used again."""
    own = [*(release.HERE / f"{module}.py" for module in DECIDE), *release.parts(name)]
    parts = [p.name.encode() + hashlib.sha256(p.read_bytes()).digest() for p in own]
    return hashlib.sha256(b"".join([str(seed).encode(), *parts])).hexdigest()


def say(sentence: str) -> None:
    """A line for the teacher, beside the progress bar."""
    tqdm.write(encodable(plain(sentence)), file=sys.stderr)


@contextlib.contextmanager
def interruptible(done: Any) -> Iterator[None]:
    """Ctrl-C, or the end of the session, says how far it came."""

    def stop(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        say(f"stopped: {done()}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
