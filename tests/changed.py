"""The package tests of what changed: `make quick`, before each commit.

Changed are files that differ from the last commit, new ones, and those of commits that are not on the
upstream branch. Of a module the test of the same name runs, and those that import it, or else all of its
room; of a judge or a list of answers, those of the exercises; of a test, itself; of a notebook, the checks
that read it as data. `make test` runs everything.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent


def git(*words: str) -> list[str]:
    """Lines that a git command prints; none where it fails."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def changed() -> list[Path]:
    """Paths, relative to the repository."""
    upstream = git("rev-parse", "--abbrev-ref", "@{upstream}")
    base = git("merge-base", "HEAD", upstream[0]) if upstream else ["HEAD"]
    names = git("diff", "--name-only", base[0]) + git("ls-files", "--others", "--exclude-standard")
    return [Path(name) for name in sorted(set(names))]


def asked_for(path: Path, tests: dict[Path, str]) -> set[Path]:
    """Those of ``tests`` (path to text, relative to the repository) that a change of ``path`` asks for."""
    if path.suffix == ".ipynb" and path.parts[0] == "book":
        return {t for t in tests if t.name == "test_book.py"}
    if path.parts[:2] in {("lowrank_utils", "exercises"), ("tests", "answers")}:
        return {t for t in tests if t.parent.name == "exercises"}
    if path.parts[0] == "tests" and path.name.startswith("test_"):
        return {path} & set(tests)
    if path.parts[0] == "tests" and path.suffix == ".py":
        return {t for t, text in tests.items() if re.search(rf"\b(import|from) {path.stem}\b", text)}
    if path.parts[0] == "lowrank_utils" and path.suffix == ".py":
        named = {t for t in tests if re.fullmatch(rf"test_{path.stem}(_\w+)?", t.stem)}
        inner = rf"lowrank_utils(\.\w+)* import [^#\n]*\b{path.stem}\b|lowrank_utils\.(\w+\.)*{path.stem}\b"
        found = named | {t for t, text in tests.items() if re.search(inner, text)}
        room = path.parts[1].strip("_")
        return found or {t for t in tests if t.parent.name == room or t.stem == f"test_{room}"}
    return set()


def main() -> int:
    """Run them; 0 where all passed or none is asked for."""
    slow = {HERE / "site", HERE / "reader", HERE / "coursework"}  # they take minutes: make test
    files = sorted(path for path in HERE.rglob("test_*.py") if path.parent not in slow)
    tests = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in files}
    paths = changed()
    wanted = set().union(*(asked_for(path, tests) for path in paths), {Path("tests/test_house.py")})
    doctests = {path for path in paths if path.parts[0] == "lowrank_utils" and path.suffix == ".py"}
    found = sorted(str(path) for path in wanted | doctests if (ROOT / path).is_file())
    print(f"{len(paths)} files changed; tests:", *found)
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "2", *found], cwd=ROOT).returncode


if __name__ == "__main__":
    raise SystemExit(main())
