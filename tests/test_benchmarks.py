"""The page of the benchmarks: rows measured anew beside older ones, each with its run, and units."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import report  # noqa: E402
from claims import Row  # noqa: E402
from grading import Attack  # noqa: E402
from peers import uniform_svd  # noqa: E402
from torch import nn  # noqa: E402

STORED = (ROOT / "book" / "benchmarks.md").read_text(encoding="utf-8")
FAST = Row("scan (least: N = 2)", "1.5 ms", "3.0 ms", 2.0, 1.5)
EXACT = Row("digits", "97.3 %", "dense net 98.1 %", 97.3, 95.5, shown="{:.1f} %", table="accuracy")
ATTACK = Attack("forks", "a | b # c", "8 of 8", True)


def test_the_stored_page_is_what_the_report_writes():
    assert report.page([], STORED, "nowhere", "2026-01-01") == STORED


def test_a_row_measured_anew_names_its_run_and_leaves_the_others():
    first = report.page([FAST, EXACT, ATTACK], "", "one machine", "2026-01-01")
    again = Row("scan (least: N = 8)", "1 ms", "4 ms", 4.0, 1.5)
    page = report.page([again], first, "another machine", "2026-02-02")
    assert report.stored_rows(page) == {
        "Speed": [["scan (least: N = 8)", "1 ms", "4 ms", "4.00 times as fast", "1.50", "b"]],
        "Accuracy": [["digits", "97.3 %", "dense net 98.1 %", "95.5 %", "a"]],
        "Your own model": [],
        "Marking": [],
        "Coursework under attack": [["forks", "a \\| b # c", "8 of 8", "a"]],
        "Runs": [["a", "2026-01-01", "one machine"], ["b", "2026-02-02", "another machine"]],
    }
    assert report.page([FAST, EXACT, ATTACK], page, "one machine", "2026-01-01") == first


@pytest.mark.parametrize(
    ("heading", "units"),
    [("Speed", {"ms", "s", "passes", "slope"}), ("Accuracy", {"%", "points"}), ("Marking", {"min"})],
)
def test_every_row_of_the_page_has_units(heading, units):
    rows = report.stored_rows(STORED)[heading]
    cells = [cell for row in rows for cell in row[1:3] if cell != "not stored"]
    words = [{word.strip(",;") for word in cell.split()} for cell in cells]
    assert len(cells) > len(rows) and [c for c, w in zip(cells, words, strict=True) if not w & units] == []


def test_every_value_of_the_page_has_the_unit_that_its_row_tells():
    values = {row[0]: row[3] for row in report.stored_rows(STORED)["Speed"]}
    units = {re.sub(r"[\d.]+", "", value).strip() for value in values.values()}
    assert units == {"times as fast", "times as long", "passes", "slope"}


@pytest.mark.parametrize(
    ("row", "value", "floor"),
    [
        (
            Row("scan", "3 ms", "1 ms", 3.0, 4.0, most=True, unit="{} times as long"),
            "3.00 times as long",
            "at most 4.00",
        ),
        (Row("scan", "1 ms", "3 ms", 3.0, 2.0), "3.00 times as fast", "2.00"),
        (
            Row("cascade", "slope 1.04", "slope 2", 1.04, 1.2, most=True, unit="slope {}"),
            "slope 1.04",
            "at most 1.20",
        ),
        (
            Row("cascade", "6.3 passes", "35 passes", 6.3, shown="{:.1f}", unit="{} passes"),
            "6.3 passes",
            "none",
        ),
        (
            Row("gain", "-0.5 points", "0", -0.5, -1.0, shown="{:+.1f} points", table="accuracy"),
            "0",
            "-1.0 points",
        ),
        (
            Row("digits", "97.3 %", "98.1 %", 97.3, 95.5, shown="{:.1f} %", table="accuracy"),
            "98.1 %",
            "95.5 %",
        ),
    ],
)
def test_a_value_has_its_unit(row, value, floor):
    assert row.cells()[-2:] == [value, floor]


def test_a_run_names_the_commit_that_was_measured(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        ran = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *words], capture_output=True, text=True, check=True
        )
        return ran.stdout.strip()

    assert report.code(tmp_path) == ""
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "first")
    told = f"; commit {git('rev-parse', '--short', 'HEAD')}"
    assert report.code(tmp_path) == told
    (tmp_path / "a").write_text("2")
    assert report.code(tmp_path) == f"{told} and changes"


def test_a_number_stays_beside_its_unit():
    page = report.page([FAST, EXACT], "", "one machine", "2026-01-01")
    assert "| 1.5\N{NO-BREAK SPACE}ms | 3.0\N{NO-BREAK SPACE}ms | 2.00 times as fast |" in page
    assert not report.stored_rows(page)["Speed"][0][1].count("\N{NO-BREAK SPACE}")


@pytest.mark.parametrize("dense_head", [False, True])
def test_equal_shares_keep_within_the_budget(dense_head):
    net = nn.Sequential(nn.Linear(100, 80), nn.ReLU(), nn.Linear(80, 60), nn.ReLU(), nn.Linear(60, 10))
    weights = sum(p.numel() for p in net.parameters() if p.ndim == 2)
    small = uniform_svd(net, 0.3, dense_head=dense_head)
    assert isinstance(small[4], nn.Linear) == dense_head
    left = sum(p.numel() for p in small.parameters() if p.ndim == 2)
    assert 0.25 * weights < left <= 0.3 * weights
