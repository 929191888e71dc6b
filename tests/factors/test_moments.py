"""Moments merged batch by batch, against numpy over all rows at once."""

import numpy as np
import pytest
import torch

from lowrank_utils import Moments


@pytest.mark.parametrize("n", [1, 4])
def test_empty(n):
    moments = Moments.empty(n, torch.device("cpu"))
    assert (moments.rows, moments.samples, moments.gradient) == (0, 0, None)
    assert torch.equal(moments.mean, torch.zeros(n, dtype=torch.float64))
    assert torch.equal(moments.covariance, torch.zeros(n, n, dtype=torch.float64))
    moments.mean += 1  # storage of its own
    assert not moments.covariance.any()


def test_empty_is_kept_where_it_is_asked_for():
    moments = Moments.empty(3, torch.device("meta"))
    assert moments.mean.is_meta and moments.covariance.is_meta


@pytest.mark.parametrize("sizes", [(1, 1, 1), (7,), (3, 0, 5), (0, 4), (1, 10, 2)])
@pytest.mark.parametrize("n", [1, 3])
def test_batches_are_merged_as_if_they_were_one(n, sizes):
    rng = np.random.default_rng(n)
    batches = [100 + rng.standard_normal((size, n)) * (1 + i) for i, size in enumerate(sizes)]
    moments = Moments.empty(n)
    for batch in batches:
        moments.add(torch.from_numpy(batch))
    x = np.concatenate(batches)
    assert moments.rows == len(x)
    assert np.allclose(moments.mean, x.mean(0), rtol=1e-14, atol=0)
    # a few roundings of the rows' size, 100, times a deviation
    room = 100 * np.finfo(float).eps * 10 * x.std()
    assert np.allclose(moments.covariance, np.cov(x.T, bias=True).reshape(n, n), rtol=0, atol=room + 1e-13)


def test_an_empty_batch_changes_nothing():
    moments = Moments.empty(2)
    moments.add(torch.zeros(0, 2, dtype=torch.float64))
    assert moments.rows == 0 and not moments.mean.any() and not moments.covariance.any()
