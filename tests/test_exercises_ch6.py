"""Chapter 6's judges: the right answer, and the hint for each mistake that people make."""

import pytest
import torch

from lowrank_utils.exercises import check


def lines(u, b, low=-1e6):
    """Winners by a fine scan, dense near 0."""
    z = torch.cat([s * torch.logspace(-4, 6, 4000, dtype=u.dtype) for s in (-1, 1)])
    return (torch.outer(z[z >= low], u) + b).argmax(1).unique().tolist()


def ends(u, b):
    return {u.argmin().item(), u.argmax().item()}


def between(u, b):
    return set(lines(u, b)) - ends(u, b)


RIGHT = [
    ("6.1", lines),
    ("6.1", lambda u, b: set(lines(u, b))),
    ("6.2", {"0": {"loss"}, "2": {"output", "loss"}}),
    ("6.2", {"0": "loss", "2": ["output", "loss"]}),
    ("6.3", ([2.0, 0.7], [2.0, 1.0], 140)),
    ("6.3", ((1, 0.6, 0), (9, 1, 0), 159)),
]

WRONG = [
    ("6.1", {1, 2}, "function"),
    ("6.1", ends, "steepest lines"),
    ("6.1", lambda u, b: lines(u, b, low=0), "negative"),
    ("6.1", lambda u, b: lines(-u, -b), "bottom"),
    ("6.1", lambda u, b: range(10), "not every class"),
    ("6.1", between, "far ends"),
    ("6.1", lambda u, b: {*lines(u, b), u.sort().indices[5].item(), 0, 1, 2, 3}, "never on top"),
    ("6.1", lambda u, b: [u.argmax().item()], "wins for some z"),
    ("6.1", lambda u, b: None, "not NoneType"),
    ("6.1", lambda u: set(), "raised"),
    ("6.2", {"loss"}, "dictionary"),
    ("6.2", {"0": {"loss"}}, "dictionary"),
    ("6.2", {"0": {"two-sided"}, "2": {"loss"}}, "names"),
    ("6.2", {"0": {"output", "loss"}, "2": {"loss"}}, "swapped"),
    ("6.2", {"0": {"svd"}, "2": set()}, "SVD"),
    ("6.2", {"0": {"loss", "output"}, "2": {"loss", "output"}}, "other units"),
    ("6.2", {"0": set(), "2": {"output", "loss"}}, "gradients shrink"),
    ("6.2", {"0": {"loss"}, "2": {"loss"}}, "W C W^T"),
    ("6.2", {"0": {"loss"}, "2": {"output"}}, "as before"),
    ("6.3", 3, "three things"),
    ("6.3", ([0.7, 2.0], [2.0, 1.0], 140), "largest comes first"),
    ("6.3", ([2.0, -0.7], [2.0, 1.0], 140), "not negative"),
    ("6.3", ([2.0, 0.7], [2.0, 1.0], 79), "80"),
    ("6.3", ([2.0, 0.7], [2.0, 1.0], 160), "nothing left"),
    ("6.3", ([2.0, 0.5], [2.0, 1.0], 140), "best"),
    ("6.3", ([2.0, 0.8], [2.0, 1.0], 140), "1.56 times"),
    ("6.3", ([2.0], ["a"], 140), "raised"),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT)
def test_right_answers(exercise, answer, capsys):
    check(exercise, answer)
    assert capsys.readouterr().out == f"{exercise}: right.\n"


@pytest.mark.parametrize(("exercise", "answer", "word"), WRONG)
def test_wrong_answers_get_their_hint(exercise, answer, word, capsys):
    check(exercise, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"{exercise}: not yet: "), out
    assert word in out


def test_the_judges_leave_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    for exercise, answer in RIGHT:
        check(exercise, answer)
    assert torch.equal(torch.rand(3), expected)
