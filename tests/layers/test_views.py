"""Each view against the layer itself: rows times W^T plus b is what the layer gives."""

import pytest
import torch
from torch import nn

from lowrank_utils import LowRankConv, LowRankLinear, PivotedLinear, compress, find_rank, truncated_svd
from lowrank_utils.layers.views import LayerView, layer_view


class Conv1D(nn.Module):
    """As transformers' GPT-2 has it: y = x W + b, W (n, m)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


def layers():
    torch.manual_seed(0)
    tokens = torch.randn(5, 3, 6)
    linear = nn.Linear(6, 4)
    return {
        "linear": (linear, tokens),
        "no bias": (nn.Linear(6, 4, bias=False), tokens),
        "one sample": (nn.Linear(6, 4), tokens[0, 0]),
        "transposed": (Conv1D(4, 6), tokens),
        "factored": (LowRankLinear.from_linear(linear, 2), tokens),
        "pivoted": (PivotedLinear.from_linear(linear, 2), tokens),
        "table": (nn.Embedding(6, 4), torch.randint(0, 6, (5, 3))),
    }


LAYERS = layers()


def convolutions():
    """Convolutions of every kind, and inputs for them."""
    torch.manual_seed(1)
    image = torch.randn(2, 3, 7, 6)
    return {
        "1-D": (nn.Conv1d(3, 4, 5, stride=2, padding=3), torch.randn(2, 3, 17)),
        "2-D": (
            nn.Conv2d(3, 4, (3, 2), padding="same", dilation=(1, 2), bias=False),
            image,
        ),
        "circular": (nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"), image),
        "reflected": (nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="reflect"), image),
        "one sample": (nn.Conv2d(3, 4, 3, stride=(2, 3)), torch.randn(3, 7, 9)),
        "3-D": (nn.Conv3d(2, 4, 2, stride=2, dilation=2, padding=1), torch.randn(2, 2, 5, 6, 7)),
        "1 x 1": (nn.Conv2d(6, 4, 1), torch.randn(2, 6, 3, 3)),
    }


CONVOLUTIONS = convolutions()


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_its_matrix_applied_to_patches(name):
    conv, x = CONVOLUTIONS[name]
    seen, y = layer_view(conv), conv(x).detach()
    b = 0 if seen.bias is None else seen.bias
    assert torch.allclose(seen.rows(x) @ seen.weight.T + b, seen.output_rows(y), atol=1e-5)
    assert torch.equal(seen.output(seen.output_rows(y), y.shape), y)
    U, S, Vh = truncated_svd(seen.weight, 2)
    low = seen.low_rank(U * S, Vh, seen.bias)
    assert isinstance(low, LowRankConv) and low.rank == 2
    assert torch.allclose(low(x), seen.dense((U * S) @ Vh, seen.bias)(x), atol=1e-5)
    assert torch.allclose(low(x), LowRankConv.from_conv(conv, 2)(x), atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_is_its_matrix_applied_to_its_rows(name):
    layer, x = LAYERS[name]
    seen, y = layer_view(layer), layer(x).detach()
    W, b = seen.weight, 0 if seen.bias is None else seen.bias
    assert W.shape == (4, 6) and not W.requires_grad
    rows = seen.rows(x) @ W.T + b
    assert torch.allclose(rows, seen.output_rows(y), atol=1e-5)
    assert torch.equal(seen.output(seen.output_rows(y), y.shape), y)


@pytest.mark.parametrize("name", LAYERS)
def test_rebuilt_from_factors_and_from_a_matrix(name):
    layer, x = LAYERS[name]
    seen = layer_view(layer)
    U, S, Vh = truncated_svd(seen.weight, 4)
    full = seen.low_rank(U * S, Vh, seen.bias)
    assert torch.allclose(full(x), layer(x), atol=1e-5)
    low = seen.low_rank(U[:, :1] * S[:1], Vh[:1], seen.bias)
    assert torch.allclose(low(x), seen.dense((U[:, :1] * S[:1]) @ Vh[:1], seen.bias)(x), atol=1e-5)
    assert not torch.allclose(low(x), layer(x), atol=1e-2) and layer(x).dtype == low(x).dtype


def test_a_type_of_layer_that_nobody_knows():
    with pytest.raises(TypeError, match=r"^layer=ReLU must be of a type that is a matrix applied to rows"):
        layer_view(nn.ReLU())
    with pytest.raises(ValueError, match=r"^pivoted=True must be False for an nn.Embedding"):
        layer_view(nn.Embedding(3, 3)).low_rank(torch.eye(3), torch.eye(3), None, pivoted=True)


def test_one_line_adds_a_type():
    class Scaled(nn.Module):
        """y = 2 W x."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.diag(torch.tensor([3.0, 2.0, 0.1])))

        def forward(self, x):
            return 2 * nn.functional.linear(x, self.weight)

    class ScaledView(LayerView):
        weight = property(lambda self: 2 * self.layer.weight.detach())
        bias = None

    layer_view.register(Scaled, ScaledView)
    net, X, y = nn.Sequential(Scaled()), torch.eye(3), torch.tensor([0, 1, 2])
    found = find_rank(net, "0", X, y, max_drop=0.0, max_rank=3)
    small = compress(net, {"0": 2})
    assert found.curve == {1: 1 / 3, 2: 2 / 3, 3: 1.0}
    assert torch.allclose(small(X), torch.diag(torch.tensor([6.0, 4.0, 0.0])), atol=1e-5)
