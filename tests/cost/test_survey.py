"""The survey: counts of the counters, ordered by multiply-adds, ranks of an SVD."""

import pytest
import torch
from oracles import Lambda, snapshot
from test_predict import ideal
from torch import nn

from lowrank_utils import break_even_rank, count_macs, count_params, survey


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 40), nn.ReLU(),
        nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 5),
    ).eval()  # fmt: skip


def energy_rank(W):
    kept = torch.linalg.svdvals(W.detach().double().flatten(1)).square().cumsum(0)
    return int((kept < 0.9 * kept[-1]).sum()) + 1


def test_counts_ranks_and_order():
    model, x = net(), torch.randn(4, 3, 8, 8)
    before = snapshot(model)
    found = survey(model, x, timing=False)
    assert snapshot(model) == before
    assert [row.layer for row in found.rows] == ["4", "0", "6", "8"]  # 46,080, 31,104, 6,400 and 800 MACs
    assert (found.params, found.macs) == (count_params(model), count_macs(model, x))
    assert sum(row.macs for row in found.rows) == found.macs and found.macs_share == 1
    assert found.params_share == 1 - 16 / found.params  # the batch norm's
    for row in found.rows:
        layer = model.get_submodule(row.layer)
        assert row.params == count_params(layer) and row.kind == type(layer).__name__
        assert row.shape == tuple(layer.weight.flatten(1).shape)
        assert row.break_even == break_even_rank(*row.shape)
        assert row.energy_rank == energy_rank(layer.weight)
        assert row.speedup is None
    assert found.prediction is None and "at half" not in str(found)


def test_times_of_linear_layers():
    found = survey(net(), torch.randn(4, 3, 8, 8), machine=ideal())
    speeds = {row.layer: row.speedup for row in found.rows}
    assert speeds["0"] is None and all(speeds[name] > 0 for name in "468")
    assert found.prediction is not None and set(found.prediction.layers) == {"4", "6", "8"}
    assert str(found).count(" x\n") >= 2 and "times as fast" in str(found)


def test_inputs_stay_as_they_are_where_the_model_works_in_place():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(40, 30))
    x = torch.randn(4, 40)
    given = x.clone()
    survey(model, x, machine=ideal())
    assert torch.equal(x, given) and bool((x < 0).any())


def test_a_convolution_alone_has_no_prediction():
    assert survey(nn.Conv1d(8, 8, 3), torch.zeros(1, 8, 9), machine=ideal()).prediction is None


def test_a_part_that_is_never_called_owns_no_macs():
    model = Lambda(lambda s, x: s.a(x), a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    found = survey(model, torch.zeros(1, 6), timing=False)
    assert {row.layer: row.macs for row in found.rows} == {"a": 36, "b": 0}


def test_what_was_not_counted_is_told():
    model = Lambda(lambda s, x: s.a(torch.linalg.inv(x)), a=nn.Linear(6, 6))
    found = survey(model, torch.eye(6), timing=False)
    assert found.not_counted == {"aten::linalg_inv_ex": 1}
    assert str(found).splitlines()[-1] == "NOT COUNTED: aten::linalg_inv_ex (1)"
    assert "NOT" not in str(survey(nn.Linear(6, 6), torch.eye(6), timing=False))


@pytest.mark.parametrize(
    ("told", "error", "words"),
    [
        ((3, torch.zeros(1)), TypeError, "model=3 must be a torch.nn.Module"),
        ((nn.Linear(2, 2),), ValueError, "inputs=.* must be what to call the model with"),
        ((nn.ReLU(), torch.zeros(1)), ValueError, "model=ReLU must be a module with a layer"),
    ],
)
def test_bad_input(told, error, words):
    with pytest.raises(error, match=words):
        survey(*told)
