"""A slice of a long run: what is computed, what is read, and what a changed cell is told."""

import json
import math

import pytest
import torch

from lowrank_utils import long_run

SEEDS = [0, 1, 2, 3]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The settings that a run was asked for; files go to a folder of their own."""
    monkeypatch.setattr("lowrank_utils.lab.long_run.FOLDER", tmp_path)
    monkeypatch.delenv("LONG_RUNS", raising=False)
    return []


def root(asked):
    def run(seed):
        asked.append(seed)
        return {"root": math.sqrt(seed), "pair": (seed, None)}

    return run


def write(monkeypatch, name, run, settings):
    monkeypatch.setenv("LONG_RUNS", "write")
    result = long_run(name, run, settings, again=settings[:1])
    monkeypatch.delenv("LONG_RUNS")
    return result


def test_only_the_slice_is_computed(asked, monkeypatch):
    whole = write(monkeypatch, "roots", root(asked), SEEDS)
    assert asked == SEEDS
    asked.clear()
    assert long_run("roots", root(asked), SEEDS, again=[2]) == whole
    assert asked == [2]
    assert list(whole) == SEEDS and whole[2] == {"root": 1.41421, "pair": [2, None]}


def test_computing_all_reads_no_file(asked, monkeypatch):
    write(monkeypatch, "roots", root([]), SEEDS)
    assert long_run("roots", lambda seed: -seed, SEEDS, again=SEEDS) == {s: -s for s in SEEDS}
    assert long_run("nowhere", root(asked), SEEDS, again=SEEDS)[3]["root"] == 1.73205
    assert asked == SEEDS


def test_a_changed_run_is_noticed(asked, monkeypatch):
    write(monkeypatch, "roots", root([]), SEEDS)
    with pytest.raises(ValueError, match=r"long run 'roots', setting 2: .*1\.5.* here.*again=settings"):
        long_run("roots", lambda s: {"root": 1.5, "pair": (s, None)}, SEEDS, again=[2])


@pytest.mark.parametrize(
    "other",
    [{"root": 1.41421}, {"root": 1.41421, "pair": [2]}, {"root": 1.41421, "pair": [2, "x"]}, 1.41421, [2]],
    ids=str,
)
def test_another_form_is_noticed(asked, monkeypatch, other):
    write(monkeypatch, "roots", root([]), SEEDS)
    with pytest.raises(ValueError, match="long run 'roots', setting 2"):
        long_run("roots", lambda s: other, SEEDS, again=[2])


@pytest.mark.parametrize(
    ("now", "fits"),
    [(100.09, True), (100.2, False), (99.91, True), (99.8, False), (math.nan, False), (True, False)],
)
def test_the_tolerance_is_relative(asked, monkeypatch, now, fits):
    write(monkeypatch, "one", lambda s: 100.0, ["a", "b"])
    if fits:
        assert long_run("one", lambda s: now, ["a", "b"], again=["a"]) == {"a": now, "b": 100.0}
    else:
        with pytest.raises(ValueError, match="long run 'one'"):
            long_run("one", lambda s: now, ["a", "b"], again=["a"])


def test_the_tolerance_can_be_absolute(asked, monkeypatch):
    write(monkeypatch, "zero", lambda s: 0.0, [0, 1])
    assert long_run("zero", lambda s: 0.01, [0, 1], again=[0], abs_tol=0.02)[0] == 0.01
    with pytest.raises(ValueError, match="long run 'zero'"):
        long_run("zero", lambda s: 0.03, [0, 1], again=[0], abs_tol=0.02)


def test_a_true_is_not_a_one(asked, monkeypatch):
    write(monkeypatch, "truth", lambda s: True, [0, 1])
    with pytest.raises(ValueError, match="long run 'truth'"):
        long_run("truth", lambda s: 1, [0, 1], again=[0])


def test_check_computes_all_and_compares_all(asked, monkeypatch):
    write(monkeypatch, "roots", root([]), SEEDS)
    monkeypatch.setenv("LONG_RUNS", "check")
    long_run("roots", root(asked), SEEDS, again=[0])
    assert asked == SEEDS
    with pytest.raises(ValueError, match="setting 3"):
        long_run("roots", lambda s: root([])(min(s, 2)) | {"pair": (s, None)}, SEEDS, again=[0])
    with pytest.raises(ValueError, match="not among the 0 stored"):
        long_run("nowhere", root([]), SEEDS, again=SEEDS)


def test_a_setting_that_nobody_stored(asked, monkeypatch):
    write(monkeypatch, "roots", root([]), SEEDS[:3])
    with pytest.raises(ValueError, match="setting 3: not among the 3 stored settings"):
        long_run("roots", root(asked), SEEDS, again=[0])


def test_the_file_can_be_read_by_people(asked, monkeypatch, tmp_path):
    write(monkeypatch, "pairs", lambda s: [s[0], 1 / s[1]], [(1, 3), (2, 7)])
    text = (tmp_path / "pairs.json").read_text()
    assert text == '{\n"(1, 3)": [1, 0.333333],\n"(2, 7)": [2, 0.142857]\n}\n'
    assert json.loads(text)


@pytest.mark.parametrize(
    ("settings", "again", "said"),
    [
        ([1, 2], [], r"again=\[\] must be one or more of the settings \[1, 2\]"),
        ([1, 2], [3], r"again=\['3'\] must be one or more"),
        ([1, "1"], [1], r"settings=\[1, '1'\] must be settings with a text of its own each"),
    ],
)
def test_bad_settings(asked, settings, again, said):
    with pytest.raises(ValueError, match=said):
        long_run("bad", root(asked), settings, again=again)
    assert asked == []


@pytest.mark.parametrize("name", ["rel_tol", "abs_tol"])
@pytest.mark.parametrize("bad", [-1e-3, math.nan, math.inf, "1e-3", True])
def test_a_bad_tolerance_is_refused_before_the_run(asked, monkeypatch, name, bad):
    write(monkeypatch, "roots", root([]), SEEDS)
    with pytest.raises((TypeError, ValueError), match=f"^{name}=.* must be a finite number >= 0"):
        long_run("roots", root(asked), SEEDS, again=[0], **{name: bad})
    assert asked == []


@pytest.mark.parametrize("value", [torch.tensor(1.0), {1.5}, object()], ids=["tensor", "set", "object"])
def test_results_are_plain_numbers(asked, value):
    with pytest.raises(TypeError, match=r"run's result=.* must be numbers, texts, lists, tuples or dicts"):
        long_run("bad", lambda s: [value], [0], again=[0])


def test_an_unknown_mode(asked, monkeypatch):
    monkeypatch.setenv("LONG_RUNS", "chek")
    with pytest.raises(ValueError, match="LONG_RUNS='chek' must be one of"):
        long_run("roots", root(asked), SEEDS, again=SEEDS)
    assert asked == []
