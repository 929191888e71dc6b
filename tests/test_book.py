"""The chapters, read as data: executed in order, short cells, described figures, nothing that varies.

Each check takes a notebook and returns complaints. The last part breaks a notebook in every way that a check
forbids, and shows that the check says so.
"""

import ast
import copy
import importlib
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
LONG_RUNS = ROOT / "lowrank_utils" / "lab" / "long_runs"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
VERBS = set(
    "Adapt Approximate Build Choose Compress Count Cut Decompose Factor Find Fold Learn Measure Pick Price "
    "Refit Replace Search See Shrink Split Start Train Truncate Tune Weigh".split()
)
PUBLIC_MODULES = ("lowrank_utils", "lowrank_utils.plotting", "lowrank_utils.exercises")
LINE = 68
PATH = re.compile(r"(?:^|[\s\"'(])/(?:home|root|tmp|usr|var|work|Users|opt)/")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")


def code(nb):
    """Pairs (position, cell) of the code cells that hold anything."""
    return [(i, c) for i, c in enumerate(nb.cells) if c.cell_type == "code" and c.source.strip()]


def tags(cell):
    """Tags of a cell."""
    return set(cell.metadata.get("tags", []))


def code_lines(cell):
    """Lines of a cell that are neither blank nor a comment."""
    return [x for x in cell.source.splitlines() if x.strip() and not x.strip().startswith("#")]


def markdown(nb):
    """All the prose as one text."""
    return "\n\n".join(c.source for c in nb.cells if c.cell_type == "markdown")


def executed_in_order(nb):
    """Every code cell was run once, from the top, in one kernel."""
    counts = [c.execution_count for _, c in code(nb)]
    said = [
        f"cell {i}: an output says run {o.execution_count}, the cell says {c.execution_count}"
        for i, c in code(nb)
        for o in c.outputs
        if o.output_type == "execute_result" and o.execution_count != c.execution_count
    ]
    right = list(range(1, len(counts) + 1))
    return said + ([] if counts == right else [f"cells were run as {counts}"])


def figures_have_alt_text(nb):
    """A figure is described for those who cannot see it."""
    return [
        f"cell {i}: no alt text of 30 characters or more"
        for i, c in code(nb)
        if any(m.startswith("image/") for o in c.outputs for m in o.get("data", {}))
        and len(c.metadata.get("mystnb", {}).get("image", {}).get("alt", "")) < 30
    ]


def cells_are_short(nb):
    """Median of at most 5 lines, none over 20."""
    lengths = {i: len(code_lines(c)) for i, c in code(nb)}
    long = [f"cell {i}: {n} lines, at most 20" for i, n in lengths.items() if n > 20]
    median = statistics.median(lengths.values()) if lengths else 0
    return long + ([f"median of {median} lines, at most 5"] if median > 5 else [])


def code_lines_fit(nb):
    """A line of code has at most 68 characters, which a laptop shows beside the table of contents."""
    return [
        f"cell {i}: a line of {len(line)} characters, at most {LINE}: {line}"
        for i, c in code(nb)
        for line in c.source.splitlines()
        if len(line) > LINE
    ]


def outputs_are_clean(nb):
    """No stderr, no unexpected error, no address, no path of a machine, no metadata."""
    wrong = []
    for i, cell in code(nb):
        if cell.source.rstrip().endswith(";"):
            wrong.append(f"cell {i}: ends in ';', which nbval does not reproduce")
        for output in cell.outputs:
            text = nbformat.from_dict(output).get("text", "") + "".join(
                str(v) for k, v in output.get("data", {}).items() if k.startswith("text/")
            )
            text += "".join(output.get("traceback", []))
            if output.get("name") == "stderr":
                wrong.append(f"cell {i}: stores stderr")
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                wrong.append(f"cell {i}: stores an error and is not tagged raises-exception")
            if ADDRESS.search(text):
                wrong.append(f"cell {i}: stores a memory address")
            if PATH.search(text):
                wrong.append(f"cell {i}: stores a path of a machine")
            if output.get("metadata"):
                wrong.append(f"cell {i}: an output has metadata")
    return wrong


def only_the_clock_is_ignored(nb):
    """Only a cell that shows wall-clock time may keep its output from comparison."""
    wrong = []
    for i, cell in code(nb):
        if "nbval-ignore-output" in tags(cell) and "wall-clock" not in tags(cell):
            wrong.append(f"cell {i}: nbval-ignore-output without wall-clock")
        if tags(cell) & {"nbval-skip", "skip-execution"} or "NBVAL_" in cell.source:
            wrong.append(f"cell {i}: escapes nbval")
    return wrong


def metadata_is_minimal(nb):
    """Nothing that changes when another person saves the notebook."""
    wrong = [f"metadata {k}" for k in nb.metadata if k not in {"kernelspec", "language_info"}]
    if nb.metadata.get("language_info", {"name": "python"}) != {"name": "python"}:
        wrong.append("language_info says more than the name")
    extra = {k for c in nb.cells for k in c.metadata} - {"mystnb", "tags"}
    return wrong + [f"cell metadata {k}" for k in sorted(extra)]


def ids_are_unique(nb):
    """Every cell has an id of its own."""
    ids = [c.get("id") for c in nb.cells]
    return [] if all(ids) and len(set(ids)) == len(ids) else ["cell ids are missing or repeated"]


def has_exercises(nb):
    """At least three exercises, each with one folded solution."""
    text = markdown(nb)
    found = {
        kind: re.findall(rf"\{{{kind}(?:-start)?\}}[^\n]*\n((?::[^\n]*\n)*)", text)
        for kind in ("exercise", "solution")
    }
    asked = re.findall(r":label:\s*(\S+)", "".join(found["exercise"]))
    solved = re.findall(r"\{solution(?:-start)?\}\s+(\S+)", text)
    wrong = [] if len(asked) >= 3 else [f"{len(asked)} exercises with a label, at least 3"]
    wrong += [f"{label}: no solution" for label in asked if label not in solved]
    wrong += ["a solution is not folded" for options in found["solution"] if "dropdown" not in options]
    return wrong


def title_begins_with_a_verb(nb):
    """The title says what the reader does."""
    first = nb.cells[0].source.split()
    good = first[:1] == ["#"] and first[1].rstrip(",") in VERBS
    wrong = [] if good else [f"title begins with {' '.join(first[:2])!r}; verbs are listed in VERBS"]
    if "$" in nb.cells[0].source.partition("\n")[0]:
        wrong.append("maths in the title: pages without maths list it, and cannot draw it")
    return wrong


def public_names(module):
    """What a module says is public; without __all__, what it defines itself."""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__]
    return getattr(module, "__all__", [n for n in own if not n.startswith("_")])


def imports_public_names(nb):
    """Only names that the package says are public."""
    wrong = []
    for i, cell in code(nb):
        source = "\n".join(x for x in cell.source.splitlines() if not x.lstrip().startswith(("%", "!")))
        try:
            tree = ast.parse(source)
        except SyntaxError:
            wrong.append(f"cell {i}: not Python")
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
                wrong += [f"cell {i}: imports {n}" for n in names if n.startswith("lowrank_utils.")]
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lowrank_utils"):
                if node.module not in PUBLIC_MODULES:
                    wrong.append(f"cell {i}: imports from {node.module}")
                    continue
                public = public_names(importlib.import_module(node.module))
                wrong += [
                    f"cell {i}: {a.name} is not public in {node.module}"
                    for a in node.names
                    if a.name not in public and f"{node.module}.{a.name}" not in PUBLIC_MODULES
                ]
    return wrong


FOR_ALL = [
    executed_in_order,
    figures_have_alt_text,
    outputs_are_clean,
    only_the_clock_is_ignored,
    metadata_is_minimal,
    ids_are_unique,
    imports_public_names,
]
FOR_CHAPTERS = [cells_are_short, code_lines_fit, has_exercises, title_begins_with_a_verb]


@pytest.mark.parametrize("check", FOR_ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path, check):
    assert check(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("check", FOR_CHAPTERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter(path, check):
    assert check(nbformat.read(path, as_version=4)) == []


def long_runs(nb):
    """Names of the stored runs of which a notebook shows a slice."""
    return [name for _, cell in code(nb) for name in re.findall(r'"(\d\d-[a-z][^"\s]*)"', cell.source)]


def test_stored_runs_are_those_that_chapters_show():
    """Each is shown once, by the chapter whose number begins its name."""
    shown = {p.stem: long_runs(nbformat.read(p, as_version=4)) for p in CHAPTERS}
    names = [name for found in shown.values() for name in found]
    assert sorted(names) == sorted(path.stem for path in LONG_RUNS.glob("*.json"))
    assert all(name[:3] == f"{stem[:2]}-" for stem, found in shown.items() for name in found)


def toc_files(toc):
    """Every file that a table of contents names."""
    if isinstance(toc, dict):
        own = [toc[k] for k in ("file", "root") if k in toc]
        return own + [f for v in toc.values() for f in toc_files(v)]
    return [f for v in toc for f in toc_files(v)] if isinstance(toc, list) else []


def test_toc_and_files_agree():
    listed = toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    present = [p for p in BOOK.iterdir() if p.suffix in {".md", ".ipynb"}]
    assert sorted(listed) == sorted(p.relative_to(ROOT).with_suffix("").as_posix() for p in present)


def cited(text):
    """Keys of the works that a text cites."""
    return {key.strip() for keys in re.findall(r"\{cite:[tp]\}`([^`]+)`", text) for key in keys.split(",")}


def test_every_work_is_cited_and_every_citation_is_a_work():
    prose = [markdown(nbformat.read(p, as_version=4)) for p in NOTEBOOKS]
    prose += [p.read_text(encoding="utf-8") for p in BOOK.glob("*.md")]
    works = re.findall(r"^@\w+\{([^,\s]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.M)
    assert cited("{cite:p}`a1, b2` and {cite:t}`c3`") == {"a1", "b2", "c3"}
    assert sorted(set.union(*map(cited, prose))) == sorted(works)


# A check that cannot fail checks nothing.


def good_notebook():
    """A notebook that passes every check."""
    exercises = "".join(
        f"```{{exercise}}\n:label: e-{i}\nAsk.\n```\n\n```{{solution}} e-{i}\n:class: dropdown\nSay.\n```\n"
        for i in range(3)
    )
    result = new_output("execute_result", {"text/plain": "0.12"}, execution_count=1)
    picture = new_output("display_data", {"image/png": "iVBORw0KGgo="})
    alt = {"mystnb": {"image": {"alt": "A line that falls from one to zero over ten ranks."}}}
    cells = [
        new_markdown_cell("# Cut a matrix\n\n" + exercises),
        new_code_cell("round(0.1234, 2)", execution_count=1, outputs=[result]),
        new_code_cell("draw = 1", execution_count=2, outputs=[picture], metadata=alt),
    ]
    return new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def add(source, *outputs, **metadata):
    """A mutation that appends one executed cell."""

    def mutate(nb):
        cell = new_code_cell(source, execution_count=3, outputs=list(outputs), metadata=metadata)
        nb.cells.append(cell)

    return mutate


def change(position, **values):
    """A mutation that changes attributes of one cell."""
    return lambda nb: nb.cells[position].update(values)


def stream(text, name="stdout"):
    """A printed text."""
    return new_output("stream", name=name, text=text)


BROKEN = [
    (executed_in_order, change(1, execution_count=None, outputs=[])),
    (executed_in_order, change(1, execution_count=7)),
    (executed_in_order, lambda nb: nb.cells.insert(1, nb.cells.pop(2))),
    (executed_in_order, lambda nb: nb.cells[1].outputs[0].update(execution_count=9)),
    (figures_have_alt_text, change(2, metadata=nbformat.from_dict({}))),
    (cells_are_short, add("\n".join(f"a{i} = {i}" for i in range(21)))),
    (cells_are_short, change(1, source="\n".join(f"a{i} = {i}" for i in range(12)))),
    (code_lines_fit, add("a = 1  " + "#" * 62)),
    (outputs_are_clean, add("draw;")),
    (outputs_are_clean, add("w", stream("UserWarning", "stderr"))),
    (outputs_are_clean, add("1 / 0", new_output("error", ename="E", evalue="", traceback=[]))),
    (outputs_are_clean, add("f", stream("<function f at 0x7f0012345678>"))),
    (outputs_are_clean, add("p", stream("saved to /tmp/x.pt"))),
    (only_the_clock_is_ignored, add("t()", tags=["nbval-ignore-output"])),
    (only_the_clock_is_ignored, add("t()", tags=["nbval-skip"])),
    (metadata_is_minimal, lambda nb: nb.metadata.update(widgets={})),
    (metadata_is_minimal, add("a", collapsed=True)),
    (ids_are_unique, lambda nb: nb.cells[1].update(id=nb.cells[2].id)),
    (has_exercises, change(0, source="# Cut a matrix")),
    (has_exercises, lambda nb: nb.cells[0].update(source=nb.cells[0].source.replace("} e-1", "} e-0"))),
    (has_exercises, lambda nb: nb.cells[0].update(source=nb.cells[0].source.replace("dropdown", "x"))),
    (title_begins_with_a_verb, change(0, source="# The matrix")),
    (title_begins_with_a_verb, change(0, source="# Cut to rank $r$")),
    (imports_public_names, add("from lowrank_utils.factors.svd import truncated_svd")),
    (imports_public_names, add("from lowrank_utils import _checks")),
    (imports_public_names, add("import lowrank_utils.factors.svd")),
]


def test_good_notebook_passes():
    assert [check(good_notebook()) for check in FOR_ALL + FOR_CHAPTERS] == [[]] * len(FOR_ALL + FOR_CHAPTERS)


@pytest.mark.parametrize(("check", "mutate"), BROKEN)
def test_check_can_fail(check, mutate):
    nb = copy.deepcopy(good_notebook())
    mutate(nb)
    assert check(nb)


def test_nbval_sees_one_digit(tmp_path):
    for name, stored in (("right", "0.12"), ("wrong", "0.13")):
        nb = new_notebook(cells=[new_code_cell("print(round(0.1234, 2))", execution_count=1)])
        nb.cells[0].outputs = [stream(stored + "\n")]
        nbformat.write(nb, tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-rA"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", "/dev/null"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 1, ran.stderr
    assert re.search(r"PASSED \S*right", ran.stdout), ran.stdout
    assert re.search(r"FAILED \S*wrong", ran.stdout), ran.stdout
