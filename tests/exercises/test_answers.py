"""How judges read an answer and run it."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from lowrank_utils.exercises import _answers
from lowrank_utils.exercises._answers import NotYet


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("72", "the text '72'"),
        ("x" * 50, f"the text '{'x' * 40}'"),
        (None, "None"),
        (True, "True"),
        (np.False_, "False"),
        (7, "7"),
        (0.1234567, "0.123457"),
        (1234567, "1234567"),
        (np.float32(0.5), "0.5"),
        (math.nan, "nan"),
        (torch.tensor(0.5), "0.5"),
        (torch.zeros(2, 3), "a tensor of shape (2, 3)"),
        (np.zeros(3), "an array of shape (3,)"),
        ([1, 2], "a list of 2"),
        ((), "a tuple of 0"),
        ({1: 2}, "a dict of 1"),
        (len, "a function"),
        (nn.ReLU(), "an object of type ReLU"),
        (Fraction(1, 2), "an object of type Fraction"),
    ],
    ids=str,
)
def test_describe(answer, words):
    assert _answers.describe(answer) == words


@pytest.mark.parametrize(
    "answer", [1, 1.0, np.int8(1), np.array([[1]]), torch.tensor([1.0]), Fraction(2, 2), Decimal(1)]
)
def test_number_and_whole(answer):
    assert _answers.number(answer, "") == 1.0 and isinstance(_answers.number(answer, ""), float)
    assert _answers.whole(answer, "") == 1 and isinstance(_answers.whole(answer, ""), int)


def test_whole_is_exact_and_forgives_rounding():
    """An integer too long for a float keeps its digits; 0.1 * 30 is 3.0000000000000004."""
    assert _answers.whole(2**60 + 1, "") == 2**60 + 1
    assert _answers.whole(0.1 * 30, "") == 3
    with pytest.raises(NotYet):
        _answers.whole(3.000001, "")


@pytest.mark.parametrize(
    "answer",
    [
        "1",
        b"1",
        True,
        None,
        1j,
        [1],
        {},
        math.inf,
        10**400,
        torch.zeros(2),
        torch.tensor(True),
        torch.tensor(1j),
    ],
)
@pytest.mark.parametrize("read", [_answers.number, _answers.whole])
def test_no_number(read, answer):
    with pytest.raises(NotYet, match="^give a number, not .+\\.$"):
        read(answer, "a number")


def test_low_is_included():
    assert _answers.whole(1.0, "one", low=1) == 1
    with pytest.raises(NotYet, match="give one, not 0"):
        _answers.whole(0, "one", low=1)


@pytest.mark.parametrize(
    "answer", [(1, 2), [1, 2], np.array([1, 2]), torch.tensor([1, 2])], ids=lambda a: type(a).__name__
)
def test_items(answer):
    assert _answers.items(answer, "") == _answers.items(answer, "", 2) == [1, 2]
    with pytest.raises(NotYet):
        _answers.items(answer, "", 3)


@pytest.mark.parametrize(
    "answer",
    ["ab", {1, 2}, {1: 2, 2: 1}, 12, torch.tensor(1), np.array(1), iter("ab"), None],
    ids=lambda answer: type(answer).__name__,
)
def test_no_items(answer):
    with pytest.raises(NotYet):
        _answers.items(answer, "", 2)


@pytest.mark.parametrize(
    "answer",
    [
        torch.ones(2, 1, dtype=torch.float16, requires_grad=True),
        np.ones((2, 1), int),
        [[1.0], [1]],
        ((True,), (1,)),
        [np.ones(1), np.ones(1)],
    ],
    ids=lambda a: type(a).__name__,
)
def test_matrix(answer):
    found = _answers.matrix(answer, (2, 1), "")
    assert torch.equal(found, torch.ones(2, 1, dtype=torch.float64)) and not found.requires_grad


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (torch.ones(1, 2), "shape"),
        (torch.ones(2, 1) + 0j, "shape"),
        ([[1], [2, 3]], "a list of 2"),
        ("ab", "the text"),
        ({"a": 1}, "a dict"),
        (len, "a function"),
        ([["a"], ["b"]], "a list of 2"),
        (torch.tensor([[1.0], [math.nan]]), "1 entries of the result are nan"),
        (np.array([[math.inf], [-math.inf]]), "2 entries of the result are nan or infinite"),
    ],
    ids=str,
)
def test_no_matrix(answer, words):
    with pytest.raises(NotYet, match=words):
        _answers.matrix(answer, (2, 1), "a matrix")


def run(make, *arguments, call="f(x)"):
    return _answers.function(make, call)(*arguments)


def test_a_function_is_run_and_heard(capsys):
    assert run(lambda x: print("seen", x) or 2 * x, 3) == 6
    assert capsys.readouterr().out == "seen 3\n"


def boom(x):
    print("before")
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: None, "^your function returns None: the answer is what it returns\\.$"),
        (lambda x: print(x), "^your function returns None: it prints, but the answer is what it returns\\.$"),
        (boom, "^your function raised ZeroDivisionError\\.$"),
        (lambda x: x.nothing, "^your function raised AttributeError: .*nothing'\\.$"),
        (lambda x: x.resize_(4).sum(), "changes its argument x; work on a copy"),
        (lambda x: x.add_(1), "changes its argument x; work on a copy"),
        (lambda x: x.set_(x.double()), "raised|changes"),
        (lambda: 1, "raised TypeError"),
    ],
)
def test_a_function_that_misbehaves(make, words):
    with pytest.raises(NotYet, match=words):
        run(make, torch.ones(2))


@pytest.mark.parametrize(
    "change",
    [nn.Module.eval, lambda m: m.register_buffer("n", torch.ones(1)), lambda m: m.weight.data.zero_()],
)
def test_a_function_that_changes_a_model(change):
    with pytest.raises(NotYet, match="argument model \\(a weight, a buffer, or train and eval\\)"):
        run(lambda model: (change(model), 1)[1], nn.Linear(2, 2), call="f(model)")


def test_what_it_printed_is_shown_though_it_raised(capsys):
    with pytest.raises(NotYet):
        run(boom, 1)
    assert capsys.readouterr().out == "before\n"


def test_an_exception_is_passed_on_where_it_is_asked_for():
    with pytest.raises(ZeroDivisionError):
        _answers.function(boom, "f(x)", may_raise=True)(1)


def test_on_names_the_case_of_a_hint_and_of_nothing_else():
    with pytest.raises(NotYet, match="^on a wide W: too large\\.$"), _answers.on("a wide W"):
        raise NotYet("too large.")
    with pytest.raises(KeyError), _answers.on("a wide W"):
        raise KeyError("too large.")


def test_named():
    slips = {"one": 1.0, "two": 2.0, "two again": 2.0}
    assert _answers.named(2.0001, slips) == "two"
    assert _answers.named(1.01, slips) is None
    assert _answers.named(math.nan, slips) is None
