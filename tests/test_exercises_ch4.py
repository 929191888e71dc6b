"""Chapter 4's judges: the right answer, and the hint for each mistake that people make."""

from copy import deepcopy

import pytest
import torch

from lowrank_utils import Net, singular_values
from lowrank_utils.exercises import check


def twin(net, *, row=None, bias=True, column="divide"):
    a = torch.linspace(0.5, 3, 10) if row is None else row
    new = deepcopy(net)
    new.fc1.weight.data *= a[:, None]
    if bias:
        new.fc1.bias.data *= a
    if column != "leave":
        new.fc2.weight.data *= 1 / a if column == "divide" else a
    return new


def renumbered(net):
    new = deepcopy(net)
    new.fc1.weight.data, new.fc1.bias.data = net.fc1.weight.data.flip(0), net.fc1.bias.data.flip(0)
    new.fc2.weight.data = net.fc2.weight.data.flip(1)
    return new


def half_renumbered(net):
    new = renumbered(net)
    new.fc2.weight.data = net.fc2.weight.data
    return new


def in_place(net):
    net.fc1.weight.data *= 2
    net.fc1.bias.data *= 2
    net.fc2.weight.data /= 2
    return net


def balanced(W):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return (((U * S.sqrt()) ** 2).sum() + ((S.sqrt()[:, None] * Vh) ** 2).sum()) / 2


def lopsided(W):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return ((U * S).square().sum() + Vh.square().sum()) / 2


def energy(W):
    return singular_values(W).square().sum()


RIGHT = [
    ("4.1", 10),
    ("4.2", twin),
    ("4.2", lambda net: twin(renumbered(net))),
    ("4.3", lambda m, n, r: r * (m + n - r)),
    ("4.4", lambda W: singular_values(W).sum()),
    ("4.4", balanced),
    ("4.4", lambda W: torch.linalg.matrix_norm(W, "nuc").item()),
]

WRONG = [
    ("4.1", 9, "first layer"),
    ("4.1", 6, "variance"),
    ("4.1", 5, "still"),
    ("4.1", 8, "still"),
    ("4.1", 11, "smallest"),
    ("4.1", 9.4, "integer"),
    ("4.1", True, "integer"),
    ("4.1", 0, "1 or more"),
    ("4.2", Net(), "function"),
    ("4.2", lambda net: net.fc1.weight, "must return a Net"),
    ("4.2", lambda net: net, "0%"),
    ("4.2", in_place, "deepcopy"),
    ("4.2", deepcopy, "0%"),
    ("4.2", renumbered, "changed places"),
    ("4.2", lambda net: twin(net, row=torch.full((10,), 1.2)), "beyond 50 %"),
    ("4.2", lambda net: twin(net, row=torch.linspace(-2, -1, 10)), "a > 0"),
    ("4.2", lambda net: twin(net, bias=False), "fc1.bias"),
    ("4.2", lambda net: twin(net, column="leave"), "divide"),
    ("4.2", lambda net: twin(net, column="multiply"), "once more"),
    ("4.2", half_renumbered, "undo"),
    ("4.3", 18, "function"),
    ("4.3", lambda m, n, r: r * (m + n), "stored"),
    ("4.3", lambda m, n, r: r * (m + n) - r, "not r"),
    ("4.3", lambda m, n, r: r * (m + n) - r * (r + 1) // 2, "symmetric"),
    ("4.3", lambda m, n, r: r * (m + n) + r * r, "subtracted"),
    ("4.3", lambda m, n, r: m * n, "any rank"),
    ("4.3", lambda m, n, r: r, "it gives 1, but W can move in 9 directions"),
    ("4.3", lambda m, n, r: None, "not None"),
    ("4.4", 3.0, "function"),
    ("4.4", lambda W: energy(W) / 2, "W itself"),
    ("4.4", energy, "squared Frobenius"),
    ("4.4", torch.linalg.norm, "no factors"),
    ("4.4", lambda W: 2 * singular_values(W).sum(), "one half"),
    ("4.4", lambda W: singular_values(W).sum() / 2, "both factors"),
    ("4.4", lambda W: singular_values(W)[0], "largest"),
    ("4.4", lopsided, "share"),
    ("4.4", lambda W: 0.0, "no factors"),
    ("4.4", lambda W: 1000.0, "beaten"),
    ("4.4", lambda W: W, "shape (7, 4)"),
    ("4.4", lambda W: None, "not None"),
    ("4.4", lambda W, r: 0.0, "raised"),
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


def test_the_judges_leave_the_global_generator_alone(capsys):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    for exercise, answer in RIGHT:
        check(exercise, answer)
    assert torch.equal(torch.rand(3), expected)
