"""Whole networks cut to a budget, against one rank for all, equal shares, and a narrow net."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import torch
from claims import Row, mlp
from peers import one_rank, uniform_svd
from sklearn.datasets import load_iris
from sklearn.model_selection import RepeatedStratifiedKFold
from torch import nn

from lowrank_utils import (
    LowRankLinear,
    Moments,
    accuracy,
    allocate_ranks,
    calibrate,
    cascade,
    count_params,
    load_split,
    set_seed,
    train_nn,
)

SEEDS = range(5)
Nets = list[tuple[nn.Module, Any]]  # each with its split


def _nets(name: str, sizes: tuple[int, ...], **schedule: float) -> Nets:
    found = []
    for seed in SEEDS:
        set_seed(seed)
        split = load_split(name, seed=seed, stratify=True)
        net = mlp(*sizes)
        train_nn(net, split.X_train, split.y_train, **schedule)  # type: ignore[arg-type]
        found.append((net, split))
    return found


def narrowed(sizes: tuple[int, ...], budget: float) -> tuple[int, ...]:
    """Widths of the widest net with this share of the weights at most, its hidden layers in their ratio."""

    def weights(widths: Iterable[int]) -> int:
        return sum(m * n for m, n in itertools.pairwise(widths))

    first, *hidden, last = sizes
    fits = [sizes[:1] + (1,) * len(hidden) + sizes[-1:]]
    for k in range(1, hidden[0] + 1):
        widths = (first, *(max(1, k * h // hidden[0]) for h in hidden), last)
        fits += [widths] if weights(widths) <= budget * weights(sizes) else []
    return fits[-1]


def _mean(scores: list[float]) -> float:
    return 100 * statistics.mean(scores)


def _cut(nets: Nets, moments: list[Moments], ranks: list[dict[str, int]]) -> list[nn.Module]:
    """Each net at its ranks, by weighted factors, refitted layer after layer."""
    return [cascade(net, r, s.X_train, m) for (net, s), m, r in zip(nets, moments, ranks, strict=True)]


def _chosen(nets: Nets, moments: list[Moments], budget: float, norm: float = 1.0) -> list[nn.Module]:
    """Each net at the ranks that are chosen for it."""
    pairs = zip(nets, moments, strict=True)
    ranks = [allocate_ranks(net, budget, moments=m, norm=norm) for (net, _), m in pairs]
    return _cut(nets, moments, ranks)


def _right(models: Iterable[nn.Module], nets: Nets) -> float:
    """Per cent of the test samples, each model on the split of its net."""
    return _mean([accuracy(model, s.X_test, s.y_test) for model, (_, s) in zip(models, nets, strict=True)])


def whole_networks() -> list[Row]:
    """Accuracy at a budget, without fine-tuning; nobody says which layer is the head."""
    rows = []
    mnist = {"epochs": 20, "lr": 0.02, "batch_size": 32, "momentum": 0.9, "weight_decay": 5e-3}
    nets = _nets("mnist5k", (784, 512, 256, 10), **mnist)
    dense = _right((net for net, _ in nets), nets)
    moments = [calibrate(net, s.X_train, s.y_train) for net, s in nets]
    start: list[nn.Module] = []
    for budget, floor in ((0.06, dense - 1), (0.05, 92.5), (0.03, None), (0.015, None)):
        small = _chosen(nets, moments, budget)
        claim = f"MNIST-5k at {100 * budget:.1f} % of the weights (dense net {dense:.1f} %)"
        narrow = _nets("mnist5k", narrowed((784, 512, 256, 10), budget), **mnist)
        rows.append(_share(claim, _right(small, nets), nets, moments, narrow, budget, floor))
        start = small
    gently = {"epochs": 20, "lr": 0.002, "batch_size": 32, "weight_decay": 5e-3}  # at 0.005 a net can diverge
    tuned = []
    for net, (_, s) in zip(start, nets, strict=True):
        train_nn(net, s.X_train, s.y_train, **gently)  # type: ignore[arg-type]
        tuned.append(accuracy(net, s.X_test, s.y_test))
    after = _mean(tuned)
    claim = "MNIST-5k at 1.5 %, after 20 epochs of fine-tuning"
    peer = f"dense net {dense:.1f} %"
    rows.append(Row(claim, f"{after:.1f} %", peer, after, None, shown="{:.1f} %", table="accuracy"))
    digits = {"epochs": 60, "lr": 0.05, "batch_size": 64, "momentum": 0.9, "weight_decay": 1e-3}
    nets = _nets("digits", (64, 256, 256, 10), **digits)
    dense = _right((net for net, _ in nets), nets)
    moments = [calibrate(net, s.X_train, s.y_train) for net, s in nets]
    for budget, floor in ((0.1, 95.5), (0.05, None)):
        small = _chosen(nets, moments, budget)
        claim = f"digits at {100 * budget:.1f} % of the weights (dense net {dense:.1f} %)"
        narrow = _nets("digits", narrowed((64, 256, 256, 10), budget), **digits)
        rows.append(_share(claim, _right(small, nets), nets, moments, narrow, budget, floor))
    return rows


def _share(
    claim: str,
    ours: float,
    nets: Nets,
    moments: list[Moments],
    narrow: Nets,
    budget: float,
    floor: float | None,
) -> Row:
    """An accuracy against one rank for all with ours in all else, equal shares, and a narrow net.

    One rank for all seldom takes the whole budget, so beside it stand chosen ranks that take no more than it.
    """
    even, paid = zip(*(one_rank(net, budget) for net, _ in nets), strict=True)
    cut = [
        _cut(nets, moments, list(even)),
        *(_chosen(nets, moments, paid[0] + 1e-9, norm) for norm in (1, 2)),  # not one weight too few
        *([uniform_svd(net, budget, dense_head=dense) for net, _ in nets] for dense in (False, True)),
    ]
    found = [*(_right(models, nets) for models in cut), _right((net for net, _ in narrow), narrow)]
    told = (
        "at {:.1f} % of them, one rank with ours in all else {:.1f} %, ours {:.1f} %, with norm=2 {:.1f} %; "
        "equal shares {:.1f} %, with a dense head {:.1f} %; a narrow dense net, trained anew {:.1f} %"
    )
    peer = told.format(100 * paid[0], *found)
    return Row(claim, f"{ours:.1f} %", peer, ours, floor, shown="{:.1f} %", table="accuracy")


def iris_in_ten_numbers() -> list[Row]:
    """400 splits and seeds (5 folds x 4 repeats x 20 seeds): 83, 40 and 10 parameters."""
    X, y = load_iris(return_X_y=True)
    folds = list(RepeatedStratifiedKFold(n_splits=5, n_repeats=4, random_state=0).split(X, y))
    scores: dict[int, list[float]] = {83: [], 40: [], 10: []}
    for train, test in folds:
        mean, std = X[train].mean(0), X[train].std(0)
        parts = [torch.tensor((X[part] - mean) / std, dtype=torch.float32) for part in (train, test)]
        labels = [torch.tensor(y[part]) for part in (train, test)]
        for params in scores:
            for seed in range(20):
                set_seed(seed)
                net = _iris_net(params)
                assert count_params(net) == params
                train_nn(net, parts[0], labels[0], epochs=400, lr=0.2, momentum=0.5)
                scores[params].append(accuracy(net, parts[1], labels[1]))
    dense = _mean(scores[83])
    return [
        Row(f"Iris, 400 nets of {params} parameters, against 83",
            f"{_mean(scores[params]):.1f} %", f"dense net {dense:.1f} %",
            _mean(scores[params]), dense - 1, shown="{:.1f} %", table="accuracy")
        for params in (40, 10)
    ]  # fmt: skip


def _iris_net(params: int) -> nn.Module:
    if params == 10:
        return LowRankLinear(4, 3, 1)  # one direction, three slopes, three thresholds
    if params == 40:
        return nn.Sequential(LowRankLinear(4, 10, 1), nn.ReLU(), LowRankLinear(10, 3, 1))
    return mlp(4, 10, 3)


NETWORKS: list[Callable[[], list[Row]]] = [whole_networks, iris_in_ten_numbers]
