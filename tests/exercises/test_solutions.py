"""Every solution that a chapter prints passes its judge; the statements that it needs are run, no others."""

import ast
import re
import symtable
from pathlib import Path

import nbformat
import pytest

from lowrank_utils.exercises import _judge, _verdict

BOOK = Path(__file__).parents[2] / "book"
EMPTY = re.compile(r"^answer = None\b", re.MULTILINE)


def statements(notebook):
    """Top-level statements of all code cells, in order; a line of IPython's own is left out."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lines = [re.sub(r"(?m)^\s*[%!].*$", "pass", source) for source in cells if not EMPTY.search(source)]
    return [statement for source in lines for statement in ast.parse(source).body]


def binds(statement):
    """Names that a statement binds at the top level."""
    table = symtable.symtable(ast.unparse(statement), "solution", "exec")
    return {
        symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    }


def reads(node):
    """Names that a statement or expression takes from the top level, in its functions too."""
    found, tables = set(), [symtable.symtable(ast.unparse(node), "solution", "exec")]
    top = tables[0]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        symbols = [symbol for symbol in table.get_symbols() if symbol.is_referenced()]
        found |= {symbol.get_name() for symbol in symbols if table is top or symbol.is_global()}
    return found


def slice_of(before, wanted):
    """The statements that the names in ``wanted`` need: for each name the last one that binds it."""
    kept = []
    for statement in reversed(before):
        if binds(statement) & wanted:
            kept.insert(0, statement)
            grown = {
                n.target.id
                for n in ast.walk(statement)
                if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)
            }  # x += 1 reads x
            wanted = (wanted | reads(statement)) - (binds(statement) - grown)
    return kept


def checked(notebook):
    """(exercise, expression of the answer, statements before it) of each call of check in a solution."""
    found, body = [], statements(notebook)
    for i, statement in enumerate(body):
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check":
            found.append((call.args[0].value, call.args[1], body[:i]))
    return found


def judged(answer, before, exercise):
    """The judge's hint for the expression, after the statements that it needs."""
    needed = slice_of(before, reads(answer))
    room = {}
    exec(compile(ast.Module(needed, []), "solution", "exec"), room)
    return _verdict(_judge(exercise), eval(compile(ast.Expression(answer), "answer", "eval"), room))


CHAPTERS = {path: nbformat.read(path, 4) for path in sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))}
SOLUTIONS = [solution for notebook in CHAPTERS.values() for solution in checked(notebook)]


@pytest.mark.parametrize(("exercise", "answer", "before"), SOLUTIONS, ids=[s[0] for s in SOLUTIONS])
def test_a_printed_solution_is_right(exercise, answer, before):
    assert judged(answer, before, exercise) is None


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_exercise_has_its_empty_answer_and_its_solution(path):
    """One cell to fill in, and a call of check or more in the solution, with stored outputs."""
    notebook, solved = CHAPTERS[path], [exercise for exercise, _, _ in checked(CHAPTERS[path])]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    asked = [
        re.search(r'check\("([^"]+)", answer\)', cell.source)[1] for cell in code if EMPTY.search(cell.source)
    ]
    printed = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    wanted = re.findall(r"^\*\*(\d+\.\d+)\.\*\*", "\n".join(c.source for c in notebook.cells), re.MULTILINE)
    assert asked == list(dict.fromkeys(solved)) == wanted and len(wanted) >= 3
    assert re.findall(r"^(\S+): right\.$", printed, re.MULTILINE) == solved
    assert re.findall(r"^(\S+): no answer yet\.$", printed, re.MULTILINE) == asked


def test_a_wrong_solution_is_noticed():
    cells = [
        "import math\nn = 70",
        "def near(k):\n    return n + k",
        'answer = near(1)\ncheck("1.1", answer)',
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    [(exercise, answer, before)] = checked(notebook)
    assert "off by one" in judged(answer, before, exercise)
