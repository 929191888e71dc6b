"""count_macs against closed forms written out by hand, and against what it must leave alone."""

from __future__ import annotations

import copy
import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lowrank_utils.cost.macs import count_macs
from lowrank_utils.cost.operators import macs_of
from lowrank_utils.layers.linear import LowRankLinear

GRAD_MODES = [torch.enable_grad, torch.no_grad, torch.inference_mode]


class Fn(nn.Module):
    """A module without parameters that calls a function."""

    def __init__(self, f: Callable[..., Any]) -> None:
        super().__init__()
        self.f = f

    def forward(self, *args: Any) -> Any:
        return self.f(*args)


class Raw(nn.Module):
    """Two matrices and no nn.Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(torch.randn(8, 3)), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.A @ self.B


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fc(x))


class Tied(nn.Module):
    """An embedding whose weight is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


class Self(nn.Module):
    """Self-attention on one input."""

    def __init__(self, need_weights: bool, **kwargs: Any) -> None:
        super().__init__()
        self.mha, self.need_weights = nn.MultiheadAttention(8, 2, batch_first=True, **kwargs), need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.mha(x, x, x, need_weights=self.need_weights)[0]


class Padded(nn.Module):
    """An encoder that is given a padding mask: torch's fast path would skip the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = encoder()

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(x.shape[:2], dtype=torch.bool)
        mask[0, 3:] = True
        return self.enc(x, src_key_padding_mask=mask)


def encoder(**kwargs: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **kwargs)
    return nn.TransformerEncoder(layer, 3)


def z(*shape: int) -> Tensor:
    return torch.randn(shape)


def insists_on_flash(q: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, q, q)


# B, L, e = 2, 5, 8: projections 4 e^2 for each of B L tokens, and Q K^T and its product with V, L^2 e each
MHA = 2 * 5 * 4 * 64 + 2 * 2 * 25 * 8
LAYER = MHA + 2 * 5 * 2 * 8 * 16  # and two linear layers between 8 and 16
ids = torch.arange(10).reshape(2, 5)
sdpa = F.scaled_dot_product_attention

ZOO: list[tuple[str, Callable[[], nn.Module], tuple[Any, ...], int]] = [
    ("linear", lambda: nn.Linear(4, 10), (z(120, 4),), 120 * 40),
    ("linear 1-D", lambda: nn.Linear(4, 10), (z(4),), 40),
    ("linear 3-D", lambda: nn.Linear(8, 6), (z(2, 5, 8),), 2 * 5 * 48),
    ("linear 3-D no bias", lambda: nn.Linear(8, 6, bias=False), (z(2, 5, 8),), 2 * 5 * 48),
    ("linear 3-D transposed", lambda: nn.Linear(8, 6), (z(5, 2, 8).transpose(0, 1),), 2 * 5 * 48),
    ("linear bfloat16", lambda: nn.Linear(8, 6).bfloat16(), (z(2, 8).bfloat16(),), 2 * 48),
    ("empty batch", lambda: nn.Linear(8, 6), (z(0, 8),), 0),
    ("lazy linear", lambda: nn.LazyLinear(6), (z(2, 8),), 2 * 48),
    ("low rank", lambda: LowRankLinear(8, 6, 3), (z(2, 5, 8),), 2 * 5 * 3 * (8 + 6)),
    ("low rank core", lambda: LowRankLinear(8, 6, 3, core=True), (z(2, 8),), 2 * (3 * (8 + 6) + 9)),
    ("conv1d", lambda: nn.Conv1d(3, 4, 5), (z(2, 3, 20),), 2 * 4 * 16 * 3 * 5),
    ("conv2d", lambda: nn.Conv2d(3, 4, 3), (z(2, 3, 9, 7),), 2 * 4 * 7 * 5 * 3 * 9),
    ("conv2d no batch", lambda: nn.Conv2d(3, 4, 3), (z(3, 9, 7),), 4 * 7 * 5 * 3 * 9),
    ("conv2d strided", lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (z(2, 3, 9, 7),), 2 * 4 * 5 * 4 * 27),
    ("conv2d dilated", lambda: nn.Conv2d(3, 4, 3, dilation=2), (z(2, 3, 9, 7),), 2 * 4 * 5 * 3 * 27),
    ("conv2d same", lambda: nn.Conv2d(3, 4, (3, 2), padding="same"), (z(2, 3, 9, 7),), 2 * 4 * 9 * 7 * 3 * 6),
    ("conv2d ring", lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (z(3, 9, 7),), 63 * 108),
    ("conv2d grouped", lambda: nn.Conv2d(6, 4, 3, groups=2), (z(2, 6, 9, 7),), 2 * 4 * 7 * 5 * 3 * 9),
    ("conv2d depthwise", lambda: nn.Conv2d(6, 12, 3, groups=6), (z(2, 6, 9, 7),), 2 * 12 * 7 * 5 * 1 * 9),
    ("conv3d", lambda: nn.Conv3d(2, 3, (1, 2, 3)), (z(2, 2, 4, 5, 6),), 2 * 3 * 4 * 4 * 4 * 2 * 6),
    ("conv1d transposed", lambda: nn.ConvTranspose1d(3, 4, 5), (z(2, 3, 20),), 2 * 3 * 20 * 4 * 5),
    ("conv2d transp.", lambda: nn.ConvTranspose2d(6, 4, 3, stride=2), (z(2, 6, 5, 4),), 2 * 6 * 20 * 4 * 9),
    ("conv2d transp. gr.", lambda: nn.ConvTranspose2d(6, 4, 3, groups=2), (z(1, 6, 5, 4),), 6 * 20 * 2 * 9),
    ("conv3d transposed", lambda: nn.ConvTranspose3d(2, 3, 2), (z(1, 2, 3, 4, 5),), 2 * 60 * 3 * 8),
    ("cdist of many", lambda: Fn(torch.cdist), (z(2, 30, 7), z(2, 31, 7)), 2 * 30 * 31 * (7 + 2)),
    ("conv_tbc", lambda: Fn(torch.conv_tbc), (z(9, 2, 3), z(4, 3, 5), z(5)), 6 * 2 * 5 * 4 * 3),
    ("embedding", lambda: nn.Embedding(11, 8), (ids,), 0),
    ("embedding bag", lambda: nn.EmbeddingBag(11, 8), (ids,), 0),
    ("norms", lambda: nn.Sequential(nn.LayerNorm(8), nn.GELU(), nn.Softmax(-1)), (z(2, 8),), 0),
    ("rnn", lambda: nn.RNN(4, 6), (z(5, 2, 4),), 10 * 6 * (4 + 6)),
    ("lstm", lambda: nn.LSTM(4, 6), (z(5, 2, 4),), 10 * 4 * 6 * (4 + 6)),
    ("lstm no batch", lambda: nn.LSTM(4, 6), (z(5, 4),), 5 * 4 * 6 * (4 + 6)),
    ("lstm batch_first", lambda: nn.LSTM(4, 6, batch_first=True), (z(2, 5, 4),), 10 * 4 * 6 * (4 + 6)),
    ("lstm state", lambda: nn.LSTM(4, 6), (z(5, 2, 4), (z(1, 2, 6), z(1, 2, 6))), 10 * 4 * 6 * (4 + 6)),
    (
        "lstm 2 layers both ways",
        lambda: nn.LSTM(4, 6, 2, bidirectional=True, dropout=0.5),
        (z(5, 2, 4),),
        10 * 2 * 4 * 6 * ((4 + 6) + (12 + 6)),
    ),
    (
        "lstm projected both ways",  # state of 3: 4 gates see the input and the state, then 6 -> 3
        lambda: nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3),
        (z(5, 2, 4),),
        10 * 2 * (4 * 6 * (4 + 3) + 4 * 6 * (6 + 3) + 2 * 6 * 3),
    ),
    (
        "lstm packed",  # 5 + 3 tokens
        lambda: nn.LSTM(4, 6),
        (nn.utils.rnn.pack_padded_sequence(z(5, 2, 4), torch.tensor([5, 3])),),
        8 * 4 * 6 * (4 + 6),
    ),
    ("gru", lambda: nn.GRU(4, 6, bidirectional=True), (z(5, 2, 4),), 10 * 2 * 3 * 6 * (4 + 6)),
    ("lstm cell", lambda: nn.LSTMCell(4, 6), (z(2, 4),), 2 * 4 * 6 * (4 + 6)),
    ("gru cell", lambda: nn.GRUCell(4, 6), (z(2, 4),), 2 * 3 * 6 * (4 + 6)),
    ("bilinear", lambda: nn.Bilinear(3, 4, 5), (z(7, 3), z(7, 4)), 7 * 5 * (3 * 4 + 4)),
    ("raw parameters", Raw, (z(2, 5, 8),), 2 * 5 * (8 * 3 + 3 * 6)),
    ("called twice", Twice, (z(2, 8),), 2 * 2 * 64),
    ("tied weights", Tied, (ids,), 10 * 88),
    ("F.linear", lambda: Fn(F.linear), (z(2, 5, 8), z(6, 8)), 10 * 48),
    ("bmm", lambda: Fn(torch.bmm), (z(2, 3, 4), z(2, 4, 5)), 2 * 3 * 4 * 5),
    ("baddbmm", lambda: Fn(torch.baddbmm), (z(2, 3, 5), z(2, 3, 4), z(2, 4, 5)), 2 * 3 * 4 * 5),
    ("addbmm", lambda: Fn(torch.addbmm), (z(3, 5), z(2, 3, 4), z(2, 4, 5)), 2 * 3 * 4 * 5),
    ("addmm in place", lambda: Fn(Tensor.addmm_), (z(3, 5), z(3, 4), z(4, 5)), 3 * 4 * 5),
    ("mm out", lambda: Fn(lambda a, b, y: torch.mm(a, b, out=y)), (z(3, 4), z(4, 5), z(3, 5)), 3 * 4 * 5),
    ("mv", lambda: Fn(torch.mv), (z(3, 4), z(4)), 12),
    ("addmv", lambda: Fn(torch.addmv), (z(3), z(3, 4), z(4)), 12),
    ("addr", lambda: Fn(torch.addr), (z(3, 4), z(3), z(4)), 12),
    ("dot", lambda: Fn(torch.dot), (z(4), z(4)), 4),
    ("matmul vectors", lambda: Fn(torch.matmul), (z(4), z(4)), 4),
    ("matmul broadcast", lambda: Fn(torch.matmul), (z(2, 1, 3, 4), z(6, 4, 5)), 2 * 6 * 3 * 4 * 5),
    ("einsum", lambda: Fn(lambda a, b: torch.einsum("bij,bkj->bik", a, b)), (z(2, 3, 4), z(2, 5, 4)), 120),
    ("einsum full sum", lambda: Fn(lambda a: torch.einsum("ij,ij->", a, a)), (z(3, 4),), 12),
    ("einsum elementwise", lambda: Fn(lambda a: torch.einsum("ij,ij->ij", a, a)), (z(3, 4),), 0),
    ("multi_dot", lambda: Fn(lambda *a: torch.linalg.multi_dot(a)), (z(9, 2), z(2, 9), z(9, 3)), 108),
    ("matrix_power", lambda: Fn(lambda a: torch.linalg.matrix_power(a, 4)), (z(3, 3),), 2 * 27),
    ("sdpa", lambda: Fn(sdpa), (z(2, 4, 5, 8), z(2, 4, 7, 8), z(2, 4, 7, 6)), 2 * 4 * 5 * 7 * (8 + 6)),
    ("sdpa causal", lambda: Fn(lambda q: sdpa(q, q, q, is_causal=True)), (z(2, 4, 5, 8),), 8 * 25 * 16),
    ("sdpa mask", lambda: Fn(lambda q, m: sdpa(q, q, q, attn_mask=m)), (z(2, 4, 5, 8), z(5, 5)), 8 * 25 * 16),
    (
        "sdpa gqa",  # 4 heads of queries share 2 of keys
        lambda: Fn(lambda q, k: sdpa(q, k, k, enable_gqa=True)),
        (z(2, 4, 5, 8), z(2, 2, 7, 8)),
        2 * 4 * 5 * 7 * 16,
    ),
    ("sdpa flash inside", lambda: Fn(insists_on_flash), (z(2, 4, 5, 8),), 8 * 25 * 16),
    ("mha", lambda: Self(False), (z(2, 5, 8),), MHA),
    ("mha weights", lambda: Self(True), (z(2, 5, 8),), MHA),
    ("mha cross", lambda: nn.MultiheadAttention(8, 2), (z(5, 1, 8), *2 * (z(7, 1, 8),)), 24 * 64 + 70 * 8),
    (
        "mha kdim",  # keys of width 3 and values of width 4
        lambda: nn.MultiheadAttention(8, 2, kdim=3, vdim=4),
        (z(5, 1, 8), z(7, 1, 3), z(7, 1, 4)),
        2 * 5 * 64 + 7 * 8 * (3 + 4) + 2 * 35 * 8,
    ),
    ("encoder layer", lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (z(2, 5, 8),), LAYER),
    ("encoder", encoder, (z(2, 5, 8),), 3 * LAYER),
    ("encoder norm_first", lambda: encoder(activation="gelu", norm_first=True), (z(2, 5, 8),), 3 * LAYER),
    ("encoder padded", Padded, (z(2, 5, 8),), 3 * LAYER),
    (
        "decoder layer",
        lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True),
        (z(2, 5, 8), z(2, 7, 8)),
        LAYER + 2 * (2 * 5 + 2 * 7) * 64 + 2 * 2 * 35 * 8,
    ),
    ("weight_norm", lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 6)), (z(2, 8),), 2 * 48),
    ("nothing", nn.Identity, (z(2, 8),), 0),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own; count_macs' fail below
@pytest.mark.parametrize("mode", GRAD_MODES)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("make", "inputs", "macs"), [row[1:] for row in ZOO], ids=[row[0] for row in ZOO])
def test_count_is_the_closed_form(make, inputs, macs, train, mode):
    model = make().train(train)
    with mode(), warnings.catch_warnings():
        warnings.filterwarnings("error", message="count_macs")
        assert count_macs(model, *inputs) == macs


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "inputs", "macs"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (z(2, 3, 9, 7),), 2 * 4 * 35 * 27),
        (lambda: Self(False), (z(2, 5, 8),), MHA),
        (encoder, (z(2, 5, 8),), 3 * LAYER),
    ],
    ids=["conv", "mha", "encoder"],
)
@pytest.mark.parametrize("warm", [0, 3])
def test_scripted_models_count_with_their_fused_kernels(make, inputs, macs, warm):
    model = torch.jit.script(make().eval())
    with torch.no_grad():
        for _ in range(warm):
            model(*inputs)
    assert count_macs(model, *inputs) == macs


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_traced_models_count_and_optimised_ones_warn():
    model, x = nn.Conv2d(3, 4, 3).eval(), z(2, 3, 9, 7)
    assert count_macs(torch.jit.trace(model, x), x) == 2 * 4 * 35 * 27
    with pytest.warns(UserWarning, match="prim::mkldnn_convolution"):
        count_macs(torch.jit.optimize_for_inference(torch.jit.script(model)), x)


def test_a_compiled_model_counts_as_the_eager_one():
    x = z(2, 8)
    whole, inside = torch.compile(Raw(), backend="eager"), Raw()
    inside.compile(backend="eager")
    for model in (whole, inside):
        model(x)  # compiled by now
        assert count_macs(model, x) == 2 * (8 * 3 + 3 * 6)
    assert count_macs(Fn(torch.compile(torch.mm, backend="eager")), x, z(8, 3)) == 2 * 8 * 3


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_is_dense():
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = z(1, 2, 16, 8), z(1, 2, 32, 8), z(1, 2, 32, 4)
    assert count_macs(Fn(flex_attention), q, k, v) == 2 * 16 * 32 * (8 + 4)


def test_a_model_on_meta_counts_without_computing():
    with torch.device("meta"):
        model = nn.Linear(100_000, 100_000)
        assert count_macs(model, torch.empty(64, 100_000)) == 64 * 10**10


@pytest.mark.parametrize(
    ("kwargs", "size"),
    [
        ({}, (9, 7)),
        ({"stride": 2, "padding": 1}, (9, 7)),
        ({"dilation": (2, 1)}, (9, 7)),
        ({"kernel_size": (1, 4)}, (5, 8)),
        ({"groups": 3}, (6, 6)),
    ],
)
def test_conv_agrees_with_unfold_and_its_transpose_with_the_adjoint(kwargs, size):
    conv = nn.Conv2d(**{"in_channels": 6, "out_channels": 9, "kernel_size": 3} | kwargs)
    x = z(2, 6, *size)
    patches = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # (B, 6 k, places)
    brute = patches.numel() // conv.groups * conv.out_channels
    assert count_macs(conv, x) == brute
    # the transposed convolution is the gradient of conv: the same pairs (number in, number out) meet
    y = conv(x)
    options = {k: getattr(conv, k) for k in ("stride", "padding", "dilation", "groups")}
    assert count_macs(Fn(lambda a, w: F.conv_transpose2d(a, w, **options)), y, conv.weight) == brute


@pytest.mark.parametrize(
    ("name", "args", "out", "macs"),
    [
        ("_cudnn_rnn", (z(5, 2, 4), [z(24, 4), z(24, 6), z(24), z(24)]), None, 10 * 24 * 10),
        ("_scaled_dot_product_flash_attention", (z(8, 5, 8), z(4, 7, 8), z(4, 7, 6)), None, 8 * 35 * 14),
        ("_scaled_dot_product_flash_attention_backward", (z(1),), None, None),
        ("relu", (z(3),), z(3), None),
    ],
)
def test_formulas_of_kernels_that_this_machine_does_not_run(name, args, out, macs):
    assert macs_of(name, args, out) == macs


class Restless(nn.Module):
    """Changes all that a forward can change, then raises if told to."""

    def __init__(self, fail: bool) -> None:
        super().__init__()
        self.fc, self.norm, self.drop = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.embed = nn.Embedding(11, 8, max_norm=0.1)  # shrinks its own weight when called
        self.old = nn.Linear(8, 8)
        self.calls, self.seen, self.fail = 0, [], fail
        self.frozen = nn.Linear(8, 8).eval()

    def forward(self, x: Tensor) -> Tensor:
        x.relu_()
        self.calls += 1
        self.seen.append(x)
        self.extra = nn.Parameter(torch.zeros(3))
        self.fc.weight.data.add_(1)
        self.eval()
        np.random.rand(random.randrange(3) + 1)
        x = self.old(self.drop.train()(self.norm.train()(self.fc(x)))) + self.embed.weight[:1] + torch.rand(8)
        self.embed(torch.arange(11))
        self.fc.register_forward_hook(lambda *_: None)
        if self.fail:
            raise RuntimeError("as told")
        return x


def flags() -> tuple[Any, ...]:
    b = torch.backends
    sdp = [getattr(b.cuda, f"{k}_sdp_enabled")() for k in ("flash", "mem_efficient", "math", "cudnn")]
    grad = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    return (b.mha.get_fastpath_enabled(), *sdp, b.mkldnn.enabled, b.cudnn.enabled, *grad)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("fail", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("fastpath", [False, True])
def test_nothing_is_left_behind(fail, fastpath, request):
    request.addfinalizer(lambda: torch.backends.mha.set_fastpath_enabled(True))
    torch.backends.mha.set_fastpath_enabled(fastpath)
    model = Restless(fail)
    nn.utils.weight_norm(model.old)(z(2, 8))  # leaves a weight with a history, which deepcopy refuses
    model.fc.weight.grad = z(8, 8)
    inputs = (z(4, 8).requires_grad_() * 1,)
    classes = {c: dict(vars(c)) for c in (nn.Module, *map(type, model.modules()))}

    def state() -> list[Any]:
        tensors = {**model.state_dict(keep_vars=True), "x": inputs[0], "grad": model.fc.weight.grad}
        identity = {k: (id(v), v.data_ptr(), v._version, v.requires_grad) for k, v in tensors.items()}
        parts = {
            k: (m.training, sorted(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks))
            for k, m in model.named_modules()
        }
        generators = (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()))
        return [identity, parts, generators, flags(), model.calls, len(model.seen)]

    before, values = state(), copy.deepcopy(model.state_dict())
    x = inputs[0].detach().clone()
    if fail:
        with pytest.raises(RuntimeError, match="as told"):
            count_macs(model, *inputs)
    else:
        assert count_macs(model, *inputs) == 2 * 4 * 64
    assert state() == before
    assert all(torch.equal(v, values[k]) for k, v in model.state_dict().items())
    assert torch.equal(inputs[0], x)
    assert all(dict(vars(c)) == was for c, was in classes.items())


def test_the_side_effect_test_can_fail():
    model, x = Restless(False), z(4, 8)
    before = (model.embed.weight.clone(), x.clone(), model.norm.running_mean.clone())
    with torch.no_grad():
        model(x)
    after = (model.embed.weight, x, model.norm.running_mean)
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_tied_inputs_and_parameters_stay_tied():
    model = Raw()
    assert count_macs(model, model.A.T) == 3 * (8 * 3 + 3 * 6)
    x = torch.ones(4, 4)
    zeroed = Fn(lambda a, b: a @ b if a.zero_().equal(b) else a)
    assert count_macs(zeroed, x, x) == 64 and x.sum() == 16  # the copies of one tensor are one tensor


def test_counts_in_two_threads_do_not_mix():
    results: list[int] = []
    model, x = encoder().eval(), z(2, 5, 8)
    threads = [threading.Thread(target=lambda: results.append(count_macs(model, x))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3 * LAYER] * 8 and torch.backends.mha.get_fastpath_enabled()


def test_a_count_within_a_count_is_one_more_forward():
    inner = nn.Linear(8, 6)
    outer = Fn(lambda x: (count_macs(inner, x), inner(x))[1])
    assert count_macs(outer, z(2, 8)) == 2 * 2 * 48  # the inner count runs a forward too
    assert torch.backends.mha.get_fastpath_enabled()


@torch.library.custom_op("lowrank_test::hidden_mm", mutates_args=())
def hidden_mm(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda a, b: hidden_mm(a, b), "lowrank_test::hidden_mm"),
        (lambda a, b: torch.sparse.mm(a.to_sparse(), b), "aten::_sparse_addmm"),
        (lambda a, b: torch.cdist(a, b.T), "aten::_cdist_forward"),
    ],
)  # fmt: skip
def test_an_operator_that_may_hide_a_product_is_named(f, name):
    with pytest.warns(UserWarning, match=f"count_macs has no formula for {name}"):
        assert count_macs(Fn(f), z(3, 4), z(4, 5)) == 0


@pytest.mark.parametrize("bad", [None, 3, torch.relu, nn.Linear, torch.zeros(3)])
def test_what_is_no_module_is_a_type_error(bad):
    with pytest.raises(TypeError, match=r"model=.* must be a torch\.nn\.Module"):
        count_macs(bad, z(2, 8))


def test_the_forward_s_own_error_comes_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count_macs(nn.Linear(8, 6), z(2, 7))
    with pytest.raises(TypeError):
        count_macs(nn.Linear(8, 6))
