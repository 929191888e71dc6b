"""A layer before a sum: against a regression on what the sum lacks, by blocks and as whole runs."""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from blockwise import MODULE, assert_same, both_ways
from oracles import snapshot
from torch import nn

from lowrank_utils import (
    calibrate,
    cascade,
    compress_within,
    from_exported,
    residual_connections,
    unpack_attention,
)

D, WIDTH = torch.float64, 6


class Block(nn.Module):
    """x + b(relu(a(x))), with a norm before it or behind it."""

    def __init__(self, before):
        super().__init__()
        self.before, self.norm = before, nn.LayerNorm(WIDTH)
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)

    def forward(self, x):
        if self.before:
            return x + self.b(torch.relu(self.a(self.norm(x))))
        return self.norm(x + self.b(torch.relu(self.a(x))))


def chain(before, seed=0, depth=4):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), *(Block(before) for _ in range(depth))).to(D)


def connections(before, depth=4):
    return {f"{i}.b": f"{i}.norm" if before else f"{i}.a" for i in range(1, depth + 1)}


def setting(before, seed=0):
    net = chain(before, seed)
    X = torch.randn(300, WIDTH, dtype=D)
    moments = calibrate(net, X, target="inputs")
    return net, X, moments, {name: 3 for name in moments}


@torch.no_grad()
def full_error(small, net, X):
    return float((small(X) - net(X)).square().mean())


@torch.no_grad()
def around(net, x, i):
    """What block i adds to, what its last layer reads and what that gives."""
    h = net[:i](x)
    a = torch.relu(net[i].a(net[i].norm(h) if net[i].before else h))
    return h, a, net[i].b(a)


@pytest.mark.parametrize("before", [True, False])
def test_the_connections_are_found(before):
    net = chain(before)
    seen = snapshot(net, torch.ones(3, WIDTH, dtype=D))
    assert residual_connections(net, torch.ones(3, WIDTH, dtype=D)) == connections(before)
    assert snapshot(net, torch.ones(3, WIDTH, dtype=D)) == seen


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_those_of_a_transformer(norm_first, batch_first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, norm_first=norm_first, batch_first=batch_first)
    net = nn.Sequential(unpack_attention(layer), unpack_attention(layer))
    readers = ("norm1", "norm2") if norm_first else ("self_attn.v_proj", "linear1")
    wanted = dict(zip(("self_attn.out_proj", "linear2"), readers, strict=True))
    found = residual_connections(net, torch.randn(5, 3, 8))
    assert found == {f"{i}.{k}": f"{i}.{v}" for i in range(2) for k, v in wanted.items()}


class Sums(nn.Module):
    """A sum of one kind."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.read = kind, nn.Identity()
        self.a, self.b, self.f = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.ReLU()

    def forward(self, x, other=None):
        h = self.f(self.a(x))
        return self.kind(self, h)


def _written(y):
    place = torch.zeros(y.shape)
    place[:] = y  # calls __setitem__, which returns nothing
    return place


SUMS = {
    "y + h": (lambda s, h: s.b(h) + h, {"b": "b"}),
    "h + y": (lambda s, h: h + s.b(h), {"b": "b"}),
    "in place": (lambda s, h: h.add_(s.b(torch.sigmoid(s.read(h)))), {"b": "read"}),
    "into the layer's output": (lambda s, h: s.b(torch.sigmoid(s.read(h))).add_(h), {"b": "read"}),
    "behind a scale": (lambda s, h: h + 2 * s.b(h), {}),
    "of a scale": (lambda s, h: torch.add(h, s.b(h), alpha=2), {}),
    "a difference": (lambda s, h: h - s.b(h), {}),
    "behind a nonlinearity": (lambda s, h: h + torch.tanh(s.b(h)), {}),
    "called twice": (lambda s, h: h + s.b(h + s.b(h)), {}),
    "of what nobody reads": (lambda s, h: torch.sin(h) + s.b(h), {}),
    "of what is read later": (lambda s, h: s.b(torch.sin(h)) + s.read(h), {}),
    "of what was changed": (lambda s, h: s.b(s.read(h)) + h.mul_(2), {}),
    "used for something else too": (lambda s, h: next(y + h + torch.sin(y) for y in [s.b(h)]), {}),
    "twice added": (lambda s, h: next(y + h + (y + s.read(h)) for y in [s.b(h)]), {}),
    "written elsewhere too": (lambda s, h: next(y + h + _written(y) for y in [s.b(h)]), {}),
    "a number": (lambda s, h: s.b(h) + 1.0, {}),
    "a vector": (lambda s, h: s.b(h) + s.read(h[0]), {}),
}


@pytest.mark.parametrize("kind", SUMS)
def test_which_sums_count(kind):
    call, wanted = SUMS[kind]
    assert residual_connections(Sums(call), torch.randn(4, WIDTH)) == wanted
    assert residual_connections(Sums(call), [{"x": torch.randn(4, WIDTH)}]) == wanted


def test_those_of_an_exported_program():
    net, X = chain(False, depth=2).float(), torch.randn(5, WIDTH)
    assert residual_connections(from_exported(torch.export.export(net, (X,))), X) == connections(False, 2)


def test_its_copy_goes_at_once_and_no_compiler_is_loaded():
    code = """
import gc, sys, torch, weakref
from torch import nn
import lowrank_utils
module, copies = sys.modules["lowrank_utils.network.residual"], []
real = module.copied
module.copied = lambda net: copies.append(weakref.ref(made := real(net))) or made
net, loaded = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), "torch._dynamo" in sys.modules
gc.disable()
assert lowrank_utils.residual_connections(net, torch.randn(5, 3, 8)) == {"linear2": "linear1"}
assert copies and copies[0]() is None
assert loaded or "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_run_is_in_eval_mode_without_gradients_on_the_first_batch():
    seen = []

    def forward(s, h):
        seen.append((len(h), s.training, torch.is_grad_enabled()))
        return s.b(h) + h

    net = Sums(forward).train()
    for X in (torch.randn(100, WIDTH), [torch.randn(2, WIDTH), torch.randn(9, WIDTH)]):
        assert residual_connections(net, X) == {"b": "b"}
    assert seen == [(32, False, False), (2, False, False)] and net.training


@pytest.mark.parametrize("around", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_whatever_is_turned_on_around(around):
    dtypes = []
    net = Sums(lambda s, h: dtypes.append(h.dtype) or s.b(h) + h)
    with around():
        assert residual_connections(net, torch.randn(4, WIDTH)) == {"b": "b"}
        block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        assert residual_connections(block, torch.randn(5, 3, 8)) == {"linear2": "linear1"}
    assert dtypes == [torch.float32]


def test_layers_without_a_rank_are_passed_over_in_silence():
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert residual_connections(block, torch.randn(5, 3, 8)) == {"linear2": "linear1"}


def test_of_two_names_only_that_which_is_seen_is_taken():
    net, X = nn.Sequential(layer := nn.Linear(4, 4), nn.Linear(4, 4), layer), torch.randn(9, 4)
    with pytest.raises(ValueError, match=r"residual\['1'\]='2' must be one of"):
        cascade(net, {"1": 2}, X, calibrate(net, X, target="inputs", layers=["1"]), residual={"1": "2"})


def test_a_hook_on_the_layer_hides_it():
    net = Sums(SUMS["y + h"][0])
    net.b.register_forward_hook(lambda layer, args, output: 10 * output)
    assert residual_connections(net, torch.randn(4, WIDTH)) == {}


def test_no_samples_no_model_and_no_mapping():
    with pytest.raises(TypeError, match=re.escape("residual=['b'] must be a mapping from layers to modules")):
        cascade(TWICE, {"a": 2}, XS, MOMENTS, residual=["b"])
    with pytest.raises(TypeError, match=re.escape("residual=['b'] must be a mapping from layers to modules")):
        compress_within(TWICE, metric=lambda model: 1.0, max_drop=0.1, residual=["b"])
    with pytest.raises(ValueError, match="^X has no samples; it must have at least one"):
        residual_connections(Sums(SUMS["y + h"][0]), torch.zeros(0, WIDTH))
    with pytest.raises(TypeError, match=re.escape("model='net' must be a torch.nn.Module")):
        residual_connections("net", torch.zeros(1, WIDTH))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("i", [1, 3])
def test_full_rank_is_the_regression_on_what_the_sum_lacks(before, i):
    net, X, moments, ranks = setting(before)
    small = cascade(net, {**ranks, f"{i}.b": WIDTH}, X, moments, ridge=1e-12, residual=connections(before))
    (h, _, y), (now, x, got) = around(net, X, i), around(small, X, i)
    one = np.concatenate([x.numpy(), np.ones((len(x), 1))], 1)
    wanted = one @ np.linalg.lstsq(one, (y + h - now).numpy(), rcond=None)[0]
    # C has a condition of up to 4e4, and a ridge of 1e-12 is felt by that much: 4e-8 of numbers near 1
    assert np.abs(got.numpy() - wanted).max() < 1e-7
    without = cascade(net, {**ranks, f"{i}.b": WIDTH}, X, moments, ridge=1e-12)
    assert not np.allclose(around(without, X, i)[2], wanted, atol=1e-3)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_the_sum_of_a_block_is_nearer(before, seed):
    net, X, moments, ranks = setting(before, seed)
    last = {**ranks, "4.b": WIDTH}
    only = {"4.b": connections(before)["4.b"]}  # both nets are the same up to there
    off = []
    for residual in (None, only):
        small = cascade(net, last, X, moments, ridge=1e-12, residual=residual)
        (h, _, y), (now, _, got) = around(net, X, 4), around(small, X, 4)
        off.append(float((h + y - now - got).square().mean()))
    assert off[1] < off[0]  # the least of all weights', which is not y's own


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("ridge", [1e-3, None])
def test_by_blocks_and_as_whole_runs(monkeypatch, before, ridge):
    net, X, moments, ranks = setting(before)
    options = {"ridge": ridge, "batch_size": 50, "residual": connections(before)}
    blocks, whole, given_up = both_ways(monkeypatch, net, ranks, X, moments, **options)
    assert not given_up
    assert_same(blocks, whole)


class Pair(nn.Module):
    """tanh(a(x) + b(x)): what is added to b comes from a, which reads the same tensor."""

    def __init__(self, act):
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.read, self.act = nn.Identity(), act

    def forward(self, x):
        return self.act(self.read(self.a(x)) + self.b(x))


class Shared(nn.Module):
    """What reads the other addend is one module in all blocks, and is called once more after the layer."""

    def __init__(self, act):
        super().__init__()
        self.a, self.b, self.act = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH), act

    def forward(self, x):
        return self.act(x) + self.b(torch.relu(self.a(x)))


@pytest.mark.parametrize("kind", [Pair, Shared])
def test_a_group_and_a_shared_module_both_ways(monkeypatch, kind):
    torch.manual_seed(0)
    act = nn.Tanh()
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), *(kind(act) for _ in range(3))).to(D)
    X = torch.randn(300, WIDTH, dtype=D)
    moments = calibrate(net, X, target="inputs")
    ranks = {name: 1 if name.endswith("a") else WIDTH for name in moments}
    residual = residual_connections(net, X)
    if kind is Pair:
        assert residual == {f"{i}.b": f"{i}.read" for i in (1, 2, 3)}
    else:
        assert residual == {}  # what is added is what comes out of it
        residual = {f"{i}.b": "1.act" for i in (1, 2, 3)}
    blocks, whole, _ = both_ways(monkeypatch, net, ranks, X, moments, residual=residual)
    assert_same(blocks, whole)
    plain = cascade(net, ranks, X, moments)
    off, without = (full_error(each, net, X) for each in (blocks, plain))
    assert kind is Shared or off < 0.1 * without  # b can do all that a did


def test_a_layer_that_is_not_refitted_may_be_named():
    net, X, moments, ranks = setting(True)
    few = {name: moments[name] for name in list(moments)[:3]}
    some = {name: ranks[name] for name in few}
    small = cascade(net, some, X, few, residual=connections(True))
    only = cascade(net, some, X, few, residual={"1.b": "1.norm"})
    assert all(torch.equal(p, q) for p, q in zip(small.parameters(), only.parameters(), strict=True))


def test_convolutions_and_batches_of_unlike_sizes(monkeypatch):
    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(6, 4, 3, padding=1)

        def forward(self, x):
            return x + self.b(torch.relu(self.a(x)))

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(4, 4, 1), *(Conv() for _ in range(3))).to(D)
    data = [torch.randn(n, 4, 11, dtype=D) for n in (10, 7, 7)]
    moments = calibrate(net, data, target="inputs")
    ranks = {name: ("channel", 3) for name in moments}
    residual = residual_connections(net, data)
    assert residual == {f"{i}.b": f"{i}.a" for i in (1, 2, 3)}
    blocks, whole, _ = both_ways(monkeypatch, net, ranks, data, moments, residual=residual)
    assert_same(blocks, whole)
    X, plain = torch.cat(data), cascade(net, ranks, data, moments)
    assert full_error(blocks, net, X) < full_error(plain, net, X)


def test_nothing_before_it_has_changed():
    net, X, moments, _ = setting(True)
    ranks = {"4.a": 2, "4.b": 2}
    with_it = cascade(net, ranks, X, moments, residual=connections(True))
    without = cascade(net, ranks, X, moments)
    assert all(torch.equal(p, q) for p, q in zip(with_it.parameters(), without.parameters(), strict=True))


def test_a_layer_that_reads_what_its_output_is_added_to():
    """The connection goes round one layer alone: h + W h."""

    class Round(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            h = self.a(x)
            return h + self.b(h)

    torch.manual_seed(0)
    net, X = Round().to(D), torch.randn(200, WIDTH, dtype=D)
    moments = calibrate(net, X, target="inputs")
    small = cascade(net, {"a": 3, "b": WIDTH}, X, moments, ridge=1e-12, residual={"b": "b"})
    h = small.a(X)
    one = torch.cat([h, torch.ones(len(h), 1, dtype=D)], 1).detach().numpy()
    wanted = one @ np.linalg.lstsq(one, (net(X) - h).detach().numpy(), rcond=1e-9)[0]  # of rank 3
    assert np.abs(small.b(h).detach().numpy() - wanted).max() < 1e-7


def test_the_whole_search_takes_it():
    net, X, moments, _ = setting(False)

    def near(model):
        return -float((model(X) - net(X)).square().mean())

    given = {"max_drop": 0.2, "calibration": [X], "residual": connections(False)}
    small, report = compress_within(net, metric=near, steps=4, stretch=None, **given)
    ranks = {row.layer: row.rank for row in report.layers if row.rank is not None}
    moments = calibrate(net, [X])
    wanted = cascade(net, ranks, [X], moments, residual=connections(False))
    assert ranks and all(
        torch.equal(p, q) for p, q in zip(small.parameters(), wanted.parameters(), strict=True)
    )


def test_positions_that_do_not_count():
    net, X, moments, ranks = setting(False)
    texts = X.view(60, 5, WIDTH)
    longer = torch.cat([texts, torch.full((60, 2, WIDTH), 9.0, dtype=D)], 1)
    options = {"ridge": 1e-3, "residual": connections(False), "batch_size": 20}
    masked = cascade(net, ranks, longer, moments, mask=lambda x: (x != 9.0).all(2), **options)
    plain = cascade(net, ranks, texts, moments, **options)
    for p, q in zip(masked.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-9)


class Twice(nn.Module):
    """Its nonlinearity is called before each of two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.f, self.wide = nn.Tanh(), nn.Linear(WIDTH, 9)
        self.end, self.count = nn.Identity(), nn.Embedding(4, 3)

    def forward(self, x):
        self.count(torch.zeros(2, dtype=torch.long))
        wide = self.wide(self.f(x))
        h = self.f(self.a(x))
        return self.end(h + self.b(h)) + wide.sum()


TWICE = Twice().to(D)
XS = torch.randn(40, WIDTH, dtype=D)
MOMENTS = calibrate(TWICE, XS, target="inputs", layers=["a", "b"])
BEFORE = "must be called before 'b' is, on a tensor of the shape of its output"


@pytest.mark.parametrize("few", [-1, 10**9])
@pytest.mark.parametrize(
    "residual, message",
    [
        ({"g": "f"}, "a layer in residual='g' must be one of '', 'a', 'b', 'count', 'end', 'f', 'wide'"),
        ({"b": "g"}, "residual['b']='g' must be one of '', 'a', 'b', 'count', 'end', 'f', 'wide'"),
        ({"b": 3}, "residual['b']=3 must be one of"),
        ({"b": "end"}, f"residual['b']='end' {BEFORE}"),  # after it
        ({"b": "count"}, f"residual['b']='count' {BEFORE}"),  # of another shape
    ],
)
def test_impossible_connections(monkeypatch, few, residual, message):
    monkeypatch.setattr(MODULE, "FEW", few)
    before = snapshot(TWICE, XS)
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        cascade(TWICE, {"a": 2, "b": 2}, XS, MOMENTS, residual=residual)
    assert snapshot(TWICE, XS) == before
