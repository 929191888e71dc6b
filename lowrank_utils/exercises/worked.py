"""Hints and worked solutions, taken from the chapters: shown when asked for, and not before."""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import sys
from collections.abc import Container
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from lowrank_utils import _checks

BOOK = Path(__file__).parents[2] / "book" / "_ext"
_given: dict[str, int] = {}  # hints that were shown
_offered: set[str] = set()  # solutions whose code stands in a cell of the reader's


def hint(exercise: str) -> None:
    """Show the next hint of an exercise, a step of the way to its solution.

    Each call shows one more, and after the last one all of them again.

    Args:
        exercise: Number as in the chapter, ``"2.1"``.

    Raises:
        ValueError: If there is no such exercise.
    """
    hints = _find(exercise)["hints"]
    if not hints:
        print(f'{exercise} has no hint. solution("{exercise}") shows all of it.')
        return
    step = _given[exercise] = min(_given.get(exercise, 0) + 1, len(hints))
    rest = "" if step == len(hints) else f" Run it again for hint {step + 1} of {len(hints)}."
    told = [f"**Hint {i} of {len(hints)}.** {text}" for i, text in enumerate(hints[:step], 1)]
    _show_text("\n\n".join(told) + rest)


def solution(exercise: str) -> None:
    """Show the worked solution of an exercise: text, code and outputs.

    In a notebook its code is put into a new cell below, ready to run and to change. Where it uses names that
    the chapter has not made yet, a sentence says so.

    Args:
        exercise: Number as in the chapter, ``"2.1"``.

    Raises:
        ValueError: If there is no such exercise.
    """
    parts = _find(exercise)["solution"]
    for part in parts:
        if "code" in part:
            _show_text(f"```python\n{part['code']}\n```")
            for output in part["outputs"]:
                _show_output(output)
        else:
            _show_text(part["markdown"])
    shell = _shell()
    if shell is not None and exercise not in _offered:
        _offered.add(exercise)
        code = "\n\n".join(part["code"] for part in parts if "code" in part)
        if missing := _missing(code, shell.user_ns):
            named = ", ".join(f"`{name}`" for name in missing[:3]) + (" and more" if missing[3:] else "")
            _show_text(f"Run the cells above first: this code uses {named}, made there.")
        shell.set_next_input(f"# The solution of {exercise}\n{code}")


def _missing(code: str, known: Container[str]) -> list[str]:
    """Names that code uses and nobody has made: neither Python, nor the code itself, nor ``known``."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)} | set(dir(builtins))
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    made |= {alias.asname or alias.name.partition(".")[0] for node in imports for alias in node.names}
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    used = dict.fromkeys(node.id for node in names if node.id not in made)
    return [name for name in used if name not in known]


def _find(exercise: str) -> dict[str, Any]:
    """What the chapter holds about an exercise."""
    chapter, dot, number = exercise.partition(".") if isinstance(exercise, str) else ("", "", "")
    if not (dot and chapter.isdecimal() and number.isdecimal()):
        _checks.value_error("exercise", exercise, "a string such as '2.1'")
    known = _all(chapter)
    if exercise not in known:
        _checks.value_error("exercise", exercise, "one of " + ", ".join(known or ["a chapter that exists"]))
    found: dict[str, Any] = known[exercise]
    return found


@cache
def _all(chapter: str) -> dict[str, Any]:
    """{number: hints and solution}: an installed package carries them, a clone reads its chapters."""
    packed = files("lowrank_utils.exercises").joinpath("worked.json")
    if packed.is_file():
        everything = json.loads(packed.read_text(encoding="utf-8"))
        return {n: one for n, one in everything.items() if n.partition(".")[0] == str(int(chapter))}
    if not BOOK.is_dir():
        raise FileNotFoundError(
            "this copy of lowrank_utils was installed without the book, which holds the hints and solutions; "
            "install it from the book's repository"
        )
    sys.path.append(str(BOOK))
    try:
        reader = importlib.import_module("reader_notebooks")
        found: dict[str, Any] = reader.worked(reader.Book(BOOK.parents[1]), chapter)
        return found
    finally:
        sys.path.remove(str(BOOK))


def _shell() -> Any:
    """The notebook's IPython, or None in a plain Python."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _display() -> Any:
    """IPython's display module in a notebook, or None."""
    return importlib.import_module("IPython.display") if _shell() is not None else None


def _show_text(text: str) -> None:
    """Markdown in a notebook, plain text elsewhere."""
    display = _display()
    print(text + "\n") if display is None else display.display(display.Markdown(text))


def _show_output(output: dict[str, str]) -> None:
    """An output as the chapter has it."""
    display = _display()
    if "text" in output:
        text = output["text"].rstrip("\n")
        _show_text(f"```text\n{text}\n```")
    elif display is None:
        print(output.get("alt") or "(a figure)")
    elif "png" in output:
        alt = output["alt"]
        picture = {"image/png": output["png"], "text/plain": alt}
        display.display(picture, raw=True, metadata={"image/png": {"alt": alt}})
    else:
        display.display(display.HTML(output["html"]))
