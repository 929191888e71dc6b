"""Batch norms after the cut: each channel has again the mean and variance that it had."""

import pytest
import torch
from oracles import snapshot
from torch import nn

from lowrank_utils import compress, recalibrate_norms


def net(seed=0, affine=True):
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=affine), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(),
        nn.BatchNorm2d(12), nn.Flatten(), nn.Linear(48, 10), nn.BatchNorm1d(10), nn.Linear(10, 4),
    )  # fmt: skip
    layers.train()
    for _ in range(20):
        layers(torch.randn(64, 3, 6, 6))
    return layers.eval()


def moments_after(model, names, X):
    """Mean and variance of each channel after each norm."""
    seen = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        model(X)
    rows = {name: out.double().movedim(1, -1).flatten(0, -2) for name, out in seen.items()}
    return {name: torch.stack([r.mean(0), r.var(0, unbiased=False)]) for name, r in rows.items()}


@pytest.mark.parametrize("affine", [True, False])
def test_mean_and_variance_are_those_of_the_dense_model(affine):
    dense, X = net(affine=affine), torch.randn(90, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    small = compress(dense, {"0": 2, "3": ("kernel", 2), "7": 3})
    before = snapshot(small, X), snapshot(dense, X)
    mended = recalibrate_norms(small, dense, X, batch_size=40)
    assert (snapshot(small, X), snapshot(dense, X)) == before
    names = ("1", "5", "8")
    wanted, got, cut = (moments_after(m, names, X) for m in (dense, mended, small))
    for name in names:
        # the norms' own eps is added to the variance before and after
        assert torch.allclose(got[name], wanted[name], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(cut[name], wanted[name], rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        errors = [float((m(X) - dense(X)).square().mean()) for m in (mended, small)]
    assert errors[0] < errors[1]


class Twice(nn.Module):
    """One norm that is called twice, another that is called in between."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm, self.other = nn.BatchNorm1d(6), nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(self.second(self.other(self.norm(self.first(x)).tanh())))


@pytest.mark.parametrize("kind", ["once", "twice"])
def test_one_batch_takes_one_run_and_several_give_the_same(kind):
    """The oracle is the rule itself: a run up to each norm, with those before it mended."""
    torch.manual_seed(3)
    if kind == "once":
        dense, ranks, X = net(), {"0": 2, "3": 3, "7": 3}, torch.randn(60, 3, 6, 6)
    else:
        dense, ranks, X = Twice(), {"first": 2, "second": 2}, torch.randn(60, 6)
        for _ in range(20):
            dense(torch.randn(64, 6))
        dense.eval()
    small, runs = compress(dense, ranks), []
    small.register_forward_pre_hook(lambda *_: runs.append(1))
    one = recalibrate_norms(small, dense, X)
    assert len(runs) == 1
    several = recalibrate_norms(small, dense, [X[:20], X[20:30], X[30:]])
    assert len(runs) == 1 + 3 * {"once": 3, "twice": 2}[kind]
    for (name, a), b in zip(one.state_dict().items(), several.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6), name
    if kind == "twice":  # its first call has the mean and variance that it has in the dense model

        def first_call(model):
            x = model.norm(model.first(X))
            return torch.stack([x.mean(0), x.var(0, unbiased=False)])

        with torch.no_grad():
            assert torch.allclose(first_call(one), first_call(dense), rtol=1e-4, atol=1e-4)
            assert not torch.allclose(first_call(small), first_call(dense), rtol=1e-2, atol=1e-2)


def test_compress_does_it_with_data():
    dense, X = net(), torch.randn(50, 3, 6, 6)
    ranks = {"0": 2, "3": 3}
    ours = compress(dense, ranks, calibration=X)
    wanted = recalibrate_norms(compress(dense, ranks), dense, [X[:20], X[20:]])
    with torch.no_grad():
        assert torch.allclose(ours(X), wanted(X), rtol=1e-4, atol=1e-5)


def test_what_was_not_cut_stays_bit_for_bit():
    dense, X = net(), torch.randn(50, 3, 6, 6)
    for name, value in recalibrate_norms(dense, dense, X).state_dict().items():
        assert torch.allclose(value, dense.state_dict()[name], rtol=1e-5, atol=1e-6)
    plain = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))
    same = recalibrate_norms(plain, plain, torch.randn(9, 4))
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), plain.parameters(), strict=True))


def test_modes_are_those_of_the_small_model():
    dense, X = net(), torch.randn(50, 3, 6, 6)
    small = compress(dense, {"0": 2}).train()
    small[5].eval()
    modes = [m.training for m in recalibrate_norms(small, dense, X).modules()]
    assert modes == [m.training for m in small.modules()]


def test_a_channel_that_never_moves_keeps_its_variance():
    dense = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    dense[0].weight.data[0] = 0.0
    small = compress(dense, {"0": 1})
    mended = recalibrate_norms(small, dense, torch.randn(30, 3))
    assert mended[1].running_var[0] == dense[1].running_var[0]
    assert all(bool(t.isfinite().all()) for t in mended.state_dict().values())


def test_bad_calls():
    dense, X = net(), torch.randn(5, 3, 6, 6)
    with pytest.raises(ValueError, match="X has no samples"):
        recalibrate_norms(dense, dense, X[:0])
    with pytest.raises(ValueError, match="small=Sequential must be a copy of dense with a batch norm '1'"):
        recalibrate_norms(nn.Sequential(*[m for m in dense if not isinstance(m, nn.BatchNorm2d)]), dense, X)
    with pytest.raises(TypeError, match="dense=None must be a torch.nn.Module"):
        recalibrate_norms(dense, None, X)

    class Aside(nn.Sequential):
        def forward(self, x):
            return x

    for data in (X, [X[:2], X[2:]]):
        with pytest.raises(ValueError, match="small=Aside must be a model that calls its batch norm '1'"):
            recalibrate_norms(Aside(*dense), dense, data)


BATCHES = {"one": lambda X: X, "several": lambda X: [X[:20], X[20:]]}


@pytest.mark.parametrize("data", BATCHES.values(), ids=BATCHES)
def test_no_hook_is_left_and_the_mode_does_not_matter(data):
    dense, X = net(), torch.randn(50, 3, 6, 6)
    small = compress(dense, {"0": 2, "3": 3})
    wanted = recalibrate_norms(small, dense, data(X)).state_dict()
    for module in recalibrate_norms(small.train(), dense.train(), data(X)).modules():
        assert not module._forward_pre_hooks and not module._forward_hooks
    with torch.inference_mode():
        same = recalibrate_norms(small, dense, data(X))
    for name, value in same.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    same.train()(X).sum().backward()  # and it can be trained, its norms too


def test_a_run_ends_at_its_norm():
    """A norm's statistics hang on nothing behind it; ``batch_size`` says how many runs there are."""
    dense, X = net(), torch.randn(60, 3, 6, 6)
    small, calls = compress(dense, {"0": 2}), []
    for name in ("0", "7", "9"):
        small.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    recalibrate_norms(small, dense, X, batch_size=20)
    assert [calls.count(name) for name in ("0", "7", "9")] == [9, 3, 0]
    calls.clear()
    recalibrate_norms(small, dense, X)
    assert [calls.count(name) for name in ("0", "7", "9")] == [1, 1, 0]


def test_a_channel_that_moves_in_one_of_the_two_only_keeps_its_variance():
    dense = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    dead = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    dead.load_state_dict(dense.state_dict())
    dead[0].weight.data[0] = 0.0
    X = torch.randn(30, 3)
    for small, other in ((dead, dense), (dense, dead)):
        mended = recalibrate_norms(small, other, X)
        assert mended[1].running_var[0] == other[1].running_var[0]
        assert mended[1].running_var.isfinite().all() and mended[1].running_mean.isfinite().all()


@pytest.mark.parametrize("batches", [1, 2])
def test_data_that_are_not_finite_are_named(batches):
    model, X = net(), torch.randn(8, 3, 6, 6)
    small, before = compress(model, {"3": 4}), snapshot(model)
    X[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="^inputs of layer '1' have nan or inf in them"):
        recalibrate_norms(small, model, X if batches == 1 else [X, X])
    assert snapshot(model) == before
