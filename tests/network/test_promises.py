"""What search and compression promise each other and the model, over models that break shortcuts."""

import copy

import pytest
import torch
from oracles import Lambda, snapshot
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import ZOO, case

from lowrank_utils import (
    accuracy,
    adapt,
    allocate_ranks,
    calibrate,
    cascade,
    compress,
    compress_within,
    cost_by_layer,
    count_macs,
    find_rank,
    measure_harm,
    recalibrate_norms,
    to_plain,
    train_nn,
    unpack_attention,
)


def writes_a_list():
    class Prefix(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(9, 8)

        def forward(self, x, into):
            into.append(self.a(x))
            return into[-1] * 0

    def forward(s, x):
        kept = []
        zero = s.prefix(x, kept)
        return s.out(torch.tanh(s.layer(kept[-1] + zero)) + kept[-1])

    return Lambda(forward, prefix=Prefix(), layer=nn.Linear(8, 8), out=nn.Linear(8, 4))


def writes_a_buffer():
    class Prefix(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(9, 8)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen = self.a(x).std(0, keepdim=True)
            return self.a(x)

    def forward(s, x):
        h = s.prefix(x)
        return s.out(torch.tanh(s.layer(h)) * s.prefix.seen)

    return Lambda(forward, prefix=Prefix(), layer=nn.Linear(8, 8), out=nn.Linear(8, 4))


def weight_read_elsewhere():
    def forward(s, x):
        h = torch.tanh(s.layer(s.a(x)))
        return s.out(h) + 0.4 * F.linear(x[:, :8], s.layer.weight)[:, :4]

    return Lambda(forward, a=nn.Linear(9, 8), layer=nn.Linear(8, 8), out=nn.Linear(8, 4))


def hook_that_counts():
    model = nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 4))
    model[0].register_forward_hook(lambda m, args, out: out * 0.7 + args[0].mean())
    model[2].register_forward_hook(lambda m, args, out: out.flip(1))
    return model


def keyword_only():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.rand(8))

        def forward(self, *, x, out):
            out.copy_(x * self.w)

    def forward(s, x):
        h = s.a(x)
        scaled = torch.empty_like(h)
        s.scale(x=h, out=scaled)
        return s.out(torch.tanh(s.layer(scaled)))

    return Lambda(forward, a=nn.Linear(9, 8), scale=Scale(), layer=nn.Linear(8, 8), out=nn.Linear(8, 4))


ODD = {
    "writes a list": (writes_a_list, "layer"),
    "writes a buffer": (writes_a_buffer, "layer"),
    "weight read elsewhere": (weight_read_elsewhere, "layer"),
    "hooks": (hook_that_counts, "2"),
    "hooked layer": (hook_that_counts, "0"),
    "keyword only": (keyword_only, "layer"),
}


def odd(name, seed):
    torch.manual_seed(seed)
    build, layer = ODD[name]
    model = build()
    with torch.no_grad():
        for p in model.parameters():
            p *= 2
        X = torch.randn(101, 9)
        y = model.eval()(X.clone()).argmax(-1)
    return model, layer, X, y


def assert_the_curve_is_that_of_the_cut_model(model, layer, X, y):
    found = find_rank(model, layer, X, y, max_drop=0.05, max_rank=4)
    assert found.baseline == accuracy(copy.deepcopy(model), X, y)
    for rank, score in found.curve.items():
        assert score == accuracy(compress(model, {layer: rank}), X, y), rank


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ODD)
def test_the_curve_is_that_of_the_cut_model(name, seed):
    model, layer, X, y = odd(name, seed)
    before = snapshot(model, X)
    assert_the_curve_is_that_of_the_cut_model(model, layer, X, y)
    assert snapshot(model, X) == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ZOO)
def test_the_curve_is_that_of_the_cut_model_in_every_dtype(name, dtype):
    model, layer, X, y, _ = case(name, 5)
    assert_the_curve_is_that_of_the_cut_model(model.to(dtype), layer, X.to(dtype), y)


def test_hooks_and_what_is_frozen_stay():
    model, layer, X, _ = odd("hooked layer", 0)
    model[0].requires_grad_(False)
    small = compress(model, {"0": 8, "2": 4})
    with torch.no_grad():
        assert torch.allclose(small.eval()(X), model(X), atol=1e-4)
    assert not any(p.requires_grad for p in small[0].parameters())
    assert all(p.requires_grad for p in small[2].parameters())
    labels = torch.randint(0, 4, (len(X),))
    assert calibrate(model, X, labels)["2"].gradient.any()
    moments = calibrate(model, X)
    again = cascade(model, {"0": 8, "2": 4}, X, moments, ridge=1e-9)
    with torch.no_grad():
        assert torch.allclose(again.eval()(X), model(X), atol=1e-3)


class Products(TorchDispatchMode):
    """Shapes of the matrices that inputs are multiplied by, and whether a fused encoder ran."""

    def __init__(self):
        super().__init__()
        self.shapes, self.fused = [], False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        self.fused |= "transformer_encoder_layer" in name
        if name in ("aten::mm", "aten::addmm", "aten::mm.out", "aten::addmm.out"):
            self.shapes += [tuple(t.shape) for t in args if isinstance(t, torch.Tensor) and t.ndim == 2]
        return func(*args, **(kwargs or {}))


def encoder():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 28, batch_first=True), 2)
    model.layers[1] = nn.TransformerEncoderLayer(8, 2, 20, batch_first=True)  # told apart by its shapes
    return model.eval()


@pytest.mark.parametrize("pivoted", [False, True])
@pytest.mark.parametrize("name", ["layers.0.linear1", "layers.1.linear1", "layers.1.linear2"])
@pytest.mark.parametrize("padded", [False, True])
def test_the_factors_run_inside_a_fused_encoder(name, pivoted, padded):
    model, x = encoder(), torch.randn(3, 5, 8)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 3:] = padded
    small = compress(model, {name: 3}, pivoted=pivoted)
    with Products() as dense:
        model(x, src_key_padding_mask=mask)  # with gradients, and so not fused
    with torch.no_grad(), Products() as products:
        small(x, src_key_padding_mask=mask)
    m, n = model.get_submodule(name).weight.shape
    assert (n, m) in dense.shapes and (n, m) not in products.shapes  # the dense layer multiplies by W^T
    assert any(3 in shape for shape in products.shapes)
    full = compress(model, {name: 8}, pivoted=pivoted)
    with torch.no_grad():
        wanted, got = model(x, src_key_padding_mask=mask), full(x, src_key_padding_mask=mask)
    assert torch.allclose(got[~mask], wanted[~mask], atol=1e-5)


def test_a_layer_put_in_by_hand_runs_too():
    from lowrank_utils import LowRankLinear

    block = copy.deepcopy(encoder().layers[0])
    with torch.no_grad(), Products() as before:
        block(torch.randn(3, 5, 8))
    assert before.fused
    block.linear1 = LowRankLinear.from_linear(block.linear1, 3)
    with torch.no_grad(), Products() as after:
        block(torch.randn(3, 5, 8))
    assert not after.fused and any(3 in shape for shape in after.shapes)


def test_inputs_stay_as_they_are():
    torch.manual_seed(0)
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))
    X, y = torch.randn(30, 6), torch.randint(0, 3, (30,))
    X.requires_grad_()
    kept = X.detach().clone()
    moments = calibrate(net, X, y)
    X = X.detach()
    cascade(net, {"1": 2}, X, moments)
    find_rank(net, "1", X, y, max_drop=0.1)
    accuracy(net, X, y)
    assert torch.equal(X, kept) and X.grad is None


def test_a_layer_whose_inputs_are_constant():
    torch.manual_seed(0)
    net = Lambda(lambda s, x: s.out(s.layer(torch.ones_like(s.a(x)) * 3.1)), a=nn.Linear(6, 5),
                 layer=nn.Linear(5, 4), out=nn.Linear(4, 3))  # fmt: skip
    X = torch.randn(50, 6)
    small = cascade(net, {"a": 1, "layer": 2}, X, calibrate(net, X))
    assert small.layer.weight.abs().max() < 2 * net.layer.weight.abs().max()
    with torch.no_grad():
        assert torch.allclose(small(X), net(X), atol=1e-4)


def test_autocast_and_inference_mode_around_change_nothing():
    model, _, X, y, _ = case("mlp, middle", 3, torch.float32)
    wanted = calibrate(model, X, y)
    refitted = cascade(model, {"0": 2, "2": 3}, X, wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        moments = calibrate(model, X, y)
        small = cascade(model, {"0": 2, "2": 3}, X, moments)
    for name in wanted:
        assert torch.equal(moments[name].covariance, wanted[name].covariance)
        assert torch.equal(moments[name].gradient, wanted[name].gradient)
    for a, b in zip(small.parameters(), refitted.parameters(), strict=True):
        assert torch.equal(a, b) and not a.is_inference()


def test_what_is_made_in_inference_mode_can_be_trained():
    model, _, X, y, _ = case("mlp, middle", 3, torch.float32)
    encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    moments = calibrate(model, X)
    with torch.inference_mode():
        made = {
            "compress": compress(model, {"0": 2}),
            "by data": compress(model, {"0": 2}, moments=moments),
            "pivoted": compress(model, {"0": 2}, pivoted=True),
            "one rank": compress(model, 1),
            "adapt": adapt(model, {"0": 2}),
            "to_plain": to_plain(compress(model, {"0": 2})),
            "unpack_attention": unpack_attention(encoder),
        }
    for name, net in made.items():
        assert not any(t.is_inference() for t in [*net.parameters(), *net.buffers()]), name
    for name, net in list(made.items())[:-1]:
        net(X).sum().backward()
        assert any(p.grad is not None for p in net.parameters()), name


def test_labels_that_were_made_in_inference_mode():
    model, _, X, y, _ = case("mlp, middle", 3, torch.float32)
    wanted = calibrate(model, X, y)
    with torch.inference_mode():
        X, y = X.clone(), y.clone()
    found = calibrate(model, X, y)
    assert all(torch.equal(found[name].gradient, wanted[name].gradient) for name in wanted)


def test_a_compiled_model_answers_by_its_own_layers_names():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8))
    X, y, compiled = torch.randn(30, 6), torch.randint(0, 8, (30,)), torch.compile(net)
    moments = calibrate(net, X, y)
    calls = {
        "calibrate": lambda m: sorted(calibrate(m, X, y)),
        "allocate_ranks": lambda m: allocate_ranks(m, 0.8),
        "find_rank": lambda m: find_rank(m, "0", X, y, max_drop=0.1).curve,
        "measure_harm": lambda m: sorted(measure_harm(m, X).layers),
        "count_macs": lambda m: count_macs(m, X),
        "cost_by_layer": lambda m: str(cost_by_layer(m, X)),
        "compress": lambda m: str(compress(m, {"0": 2})),
        "cascade": lambda m: str(cascade(m, {"0": 2}, X, moments)),
        "compress_within": lambda m: str(compress_within(m, X, y, max_drop=0.3, steps=3)[1]),
        "recalibrate_norms": lambda m: str(recalibrate_norms(m, m, X)),
    }
    for name, call in calls.items():
        assert call(compiled) == call(net), name
    assert list(compiled.state_dict()) == [f"_orig_mod.{key}" for key in net.state_dict()]  # as it was


@pytest.mark.parametrize("made", [torch.jit.script, lambda part: torch.jit.trace(part, torch.ones(2, 8))])
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_part_from_torch_jit_is_a_part_like_any_other(made):
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    plain = nn.Sequential(nn.Linear(8, 8), part, nn.Linear(8, 4))
    net = copy.deepcopy(plain)
    net[1] = made(part)
    X, y, chosen = torch.randn(40, 8), torch.randint(0, 4, (40,)), ["0", "2"]
    moments = calibrate(plain, X, y, layers=chosen)
    for name, seen in calibrate(net, X, y, layers=chosen).items():
        assert torch.allclose(seen.gradient, moments[name].gradient, rtol=1e-5)
    calls = {
        "find_rank": lambda m: find_rank(m, "2", X, y, max_drop=0.1).curve,
        "measure_harm": lambda m: measure_harm(m, X, layers=chosen).layers,
        "cascade": lambda m: str(cascade(m, {"0": 2}, X, moments)[0]),
        "compress_within": lambda m: str(compress_within(m, X, y, max_drop=0.3, steps=3, layers=chosen)[1]),
    }
    for name, call in calls.items():
        assert call(net) == call(plain), name
    small, before = compress(net, {"0": 2}), snapshot(plain)
    train_nn(small, X, y, epochs=2)
    assert all(p.is_leaf and p.grad is not None for p in small.parameters())
    assert snapshot(plain) == before and all(p.grad is None for p in net.parameters())
