"""Functions that an assignment does not allow, in a student's answers: a remark for the teacher, no mark.

`FORBIDDEN` of an assignment's hidden.py has the names, and for each the answer cells that may use it all the
same. A name is found as it is written: whoever hides it, hides it. A student's own cells are not looked at:
to compare there is a good idea.
"""

import ast
import re
from contextlib import suppress

import nbformat

from assignments.checks import hidden
from assignments.rebuild import answer_cells

HEADING = re.compile(r"^## (\d+)\. ", re.M)
Forbidden = dict[str, set[str]]


def nodes(source: str) -> list[ast.AST]:
    """All that is in the code; nothing if it is no Python."""
    with suppress(SyntaxError, ValueError, RecursionError):
        return list(ast.walk(ast.parse(source)))
    return []


def defined(source: str) -> set[str]:
    """Functions, classes and variables that the code makes."""
    found = nodes(source)
    made = {n.name for n in found if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return made | {n.id for n in found if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def used(source: str, own: set[str]) -> set[str]:
    """Names that the code imports, takes from something, or reads, but for those in `own`."""
    found: set[str] = set()
    for node in nodes(source):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            ours = isinstance(node.value, ast.Name) and node.value.id == "self"
            found |= set() if ours else {node.attr}
        elif isinstance(node, ast.Name) and node.id not in own:
            found.add(node.id)
    return found


def remarks(name: str, notebook: nbformat.NotebookNode) -> list[str]:
    """A sentence for each forbidden name in each answer."""
    rules: Forbidden = hidden(name).FORBIDDEN
    answers = answer_cells(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    own = set().union(*map(defined, code))
    out, number = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            number = (HEADING.findall(cell.source) or [number])[-1]
        elif cell.id in answers:
            for found in sorted(used(cell.source, own) & rules.keys()):
                if cell.id not in rules[found]:
                    out.append(f"'{cell.id}' uses {found}, which question {number} does not allow.")
    return out
