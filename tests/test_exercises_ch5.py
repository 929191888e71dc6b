"""Chapter 5's judges: right answers pass, and each typical slip is called by its name."""

import pytest
from torch import nn

from lowrank_utils import LowRankLinear, break_even_rank, count_macs
from lowrank_utils.exercises import check
from lowrank_utils.exercises.chapter5 import JUDGES

MACS = 4 * 2 + 2 * 2 + 2 * 10 + 10 * 3


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (32 * MACS, "MACs"),
        (2 * MACS, "one sample"),
        (MACS, "one sample"),
        (2 * 32 * (MACS - 4), "core"),
        (2 * 32 * MACS + 32 * 17, "bias"),
        (2 * 32 * 70, "dense Net"),
        (2 * 32 * (MACS + 17), "parameters"),
        (1, "four layers"),
        (3840.5, "integer"),
    ],
)
def test_batch_slips(answer, word):
    hint = JUDGES["5.1"](answer)
    assert hint is not None and word in hint


def test_batch_right():
    assert JUDGES["5.1"](2 * 32 * MACS) is None


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (break_even_rank(32, 64), "tensor"),
        (break_even_rank(32, 64, core=True), "core"),
        (3, "larger rank"),
        (22, "larger there"),
        ("abc", "integer"),
        (0, "from 1 to 32"),
        (33, "from 1 to 32"),
    ],
)
def test_file_slips(answer, word):
    hint = JUDGES["5.2"](answer)
    assert hint is not None and word in hint


def test_file_right():
    assert JUDGES["5.2"](20) is None


def counter(
    *, keep=False, guard=True, rows=lambda x, layer: x.numel() // layer.in_features, low=True, bias=0
):
    """A reader's counter with one slip built in."""

    def my_macs(model, x):
        total = []

        def hook(layer, inputs, output):
            factored = isinstance(layer, LowRankLinear)
            matrices = [layer.U, layer.core, layer.Vh] if factored else [layer.weight]
            numbers = sum(W.numel() for W in matrices if W is not None) + bias * layer.out_features
            total.append(rows(inputs[0], layer) * numbers)

        kinds = (nn.Linear, LowRankLinear) if low else (nn.Linear,)
        handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, kinds)]
        try:
            model(x)
        except RuntimeError:
            if not guard:
                handles = []
            raise
        finally:
            for handle in () if keep else handles:
                handle.remove()
        return sum(total)

    return my_macs


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (counter(keep=True), "left behind"),
        (counter(guard=False), "finally"),
        (counter(rows=lambda x, layer: 1), "batch"),
        (counter(rows=lambda x, layer: len(x)), "three axes"),
        (counter(low=False), "LowRankLinear"),
        (counter(bias=1), "biases"),
        (lambda model, x: 2 * count_macs(model, x), "FLOPs"),
        (
            lambda model, x: sum(p.numel() for p in model.parameters() if p.ndim == 2) * x[..., 0].numel(),
            "twice",
        ),
        (lambda model, x: None, "integer"),
        (42, "function"),
    ],
)
def test_counter_slips(answer, word):
    hint = JUDGES["5.3"](answer)
    assert hint is not None and word in hint


@pytest.mark.parametrize("answer", [counter(), count_macs])
def test_counter_right(answer):
    assert JUDGES["5.3"](answer) is None


@pytest.mark.parametrize("exercise", ["5.1", "5.2", "5.3"])
def test_no_answer_yet(exercise, capsys):
    check(exercise, None)
    assert capsys.readouterr().out == f"{exercise}: no answer yet.\n"
