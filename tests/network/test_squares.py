"""Sums of g g^T: the oracle is numpy's product of all rows at once, in double."""

import numpy as np
import pytest
import torch

from lowrank_utils.network.squares import Squares


def summed(parts, m):
    """What ``Squares`` makes of these parts, (m, m)."""
    total, squares = torch.zeros(m, m, dtype=torch.float64), Squares()
    for g in parts:
        squares.add(total, g)
    squares.finish(total)
    return total.numpy()


def expected(parts):
    g = np.concatenate([part.double().numpy() for part in parts])
    return g.T @ g


def bound(parts, dtype):
    """N products, their sum, the scale and its way back: (N + 4) eps, times the largest sum |g_i g_j|."""
    g = np.abs(np.concatenate([part.double().numpy() for part in parts]))
    return (len(g) + 4) * torch.finfo(dtype).eps * (g.T @ g).max()


@pytest.mark.parametrize("sizes", [[1], [3, 0, 2], [5, 5, 5], [40], [1] * 30, [0]])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15])
def test_is_the_product_of_all_rows(sizes, scale):
    generator = torch.Generator().manual_seed(0)
    parts = [scale * torch.randn(n, 6, generator=generator) for n in sizes]
    atol = bound(parts, torch.float32)
    np.testing.assert_allclose(summed(parts, 6), expected(parts), rtol=0, atol=atol)


def test_keeps_the_digits_of_double():
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (1, 7, 2)]
    np.testing.assert_allclose(summed(parts, 4), expected(parts), rtol=0, atol=bound(parts, torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_multiplied_in_single(dtype):
    parts = [torch.full((3, 2), 1 / 3, dtype=dtype) for _ in range(3)]
    np.testing.assert_allclose(summed(parts, 2), expected(parts), rtol=0, atol=bound(parts, torch.float32))


def test_no_more_rows_wait_than_the_sum_has():
    squares, total = Squares(), torch.zeros(6, 6, dtype=torch.float64)
    for _ in range(50):
        squares.add(total, torch.ones(2, 6))
        assert sum(map(len, squares.waiting)) < 6


def test_a_small_part_does_not_vanish_beside_a_large_one():
    parts = [torch.tensor([[1e12, 0.0]]), torch.tensor([[0.0, 1e-6]])]
    np.testing.assert_allclose(
        summed(parts, 2).diagonal(), [1e24, 1e-12], rtol=6 * torch.finfo(torch.float32).eps
    )
