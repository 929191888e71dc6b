"""From one source, the same bytes each time: the student's notebook and the Gradescope zip."""

import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

from assignments.checks import hidden

HERE = Path(__file__).parent
ROOT = HERE.parent
NAMES = sorted(p.parent.name for p in HERE.glob("*/hidden.py"))
ANSWER = "# Answer: {} (keep this line)"  # finds a cell again when its metadata is lost
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"


# What of the book's pinned environment the student's code and the marker need.
NEEDED = {"ipykernel", "matplotlib", "mlxtend", "nbformat", "numpy", "scikit-learn", "scipy", "setuptools"}
NEEDED |= {"threadpoolctl", "torch", "tqdm", "wheel"}


def course(folder: Path, **settings: Any) -> NbGraderAPI:
    """nbgrader's API on a course of its own in `folder`, silent, with no exchange."""
    scripts = str(Path(sys.executable).parent)  # nbgrader calls `alembic`, which is beside our Python
    if scripts not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ["PATH"]
    config = Config({"CourseDirectory": {"root": str(folder), "course_id": "lowrank"}, **settings})
    config.Exchange.root = config.ExchangeList.root = str(folder / "exchange")
    config.ClearSolutions.code_stub = {"python": STUB}
    config.NbGraderAPI.log_level = "ERROR"
    return NbGraderAPI(config=config)


def source(name: str, seed: int) -> nbformat.NotebookNode:
    """The teacher's notebook of assignment `name`, its {{placeholders}} filled with the cohort's numbers."""
    text = (HERE / name / f"{name}.ipynb").read_text()
    for key, value in hidden(name).numbers(seed).items():
        text = text.replace("{{" + key + "}}", str(value))
    if left := re.findall(r"\{\{.*?\}\}", text):
        raise ValueError(f"{left[0]} in {name}.ipynb must be a key of numbers(seed) in its hidden.py")
    notebook = nbformat.reads(text, as_version=4)
    checks = hidden(name).CHECKS
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("grade") and meta.points != (worth := checks.points(meta.grade_id)):
            where = f"points={meta.points} of {meta.grade_id} in {name}.ipynb"
            raise ValueError(f"{where} must be {worth}: 1 for the visible tests, and those of its checks")
        if meta.get("solution"):
            cell.source = ANSWER.format(cell.metadata.nbgrader.grade_id) + "\n" + cell.source
    return notebook


def parts(name: str) -> list[Path]:
    """The files of one assignment, without what an editor leaves there (.ipynb_checkpoints, for one)."""
    return sorted(p for p in (HERE / name).glob("[!.]*.*") if p.is_file())


def assign(name: str, seed: int, folder: Path) -> nbformat.NotebookNode:
    """Let nbgrader make the student's version of `name` in the course `folder`, and return it."""
    teacher = folder / "source" / name / f"{name}.ipynb"
    teacher.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(source(name, seed), teacher)
    done = course(folder).generate_assignment(name)
    if not done["success"]:
        raise RuntimeError(f"nbgrader could not make {name}:\n{done.get('log')}\n{done.get('error')}")
    return nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)


def build(name: str, seed: int, out: Path, work: Path) -> tuple[Path, Path]:
    """Write `out/student/NAME.ipynb` and `out/NAME-autograder.zip`."""
    student, bundle = out / "student" / f"{name}.ipynb", out / f"{name}-autograder.zip"
    student.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(assign(name, seed, work), student)
    files = [*sorted(HERE.glob("*.py")), HERE / "requirements.txt", *parts(name)]
    files += [*sorted((ROOT / "lowrank_utils").rglob("*.py")), *sorted((ROOT / "lowrank_utils").glob("*.js"))]
    files += [ROOT / "lowrank_utils/py.typed", ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE"]
    contents = {str(p.relative_to(ROOT)): p.read_bytes() for p in files}
    for script in ("setup.sh", "run_autograder"):
        text = (HERE / "gradescope" / script).read_text()
        contents[script] = text.replace("{name}", name).replace("{seed}", str(seed)).encode()
    contents[f"student/{name}.ipynb"] = student.read_bytes()
    pins = [
        line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.split("==")[0] in NEEDED
    ]
    contents["requirements.txt"] = "\n".join([*pins, ""]).encode()
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in sorted(contents.items()):
            entry = zipfile.ZipInfo(path)  # 1980, so that the same sources make the same bytes
            entry.external_attr = (0o755 if data.startswith(b"#!") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return student, bundle
