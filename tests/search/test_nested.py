"""Outputs at every rank against a copy whose weight was overwritten; and the prefix is run once."""

import copy
import gc

import numpy as np
import pytest
import torch
from oracles import DTYPES, eps, full_outputs, outputs_by_truncation, snapshot, truncated, with_spectrum
from torch import nn
from zoo import ZOO, case

from lowrank_utils import compress, find_rank, measure_harm
from lowrank_utils.search.nested import NestedLayer


class OneBatch:
    """Outputs on one batch."""

    def __init__(self, nested, X):
        self.outputs = nested.outputs([X])
        self.full = self.outputs.at(None)[0]

    def at(self, rank):
        return self.outputs.at(rank)[0]


# float64: a few hundred operations of numbers about 10, each rounded to 1e-16
ROOM = 1e-11


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ZOO)
def test_outputs_at_every_rank_in_any_order(name, seed):
    model, layer, X, _, (m, n) = case(name, seed, train=True)
    k = min(m, n)
    before = snapshot(model, X)
    outputs = OneBatch(NestedLayer(model, layer), X)
    wanted = {r: outputs_by_truncation(model, layer, X, r) for r in range(1, k + 1)}
    assert torch.allclose(outputs.full, full_outputs(model, X), rtol=0, atol=ROOM)
    assert not torch.allclose(wanted[1], outputs.full, rtol=0, atol=1e-3)  # rank 1 is something else
    for r in (*range(1, k + 1), k, 1, k, 2, 1, k // 2 or 1):  # up, down, twice the same, jumps
        assert torch.allclose(outputs.at(r), wanted[r], rtol=0, atol=ROOM), r
    assert torch.allclose(outputs.at(k), outputs.full, rtol=0, atol=ROOM)
    assert snapshot(model, X) == before


@pytest.mark.parametrize("name", ZOO)
def test_the_cut_model_itself(name):
    model, layer, X, _, (m, n) = case(name, 0)
    nested = NestedLayer(model, layer)
    for r in (min(m, n), 1, 2):
        with torch.no_grad():
            got = nested.at(r)(X.clone())
        assert torch.allclose(got, outputs_by_truncation(model, layer, X, r), rtol=0, atol=ROOM)


class Counting(nn.Module):
    """Counts its runs in a list that all copies share."""

    def __init__(self, inner, runs):
        super().__init__()
        self.inner, self.runs = inner, runs

    def __deepcopy__(self, memo):
        return Counting(copy.deepcopy(self.inner, memo), self.runs)

    def forward(self, x):
        self.runs.append(1)
        return self.inner(x)


def test_what_stands_before_the_layer_runs_once():
    model, layer, X, _, _ = case("after convolutions", 0)
    prefix, suffix = [], []
    model[0], model[8] = Counting(model[0], prefix), Counting(model[8], suffix)
    outputs = OneBatch(NestedLayer(model, layer), X)
    checks = 1  # the model cut at rank 1, with which the quick way is compared
    assert (len(prefix), len(suffix)) == (1 + checks, 3 + checks)
    assert outputs.outputs.runs == len(suffix)  # those that nobody asked for
    for r in (1, 2, 3):
        outputs.at(r)
    assert (len(prefix), len(suffix)) == (1 + checks, 6 + checks)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("m", "n"), [(9, 4), (5, 5), (4, 9)])
def test_the_quick_way_serves_every_shape(m, n, bias):
    """Were it wrong, the model would be run as a whole instead: the same outputs, later."""
    torch.manual_seed(0)
    prefix, suffix = [], []
    first, last = Counting(nn.Linear(3, n), prefix), Counting(nn.Linear(m, 2), suffix)
    model = nn.Sequential(first, nn.Linear(n, m, bias=bias), last).eval()
    X = torch.randn(6, 3)
    outputs = OneBatch(NestedLayer(model, "1"), X)
    before = len(prefix)
    for r in (2, 4, 1, 3, min(m, n)):
        wanted = outputs_by_truncation(model, "1", X, r)
        before += 1  # that of the oracle
        assert torch.allclose(outputs.at(r), wanted, rtol=0, atol=1e-5)
    assert len(prefix) == before


@pytest.mark.parametrize("batches", [1, 2])
def test_another_layer_in_its_place(batches):
    model, layer, X, _, _ = case("mlp, middle", 0)
    data = [X + i for i in range(batches)]
    old = model.get_submodule(layer)
    new = nn.Linear(old.in_features, old.out_features).to(X.dtype)
    other = copy.deepcopy(model).eval()
    parent, _, name = layer.rpartition(".")
    setattr(other.get_submodule(parent), name, copy.deepcopy(new))
    got = NestedLayer(model, layer).outputs(data).with_layer(new)
    assert len(got) == batches
    for mine, x in zip(got, data, strict=True):
        with torch.no_grad():
            assert torch.allclose(mine, other(x.clone()), rtol=0, atol=ROOM)
            assert not torch.allclose(mine, model.eval()(x.clone()), rtol=0, atol=1e-3)


class Remembers(nn.Module):
    """From the fifth call on its sign is another, which is after all that is tried beforehand."""

    def __init__(self, in_place):
        super().__init__()
        self.first, self.layer = nn.Linear(6, 8), nn.Linear(8, 8)
        self.in_place = in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.in_place:
            self.calls += 1
        else:
            self.calls = self.calls + 1
        return self.layer(self.first(x).relu()) * (1 if self.calls < 5 else -1)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_model_that_remembers_its_calls_starts_anew_at_each_rank(in_place):
    torch.manual_seed(0)
    model, X = Remembers(in_place).double(), torch.randn(9, 6).double()
    outputs = OneBatch(NestedLayer(model, "layer"), X)
    for rank in (1, 2, 5, 8, 3):
        wanted = compress(model, {"layer": rank})(X)
        assert torch.allclose(outputs.at(rank), wanted, rtol=0, atol=ROOM)
    assert model.calls == 0


def test_outputs_do_not_alias_each_other():
    model, layer, X, _, _ = case("the model itself", 0)
    outputs = OneBatch(NestedLayer(model, layer), X)
    first = outputs.at(1)
    kept = first.clone()
    outputs.at(2).zero_()
    assert torch.equal(first, kept) and torch.equal(outputs.at(1), kept)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    torch.manual_seed(0)
    m, n, k = 12, 9, 9
    linear = nn.Linear(n, m)
    linear.weight.data = with_spectrum(m, n, [2.0**-i for i in range(k)]).float()
    linear, X = linear.to(dtype), torch.randn(50, n).to(dtype)
    outputs = OneBatch(NestedLayer(linear, ""), X)
    size = float(X.double().norm(dim=1).max()) + float(linear.bias.detach().double().norm())
    for r in range(1, k + 1):
        wanted = X.double() @ truncated(linear.weight, r).T + linear.bias.detach().double()
        got = outputs.at(r)
        assert got.dtype == dtype
        # r updates and a product of length n, each entry rounded by half an eps of at most `size`
        assert (got.double() - wanted).abs().max() <= eps(dtype) * (n + 2 * r) * size


def test_an_in_place_write_is_counted_but_not_under_inference_mode():
    model, layer, X, _, _ = case("mlp, middle", 0)
    with torch.inference_mode():
        outputs = OneBatch(NestedLayer(model, layer), X.clone())
        got = outputs.at(2)
    assert torch.allclose(got, outputs_by_truncation(model, layer, X, 2), rtol=0, atol=ROOM)


@pytest.mark.parametrize("layer", ["nothing", "1", "", None])
def test_impossible_layers(layer):
    with pytest.raises(ValueError, match=r"^layer="):
        NestedLayer(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), layer)


def test_a_layer_that_is_never_called():
    model = nn.ModuleDict({"used": nn.Linear(3, 3), "idle": nn.Linear(3, 3)})
    model.forward = model["used"].forward
    with pytest.raises(
        ValueError, match=r"^layer='idle' must be called in the model's forward, but never is$"
    ):
        OneBatch(NestedLayer(model, "idle"), torch.ones(2, 3))


def test_a_forward_that_raises_leaves_the_model_alone():
    model, layer, X, _, _ = case("after convolutions", 0)
    before = snapshot(model, X)
    with pytest.raises(RuntimeError):
        OneBatch(NestedLayer(model, layer), X[:, :, :4])
    assert snapshot(model, X) == before


def test_a_copy_is_freed_when_nobody_holds_it():
    """A circle of references would keep each layer's copy of the model until the next collection."""

    class Marked(nn.Sequential):
        pass

    net, X = Marked(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(5, 8)
    gc.collect()
    gc.disable()
    try:
        measure_harm(net, X)
        find_rank(net, "0", X, torch.tensor([0, 1, 2, 3, 0]), max_drop=0.1)
        alive = [thing for thing in gc.get_objects() if type(thing) is Marked]
    finally:
        gc.enable()
    assert len(alive) == 1


@pytest.mark.parametrize("layer", ["encoder.layers.0.linear1", "encoder.layers.0.linear2", "head"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_that_leaves_out_padded_rows(layer):
    """In eval mode torch's encoder hands its layers nested tensors, which have no shape."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(block, 1), nn.Linear(8, 3)

        def forward(self, x, padded):
            return self.head(self.encoder(x, src_key_padding_mask=padded).mean(1))

    torch.manual_seed(0)
    model, padded = Padded().eval(), torch.arange(6) >= torch.tensor([[6]] + 39 * [[3]])
    samples, y = (torch.randn(40, 6, 8), padded), torch.randint(0, 3, (40,))
    for rank, score in find_rank(model, layer, samples, y, max_drop=1.0).curve.items():
        small = compress(model, {layer: rank})
        with torch.no_grad():
            assert score == pytest.approx(float((small(*samples).argmax(1) == y).double().mean())), rank


@pytest.mark.parametrize("size", [20, 7])
def test_what_a_model_draws_is_the_same_at_every_rank(size):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            h = self.a(x + torch.rand_like(x))
            return self.b(h + torch.rand_like(h))

    torch.manual_seed(0)
    net, X, y = Noisy().double(), torch.randn(20, 6, dtype=torch.float64), torch.randint(0, 3, (20,))
    data = [(X[i : i + size], y[i : i + size]) for i in range(0, 20, size)]
    state = torch.get_rng_state()

    def accuracy(model):
        torch.set_rng_state(state)
        with torch.no_grad():
            return sum(int((model(x).argmax(1) == labels).sum()) for x, labels in data) / len(X)

    wanted = {}
    for r in range(1, 7):
        small = copy.deepcopy(net)
        small.a.weight.data = truncated(net.a.weight, r)
        wanted[r] = accuracy(small)
    baseline = accuracy(net)
    torch.set_rng_state(state)
    found = find_rank(net, "a", data, max_drop=0.1, max_rank=6)
    assert found.curve == wanted and found.baseline == baseline
    assert torch.equal(torch.get_rng_state(), state)


def test_numpys_draws_are_the_same_at_every_rank_too():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 3)

        def forward(self, x):
            return self.a(x) + torch.from_numpy(np.random.standard_normal((len(x), 3)))

    torch.manual_seed(0)
    net, X = Noisy().double(), torch.randn(20, 6, dtype=torch.float64)
    noise = torch.from_numpy(np.random.RandomState(1).standard_normal((20, 3)))
    np.random.seed(1)
    outputs = NestedLayer(net, "a").outputs([X])
    U, S, Vh = torch.linalg.svd(net.a.weight.detach(), full_matrices=False)
    for r in (1, 2, 3):
        wanted = X @ ((U[:, :r] * S[:r]) @ Vh[:r]).T + net.a.bias.detach() + noise
        torch.testing.assert_close(outputs.at(r)[0], wanted, rtol=0, atol=1e-12)
    assert np.random.standard_normal() == float(noise[0, 0])
