"""Which exercises a reader has solved: a small file beside the notebook, and nothing else."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import tempfile
from pathlib import Path

NAME = "lowrank-progress.json"
_solved: set[str] = set()  # in this session
_keeping = False  # from the first call of progress on


def progress() -> None:
    """Print which exercises you have solved, and keep the list in ``lowrank-progress.json`` from now on.

    The file lies in the folder of the notebook and outlives the kernel. It holds the numbers of the exercises
    that `check` called right, and nothing is sent anywhere. Delete the file to start again.
    """
    global _keeping
    _keeping = True
    done, word = _keep()
    for chapter, numbers in _exercises().items():
        right = [number for number in numbers if number in done]
        line = f"chapter {chapter}: {len(right)} of {len(numbers)} solved"
        print(line + (f" ({', '.join(right)})" if right else ""))
    if word:
        print(word)


def solved(exercise: str) -> None:
    """Note that an exercise was solved: in this session, and in the file if `progress` was asked for."""
    _solved.add(exercise)
    if _keeping and (word := _keep()[1]):
        print(word)


def _keep() -> tuple[set[str], str]:
    """All that was solved, now and before, and a word if it cannot be kept.

    The file is read again each time and replaced as a whole, so that notebooks of one folder can share it.
    """
    path = Path.cwd() / NAME
    known, word = _read(path)
    done = known | _solved
    if done != known and not word:
        try:
            _replace(path, json.dumps({"solved": sorted(done, key=_order)}))
        except OSError as error:
            word = f"Your progress lasts until the kernel stops: {NAME} cannot be written ({error.strerror})."
    return done, word


def _replace(path: Path, text: str) -> None:
    """Replace a file as a whole: whoever reads it sees the old text or the new one."""
    new, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(new, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _read(path: Path) -> tuple[set[str], str]:
    """What a progress file says, and a word if it says nothing that can be read: then it is left alone."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["solved"]
        return {number for number in known if isinstance(number, str)}, ""
    except FileNotFoundError:
        return set(), ""
    except (OSError, ValueError, KeyError, TypeError):
        return set(), f"{NAME} cannot be read and is left as it is: delete it to keep your progress again."


def _order(number: str) -> tuple[int, ...]:
    """Order of the numbers of exercises: 2.9 comes before 2.10."""
    return tuple(int(part) for part in number.split(".") if part.isdecimal())


def _exercises() -> dict[int, list[str]]:
    """{chapter: numbers of its exercises}, from the judges."""
    found = {}
    for module in pkgutil.iter_modules(importlib.import_module("lowrank_utils.exercises").__path__):
        if module.name.startswith("chapter"):
            judges = importlib.import_module(f"lowrank_utils.exercises.{module.name}").JUDGES
            found[int(module.name.removeprefix("chapter"))] = sorted(judges, key=_order)
    return dict(sorted(found.items()))
