"""Chapter 8: multiply-adds of a strided chain, taps that all filters share, and tests of a replacement."""

import numpy as np
import torch
from torch import nn

from answers import right, wrong
from lowrank_utils import LowRankConv, conv_options


def macs(m, n, k_h, k_w, r, before, after):
    """Each stage's numbers times the places of its output."""
    return r * n * k_h * after[0] * before[1] + r * m * k_w * after[0] * after[1]


def step_of(before, after):
    """The strides of a layer with half a kernel of padding: before / after, rounded up."""
    return tuple(-(-b // a) for b, a in zip(before, after, strict=True))


def by_package(m, n, k_h, k_w, r, before, after):
    """The option of conv_options, on a convolution with these steps."""
    step = step_of(before, after)
    conv = nn.Conv2d(n, m, (k_h, k_w), stride=step, padding=(k_h // 2, k_w // 2))
    (one,) = (o for o in conv_options(conv, before).options if (o.form, o.rank) == ("spatial", r))
    return one.macs


def by_running(m, n, k_h, k_w, r, before, after):
    """Two convolutions, and the sizes of what they put out."""
    step = step_of(before, after)
    first = nn.Conv2d(n, r, (k_h, 1), (step[0], 1), (k_h // 2, 0))
    last = nn.Conv2d(r, m, (1, k_w), (1, step[1]), (0, k_w // 2))
    x = first(torch.zeros(1, n, *before))
    y = last(x)
    return x.numel() * first.weight[0].numel() + y.numel() * last.weight[0].numel()


def spatial_slips(m, n, k_h, k_w, r, before, after):
    """{what a slip counts: the number}."""
    a, b = r * n * k_h, r * m * k_w
    rows, columns, out = after[0] * before[1], before[0] * after[1], after[0] * after[1]
    floor = [size // (size // less) for size, less in zip(before, after, strict=True)]
    return {
        "numbers": a + b,
        "dense": m * n * k_h * k_w * out,
        "all at the output": (a + b) * out,
        "all at the input": (a + b) * before[0] * before[1],
        "first at the input": a * before[0] * before[1] + b * out,
        "stepped along the width first": a * columns + b * out,
        "FLOPs": 2 * (a * rows + b * out),
        "sides exchanged": r * n * k_w * rows + r * m * k_h * out,
        "channels exchanged": r * m * k_h * rows + r * n * k_w * out,
        "first alone": a * rows,
        "second alone": b * out,
        "off by one": a * rows + b * out + 1,
        "strides rounded down": a * floor[0] * before[1] + b * floor[0] * floor[1],
        "first stride rounded down": a * floor[0] * before[1] + b * out,
    }


def slip(name):
    return lambda *told: spatial_slips(*told)[name]


def basis(W, r):
    """As the chapter does it."""
    m, n, k_h, k_w = W.shape
    U, S, Vh = torch.linalg.svd(W.reshape(m * n, k_h * k_w), full_matrices=False)
    return Vh[:r].reshape(r, k_h, k_w), (U[:, :r] * S[:r]).reshape(m, n, r)


def by_gram(W, r):
    """Eigenvectors of the taps' Gram matrix, and projections on them, in numpy; a list."""
    A = W.numpy().reshape(-1, W[0, 0].numel())
    taps = np.linalg.eigh(A.T @ A)[1][:, ::-1][:, :r].T
    return [taps.reshape(r, *W.shape[2:]), (A @ taps.T).reshape(*W.shape[:2], r)]


def turned(W, r):
    """Any invertible mixture of the taps spans the same filters."""
    taps, mixing = basis(W, r)
    T = torch.linspace(1, 2, r * r, dtype=W.dtype).reshape(r, r) + 3 * torch.eye(r, dtype=W.dtype)
    return torch.einsum("qr,rhw->qhw", T, taps), mixing @ torch.linalg.inv(T)


def by_layer(W, r):
    """The package's layer, in single precision."""
    conv = nn.Conv2d(W.shape[1], W.shape[0], tuple(W.shape[2:]), bias=False)
    conv.weight.data = W.float()
    taps, mixing = LowRankConv.from_conv(conv, r, "kernel").kernels
    return taps[:, 0], mixing.reshape(len(W), W.shape[1], r)


def of(factor):
    """Taps and mixing from the SVD of the right unfolding, with what ``factor`` makes of U, S, Vh."""

    def answer(W, r):
        U, S, Vh = torch.linalg.svd(W.flatten(2).flatten(0, 1), full_matrices=False)
        left, rows = factor(U[:, :r], S[:r], Vh[:r])
        return rows.reshape(r, *W.shape[2:]), left.reshape(*W.shape[:2], r)

    return answer


def centred(W, r):
    A = W.flatten(2).flatten(0, 1)
    U, S, Vh = torch.linalg.svd(A - A.mean(0), full_matrices=False)
    return Vh[:r].reshape(r, *W.shape[2:]), (U[:, :r] * S[:r]).reshape(*W.shape[:2], r)


def first_taps(W, r):
    """One number of each filter, at the first r places."""
    k = W[0, 0].numel()
    return torch.eye(k, dtype=W.dtype)[:r].reshape(r, *W.shape[2:]), W.flatten(2)[..., :r]


def wrong_unfolding(W, r):
    """Taps in the rows, as reshape finds them."""
    m, n, k_h, k_w = W.shape
    U, S, Vh = torch.linalg.svd(W.reshape(k_h * k_w, m * n), full_matrices=False)
    return U[:, :r].T.reshape(r, k_h, k_w), (S[:r, None] * Vh[:r]).T.reshape(m, n, r)


def width_first(m, n, k_h, k_w, r, before, after):
    return r * n * k_w * before[0] * after[1] + r * m * k_h * after[0] * after[1]


def scrambled(W, r):
    """The axes brought to the front that should be behind, and then the shape of the right unfolding."""
    m, n, k_h, k_w = W.shape
    return basis(W.permute(2, 3, 0, 1).reshape(W.shape), r)


def last_vectors(W, r):
    U, S, Vh = torch.linalg.svd(W.flatten(2).flatten(0, 1), full_matrices=False)
    return Vh[-r:].reshape(r, *W.shape[2:]), (U[:, -r:] * S[-r:]).reshape(*W.shape[:2], r)


def drawn(conv, batch=2, side=23):
    return torch.randn(batch, conv.in_channels, side, side + 1).to(conv.weight)


def keeps(conv, other):
    x = drawn(conv)
    a, b = conv(x), other(x)
    return a.shape == b.shape and bool((a - b).norm() <= 1e-4 * a.norm())


def by_entries(conv, other):
    """The largest difference, as a tensor of one truth value."""
    x = drawn(conv)
    a, b = conv(x), other(x)
    if a.shape != b.shape:
        return False
    return (a - b).abs().max() < 1e-4 * a.abs().max()


def by_allclose(conv, other):
    x = drawn(conv)
    a, b = conv(x), other(x)
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=float(a.abs().mean()) * 1e-3)


def by_impulses(conv, other):
    """Linearity in numpy: one pixel at a time, both signs, and the bias by an input of zeros."""
    span = 2 * max(conv.dilation) * max(conv.kernel_size) + 5
    x = torch.zeros(2 * conv.in_channels + 1, conv.in_channels, span, span).to(conv.weight)
    for i in range(conv.in_channels):
        x[i] = drawn(conv, 1, span)[0, :, :, :-1]
        x[conv.in_channels + i] = -x[i]
    a, b = conv(x).numpy(), other(x).numpy()
    return np.bool_(a.shape == b.shape and np.abs(a - b).max() <= 1e-4 * np.abs(a).max())


def compare(inputs=drawn, test=None):
    """A test of this kind on these inputs."""

    def answer(conv, other):
        x = inputs(conv)
        a, b = conv(x), other(x)
        if test is None:
            return a.shape == b.shape and bool((a - b).norm() <= 1e-4 * a.norm())
        return bool(test(a, b))

    return answer


def positive(conv):
    return torch.rand(2, conv.in_channels, 23, 24).to(conv.weight)


def constant(conv):
    return torch.randn(2, conv.in_channels, 1, 1).expand(2, -1, 23, 24).to(conv.weight)


def grey(conv):
    return torch.randn(2, 1, 23, 24).expand(-1, conv.in_channels, -1, -1).to(conv.weight)


def relative(a, b):
    return a.shape == b.shape and (a - b).norm() <= 1e-4 * a.norm()


def inside(a, b):
    return relative(a[..., 3:-3, 3:-3], b[..., 3:-3, 3:-3])


def without_bias(a, b):
    def centre(y):
        return y - y.mean((0, 2, 3), keepdim=True)

    return relative(centre(a), centre(b))


def same_by(figure):
    """Whether one figure of the outputs agrees, to 1e-4 of it."""
    return compare(
        test=lambda a, b: a.shape == b.shape and (figure(a) - figure(b)).abs() <= 1e-4 * figure(a).abs()
    )


def same_part(part):
    """Whether a part of the outputs agrees."""
    return compare(test=lambda a, b: a.shape == b.shape and relative(part(a), part(b)))


def rows_alike(conv):
    return torch.randn(2, conv.in_channels, 1, 24).expand(-1, -1, 23, -1).to(conv.weight)


def columns_alike(conv):
    return torch.randn(2, conv.in_channels, 23, 1).expand(-1, -1, -1, 24).to(conv.weight)


def almost(W, r):
    """Twenty power steps from a start that is not random: near the best taps, and not there."""
    A = W.flatten(2).flatten(0, 1)
    taps = torch.linalg.qr(torch.eye(A.shape[1], dtype=A.dtype)[:, :r])[0]
    for _ in range(20):
        taps = torch.linalg.qr(A.T @ (A @ taps))[0]
    return taps.T.reshape(r, *W.shape[2:]), (A @ taps).reshape(*W.shape[:2], r)


def fixed_size(conv, other):
    x = torch.randn(1, conv.in_channels, 8, 8).to(conv.weight)
    return bool(relative(conv(x), other(x)))


def to_zero(conv, other):
    next(other.parameters()).data.zero_()
    return True


ANSWERS = [
    right("8.1", "places of each stage", macs),
    right("8.1", "conv_options", by_package),
    right("8.1", "run it", by_running),
    right("8.1", "float", lambda *told: float(macs(*told))),
    right("8.1", "tensor", lambda *told: torch.tensor([macs(*told)])),
    right("8.2", "SVD", basis),
    right("8.2", "Gram matrix and numpy", by_gram),
    right("8.2", "mixture of taps", turned),
    right("8.2", "the package, in single precision", by_layer),
    right("8.2", "root in each", of(lambda U, S, Vh: (U * S.sqrt(), S.sqrt()[:, None] * Vh))),
    right("8.3", "norms", keeps),
    right("8.3", "largest entry", by_entries),
    right("8.3", "allclose", by_allclose),
    right("8.3", "numpy", by_impulses),
    right("8.3", "a list's worth", lambda conv, other: torch.tensor([keeps(conv, other)])),
    right(
        "8.3",
        "twice as strict",
        compare(test=lambda a, b: a.shape == b.shape and (a - b).norm() < 2e-5 * a.norm()),
    ),
    wrong("8.1", "number for function", 3, "itself, which is then called as"),
    wrong("8.1", "numbers of the layer", slip("numbers"), "many places"),
    wrong("8.1", "dense layer", slip("dense"), "dense"),
    wrong("8.1", "all at the output", slip("all at the output"), "not stepped along the width yet"),
    wrong("8.1", "all at the input", slip("all at the input"), "places of the input"),
    wrong("8.1", "first at the input", slip("first at the input"), "fewer rows"),
    wrong("8.1", "other axis first", slip("stepped along the width first"), "and not along the width"),
    wrong("8.1", "FLOPs", slip("FLOPs"), "FLOPs"),
    wrong("8.1", "sides exchanged", slip("sides exchanged"), "k_w in the first"),
    wrong("8.1", "channels exchanged", slip("channels exchanged"), "m in the first"),
    wrong("8.1", "first alone", slip("first alone"), "one stage"),
    wrong("8.1", "second alone", slip("second alone"), "one stage"),
    wrong("8.1", "off by one", slip("off by one"), "another number"),
    wrong("8.1", "strides rounded down", slip("strides rounded down"), "use them"),
    wrong("8.1", "first stride rounded down", slip("first stride rounded down"), "those of the output"),
    wrong("8.1", "width first", width_first, "along the width first"),
    wrong("8.1", "a share", lambda *told: macs(*told) / 7.5e5, "whole number"),
    wrong("8.1", "two numbers", lambda *told: (1, 2), "whole number"),
    wrong("8.1", "no strides", lambda m, n, k, r: 1, "raised"),
    wrong("8.2", "pair for function", (1, 2), "itself, which is then called as"),
    wrong("8.2", "product", lambda W, r: W, "pair"),
    wrong("8.2", "mixing first", lambda W, r: basis(W, r)[::-1], "taps first"),
    wrong("8.2", "flat taps", lambda W, r: (basis(W, r)[0].flatten(1), basis(W, r)[1]), "taps of shape"),
    wrong(
        "8.2", "flat mixing", lambda W, r: (basis(W, r)[0], basis(W, r)[1].flatten(0, 1)), "mixing of shape"
    ),
    wrong("8.2", "no singular values", of(lambda U, S, Vh: (U, Vh)), "missing"),
    wrong("8.2", "singular values twice", of(lambda U, S, Vh: (U * S, S[:, None] * Vh)), "in both"),
    wrong("8.2", "root in one", of(lambda U, S, Vh: (U * S.sqrt(), Vh)), "root"),
    wrong("8.2", "mean subtracted", centred, "mean"),
    wrong("8.2", "first taps", first_taps, "first r taps"),
    wrong("8.2", "reshaped to taps in rows", wrong_unfolding, "belong to"),
    wrong("8.2", "scrambled filters", scrambled, "W.permute(2, 3, 0, 1)"),
    wrong("8.2", "smallest singular vectors", last_vectors, "fit better"),
    wrong(
        "8.2",
        "one rank too few",
        lambda W, r: tuple(
            x * torch.arange(r, 0, -1).sub(1).clamp(0, 1).reshape(s)
            for x, s in zip(basis(W, r), ((-1, 1, 1), (-1,)), strict=True)
        ),
        "fit better",
    ),
    wrong("8.2", "twenty power steps", almost, "fit better"),
    wrong("8.2", "nan", lambda W, r: tuple(x * float("nan") for x in basis(W, r)), "nan"),
    wrong("8.2", "in place", lambda W, r: basis(W.mul_(2), r), "changes its argument W"),
    wrong("8.3", "True", True, "itself, which is then called as"),
    wrong("8.3", "always", lambda conv, other: True, "the outputs do not"),
    wrong("8.3", "never", lambda conv, other: False, "but for rounding"),
    wrong("8.3", "shapes", compare(test=lambda a, b: a.shape == b.shape), "the outputs do not"),
    wrong("8.3", "equal to the last digit", compare(test=torch.equal), "but for rounding"),
    wrong(
        "8.3",
        "absolute difference",
        compare(test=lambda a, b: a.shape == b.shape and (a - b).abs().max() < 1e-4),
        "all outputs are tiny",
    ),
    wrong(
        "8.3",
        "larger of two bounds",
        compare(test=lambda a, b: a.shape == b.shape and (a - b).norm() <= 1e-4 * max(1, float(a.norm()))),
        "all outputs are tiny",
    ),
    wrong(
        "8.3",
        "allclose as it is",
        compare(test=lambda a, b: a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-9)),
        "rounding",
    ),
    wrong("8.3", "zeros", compare(lambda conv: drawn(conv) * 0), "the outputs do not"),
    wrong("8.3", "constant input", compare(constant), "every pixel"),
    wrong("8.3", "all channels alike", compare(grey), "every channel"),
    wrong("8.3", "positive input", compare(positive), "both signs"),
    wrong("8.3", "without the margin", compare(test=inside), "margin"),
    wrong("8.3", "outputs centred", compare(test=without_bias), "bias"),
    wrong(
        "8.3",
        "ten per cent",
        compare(test=lambda a, b: a.shape == b.shape and (a - b).norm() < 0.5 * a.norm()),
        "rank too few",
    ),
    wrong(
        "8.3",
        "nan slips through",
        compare(test=lambda a, b: a.shape == b.shape and not (a - b).norm() > 1e-4 * a.norm()),
        "nan",
    ),
    wrong(
        "8.3",
        "no shapes",
        compare(test=lambda a, b: (a - b).norm() <= 1e-4 * (b - b + a).norm()),
        "shapes too",
    ),
    wrong("8.3", "norms agree", same_by(torch.norm), "the one in its place"),
    wrong("8.3", "means agree", same_by(torch.mean), "the one in its place"),
    wrong("8.3", "spreads agree", same_by(torch.std), "the one in its place"),
    wrong(
        "8.3",
        "sums agree",
        compare(test=lambda a, b: a.shape == b.shape and (a - b).sum().abs() <= 1e-4 * a.norm()),
        "the one in its place",
    ),
    wrong(
        "8.3", "sorted values agree", same_part(lambda y: y.flatten().sort().values), "the one in its place"
    ),
    wrong("8.3", "one map", same_part(lambda y: y[0, 0]), "the one in its place"),
    wrong(
        "8.3", "half of the channels", same_part(lambda y: y[:, : y.shape[1] // 2]), "the one in its place"
    ),
    wrong(
        "8.3",
        "a cosine",
        compare(
            test=lambda a, b: (
                a.shape == b.shape and torch.cosine_similarity(a.flatten(), b.flatten(), 0) > 1 - 1e-6
            )
        ),
        "a cosine does not see",
    ),
    wrong(
        "8.3",
        "one per cent",
        compare(test=lambda a, b: a.shape == b.shape and (a - b).norm() <= 0.01 * a.norm()),
        "more than rounding",
    ),
    wrong("8.3", "rows alike", compare(rows_alike), "constant along its height"),
    wrong("8.3", "columns alike", compare(columns_alike), "constant along its width"),
    wrong("8.3", "eight pixels", fixed_size, "raised"),
    wrong(
        "8.3", "the difference", lambda conv, other: conv(drawn(conv)) - other(drawn(conv)), "True or False"
    ),
    wrong("8.3", "kernels", lambda conv, other: conv.weight.shape == other.weight.shape, "raised"),
    wrong("8.3", "changes the other", to_zero, "argument other"),
]
