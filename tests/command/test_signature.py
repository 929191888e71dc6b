"""The program that compress writes takes what the program that it was made from took."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim, export, load, save

from lowrank_utils import from_exported
from lowrank_utils.command.run import main
from lowrank_utils.command.signature import Axis, axes, example, export_like

AUTO = Dim.AUTO


class Scaled(nn.Module):
    """Tokens (N, T, 8) to logits (N, 3), times a scale where there is one; the first layer has rank 2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)
        self.a.weight.data = torch.randn(16, 2) @ torch.randn(2, 8)

    def forward(self, x, scale=None):
        y = self.b(torch.tanh(self.a(x))).mean(1)
        return y if scale is None else y * scale


@pytest.fixture
def compressed(tmp_path, capsys):
    """What compresses a program on a few samples: exit code, the program written, stderr."""

    def run(program, X, y=None):
        save(program, tmp_path / "net.pt2")
        labels = Scaled()(X).argmax(1) if y is None else y
        np.savez(tmp_path / "d.npz", X_val=X.numpy(), y_val=labels.numpy())
        files = {word: str(tmp_path / word) for word in ("net.pt2", "d.npz", "s.pt2")}
        words = f"compress net.pt2 --data d.npz --output s.pt2 --max-drop {1 - 1 / len(X)} --quiet"
        code = main([files.get(word, word) for word in words.split()])
        written = tmp_path / "s.pt2"
        return code, load(written) if written.exists() else None, capsys.readouterr().err

    return run


def sizes(program):
    return [[(axis.size, axis.low, axis.high) for axis in input] for input in axes(program)]


@pytest.mark.parametrize(
    "dynamic",
    [None, {0: AUTO}, {1: AUTO}, {0: AUTO, 1: AUTO}, {0: Dim("n")}, {0: Dim("n", min=3, max=30)}],
    ids=str,
)
def test_axes_stay_fixed_or_free(compressed, dynamic):
    before = export(Scaled().eval(), (torch.randn(4, 7, 8),), dynamic_shapes=dynamic and (dynamic,))
    code, after, err = compressed(before, torch.randn(50, 7, 8))
    assert (code, err) == (0, "")
    assert sizes(after) == sizes(before)
    for shape in ((4, 7, 8), (5, 7, 8), (4, 9, 8), (31, 7, 8), (6, 9, 8)):
        assert takes(after, shape) == takes(before, shape), shape


def takes(program, shape):
    try:
        program.module()(torch.zeros(shape))
    except (RuntimeError, AssertionError):
        return False
    return True


@pytest.mark.parametrize(("dynamic", "rows"), [({0: AUTO}, 1), (None, 3)])
def test_data_of_a_few_rows_fix_nothing(compressed, dynamic, rows):
    before = export(Scaled().eval(), (torch.randn(4, 7, 8),), dynamic_shapes=dynamic and (dynamic,))
    code, after, _ = compressed(before, torch.randn(rows, 7, 8))
    assert code == 0 and sizes(after) == sizes(before)


@pytest.mark.parametrize("dynamic", [{0: AUTO}, None])
def test_a_program_without_an_example_takes_the_data(compressed, dynamic):
    before = export(Scaled().eval(), (torch.randn(4, 7, 8),), dynamic_shapes=dynamic and (dynamic,))
    before.example_inputs = None
    code, after, _ = compressed(before, torch.randn(1, 7, 8))
    assert code == 0 and sizes(after) == sizes(before)


def test_an_axis_that_cannot_be_kept_is_named_before_the_search(compressed, monkeypatch):
    before = export(Scaled().eval(), (torch.randn(4, 7, 8),), dynamic_shapes=({0: AUTO},))
    before.example_inputs = None
    monkeypatch.setattr("lowrank_utils.command.compress.compress_within", None)
    code, after, err = compressed(before, torch.randn(50, 9, 8))
    assert (code, after) == (2, None)
    assert re.search(
        r"argument MODEL: .*net.pt2 must be .* axis 1 of input 'x' can keep size 7.* size 9", err
    )


def test_inputs_by_name_stay_so():
    x, scale = torch.randn(4, 7, 8), torch.ones(4, 3)
    free = {"x": {0: AUTO, 1: AUTO}, "scale": {0: AUTO}}
    before = export(Scaled().eval(), (x,), {"scale": scale}, dynamic_shapes=free)
    after = export_like(from_exported(before), before, "net.pt2", example(before, x))
    assert sizes(after) == sizes(before)
    x, scale = torch.randn(6, 9, 8), torch.randn(6, 3)
    torch.testing.assert_close(after.module()(x, scale=scale), before.module()(x, scale=scale))


@pytest.mark.parametrize(
    ("limits", "takes"), [((2, 30), True), ((2, 64), True), ((3, 30), False), ((2, 29), False)]
)
def test_an_axis_takes_what_lies_in_its_limits(limits, takes):
    assert Axis("x", 0, None, *limits).takes(Axis("x", 0, None, 2, 30)) is takes


def test_a_fixed_axis_takes_its_size_alone():
    fixed, free = Axis("x", 0, 4, 4, 4), Axis("x", 0, None, 2, 30)
    assert fixed.takes(fixed) and not fixed.takes(free) and not free.takes(fixed)
    assert not fixed.takes(Axis("x", 0, 5, 5, 5))
    assert (str(fixed), str(free)) == ("size 4", "any size >= 2 and <= 30")
