"""Marks for a class: several at a time, each kept as soon as it is there, so that a killed run goes on."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from assignments import release
from assignments.mark import Marks, safely, summary


def submissions(folder: Path) -> dict[str, Path]:
    """Student -> what they handed in: one folder each, or one notebook each, in `folder`."""
    found = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    folders = {p.name: p for p in found if p.is_dir()}
    files = {
        p.name if p.stem in folders else p.stem: p for p in found if p.is_file() and p.suffix == ".ipynb"
    }
    return dict(sorted((folders | files).items()))


def grade_class(name: str, seed: int, folder: Path, out: Path, *, jobs: int = 2) -> list[Marks]:
    """Mark every submission in `folder`, a file each in `out/results`; what is there is not done again."""
    results = out / "results"
    results.mkdir(parents=True, exist_ok=True)
    class_ = submissions(folder)
    digests = {who: _digest(name, seed, path) for who, path in class_.items()}
    done = {who: marks for who in class_ if (marks := _kept(results / f"{who}.json", digests[who]))}
    with tempfile.TemporaryDirectory() as work:
        release.assign(name, seed, Path(work))
        todo = {who: (name, seed, who, path, Path(work)) for who, path in class_.items() if who not in done}
        for marks in tqdm(_pool(todo, jobs), total=len(class_), initial=len(done), desc=name, unit="student"):
            who = marks["student"]
            done[who] = marks
            part = results / f"{who}.part"
            part.write_text(json.dumps(marks | {"digest": digests[who]}, indent=1))
            os.replace(part, results / f"{who}.json")
    return [done[who] for who in class_]


def _digest(name: str, seed: int, path: Path) -> str:
    """Changes when the submission, the assignment or the marker does: then an old mark is not reused."""
    own = [*sorted(release.HERE.glob("*.py")), *release.parts(name)]
    theirs = [path] if path.is_file() else sorted(p for p in path.rglob("*.ipynb") if p.is_file())
    parts = [p.name.encode() + hashlib.sha256(p.read_bytes()).digest() for p in own + theirs]
    return hashlib.sha256(b"".join([str(seed).encode(), *parts])).hexdigest()


def _kept(path: Path, digest: str) -> Marks | None:
    """Marks of an earlier run, if they are of the same file and were given."""
    try:
        marks: Marks = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return marks if marks.pop("digest", None) == digest and marks["questions"] else None


def _pool(todo: dict[str, tuple[Any, ...]], jobs: int) -> Iterator[Marks]:
    """Marks as they are ready. If a worker is killed, each submission left gets a worker of its own."""
    with contextlib.suppress(BrokenProcessPool):
        for marks in _run(list(todo.values()), jobs):
            del todo[marks["student"]]
            yield marks
    for who, task in todo.items():
        try:
            yield from _run([task], 1)
        except BrokenProcessPool:
            yield summary(
                who, {}, ["NOT MARKED, a teacher has to look: the marker was killed while it ran this."]
            )


def _run(tasks: list[tuple[Any, ...]], jobs: int) -> Iterator[Marks]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(safely, *task) for task in tasks]):
            yield future.result()
