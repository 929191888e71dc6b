"""Every judge against its list of answers: a right one passes, a wrong one hears what is wrong."""

import importlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from answers import all_answers
from torch import nn

import lowrank_utils.exercises
from lowrank_utils import LowRankLinear
from lowrank_utils.exercises import check, record

ANSWERS = all_answers()
CHAPTERS = sorted(Path(lowrank_utils.exercises.__file__).parent.glob("chapter*.py"))
EXERCISES = [
    exercise
    for file in CHAPTERS
    for exercise in importlib.import_module(f"lowrank_utils.exercises.{file.stem}").JUDGES
]


@pytest.fixture(autouse=True)
def no_record(monkeypatch):
    """What is solved here is nobody's progress."""
    monkeypatch.setattr(record, "_solved", set())
    monkeypatch.setattr(record, "_keeping", False)


def heard(answer, capsys):
    check(answer.exercise, answer.answer)
    lines = capsys.readouterr().out.splitlines()
    return lines[-1]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a.exercise} {a.name}")
def test_verdict(answer, capsys):
    """Right is right; a wrong answer's hint is one sentence or two, with the word that names the mistake."""
    said = heard(answer, capsys)
    if answer.word is None:
        assert said == f"{answer.exercise}: right."
        return
    assert said.startswith(f"{answer.exercise}: not yet: ") and said[-1] in ".?"
    assert answer.word in said
    assert len(said) < 260 and "cannot be read" not in said


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_list_is_long_enough(exercise):
    """At least 6 wrong answers and 4 unusual right ones, each under a name of its own."""
    mine = [one for one in ANSWERS if one.exercise == exercise]
    assert sum(one.word is not None for one in mine) >= 6
    assert sum(one.word is None for one in mine) >= 4
    assert not [name for name, n in Counter(one.name for one in mine).items() if n > 1]


def test_every_answer_has_a_judge():
    assert {one.exercise for one in ANSWERS} <= set(EXERCISES)


def everywhere():
    """What all modules share: methods that an answer may replace, and hooks."""
    methods = [dict(vars(kind)) for kind in (nn.Module, nn.Linear, LowRankLinear)]
    hooks = [vars(nn.modules.module)[name] for name in vars(nn.modules.module) if name.endswith("_hooks")]
    return methods, [dict(kind) for kind in hooks]


def test_a_verdict_hangs_on_the_answer_alone(capsys):
    """Whatever was drawn before and judged before; and nothing is left, in torch or in its generator."""
    before, said = everywhere(), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        said.append([heard(answer, capsys) for answer in ANSWERS[:: 1 - 2 * seed]])
        assert torch.equal(torch.get_rng_state(), state)
    assert said[0] == said[1][::-1]
    assert everywhere() == before


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize(
    "answer", [object(), "abc", b"abc", [], {}, set(), (), float("nan"), True, type, torch.zeros(0)]
)
def test_nonsense_gets_a_word(exercise, answer, capsys):
    """Whatever is handed in, there is no traceback and no talk of the judge's inside."""
    check(exercise, answer)
    said = capsys.readouterr().out
    assert said.startswith(f"{exercise}: not yet: ") and "cannot be read" not in said


@pytest.mark.parametrize("exercise", EXERCISES)
def test_no_answer_yet(exercise, capsys):
    check(exercise, None)
    assert capsys.readouterr().out == f"{exercise}: no answer yet.\n"


@pytest.mark.parametrize(
    ("exercise", "limit"),
    [
        (2.1, "a string"),
        ("two", "a string"),
        ("²", "a string"),
        ("0.1", "a chapter that exists"),
        ("99.1", "a chapter that exists"),
        ("2.9", "one of 2.1, 2.2, 2.3"),
        ("2", "one of 2.1, 2.2, 2.3"),
        ("02.1", "one of 2.1, 2.2, 2.3"),
    ],
)
def test_no_such_exercise(exercise, limit):
    with pytest.raises(ValueError, match=limit):
        check(exercise, 1)
