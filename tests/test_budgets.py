"""The plugin that measures notebooks: it sees the kernel, and too much is an error."""

import os
import re
import subprocess
import sys
from pathlib import Path

import budgets
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

HERE = Path(__file__).parent
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux has /proc")


def run(folder, limits, *options):
    """Run a notebook of 100 MB under other limits; what pytest says."""
    source = "held = bytearray(b'1' * 100_000_000)"
    nb = new_notebook(cells=[new_code_cell(source, execution_count=1), new_code_cell("1", execution_count=2)])
    nb.cells[1].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=2)]
    nbformat.write(nb, folder / "a.ipynb")
    (folder / "conftest.py").write_text(f"import budgets\n{limits}\npytest_plugins = ['budgets']\n")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(folder), "-c", "/dev/null", *options]
    env = os.environ | {"PYTHONPATH": str(HERE)}
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    return ran.returncode, ran.stdout


@needs_proc
@pytest.mark.parametrize("options", [(), ("-n", "1", "--dist", "loadscope")], ids=["alone", "xdist"])
def test_a_notebook_within_its_limits_is_reported(tmp_path, options):
    code, said = run(tmp_path, "", *options)
    assert code == 0, said
    memory, seconds = map(float, re.search(r"^a +([\d.]+) GB +([\d.]+) s of one core", said, re.M).groups())
    assert 0.1 <= memory < 1 and 0 < seconds < 100


@needs_proc
@pytest.mark.parametrize(
    ("limits", "complaint"),
    [("budgets.MEMORY_GB = 0.1", "over 0.1"), ("budgets.CPU_SECONDS = 0", "processor time, over 0")],
)
def test_a_notebook_that_takes_too_much_is_an_error(tmp_path, limits, complaint):
    code, said = run(tmp_path, limits)
    assert code == 1 and "a.ipynb: " in said and complaint in said, said


def test_a_slow_processor_stretches_the_limit_and_a_quick_one_does_not_shrink_it(monkeypatch):
    monkeypatch.setattr(budgets, "CPU_SECONDS", 10)
    monkeypatch.setattr(budgets, "WORK_SECONDS", 1e6)
    assert budgets.complaint(0, 10.5) == "it took 10 s of processor time, over 10"
    monkeypatch.setattr(budgets, "WORK_SECONDS", 1e-6)
    assert budgets.complaint(0, 10.5) == ""


def test_the_box_of_a_chapter_is_read():
    chapters = sorted((HERE.parent / "book").glob("[0-9][0-9]_*.ipynb"))
    assert [c.name for c in chapters if not re.search(r"second|minute", budgets.promised(c))] == []
