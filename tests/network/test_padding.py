"""Texts of unlike lengths: a padded batch with its mask is the texts one by one, without padding."""

import re

import pytest
import torch
from oracles import full_outputs
from torch import nn

from lowrank_utils import calibrate, cascade, compress_within, unpack_attention

WORDS, WIDTH, CLASSES = 40, 16, 3


class Reader(nn.Module):
    """An encoder, the mean over a text's tokens, and a head; token 0 is padding."""

    def __init__(self, batch_first):
        super().__init__()
        self.words, self.first = nn.Embedding(WORDS, WIDTH), batch_first
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 24, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens, attention_mask=None):
        x, there = self.words(tokens), (tokens != 0)[..., None]
        x = self.encoder(x if self.first else x.transpose(0, 1), src_key_padding_mask=tokens == 0)
        x = x if self.first else x.transpose(0, 1)
        return self.head((x * there).sum(1) / there.sum(1))


def texts(lengths, seed=0):
    torch.manual_seed(seed)
    X = torch.randint(1, WORDS, (len(lengths), max(lengths)))
    for row, length in zip(X, lengths, strict=True):
        row[length:] = 0
    return X, torch.randint(CLASSES, (len(lengths),))


def reader(batch_first=True):
    torch.manual_seed(1)
    return unpack_attention(Reader(batch_first).double().eval())


def alone(X):
    return [row[row != 0][None] for row in X]


LENGTHS = {"mixed": [9, 3, 5, 1, 7], "as many texts as tokens": [5, 2, 4, 1, 3], "none padded": [6] * 4}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", LENGTHS)
def test_moments_of_padded_texts_are_those_of_the_texts_alone(kind, batch_first):
    if kind == "as many texts as tokens" and not batch_first:
        pytest.skip("(N, T) and (T, N) look alike: the mask is read as (N, T)")
    net, (X, y) = reader(batch_first), texts(LENGTHS[kind])
    pairs = [(x, y[i : i + 1]) for i, x in enumerate(alone(X))]
    wanted = calibrate(net, pairs)
    by_mask = calibrate(net, X, y, mask=lambda tokens: tokens != 0)
    for name, moments in wanted.items():
        got = by_mask[name]
        assert got.rows == moments.rows == (len(X) if name == "head" else sum(LENGTHS[kind]))
        for ours, theirs in ((got.mean, moments.mean), (got.covariance, moments.covariance)):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)  # numbers of about 1, in double
        assert torch.allclose(got.gradient, moments.gradient, rtol=1e-10, atol=1e-15)
    every = calibrate(net, X, y)
    if kind == "mixed":
        assert every["encoder.layers.0.linear1"].rows == X.numel()
        q = every["encoder.layers.0.self_attn.q_proj"].covariance
        assert not torch.allclose(q, wanted["encoder.layers.0.self_attn.q_proj"].covariance, atol=1e-2)


def test_the_mask_of_named_arguments_is_found():
    net, (X, y) = reader(), texts(LENGTHS["mixed"])
    batch = {"tokens": X, "attention_mask": (X != 0).long(), "labels": y}
    found, wanted = calibrate(net, [batch]), calibrate(net, X, y, mask=lambda tokens: tokens != 0)
    asked = calibrate(net, [batch], mask=lambda inputs: torch.ones_like(inputs["tokens"]))
    for name, moments in wanted.items():
        assert torch.equal(found[name].covariance, moments.covariance)
        assert asked[name].rows == (len(X) if name == "head" else X.numel())


class Told(nn.Module):
    """A reader that is told by torch's own argument what is padding."""

    def __init__(self, name):
        super().__init__()
        self.net, self.name = reader(), name

    def forward(self, tokens, **told):
        assert list(told) == [self.name]
        return self.net(tokens)


@pytest.mark.parametrize("name", ["src_key_padding_mask", "key_padding_mask"])
@pytest.mark.parametrize("floating", [False, True])
def test_torchs_own_masks_of_named_arguments_are_found(name, floating):
    """They say the opposite: True at what fills up, or -inf, which is added to the scores."""
    net, (X, y) = Told(name), texts(LENGTHS["mixed"])
    padding = X == 0
    if floating:
        padding = torch.zeros(X.shape).masked_fill(padding, float("-inf"))
    found = calibrate(net, [{"tokens": X, name: padding, "labels": y}])
    wanted = calibrate(net.net, X, y, mask=lambda tokens: tokens != 0)
    for layer, moments in wanted.items():
        assert found[f"net.{layer}"].rows == moments.rows
        assert torch.equal(found[f"net.{layer}"].covariance, moments.covariance)


@pytest.mark.parametrize("ridge", [1e-3, None])
def test_a_refit_on_padded_texts_is_that_on_the_texts_alone(ridge):
    net, (X, y) = reader(), texts([7, 3, 5, 1, 6, 2, 7, 4, 5, 6, 3, 7])
    moments = calibrate(net, X, y, mask=lambda tokens: tokens != 0)
    ranks = dict.fromkeys([name for name in moments if name != "head"], 4)
    halves = [X[i : i + 1] for i in range(len(X))]  # batches of one text: every second is one half
    padded, apart = (
        cascade(net, ranks, data, moments, mask=lambda tokens: tokens != 0, ridge=ridge)
        for data in (halves, alone(X))
    )
    assert torch.allclose(full_outputs(padded, X), full_outputs(apart, X), rtol=0, atol=1e-8)
    plain = cascade(net, ranks, halves, moments, ridge=ridge)
    assert not torch.allclose(full_outputs(padded, X), full_outputs(plain, X), rtol=0, atol=1e-3)


def test_compress_within_passes_the_mask_on():
    net, (X, y) = reader(), texts([7, 3, 5, 1, 6, 2, 7, 4])
    ways = [
        compress_within(net, data, labels, max_drop=1.0, steps=2, mask=mask)[0]
        for data, labels, mask in (
            (X, y, lambda tokens: tokens != 0),
            ({"tokens": X, "attention_mask": (X != 0).long()}, y, None),
            (X, y, None),
        )
    ]
    same, named, every = (full_outputs(small, X) for small in ways)
    assert torch.equal(same, named) and not torch.allclose(same, every, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "words", "error"),
    [
        (lambda x: None, "mask(inputs)=None must be a tensor (N, T)", TypeError),
        (lambda x: (x != 0)[0], "must be of shape (N, T), with a position that counts", ValueError),
        (lambda x: x < 0, "must be of shape (N, T), with a position that counts", ValueError),
    ],
)
def test_masks_that_are_none(mask, words, error):
    net, (X, y) = reader(), texts(LENGTHS["mixed"])
    moments = calibrate(net, X, y)
    with pytest.raises(error, match=re.escape(words)):
        calibrate(net, X, y, mask=mask)
    with pytest.raises(error, match=re.escape(words)):
        cascade(net, {"head": 1}, X, moments, mask=mask)


def test_the_ridge_by_halves_is_that_of_least_error_on_unseen_rows():
    """Against a regression by hand for every ridge: few rows want a high one, many rows a low one."""
    from lowrank_utils.network.halves import RIDGES, best_ridge
    from lowrank_utils.network.refit import Joint

    chosen = {}
    for rows in (30, 3000):
        torch.manual_seed(0)
        W, V = torch.randn(4, 20).double(), 0.3 * torch.randn(4, 20).double()
        x = torch.randn(rows, 20).double() @ torch.randn(20, 20).double()
        y = x @ (W + V).T + 3 * torch.randn(rows, 4).double()
        parts = []
        for own in (slice(None, rows // 2), slice(rows // 2, None)):
            parts.append(Joint(20, [4], x.device))
            parts[-1].add(x[own], [y[own]])
        one, two = slice(None, rows // 2), slice(rows // 2, None)
        errors = []
        for ridge in RIDGES:
            total = 0.0
            for fit, see in ((one, two), (two, one)):
                a, b = x[fit] - x[fit].mean(0), (y - x @ W.T)[fit]
                C = a.T @ a / len(a)
                damped = C + ridge * C.trace() / 20 * torch.eye(20)
                D = torch.linalg.solve(damped, a.T @ (b - b.mean(0)) / len(a))
                off = (y - x @ W.T)[see] - b.mean(0) - (x[see] - x[fit].mean(0)) @ D
                total += float(off.square().sum())
            errors.append(total)
        chosen[rows] = best_ridge(parts, W)
        assert chosen[rows] == RIDGES[min(range(len(RIDGES)), key=errors.__getitem__)]
    assert chosen[30] > chosen[3000]


def test_halves_are_the_whole():
    from lowrank_utils.network.refit import Joint

    torch.manual_seed(0)
    x, y = torch.randn(50, 6).double() + 3, torch.randn(50, 2).double() - 1
    whole, first, second = (Joint(6, [2], x.device) for _ in range(3))
    whole.add(x, [y])
    first.add(x[:13], [y[:13]])
    second.add(x[13:], [y[13:]])
    for both in (first.and_(second), second.and_(first)):
        assert both.rows == 50
        for part in ("mean", "covariance"):
            assert torch.allclose(getattr(both, part), getattr(whole, part), rtol=0, atol=1e-13)
        for part in ("mean_out", "cross"):
            assert torch.allclose(getattr(both, part)[0], getattr(whole, part)[0], rtol=0, atol=1e-13)
    empty = Joint(6, [2], x.device)
    assert torch.equal(whole.and_(empty).covariance, whole.covariance)
    assert empty.and_(Joint(6, [2], x.device)).rows == 0


def test_an_empty_batch_has_no_position_and_changes_nothing():
    net, (X, _) = reader(), texts(LENGTHS["mixed"])
    wanted = calibrate(net, X, mask=lambda tokens: tokens != 0)
    found = calibrate(net, [X, X[:0]], mask=lambda tokens: tokens != 0)
    for name, moments in wanted.items():
        assert found[name].rows == moments.rows and torch.equal(found[name].covariance, moments.covariance)


def test_without_a_second_half_the_highest_ridge_is_taken():
    from lowrank_utils.network.halves import RIDGES, best_ridge
    from lowrank_utils.network.refit import Joint

    parts = [Joint(3, [2], torch.device("cpu")) for _ in range(2)]
    parts[0].add(torch.randn(9, 3), [torch.randn(9, 2)])
    assert best_ridge(parts, torch.randn(2, 3).double()) == max(RIDGES)
