"""What a batch is, and how a model is called on it."""

import collections
from typing import NamedTuple

import numpy as np
import pytest
import torch
from oracles import Lambda
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

from lowrank_utils import accuracy, auc, calibrate, cascade, find_rank
from lowrank_utils.model.batches import Batch, batches, call

torch.manual_seed(0)
X, Y = torch.randn(23, 6), torch.randint(0, 3, (23,))
NET = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


class Named(nn.Module):
    """Called by name, gives a mapping, as language models do."""

    def __init__(self):
        super().__init__()
        self.net = NET

    def forward(self, *, x, scale):
        return {"hidden": x, "logits": self.net(x) * scale}


class Placed(nn.Module):
    """Called with two arguments by place; gives a tuple."""

    def __init__(self):
        super().__init__()
        self.net = NET

    def forward(self, x, scale):
        return self.net(x) * scale, x


class Packet:
    """An object with tensors in it that can be moved."""

    def __init__(self, x):
        self.x = x

    def to(self, device):
        return Packet(self.x.to(device))


class Pair(NamedTuple):
    x: torch.Tensor
    scale: torch.Tensor


class Labelled(NamedTuple):
    inputs: torch.Tensor
    labels: torch.Tensor


ONES = torch.ones(23, 1)
GIVEN = {
    "tensor": (NET, X, Y),
    "numpy, in double": (NET, X.double().numpy(), Y.numpy()),
    "pairs": (NET, list(zip(X.split(7), Y.split(7), strict=True)), None),
    "loader": (NET, DataLoader(TensorDataset(X, Y), batch_size=10), None),
    "tuple": (Placed(), (X, ONES), Y),
    "named tuple": (Placed(), Pair(X, ONES), Y),
    "pairs of named tuples": (
        Placed(),
        [(Pair(X[:9], ONES[:9]), Y[:9]), (Pair(X[9:], ONES[9:]), Y[9:])],
        None,
    ),
    "named pairs": (NET, [Labelled(X[:9], Y[:9]), Labelled(X[9:], Y[9:])], None),
    "pairs of tuples": (Placed(), [((X[:9], ONES[:9]), Y[:9]), ((X[9:], ONES[9:]), Y[9:])], None),
    "mapping": (Named(), {"x": X, "scale": ONES}, Y),
    "mapping with labels": (Named(), {"x": X, "scale": ONES, "labels": Y}, None),
    "user's mapping": (Named(), collections.UserDict({"x": X, "scale": ONES, "labels": Y}), None),
    "mappings": (
        Named(),
        [{"x": X[:9], "scale": ONES[:9], "labels": Y[:9]}, {"x": X[9:], "scale": ONES[9:], "labels": Y[9:]}],
        None,
    ),
    "object": (Lambda(lambda s, p: s.net(p.x), net=NET), [(Packet(X), Y)], None),
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_same_data_in_every_shape(name):
    model, data, labels = GIVEN[name]
    model.eval()
    with torch.no_grad():
        right = float((NET(X).argmax(1) == Y).double().mean())
    assert accuracy(model, data, labels) == right
    assert auc(model, data, labels) == pytest.approx(auc(NET, X, Y), abs=1e-12)
    wanted, got = calibrate(NET, X, Y), calibrate(model, data, labels)
    prefix = "" if model is NET else "net."
    for layer, moments in wanted.items():
        other = got[prefix + layer]
        assert (other.rows, other.samples) == (23, 23)
        assert torch.allclose(other.covariance, moments.covariance, rtol=1e-5, atol=1e-7)
        assert torch.allclose(other.gradient, moments.gradient, rtol=1e-4, atol=1e-7)
    if data is not X:
        found = find_rank(model, prefix + "0", data, labels, max_drop=0.1, max_rank=5)
        assert found.curve == find_rank(NET, "0", X, Y, max_drop=0.1, max_rank=5).curve
        small = cascade(model, {prefix + "0": 2}, data, got)
        dense = cascade(NET, {"0": 2}, X, wanted)
        assert torch.allclose(small.get_submodule(prefix + "0").weight, dense[0].weight, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 4, 4, 4), (3, 3, 3, 3, 3)])
def test_maps_whose_classes_may_be_on_two_axes_are_refused(shape):
    """Torch's own layout, which elsewhere the shapes refuse; here the classes would be taken for places."""
    maps, y = torch.randn(shape), torch.zeros(shape[:-1]).long()
    conv = {4: nn.Conv2d, 5: nn.Conv3d}[len(shape)](shape[1], shape[1], 1)
    for scores in (accuracy, calibrate):
        with pytest.raises(ValueError, match=r"must be \(..., C\), but may be \(N, C, ...\): give a metric"):
            scores(conv, maps, y)
    last = torch.randn(5, 4, 3, 4)  # no doubt here
    assert accuracy(nn.Identity(), last, last.argmax(-1)) == 1.0
    tokens = torch.randn(5, 4, 4)  # nor, by the documentation, here
    assert accuracy(nn.Identity(), tokens, tokens.argmax(-1)) == 1.0


def test_unlabelled_batches_and_two_rows():
    wanted = calibrate(NET, X[:4], target="inputs")["0"]
    for data in ([X[:2], X[2:4]], iter([X[:2], X[2:4]]), DataLoader(TensorDataset(X[:4]), batch_size=2)):
        got = calibrate(NET, data, target="inputs")["0"]  # a batch of two rows is no pair
        assert (got.rows, got.samples, got.gradient) == (4, 4, None)
        assert torch.allclose(got.covariance, wanted.covariance, atol=1e-7)


def test_samples_are_those_of_the_first_tensor():
    assert len(Batch({"x": torch.zeros(9, 4), "mask": torch.zeros(1)}, None)) == 9
    assert len(Batch((torch.zeros(3, 2), 5), None)) == 3 and len(Batch(Packet(X), None)) == 23
    assert [len(b) for b in batches((X, ONES), Y, size=10)] == [10, 10, 3]


def test_tokens_and_labels_that_do_not_count():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 4)).eval()
    ids, y = torch.randint(0, 11, (5, 7)), torch.randint(0, 4, (5, 7))
    y[:, 5:] = -100
    with torch.no_grad():
        right = model(ids).argmax(-1)[:, :5] == y[:, :5]
    assert accuracy(model, ids, y) == float(right.double().mean())
    moments = calibrate(model, ids, y)
    assert (moments["1"].rows, moments["1"].samples) == (35, 5)
    kept = calibrate(model, ids[:, :5], y[:, :5])["1"]  # the others' gradients are 0
    assert torch.allclose(moments["1"].gradient * 35, kept.gradient * 25, atol=1e-6)
    with pytest.raises(ValueError, match="must have a label other than -100"):
        accuracy(model, ids, torch.full_like(y, -100))


def test_one_logit():
    torch.manual_seed(2)
    for shape in ((40,), (40, 1)):
        model = (
            nn.Sequential(nn.Linear(6, 1))
            if len(shape) == 2
            else nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
        )
        x = torch.randn(40, 6)
        with torch.no_grad():
            right = (model(x).reshape(-1) > 0).long()
        y = right.clone()
        y[:10] = 1 - y[:10]
        assert accuracy(model, x, y) == accuracy(model, x, y.reshape(shape)) == 0.75
        with pytest.raises(ValueError, match=r"^labels y=\[0, 1, 2\] must be 0 and 1 for"):
            accuracy(model, x, torch.arange(40) % 3)


SMALL = [torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16]


@pytest.mark.parametrize("dtype", [*SMALL, torch.bool])
def test_integer_labels_of_any_dtype(dtype):
    y = torch.randint(0, 3, (23,)) if dtype in SMALL else torch.randint(0, 2, (23,))
    net = NET if dtype in SMALL else nn.Sequential(nn.Linear(6, 2))
    assert torch.equal(calibrate(net, X, y.to(dtype))["0"].gradient, calibrate(net, X, y)["0"].gradient)
    assert accuracy(net, X, y.to(dtype)) == accuracy(net, X, y)
    assert auc(net, X, y.to(dtype)) == auc(net, X, y)
    options = {"max_drop": 0.1, "max_rank": 2}
    assert find_rank(net, "0", X, y.to(dtype), **options) == find_rank(net, "0", X, y, **options)
    seen = []
    calibrate(net, X, y.to(dtype), loss=lambda outputs, batch: seen.append(batch.labels) or outputs.sum())
    assert [labels.dtype for labels in seen] == [dtype]  # a loss of one's own is given what one gave


def test_a_label_of_a_byte_is_never_the_one_that_does_not_count():
    scores, y = torch.eye(200), torch.arange(200)  # 156 is -100 in a byte
    assert accuracy(nn.Identity(), scores, y.to(torch.uint8)) == 1.0
    scores[156] = scores[0]
    assert accuracy(nn.Identity(), scores, y.to(torch.uint8)) == accuracy(nn.Identity(), scores, y) == 0.995


REGRESSION = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("model", "y", "told"),
    [
        (REGRESSION, torch.randn(23, 2), "dtype torch.float32 must be logits"),
        (nn.Linear(6, 1), torch.randint(0, 2, (23,)), r"outputs of shape \(23, 1\)"),
        (nn.Linear(6, 3), torch.randint(0, 3, (23, 3)), r"labels of shape \(23, 3\)"),
    ],
)
def test_without_a_loss_that_fits_an_error_says_so(model, y, told):
    with pytest.raises(ValueError, match=told + ".*loss must be given$"):
        calibrate(model, X, y)


def test_a_loss_of_ones_own():
    y = torch.randn(23, 2)

    def squared(outputs, batch):
        return (outputs - batch.labels).square().sum() / 2

    gradient = calibrate(REGRESSION, X, y, loss=squared, batch_size=7)["2"].gradient
    with torch.no_grad():
        left = (REGRESSION(X) - y).double()
    assert torch.allclose(gradient, left.T @ left / 23, atol=1e-5)


def test_what_is_not_finite_is_named():
    with pytest.raises(ValueError, match="^inputs of layer '0' have nan or inf in them"):
        calibrate(NET, torch.full((3, 6), float("nan")))
    huge = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    huge[0].weight.data.fill_(float("inf"))
    with pytest.raises(ValueError, match="^inputs of layer '1' have nan or inf in them"):
        calibrate(huge, X)


def test_data_that_are_not_finite_are_named_where_layers_are_refitted():
    moments = calibrate(NET, X)
    with pytest.raises(ValueError, match="^inputs of layer '2' have nan or inf in them"):
        cascade(NET, {"0": 2}, torch.full((3, 6), float("nan")), moments)


def test_a_gradient_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="^gradients of layer '0' have nan or inf in them"):
        calibrate(NET, X, Y, loss=lambda outputs, batch: outputs.sum() * float("nan"))


def test_a_tensor_of_another_length_is_not_cut_along_with_the_samples():
    """A table that all samples share has no entry for each: the second batch would see another part."""

    class Near(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x, table):
            return self.q(x) @ self.k(table).T

    for table in (torch.randn(50, 6), torch.randn(1, 6)):
        told = rf"^X has a tensor of shape \({len(table)}, 6\), but must have one entry for each of the 23"
        with pytest.raises(ValueError, match=told):
            calibrate(Near(), {"x": X, "table": table}, batch_size=10)
        assert calibrate(Near(), {"x": X, "table": table})["k"].rows == len(table)
        whole = [{"x": X[:10], "table": table}, {"x": X[10:], "table": table}]
        assert calibrate(Near(), whole)["k"].rows == 2 * len(table)


def test_what_is_inside_a_list_and_single_numbers():
    """A list of tensors is cut as a tuple is; a number of no axis goes to each batch."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(6, 3)

        def forward(self, x, others, scale):
            return self.net((x + others[0]) * scale)

    samples = (X, [X], torch.tensor(2.0))
    first = {"scale": torch.tensor(2.0), "x": X, "others": [X]}
    for data, size in ((samples, 5), (samples, 23), (first, 5)):
        found = calibrate(Sum(), data, batch_size=size)["net"]
        assert found.rows == 23
        wanted = 16 * torch.cov(X.double().T, correction=0)
        assert torch.allclose(found.covariance, wanted, rtol=1e-5, atol=1e-6)


def test_an_object_that_is_given_as_it_is_may_hold_tensors_of_any_length():
    class Table:
        def __init__(self):
            self.numbers = torch.ones(50)

        def to(self, device):
            return self

    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(6, 3)

        def forward(self, x, table):
            return self.net(x) * table.numbers.mean()

    assert calibrate(Takes(), (X, Table()), Y, batch_size=10)["net"].rows == 23


@pytest.mark.parametrize(
    ("data", "labels", "error", "told"),
    [
        (3, None, TypeError, "^X=3 must be a tensor, a tuple, a mapping or an iterable of batches$"),
        ([(X, Y)], Y, ValueError, "None if X is an iterable, whose batches hold the labels$"),
        ((X, ONES), Y[:4], ValueError, "^y has 4 labels, but must have one for each of the 23 samples of X$"),
        ([], None, ValueError, "^X has no samples"),
    ],
)
def test_impossible_data(data, labels, error, told):
    for function in (accuracy, calibrate):
        with pytest.raises(error, match=told):
            function(NET, data, labels)


def test_a_named_tuple_stays_one():
    moved = Batch(Pair(X, Pair(ONES.numpy(), 3)), None).on(NET).inputs
    assert type(moved) is Pair and type(moved.scale) is Pair and moved.scale.scale == 3
    assert torch.equal(moved.x, X) and moved.x is not X and torch.equal(moved.scale.x, ONES)


def test_a_packed_sequence_is_named():
    packed = pack_padded_sequence(torch.randn(3, 4, 6), torch.tensor([4, 2, 1]), batch_first=True)
    for data in ([(packed, Y[:3])], [((packed,), Y[:3])]):
        for function in (accuracy, calibrate):
            with pytest.raises(TypeError, match="^inputs of type PackedSequence must be padded tensors"):
                function(NET, data)


def test_call_gives_the_logits():
    assert call(NET, X).shape == (23, 3)
    assert torch.equal(call(Named(), {"x": X, "scale": ONES}), call(Placed(), (X, ONES)))
    assert np.allclose(call(NET, X).detach().numpy(), NET(X).detach().numpy())
