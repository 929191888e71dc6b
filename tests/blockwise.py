"""A cascade both ways: block after block, and both nets run as a whole for each layer."""

import sys

import torch

from lowrank_utils import cascade

MODULE = sys.modules["lowrank_utils.network.cascade"]  # the package has the function under this name


def both_ways(monkeypatch, model, ranks, X, moments, **options):
    """By blocks, as whole runs, and whether the blocks were given up."""
    given_up = []
    real = MODULE._cascaded

    def cascaded(*args, **kwargs):
        try:
            return real(*args, **kwargs)
        except MODULE.Unsafe:
            given_up.append(True)
            raise

    monkeypatch.setattr(MODULE, "_cascaded", cascaded)
    monkeypatch.setattr(MODULE, "FEW", -1)
    blocks = cascade(model, ranks, X, moments, **options)
    monkeypatch.setattr(MODULE, "FEW", 10**9)
    return blocks, cascade(model, ranks, X, moments, **options), bool(given_up)


def assert_same(small, whole):
    pairs = zip(small.state_dict().items(), whole.state_dict().items(), strict=True)
    for (name, p), (other, q) in pairs:
        assert name == other
        # the refit's condition, 1e3, times the rounding of a product
        assert torch.allclose(p, q, rtol=0, atol=1e-9 * max(1.0, float(q.abs().max()))), name
