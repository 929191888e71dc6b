"""Moments against numpy over the whole data set, and per-sample gradients against autograd by hand."""

import copy
import gc
import re
import weakref

import numpy as np
import pytest
import torch
from oracles import Lambda, snapshot
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from zoo import ZOO, case

from lowrank_utils import calibrate, compress_within

FEW = 17  # samples: the oracle runs one forward and one backward for each


def rows_by_hand(model, layer, X, y=None, temperature=3.0):
    """Inputs of the layer, and the loss's gradients by its outputs, one sample at a time."""
    other, xs, gs, shifts = copy.deepcopy(model).eval(), [], [], []

    def shift(linear, args, kwargs, out):  # d loss / d out is the gradient by a zero added to it
        xs.append((args[0] if args else kwargs["input"]).detach().reshape(-1, linear.in_features).clone())
        shifts.append(torch.zeros_like(out, requires_grad=True))
        return out + shifts[-1]

    other.get_submodule(layer).register_forward_hook(shift, with_kwargs=True, prepend=True)
    for i in range(len(X)):
        shifts.clear()
        logits = other(X[i : i + 1].clone())[0]
        if y is not None:
            loss = -torch.log_softmax(logits / temperature, 0)[y[i]]
            gs += [g.reshape(-1, g.shape[-1]) for g in torch.autograd.grad(loss, shifts)]
    return torch.cat(xs).double().numpy(), torch.cat(gs).double().numpy() if gs else None


def check(got, x, g=None, room=1e-12):
    """C and the mean to a few roundings of numbers of the inputs' size; no cancellation."""
    size = max(1.0, float(np.abs(x).max()))
    assert got.rows == len(x)
    assert np.allclose(got.mean, x.mean(0), rtol=0, atol=room * size)
    assert np.allclose(got.covariance, np.cov(x.T, bias=True), rtol=0, atol=room * size**2)
    if g is None:
        assert got.gradient is None
    else:
        G = g.T @ g / len(g)
        assert np.allclose(got.gradient, G, rtol=0, atol=room * max(np.abs(G).max(), 1e-300))


@pytest.mark.parametrize("name", ZOO)
def test_every_place_of_a_layer(name):
    model, layer, X, y, _ = case(name, 0, train=True)
    X, y = X[:FEW], y[:FEW]
    before = snapshot(model, X, y)
    x, g = rows_by_hand(model, layer, X, y)
    for size in (1, 5, FEW, 1000):
        check(calibrate(model, X, y, batch_size=size)[layer], x, g, 1e-11)
    check(calibrate(model, X, target="inputs")[layer], x)
    assert snapshot(model, X, y) == before
    assert np.abs(g).max() > 1e-4 and len(x) == FEW * (len(x) // FEW)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 30.0])
def test_temperature(temperature):
    model, layer, X, y, _ = case("mlp, middle", 1)
    x, g = rows_by_hand(model, layer, X[:FEW], y[:FEW], temperature)
    check(calibrate(model, X[:FEW], y[:FEW], temperature=temperature)[layer], x, g)


@pytest.mark.parametrize("size", [1, 7, 64, 500])
def test_a_large_offset_does_not_cancel(size):
    rng = np.random.default_rng(0)
    x = 1e4 + 1e-3 * rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6))
    got = calibrate(nn.Linear(6, 2).double(), torch.from_numpy(x), batch_size=size, target="inputs")[""]
    C = np.cov(x.T, bias=True)
    # sums of 500 numbers of 1e4, each rounded by eps: the mean is off by 1e-12 x sqrt(500), C by its square,
    # and by eps 1e4 in each of the two factors of 1e-3
    assert np.allclose(got.covariance, C, rtol=0, atol=1e-7 * np.abs(C).max())
    one_pass = x.T @ x / 500 - np.outer(x.mean(0), x.mean(0))
    assert np.abs(one_pass - C).max() > 1e-4 * np.abs(C).max()  # what the simple formula gives


def test_3d_rows_and_samples():
    model, layer, X, y, _ = case("3-D inputs", 0)
    got = calibrate(model, X, y, batch_size=50)
    assert (got[layer].rows, got[layer].samples) == (len(X) * 5, len(X))
    assert (got["out"].rows, got["out"].samples) == (len(X), len(X))


def test_a_layer_called_twice_has_both_inputs():
    model, layer, X, y, _ = case("called twice", 0)
    assert calibrate(model, X, y)[layer].rows == 2 * len(X)


def test_iterables_of_batches():
    model, layer, X, y, _ = case("mlp, middle", 0)
    wanted = calibrate(model, X, y)
    batches = list(zip(X.split(30), y.split(30), strict=True))
    loader = DataLoader(TensorDataset(X, y), batch_size=11, shuffle=True)
    with_an_empty_one = [*batches, (X[:0], y[:0])]
    for stream in (batches, iter(batches), loader, with_an_empty_one, [(X[:1], y[:1]), (X[1:], y[1:])]):
        got = calibrate(model, stream)
        for name, moments in wanted.items():
            assert (got[name].rows, got[name].samples) == (moments.rows, moments.samples)
            for field in ("mean", "covariance", "gradient"):
                torch.testing.assert_close(
                    getattr(got[name], field), getattr(moments, field), rtol=1e-10, atol=1e-14
                )
    unlabelled = calibrate(model, [(X[:100], None), (X[100:], None)], target="inputs")
    assert unlabelled[layer].gradient is None
    torch.testing.assert_close(unlabelled[layer].covariance, wanted[layer].covariance)


def test_integer_inputs():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Flatten(),
                        nn.Linear(20, 3)).double()  # fmt: skip
    X, y = torch.randint(0, 11, (40, 4)), torch.randint(0, 3, (40,))
    for layer in ("1", "4"):
        x, g = rows_by_hand(net, layer, X, y)
        check(calibrate(net, X, y, batch_size=9)[layer], x, g)


def test_a_layer_that_no_row_reaches_in_some_batches():
    """Routing: rows with a positive first entry go to one expert, the others to another."""

    def forward(s, x):
        one, two = s.one(x[x[:, 0] > 0]), s.two(x[x[:, 0] <= 0])
        return torch.cat([one, two])

    torch.manual_seed(0)
    net = Lambda(forward, one=nn.Linear(4, 3), two=nn.Linear(4, 3)).double()
    X = torch.randn(30, 4, dtype=torch.float64)
    X[:10, 0] = -1.0
    got = calibrate(net, X, batch_size=5, target="inputs")
    check(got["one"], X[X[:, 0] > 0].numpy())
    check(got["two"], X[X[:, 0] <= 0].numpy())


def test_float32_is_summed_in_float64():
    X = 1000 + torch.randn(3000, 5)
    got = calibrate(nn.Linear(5, 2), X, batch_size=7, target="inputs")[""]
    assert got.covariance.dtype == got.mean.dtype == torch.float64
    check(got, X.double().numpy(), room=1e-13)


def test_only_what_was_called_and_every_layer_once():
    shared = nn.Linear(4, 4)
    layers = {"a": shared, "b": shared, "twice": nn.Linear(4, 4), "idle": nn.Linear(4, 4)}
    net = Lambda(lambda s, x: s.a(s.b(s.twice(s.twice(x)))), **layers)
    with pytest.warns(UserWarning, match=r"^left as they are: 'a' shares its weight with \['b'\]$"):
        got = calibrate(net, torch.randn(10, 4), torch.randint(0, 4, (10,)))
    assert list(got) == ["twice"] and got["twice"].rows == 20


def test_in_the_order_of_the_calls():
    model, _, X, y, _ = case("residual", 0)
    assert list(calibrate(model, X, y)) == ["a", "layer", "out"]


def test_the_fused_transformer_hides_no_layer():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval()
    net = nn.TransformerEncoder(block, 2).eval()
    X = torch.randn(6, 4, 8)
    with torch.no_grad():
        got = calibrate(net, X)
    assert list(got) == [f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)]
    assert torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        calibrate(net, X)
        assert not torch.backends.mha.get_fastpath_enabled()  # put back, not switched on
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_though_the_caller_switched_them_off(mode):
    model, layer, X, y, _ = case("mlp, middle", 0)
    wanted = calibrate(model, X, y)[layer].gradient
    with mode():
        got = calibrate(model, X, y)[layer].gradient
    assert torch.equal(got, wanted)


def test_frozen_parameters_and_stored_gradients_stay():
    model, _, X, y, _ = case("after convolutions", 0, train=True)
    model[0].requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    before = snapshot(model, X, y)
    calibrate(model, X, y)
    assert snapshot(model, X, y) == before


def test_nothing_is_left_behind_when_the_forward_or_the_loss_raises():
    model, _, X, y, _ = case("in a fused transformer", 0, train=True)
    before = snapshot(model)
    with pytest.raises(RuntimeError):
        calibrate(model, X[..., :2], y)
    with pytest.raises(IndexError):
        calibrate(model, X, y + 100)
    assert snapshot(model) == before and torch.backends.mha.get_fastpath_enabled()


def test_memory_does_not_grow_with_the_data():
    """Of all batches and activations, only those of one batch are alive at any time, and none at the end."""
    torch.manual_seed(0)
    batches, activations, most = [], [], 0
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    net[1].register_forward_hook(lambda _, args, out: activations.extend(map(weakref.ref, (args[0], out))))

    def stream():
        nonlocal most
        for _ in range(20):
            most = max(most, sum(ref() is not None for ref in batches + activations))
            X = torch.randn(8, 6)
            batches.append(weakref.ref(X))
            yield X, torch.randint(0, 3, (8,))
            del X

    gc.disable()  # no help: the references themselves must go
    try:
        got = calibrate(net, stream())
    finally:
        gc.enable()
    assert len(activations) == 40 and most <= 3  # one batch: its X and two activations
    assert not any(ref() is not None for ref in batches + activations)
    numbers = sum(t.untyped_storage().nbytes() // 8 for v in got.values()
                  for t in (v.mean, v.covariance, v.gradient))  # fmt: skip
    assert numbers == 6 + 36 + 25 + 5 + 25 + 9


def test_the_result_belongs_to_nobody_else():
    model, layer, X, y, _ = case("mlp, first", 0)
    first, second = calibrate(model, X, y), calibrate(model, X, y)
    first[layer].covariance.zero_(), first[layer].mean.zero_(), first[layer].gradient.zero_()
    assert second[layer].covariance.any() and second[layer].mean.any() and second[layer].gradient.any()


NET, XS, YS = nn.Sequential(nn.Linear(3, 2)), torch.randn(5, 3), torch.zeros(5, dtype=torch.long)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("net", XS), {}, TypeError, "model='net' must be a torch.nn.Module"),
        ((nn.ReLU(), XS), {}, ValueError, "model=ReLU must be a module with a layer that can have a rank"),
        ((NET, XS), {"skip": ["0"]}, ValueError, "skip=['0'] must be such that a layer takes part"),
        ((NET, XS, YS), {"loss": "mse"}, TypeError, "loss='mse' must be a callable(outputs, batch) that"),
        ((NET, XS[:0]), {}, ValueError, "X has no samples; it must have at least one"),
        ((NET, []), {}, ValueError, "X has no samples; it must have at least one"),
        (
            (NET, XS, YS[:4]),
            {},
            ValueError,
            "y has 4 labels, but must have one for each of the 5 samples of X",
        ),
        (
            (NET, [(XS, YS)], YS),
            {},
            ValueError,
            "y=Tensor(shape=(5,), dtype=torch.int64) must be None if X is",
        ),
        ((NET, XS), {"batch_size": 0}, ValueError, "batch_size=0 must be an integer >= 1"),
        ((NET, XS), {"batch_size": 2.0}, TypeError, "batch_size=2.0 must be an integer >= 1"),
        ((NET, XS), {"temperature": 0}, ValueError, "temperature=0.0 must be a finite number > 0"),
        ((NET, XS), {"temperature": -1}, ValueError, "temperature=-1.0 must be a finite number > 0"),
        ((NET, XS), {"temperature": "hot"}, TypeError, "temperature='hot' must be a finite number > 0"),
    ],
)
def test_impossible_requests(arguments, options, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        calibrate(*arguments, **options)


def test_random_directions_give_the_jacobian():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)).double()
    X = torch.randn(20000, 6, dtype=torch.float64)
    moments, J = calibrate(net, X, target="outputs"), net[1].weight.detach()
    # E[g g^T] = J^T J; 20 000 draws leave an error of about 1 % of the trace
    assert torch.allclose(moments["0"].gradient, J.T @ J, rtol=0, atol=0.03 * float(J.square().sum()))
    assert torch.allclose(moments["1"].gradient, torch.eye(4).double(), rtol=0, atol=0.05)
    again = calibrate(net, X, target="outputs")  # a generator of its own
    assert torch.equal(again["0"].gradient, moments["0"].gradient)
    state = torch.get_rng_state()
    calibrate(net, X[:5], target="outputs")
    assert torch.equal(torch.get_rng_state(), state)


def test_without_labels_it_is_the_outputs_if_they_can_be():
    net, X = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), torch.randn(30, 6)
    got, wanted = calibrate(net, X), calibrate(net, X, target="outputs")
    assert all(torch.equal(got[name].gradient, wanted[name].gradient) for name in ("0", "2"))
    classes = Lambda(lambda s, x: s.a(x).argmax(1), a=nn.Linear(6, 3))
    moments = calibrate(classes, X)["a"]
    assert moments.gradient is None and moments.rows == 30
    in_place = Lambda(lambda s, x: s.a(x).exp().mul_(2).exp().unbind()[0].zero_(), a=nn.Linear(6, 3))
    with pytest.raises(RuntimeError) as caught:
        calibrate(in_place, X)
    assert caught.value.__notes__ == [
        "calibrate differentiates the outputs; target='inputs' needs no gradients"
    ]
    assert calibrate(in_place, X, target="inputs")["a"].gradient is None


def test_the_target_says_what_is_differentiated():
    net, X, y = nn.Sequential(nn.Linear(6, 3)), torch.randn(30, 6), torch.randint(0, 3, (30,))
    assert calibrate(net, X, y, target="inputs")["0"].gradient is None
    assert torch.equal(
        calibrate(net, X, y, target="labels")["0"].gradient, calibrate(net, X, y)["0"].gradient
    )
    for kwargs, error, words in [
        ({"target": "logits"}, ValueError, "target='logits' must be one of 'inputs', 'labels', 'outputs'"),
        ({"target": "labels"}, ValueError, "y=None must be given for target='labels'"),
        (
            {"target": "outputs", "loss": lambda o, b: o.sum()},
            ValueError,
            "target='outputs' must be 'labels'",
        ),
    ]:
        with pytest.raises(error, match=words):
            calibrate(net, X, **kwargs)
    names = Lambda(lambda s, x: s.a(x).argmax(1), a=nn.Linear(6, 3))
    with pytest.raises(TypeError, match="must be a floating tensor for target='outputs'"):
        calibrate(names, X, target="outputs")


class MeanOfRows(nn.Module):
    """A sample has T rows, and one output: A times the mean of W x_t, so that J^T J = A^T A / T^2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(4, 6)
        self.A = nn.Parameter(torch.randn(5, 6))

    def forward(self, x):
        return self.layer(x).mean(1) @ self.A.T


@pytest.mark.parametrize("directions", [1, 2, 3])
def test_a_pooled_output_has_as_many_ranks_as_directions(directions):
    net, X = MeanOfRows(), torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(1))
    before = snapshot(net, X)
    moments = calibrate(net, X, target="outputs", directions=directions)["layer"]
    assert torch.linalg.matrix_rank(moments.gradient, rtol=1e-6) == directions
    assert (moments.rows, moments.samples) == (9, 1)
    check(
        moments, X[0].double().numpy(), None if moments.gradient is None else _by_numpy(net, directions), 1e-5
    )
    assert snapshot(net, X) == before


def _by_numpy(net, directions):
    """g of each direction, from the generator that calibrate says it uses."""
    generator = torch.Generator().manual_seed(0)
    v = torch.cat([torch.randn(1, 5, generator=generator) for _ in range(directions)])
    return (v @ net.A.detach() / 9).double().numpy()


def test_many_directions_come_near_the_jacobian():
    net, X = MeanOfRows().double(), torch.randn(8, 9, 4, dtype=torch.float64)
    J = net.A.detach() / 9
    far = []
    for directions in (1, 100):
        G = calibrate(net, X, directions=directions)["layer"].gradient
        far.append(float((G - J.T @ J).norm() / (J.T @ J).norm()))
    assert far[1] < 0.25  # the deviation of a mean of 800 squares is about 1 / 20 of each entry's size
    assert far[1] < far[0]


@pytest.mark.parametrize("asked", [{"y": torch.tensor([0, 1])}, {"target": "inputs"},
                                   {"loss": lambda outputs, batch: outputs.sum()}])  # fmt: skip
def test_directions_are_for_random_ones(asked):
    net = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="directions=2 must be 1 where"):
        calibrate(net, torch.ones(2, 3), directions=2, **asked)


@pytest.mark.parametrize("directions", [0, 1.5])
def test_directions_are_counted(directions):
    with pytest.raises((TypeError, ValueError), match="directions"):
        calibrate(nn.Sequential(nn.Linear(3, 2)), torch.ones(2, 3), directions=directions)


def test_a_compiled_model_is_calibrated_as_the_one_in_it():
    def never(*_):
        raise AssertionError("nothing is to be compiled")

    torch.manual_seed(0)
    net, X = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(9, 4)
    plain, compiled = calibrate(net, X), calibrate(torch.compile(net, backend=never), X)
    assert plain.keys() == compiled.keys() == {"0", "2"}
    assert all(torch.equal(plain[k].covariance, compiled[k].covariance) for k in plain)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_nothing(reentrant):
    """It runs a block again in the backward pass: its rows count once, and its gradients are there."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
            self.block = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
            self.kept = True

        def forward(self, x):
            x = self.first(x)
            x = self.block(x) if self.kept else checkpoint(self.block, x, use_reentrant=reentrant)
            return self.last(x)

    torch.manual_seed(0)
    model, X, y = Model(), torch.randn(12, 6), torch.randint(0, 3, (12,))
    plain = calibrate(model, X, y)
    model.kept = False
    for size in (12, 5):
        for name, moments in calibrate(model, X, y, batch_size=size).items():
            assert moments.rows == 12
            assert torch.allclose(moments.covariance, plain[name].covariance, rtol=1e-6, atol=1e-9), name
            assert torch.allclose(moments.gradient, plain[name].gradient, rtol=1e-5, atol=1e-9), name
    assert list(plain) == ["first", "block.0", "block.2", "last"]


def test_a_layer_that_only_the_backward_pass_calls_counts_in_each_batch():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.late = nn.Linear(6, 3), nn.Linear(3, 3)

        def forward(self, x):
            y = self.net(x)
            if y.requires_grad:
                y.register_hook(lambda g: self.late(g.detach()).detach() * 0 + g)
            return y

    torch.manual_seed(0)
    X, y = torch.randn(12, 6), torch.randint(0, 3, (12,))
    assert {k: m.rows for k, m in calibrate(Model(), X, y, batch_size=5).items()} == {"net": 12, "late": 12}


def test_a_layer_that_gets_no_rows_is_left_out():
    """An expert that is never chosen has no moments; the others have theirs, and the model can be cut."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.experts[0](x) + self.experts[1](x[:0]).sum())

    torch.manual_seed(0)
    model, X, y = Experts(), torch.randn(12, 6), torch.randint(0, 3, (12,))
    for target in ("labels", "outputs", "inputs"):
        assert list(calibrate(model, X, y, target=target)) == ["experts.0", "head"]
    small, _ = compress_within(model, X, y, max_drop=1.0)
    assert torch.equal(small.experts[1].weight, model.experts[1].weight)
