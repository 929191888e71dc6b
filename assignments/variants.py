"""A cohort's own names for the functions that students write, so that last year's answers do not run unread.

`NAMES` of an assignment's hidden.py has two more names for each function, and the seed chooses: 0, 3, .. the
names in the teacher's notebook, 1, 4, .. the first of the two, 2, 5, .. the second. Whoever renames a
published answer gets its marks all the same; whoever does not is noticed by name.
"""

import ast
import io
import re
import tokenize
from contextlib import suppress
from importlib import import_module

Names = dict[str, str]


def table(assignment: str) -> dict[str, tuple[str, str]]:
    """Teacher's name -> the two others."""
    found: dict[str, tuple[str, str]] = import_module(f"assignments.{assignment}.hidden").NAMES
    return found


def names(assignment: str, seed: int) -> Names:
    """Teacher's name -> the cohort's; empty for the teacher's own."""
    choice = seed % 3
    return {name: other[choice - 1] for name, other in table(assignment).items()} if choice else {}


def in_call(text: str, names: Names) -> str:
    """An expression, or a sentence in which a name stands before a bracket, with the cohort's names."""
    if not names:
        return text
    return re.sub(rf"(?<![\w.])({'|'.join(names)})(?=\()", lambda match: names[match[1]], text)


def in_code(source: str, names: Names) -> str:
    """A code cell with the cohort's names; attributes such as `net.parameters` stay."""
    lines, before = source.splitlines(keepends=True), ""
    changes = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        new = token.string
        if token.type == tokenize.NAME and before != ".":
            new = names.get(new, new)
        elif token.type == tokenize.STRING and new[0] in "fF":  # one token, before Python 3.12
            new = in_call(new, names)
        if new != token.string:
            changes.append((token.start, len(token.string), new))
        before = token.string
    for (row, at), length, new in reversed(changes):
        lines[row - 1] = lines[row - 1][:at] + new + lines[row - 1][at + length :]
    return "".join(lines)


def in_text(source: str, names: Names) -> str:
    """A cell of text: what stands in code quotes."""
    if not names:
        return source
    inside = re.compile(rf"(?<![\w.])({'|'.join(names)})(?!\w)")
    return re.sub(r"`[^`\n]+`", lambda code: inside.sub(lambda match: names[match[1]], code[0]), source)


def borrowed(assignment: str, seed: int, answers: list[str]) -> list[str]:
    """Functions that these answers define and that another cohort was asked for."""
    ours = set(names(assignment, seed).values() or table(assignment))
    known = {name for old, new in table(assignment).items() for name in (old, *new)} - ours
    found = set()
    for answer in answers:
        with suppress(SyntaxError, ValueError, RecursionError):
            found |= {node.name for node in ast.parse(answer).body if isinstance(node, ast.FunctionDef)}
    return sorted(found & known)
