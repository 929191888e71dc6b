"""Folded permutations: the same outputs, from layers that sort nothing."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from oracles import Lambda, snapshot
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils._pytree import tree_leaves
from zoo import ZOO, case

from lowrank_utils import (
    LowRankLinear,
    PivotedLinear,
    compress,
    count_macs,
    count_params,
    fold_permutations,
    from_exported,
    to_plain,
    unpack_attention,
)

D, N = torch.float64, 6
ORDER = torch.tensor([3, 0, 4, 1, 5, 2], dtype=torch.int32)  # as drawn, it may be the identity


def pivot(m=N, n=N, rank=3, *, bias=True):
    return PivotedLinear.from_linear(nn.Linear(n, m, bias=bias), rank)


def tensors_of(output):
    if isinstance(output, SimpleNamespace):
        output = vars(output)
    return tree_leaves(output)


def folded_in(model):
    ours = {k: layer for k, layer in model.named_modules() if isinstance(layer, PivotedLinear)}
    return {k for k, layer in ours.items() if layer.position is None}


def check(net, X, wanted):
    """The folded net and what it folds; its outputs are those of the net, which is left alone."""
    net, X = net.double(), X.double()
    before = snapshot(net)
    folded = fold_permutations(net, X)
    assert snapshot(net) == before and folded.training == net.training
    assert folded_in(folded) == set(wanted)
    with torch.no_grad():
        expected, found = copy.deepcopy(net).eval()(X.clone()), copy.deepcopy(folded).eval()(X.clone())
    for a, b in zip(tensors_of(found), tensors_of(expected), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11 * (1 + b.abs().max().item()))
    return folded


@pytest.mark.parametrize("reader", [nn.Linear(N, 4), LowRankLinear(N, 4, 2), pivot(4, N, 2, bias=False)])
@pytest.mark.parametrize("between", [[], [nn.ReLU()], [nn.GELU(), nn.Dropout(0.5)], [nn.ReLU(inplace=True)]])
def test_into_each_kind_of_reader(between, reader):
    net = nn.Sequential(pivot(N, 5, bias=False), *copy.deepcopy(between), copy.deepcopy(reader))
    net[0].position = ORDER
    folded = check(net, torch.randn(7, 5), {"0"})
    assert not torch.equal(folded[0].weight, net[0].double().weight)
    assert count_params(folded) == count_params(net)
    assert count_macs(folded, torch.ones(1, 5, dtype=D)) == count_macs(net, torch.ones(1, 5, dtype=D))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("m", "n", "r"), [(9, 4, 3), (4, 9, 4), (6, 6, 1), (1, 5, 1), (8, 3, 3)])
def test_weight_and_bias_are_what_it_computes(m, n, r, bias):
    net = nn.Sequential(pivot(m, n, r, bias=bias), nn.Tanh(), nn.Linear(m, 2))
    layer = check(net, torch.randn(5, n), {"0"})[0]
    x, before = torch.randn(5, n, dtype=D), net.double()[0]
    y = layer(x)
    assert y.is_contiguous()
    wanted = F.linear(x, layer.weight, layer.bias)
    for other in (wanted, layer.to_linear()(x), layer.to_sequential()(x)):
        assert torch.allclose(y, other, rtol=0, atol=1e-12)
    assert torch.allclose(y[:, before.position], before(x), rtol=0, atol=1e-12)
    order = copy.deepcopy(before).drop_order()
    assert torch.equal(before.weight[order], layer.weight)
    assert torch.equal(layer.drop_order(), torch.arange(m))  # there is none left
    assert ("folded=True" in repr(layer)) and "folded" not in repr(before)


def test_a_chain_of_three_and_what_the_model_gives_out():
    net = nn.Sequential(pivot(), nn.ReLU(), pivot(), nn.ReLU(), pivot())
    check(net, torch.randn(4, N), {"0", "2"})
    net[0].position = ORDER
    folded = fold_permutations(net, torch.randn(4, N, dtype=D))
    again = check(folded, torch.randn(4, N), {"0", "2"})  # nothing is folded twice
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), folded.parameters(), strict=True))


def _into(place, h):
    place[:] = h  # calls __setitem__, which returns nothing
    return place


KINDS = {
    "functional": (lambda s, x: s.b(F.gelu(s.a(x))), {"a"}),
    "a method": (lambda s, x: s.b(s.a(x).relu().tanh()), {"a"}),
    "in place": (lambda s, x: s.b(F.relu_(s.a(x))), {"a"}),
    "two readers": (lambda s, x: s.b(h := torch.tanh(s.a(x))) + s.c(h), {"a"}),
    "one reader twice": (lambda s, x: s.b(h := torch.tanh(s.a(x))) + s.b(h), set()),
    "twice": (lambda s, x: s.b(s.a(s.a(x))), set()),
    "a sum": (lambda s, x: s.b(s.a(x) + x), set()),
    "a sum after": (lambda s, x: s.b(h := F.relu(s.a(x))) + h, set()),
    "given out": (lambda s, x: (s.b(F.relu(h := s.a(x))), h), set()),
    "given out later": (lambda s, x: {"y": s.b(h := F.relu(s.a(x))), "more": [h]}, set()),
    "given out in an object": (lambda s, x: SimpleNamespace(logits=s.b(h := F.relu(s.a(x))), more=h), set()),
    "kept from others": (lambda s, x: SimpleNamespace(logits=s.b(F.relu(s.a(x)))), {"a"}),
    "softmax": (lambda s, x: s.b(s.a(x).softmax(-1)), set()),
    "norm": (lambda s, x: s.b(F.layer_norm(s.a(x), (N,))), set()),
    "a row": (lambda s, x: s.b(s.a(x).flip(-1)), set()),
    "another's weight": (lambda s, x: F.linear(s.a(x), s.b.weight), set()),
    "a reader without a layer": (lambda s, x: s.b(h := s.a(x)) + F.linear(h, s.c.weight), set()),
    "written elsewhere": (lambda s, x: (s.b(h := s.a(x)), _into(torch.zeros_like(x), h)), set()),
    "a scale for each": (lambda s, x: s.b(torch.prelu(s.a(x), s.scale)), set()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_folded(kind):
    forward, wanted = KINDS[kind]
    net = Lambda(forward, a=pivot(), b=nn.Linear(N, N), c=nn.Linear(N, N))
    net.scale = nn.Parameter(torch.linspace(0.1, 0.9, N))
    net.a.position = ORDER
    check(net, torch.randn(5, N), wanted)


def chain():
    net = nn.Sequential(pivot(), nn.ReLU(), nn.Linear(N, 3))
    net[0].position = ORDER
    return net


@pytest.mark.parametrize("who", [0, 2])
def test_who_is_watched_is_left(who):
    net, X = chain(), torch.randn(4, N)
    handle = net[who].register_forward_hook(lambda layer, args, output: 2 * output)
    check(net, X, set())
    handle.remove()
    handle = net[who].register_forward_pre_hook(lambda layer, args: (args[0].roll(1, -1),))
    check(net, X, set())
    handle.remove()
    check(net, X, {"0"})


def test_who_shares_a_weight_is_left():
    net, X = Lambda(lambda s, x: s.chain(x), chain=chain(), other=nn.Linear(N, 3)), torch.randn(4, N)
    assert folded_in(fold_permutations(net, X)) == {"chain.0"}
    net.other.weight = net.chain[2].weight
    assert folded_in(fold_permutations(net, X)) == set()
    pruned = chain()
    prune.random_unstructured(pruned[2], "weight", 0.5)
    assert folded_in(fold_permutations(pruned, X)) == set()
    nn.utils.parametrizations.weight_norm(other := nn.Linear(N, 3))
    assert folded_in(fold_permutations(nn.Sequential(pivot(), other), X)) == set()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_of_an_encoder_the_first_of_each_pair(activation):
    torch.manual_seed(0)
    one = nn.TransformerEncoderLayer(8, 2, 12, activation=activation, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = unpack_attention(nn.TransformerEncoder(one, 2)).double()
        names = {k: 4 for k, layer in net.named_modules() if type(layer) is nn.Linear}
    small = compress(net, names, pivoted=True)
    check(small, torch.randn(3, 5, 8), {"layers.0.linear1", "layers.1.linear1"})


def test_of_an_exported_program():
    net, X = chain().double(), torch.randn(4, N, dtype=D)
    dense = nn.Sequential(net[0].to_linear(), *net[1:])
    found = from_exported(torch.export.export(dense, (X,)))
    check(compress(found, {"0": 3}, pivoted=True), X, {"0"})


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name):
    model, layer, X, _, shape = case(name, 0)
    small = compress(model, {layer: min(shape) // 2 or 1}, pivoted=True)
    before = snapshot(small)
    folded = fold_permutations(small, X)
    assert snapshot(small) == before
    with torch.no_grad():
        expected, found = small(X.clone()), folded(X.clone())
    assert (found - expected).abs().max() <= 1e4 * torch.finfo(expected.dtype).eps * expected.abs().max()


def test_it_can_be_trained_saved_scripted_exported_and_made_plain(tmp_path):
    net, X = chain(), torch.randn(16, N)
    folded = fold_permutations(net.train(), X)
    same = copy.deepcopy(folded)
    torch.save(folded.state_dict(), tmp_path / "state.pt")
    for model in (net, folded):
        model(X).square().mean().backward()
        torch.optim.SGD(model.parameters(), 0.1).step()
    assert torch.allclose(folded(X), net(X), atol=1e-5)
    assert "0.position" not in folded.state_dict()
    same.load_state_dict(torch.load(tmp_path / "state.pt"))
    for other in (torch.jit.script(same), torch.export.export(same, (X,)).module(), to_plain(same)):
        assert torch.allclose(other(X), same(X), atol=1e-6)


def test_the_run_is_in_eval_mode_on_the_first_batch():
    seen = []

    def forward(s, x):
        seen.append((len(x), s.training, torch.is_grad_enabled()))
        return s.b(F.dropout(s.a(x), training=s.training))

    net = Lambda(forward, a=pivot(), b=nn.Linear(N, N)).train()
    assert folded_in(fold_permutations(net, torch.randn(100, N))) == {"a"}
    assert folded_in(fold_permutations(net, [torch.randn(2, N), torch.randn(9, N)])) == {"a"}
    assert seen == [(32, False, False), (2, False, False)] and net.training


@pytest.mark.parametrize("around", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_whatever_is_turned_on_around(around):
    dtypes = []
    net = Lambda(lambda s, x: dtypes.append(s.a(x).dtype) or s.b(x), a=nn.Linear(N, N), b=chain())
    with around():
        folded = fold_permutations(net, torch.randn(4, N))
    assert folded_in(folded) == {"b.0"} and dtypes == [torch.float32]
    assert not any(p.is_inference() for p in folded.parameters())


def test_bad_calls():
    with pytest.raises(TypeError, match=r"model=3 must be"):
        fold_permutations(3, torch.zeros(1, N))
    with pytest.raises(ValueError, match="X has no samples; it must have at least one"):
        fold_permutations(chain(), torch.zeros(0, N))
