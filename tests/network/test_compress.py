"""A compressed model against the same model with truncated dense weights."""

import math

import pytest
import torch
from oracles import full_outputs, outputs_by_truncation, snapshot, truncated
from torch import nn
from zoo import ZOO, case

from lowrank_utils import (
    LowRankLinear,
    break_even_rank,
    calibrate,
    cascade,
    compress,
    count_params,
    to_plain,
)


@pytest.mark.parametrize("name", ZOO)
def test_one_layer_anywhere(name):
    model, layer, X, _, (m, n) = case(name, 0)
    before = snapshot(model, X)
    for r in (1, min(m, n)):
        small = compress(model, {layer: r})
        assert type(small.get_submodule(layer)) is LowRankLinear
        if name == "residual, hooks":  # the hooks of a layer that is replaced go with it
            continue
        assert torch.allclose(
            full_outputs(small, X), outputs_by_truncation(model, layer, X, r), rtol=0, atol=1e-11
        )
    assert snapshot(model, X) == before


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Sequential(nn.Linear(16, 12)),
        nn.ReLU(), nn.Linear(12, 3),
    ).double()  # fmt: skip


def test_several_layers_and_their_parameters():
    model = mlp()
    small = compress(model, {"0": 3, "4.0": 2})
    for name, r in (("0", 3), ("4.0", 2)):
        got, old = small.get_submodule(name), model.get_submodule(name)
        assert got.rank == r and torch.allclose(got.weight, truncated(old.weight, r), atol=1e-12)
        assert torch.equal(got.bias, old.bias)
    assert type(small[6]) is nn.Linear and torch.equal(small[6].weight, model[6].weight)
    assert count_params(small) == count_params(model) - 20 * 16 + 3 * 36 - 16 * 12 + 2 * 28


@pytest.mark.parametrize("rank", range(1, 9))
def test_one_rank_for_every_layer_that_it_makes_smaller(rank):
    model = mlp()
    worth = {
        k
        for k, v in model.named_modules()
        if type(v) is nn.Linear and rank <= break_even_rank(*v.weight.shape)
    }
    if not worth:
        with pytest.raises(
            ValueError, match=rf"^ranks={rank} must be at most the break-even rank of a layer in"
        ):
            compress(model, rank)
        return
    small = compress(model, rank)
    assert {k for k, v in small.named_modules() if isinstance(v, LowRankLinear)} == worth
    assert all(small.get_submodule(k).rank == rank for k in worth)
    assert count_params(small) <= count_params(model)


def test_it_shares_nothing_with_the_old_model():
    model = mlp().train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = snapshot(model)
    small = compress(model, {"0": 4})
    assert snapshot(model) == before and small.training and small[0].training
    old = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    assert old.isdisjoint(t.untyped_storage().data_ptr() for t in [*small.parameters(), *small.buffers()])
    for t in [*small.parameters(), *small.buffers()]:
        t.data.zero_()
    assert snapshot(model) == before


def test_no_ranks_give_a_copy():
    model = mlp()
    same = compress(model, {})
    assert same is not model and [type(m) for m in same.modules()] == [type(m) for m in model.modules()]
    for p, q in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(p, q) and p.data_ptr() != q.data_ptr()


def test_modes_are_kept():
    model = mlp().train()
    model[0].eval(), model[3].eval()
    small = compress(model, {"0": 4})
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]


def test_a_model_that_is_the_layer():
    linear = nn.Linear(9, 8)
    for ranks in (2, {"": 2}):
        small = compress(linear, ranks)
        assert type(small) is LowRankLinear and small.rank == 2
    assert type(linear) is nn.Linear


def test_a_compressed_model_can_be_trained_and_keeps_its_rank():
    model = mlp()
    small = compress(model, {"0": 2})
    X, y = torch.randn(30, 20, dtype=torch.float64), torch.randint(0, 3, (30,))
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    before = small[0].weight.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(small(X), y).backward()
        optimizer.step()
    assert not torch.equal(small[0].weight, before) and torch.linalg.matrix_rank(small[0].weight) == 2


def _shared():
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, layer)


@pytest.mark.parametrize(
    ("model", "ranks", "error", "message"),
    [
        (mlp(), {"fc1": 2}, ValueError, "layer='fc1' must be one of the layers ['0', '4.0', '6']"),
        (
            mlp(),
            {"1": 2},
            ValueError,
            "layer='1' must be one of the layers ['0', '4.0', '6'], but",
        ),
        (
            mlp(),
            {"0": 2, "4.0": 13},
            ValueError,
            "ranks['4.0']=13 must be an integer from 1 to 12 (min(m, n) of a 12 x",
        ),
        (mlp(), {"0": 0}, ValueError, "ranks['0']=0 must be an integer from 1 to 16"),
        (mlp(), {"0": -1}, ValueError, "ranks['0']=-1 must be an integer from 1 to 16"),
        (mlp(), {"0": 1.5}, TypeError, "ranks['0']=1.5 must be an integer from 1 to 16"),
        (mlp(), {"0": True}, TypeError, "ranks['0']=True must be an integer from 1 to 16"),
        (mlp(), {"0": math.nan}, TypeError, "ranks['0']=nan must be an integer from 1 to 16"),
        (mlp(), 0, ValueError, "ranks=0 must be an integer >= 1"),
        (mlp(), 1.5, TypeError, "ranks=1.5 must be an integer >= 1"),
        (mlp(), True, TypeError, "ranks=True must be an integer >= 1"),
        (mlp(), "0", TypeError, "ranks='0' must be an integer >= 1"),
        (
            mlp(),
            99,
            ValueError,
            "ranks=99 must be at most the break-even rank of a layer in ['0', '4.0', '6']",
        ),
        (nn.ReLU(), 1, ValueError, "ranks=1 must be at most the break-even rank of a layer in []"),
        (
            _shared(),
            {"0": 2},
            ValueError,
            "layer='0' must be one of the layers [], but it shares its weight with ['1']",
        ),
        ("net", 1, TypeError, "model='net' must be a torch.nn.Module"),
    ],
)
def test_impossible_requests(model, ranks, error, message):
    before = snapshot(model) if isinstance(model, nn.Module) else None
    with pytest.raises(error) as caught:
        compress(model, ranks)
    assert str(caught.value).startswith(message)
    assert before is None or snapshot(model) == before


@pytest.mark.parametrize("told", [{"layers": ["6"]}, {"layers": []}, {"skip": ["0"]}], ids=str)
def test_a_mapping_of_ranks_names_the_layers_itself(told):
    name, value = next(iter(told.items()))
    with pytest.raises(ValueError) as caught:
        compress(mlp(), {"0": 2}, **told)
    assert str(caught.value) == f"{name}={value} must be left out: ranks names the layers"


@pytest.mark.parametrize("pivoted", [False, True])
@pytest.mark.parametrize(("weight", "bias"), [(True, False), (False, True), (False, False), (True, True)])
def test_factors_are_frozen_as_the_weight_was_and_the_bias_as_the_bias(weight, bias, pivoted):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3, bias=False))
    model[0].weight.requires_grad_(weight)
    model[0].bias.requires_grad_(bias)
    model[2].weight.requires_grad_(weight)
    small = compress(model, {"0": 2, "2": 2}, pivoted=pivoted)
    for made in (small, to_plain(small)):
        biases = [key for key, _ in made.named_parameters() if key.endswith(("bias", "start", "shift"))]
        wanted = {key: bias if key in biases else weight for key, _ in made.named_parameters()}
        assert {key: p.requires_grad for key, p in made.named_parameters()} == wanted
        own = ["0.start", "0.shift"] if pivoted else ["0.bias"]
        assert biases == (own if made is small else ["0.1.bias"])
    if not pivoted:
        X = torch.randn(30, 6)
        refitted = cascade(model, {"0": 2, "2": 2}, X, calibrate(model, X))
        found = {key: p.requires_grad for key, p in refitted.named_parameters()}
        assert found["0.bias"] is bias and found["0.left"] is found["2.right"] is weight


def test_a_table_keeps_how_it_is_trained_and_one_with_a_largest_norm_is_refused():
    table = nn.Embedding(20, 8, padding_idx=3, scale_grad_by_freq=True, sparse=True)
    small = compress(table, {"": 4})
    assert (small[0].padding_idx, small[0].scale_grad_by_freq, small[0].sparse) == (3, True, True)
    with pytest.raises(ValueError, match="shortens the rows that it reads to a norm of 0.5"):
        compress(nn.Embedding(20, 8, max_norm=0.5), {"": 8})
