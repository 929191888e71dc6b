"""What is handed out: the student's notebook, all that students need beside it, the Gradescope zip."""

import re
import shutil
import zipfile
from pathlib import Path

import nbformat

from assignments.files import BadTable, write
from assignments.release import HERE, ROOT, assign, parts

# What of the book's pinned environment the student's code and the marker need.
NEEDED = {"ipykernel", "matplotlib", "mlxtend", "nbformat", "numpy", "scikit-learn", "scipy", "setuptools"}
NEEDED |= {"threadpoolctl", "torch", "tqdm", "wheel"}
JUPYTER = "jupyterlab>=4\n"
MARK = ".made-for-students"  # in a folder that `students` may write to again
README = """# {titles}

    python3 -m venv .venv
    .venv/bin/pip install -r requirements.txt
    .venv/bin/pip install --no-deps --no-build-isolation .
    .venv/bin/jupyter lab

Or open this repository on [Binder](https://mybinder.org). Hand in the notebook under the name that it has.
"""


def package() -> list[Path]:
    """The files of lowrank_utils, and what pip wants beside them."""
    kinds = {".py", ".js", ".html", ".json", ".txt"}
    files = [p for p in (ROOT / "lowrank_utils").rglob("*") if p.is_file() and p.suffix in kinds]
    return [*sorted(files), ROOT / "lowrank_utils/py.typed", ROOT / "pyproject.toml", ROOT / "LICENSE"]


def pins(names: set[str]) -> str:
    """The book's pinned versions of these packages."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if line.split("==")[0] in names)


def build(name: str, seed: int, out: Path, work: Path) -> tuple[Path, Path]:
    """Write `out/student/NAME.ipynb` and `out/NAME-autograder.zip`."""
    student, bundle = out / "student" / f"{name}.ipynb", out / f"{name}-autograder.zip"
    student.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(assign(name, seed, work), student)
    files = [
        *sorted(HERE.glob("*.py")),
        *parts(name),
        *package(),
        ROOT / "README.md",
    ]
    contents = {str(p.relative_to(ROOT)): p.read_bytes() for p in files}
    for script in ("setup.sh", "run_autograder"):
        text = (HERE / "gradescope" / script).read_text()
        contents[script] = text.replace("{name}", name).replace("{seed}", str(seed)).encode()
    contents[f"student/{name}.ipynb"] = student.read_bytes()
    contents["requirements.txt"] = pins(NEEDED).encode()
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in sorted(contents.items()):
            entry = zipfile.ZipInfo(path)  # 1980, so that the same sources make the same bytes
            entry.external_attr = (0o755 if data.startswith(b"#!") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return student, bundle


def students(name: str, notebook: Path, folder: Path) -> Path:
    """Write all that students get into `folder`: notebooks, package, requirements, .binder; no assignments.

    A folder with other things in it is left alone, but for a fresh clone of a repository.
    """
    there = (
        {p.name for p in folder.iterdir()} - {".git", "README.md", "LICENSE"} if folder.exists() else set()
    )
    if there and not (folder / MARK).exists():
        raise BadTable(f"students={folder} holds other things ({sorted(there)[0]}): name an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    shutil.copy(notebook, folder)
    shutil.rmtree(folder / "lowrank_utils", ignore_errors=True)
    for file in package():
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.copytree(ROOT / ".binder", folder / ".binder", dirs_exist_ok=True)
    names = set(re.findall(r"^([\w.-]+)==", (ROOT / ".binder" / "requirements.txt").read_text(), re.M))
    write(folder / "requirements.txt", pins(names) + JUPYTER)
    titles = " ".join(sorted(p.stem for p in folder.glob("*.ipynb")))
    write(folder / "README.md", README.format(titles=f"Assignments: {titles}"))
    return folder
