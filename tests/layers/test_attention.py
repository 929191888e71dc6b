"""unpack_attention against torch's own modules: outputs and weights, in training, in eval and fused."""

import contextlib
import copy
import itertools
import math
import pickle
import warnings
from collections import Counter

import pytest
import torch
from oracles import DTYPES, eps, snapshot
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode

from lowrank_utils import LowRankLinear, PivotedLinear, UnpackedAttention, unpack_attention
from lowrank_utils.layers.fused import PaddedEncoder, leave_fused_path

E, N, L, S = 12, 3, 5, 7
FUSED = ("_transformer_encoder_layer_fwd", "_native_multi_head_attention")


class Ran(TorchDispatchMode):
    """The operators dispatched, and the inner sizes of the products by two-dimensional weights."""

    def __init__(self):
        super().__init__()
        self.calls, self.products = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.calls[name] += 1
        if name in ("mm", "addmm", "linear"):
            a, b = args[-2:] if name != "linear" else args[:2]
            self.products[tuple(b.shape)] += 1
        return func(*args, **(kwargs or {}))


def ran(call):
    with Ran() as mode:
        call()
    return mode


def nonzero_biases(module, seed=0):
    """Torch starts attention's biases at zero, where a slip in them could not be seen."""
    torch.manual_seed(seed)
    for p in module.parameters():
        if p.ndim == 1:
            p.data.add_(torch.randn_like(p) / 2)
    return module


def attention(seed=0, dtype=torch.float32, heads=4, **how):
    torch.manual_seed(seed)
    return nonzero_biases(nn.MultiheadAttention(E, heads, dtype=dtype, **how), seed)


def inputs(module, alike=False, batched=True, seed=1):
    """query, key, value as the module takes them; ``alike``: one tensor for all three."""
    torch.manual_seed(seed)
    dtype = next(module.parameters()).dtype
    length = L if alike else S
    sizes = [(L, module.embed_dim), (length, module.kdim), (length, module.vdim)]
    made = [torch.randn(N, rows, width, dtype=dtype) for rows, width in sizes]
    if not batched:
        made = [t[0] for t in made]
    elif not module.batch_first:
        made = [t.transpose(0, 1) for t in made]
    return (made[0],) * 3 if alike else tuple(made)


def masks(rows, columns, heads=4, seed=2):
    """{name: keywords}, no row of which hides every key."""
    torch.manual_seed(seed)
    hidden = torch.rand(rows, columns) < 0.4
    hidden[:, 0] = False
    deep = torch.rand(N * heads, rows, columns) < 0.4
    deep[..., 0] = False
    padded = torch.arange(columns) >= torch.tensor([[columns], [columns - 2], [2]])  # (N, S)
    causal = torch.full((rows, columns), -torch.inf).triu(1)
    return {
        "none": {},
        "bool": {"attn_mask": hidden},
        "float": {"attn_mask": torch.randn(rows, columns)},
        "per head": {"attn_mask": deep},
        "padding": {"key_padding_mask": padded},
        "float padding": {"key_padding_mask": torch.zeros(N, columns).masked_fill(padded, -torch.inf)},
        "both": {"attn_mask": hidden, "key_padding_mask": padded},
        "causal": {"attn_mask": causal, "is_causal": True},
        "causal, padded": {"attn_mask": causal < 0, "key_padding_mask": padded, "is_causal": True},
    }


KINDS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "odd heads": {"heads": 3, "batch_first": True},
    "no bias": {"bias": False},
    "kdim and vdim": {"kdim": 9, "vdim": 5},
    "kdim, batch first, no bias": {"kdim": 9, "batch_first": True, "bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero": {"add_zero_attn": True, "batch_first": True},
    "bias_kv, zero, vdim": {"add_bias_kv": True, "add_zero_attn": True, "vdim": 5},
    "dropout": {"dropout": 0.4, "batch_first": True},
}
WEIGHTS = [
    {"need_weights": False},
    {},
    {"average_attn_weights": False},
]


def same(got, wanted, room=1e-6):
    """Outputs and weights, to so much of the largest."""
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) is (b is None)
        if a is not None:
            assert a.shape == b.shape and a.dtype == b.dtype
            assert torch.allclose(a, b, rtol=0, atol=room * max(1.0, float(b.detach().abs().max())))


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("mask", masks(L, S))
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_torchs(kind, mask, weights):
    heads = KINDS[kind].get("heads", 4)
    packed = attention(**KINDS[kind])
    plain = unpack_attention(packed)
    assert type(plain) is UnpackedAttention
    settings = itertools.product((True, False), (True, False), (True, False), (True, False))
    for training, gradients, alike, batched in settings:
        if alike and (packed.kdim, packed.vdim) != (E, E):
            continue
        x = inputs(packed, alike, batched)
        how = masks(L, x[1].shape[-2] if packed.batch_first or not batched else len(x[1]), heads)[mask]
        if not batched:
            how = {k: v[0] if k == "key_padding_mask" else v for k, v in how.items()}
            if mask == "per head":
                how["attn_mask"] = how["attn_mask"][:heads]
        both = []
        for module in (packed.train(training), plain.train(training)):
            torch.manual_seed(5)  # for dropout
            with torch.set_grad_enabled(gradients):
                both.append(module(*x, **how, **weights))
        same(both[1], both[0])


def test_a_slip_would_be_seen():
    """Keys for values, a mask the wrong way round, no scale: each changes what the test above compares."""
    packed = attention(batch_first=True)
    plain = unpack_attention(packed)
    x = inputs(packed)
    wanted = packed(*x)[0]
    plain.k_proj, plain.v_proj = plain.v_proj, plain.k_proj
    assert not torch.allclose(plain(*x)[0], wanted, atol=0.01)
    hidden = masks(L, S)["bool"]["attn_mask"]
    assert not torch.allclose(packed(*x, attn_mask=hidden)[0], packed(*x, attn_mask=~hidden)[0], atol=0.01)
    packed.train().dropout = 0.4
    assert not torch.allclose(packed(*x)[0], wanted, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_torchs(kind):
    packed = attention(dtype=torch.float64, **KINDS[kind])
    packed.dropout = 0.0
    plain = unpack_attention(packed)
    x = inputs(packed)
    for module in (packed, plain):
        y, weights = module(*x)
        (y.tanh().sum() + weights.square().sum()).backward()
    if packed.in_proj_weight is None:
        wanted = [packed.q_proj_weight.grad, packed.k_proj_weight.grad, packed.v_proj_weight.grad]
    else:
        wanted = packed.in_proj_weight.grad.chunk(3)
    projections = plain.q_proj, plain.k_proj, plain.v_proj
    pairs = [(p.weight.grad, g) for p, g in zip(projections, wanted, strict=True)]
    pairs.append((plain.out_proj.weight.grad, packed.out_proj.weight.grad))
    if packed.in_proj_bias is not None:
        pairs += [
            (p.bias.grad, g) for p, g in zip(projections, packed.in_proj_bias.grad.chunk(3), strict=True)
        ]
    if packed.bias_k is not None:
        pairs += [(plain.bias_k.grad, packed.bias_k.grad), (plain.bias_v.grad, packed.bias_v.grad)]
    for got, gradient in pairs:
        assert torch.allclose(got, gradient, atol=1e-12)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in packed.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_and_mode_and_flags_are_kept(dtype):
    packed = attention(dtype=dtype).eval()
    packed.in_proj_weight.requires_grad_(False)
    packed.out_proj.bias.requires_grad_(False)
    plain = unpack_attention(packed)
    assert {p.dtype for p in plain.parameters()} == {dtype} and not plain.training
    frozen = {name for name, p in plain.named_parameters() if not p.requires_grad}
    assert frozen == {"q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.bias"}
    assert all(type(layer) is nn.Linear for layer in plain.children())
    x = inputs(packed)
    same(plain(*x), packed(*x), 1e-6 if dtype.itemsize > 2 else 16 * eps(dtype))
    assert {p.device.type for p in unpack_attention(packed.to("meta")).parameters()} == {"meta"}


# inside torch's own modules


def encoder_layer(seed=0, **how):
    torch.manual_seed(seed)
    how = {"dim_feedforward": 20, "batch_first": True, "dropout": 0.0} | how
    return nonzero_biases(nn.TransformerEncoderLayer(E, 4, **how), seed)


def encoder(layers=2, norm=True, seed=0, **how):
    torch.manual_seed(seed)
    last = nn.LayerNorm(E) if norm else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says which layers it cannot fuse
        made = nn.TransformerEncoder(encoder_layer(seed, **how), layers, last)
    for i, layer in enumerate(made.layers):  # torch makes them all alike
        torch.manual_seed(i)
        for p in layer.parameters():
            p.data.add_(torch.randn_like(p) / 10)
    return nonzero_biases(made, seed)


def padding(left_aligned=True):
    mask = torch.arange(L) >= torch.tensor([[L], [L - 1], [2]])
    return mask if left_aligned else mask.flip(1)


LAYERS = {
    "post": {},
    "pre": {"norm_first": True},
    "gelu": {"activation": "gelu"},
    "sequence first": {"batch_first": False},
    "silu": {"activation": nn.functional.silu},
    "no bias": {"bias": False},
    "dropout": {"dropout": 0.3},
}
SEEN = {
    "none": {},
    "mask": {"src_mask": torch.full((L, L), -torch.inf).triu(1)},
    "causal": {"src_mask": torch.full((L, L), -torch.inf).triu(1), "is_causal": True},
    "padding": {"src_key_padding_mask": padding()},
    "ragged padding": {"src_key_padding_mask": padding(left_aligned=False)},
    "both": {"src_mask": torch.ones(L, L).triu(1) > 0, "src_key_padding_mask": padding()},
}
MODES = list(itertools.product((True, False), (True, False)))  # training, gradients


@contextlib.contextmanager
def fused_path_off():
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def outputs_of(models, x, training, gradients, **how):
    made = []
    for model in models:
        torch.manual_seed(5)
        with torch.set_grad_enabled(gradients), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
            made.append((model.train(training)(x, **how),))
    return made


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("kind", LAYERS)
def test_encoder_layers(kind, seen):
    packed = encoder_layer(**LAYERS[kind])
    plain = unpack_attention(packed)
    torch.manual_seed(1)
    x = torch.randn(N, L, E) if packed.self_attn.batch_first else torch.randn(L, N, E)
    for training, gradients in MODES:
        wanted, got = outputs_of((packed, plain), x, training, gradients, **SEEN[seen])
        same(got, wanted, 2e-6)  # of entries of a layer norm, up to 4
    one = {k: v[0] if "padding" in k else v for k, v in SEEN[seen].items()}
    wanted, got = outputs_of((packed, plain), torch.randn(L, E), False, False, **one)
    same(got, wanted, 2e-6)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("kind", LAYERS)
def test_encoders_padded_positions_included(kind, seen, norm):
    packed = encoder(norm=norm, **LAYERS[kind])
    plain = unpack_attention(packed)
    how = {k.replace("src_mask", "mask"): v for k, v in SEEN[seen].items()}
    torch.manual_seed(1)
    x = torch.randn(N, L, E) if packed.layers[0].self_attn.batch_first else torch.randn(L, N, E)
    for training, gradients in MODES:
        wanted, got = outputs_of((packed, plain), x, training, gradients, **how)
        same(got, wanted, 3e-6)
    for module in (packed, plain):
        module.requires_grad_(False)
    wanted, got = outputs_of((packed, plain), x, False, True, **how)  # nothing asks for a gradient: fused too
    same(got, wanted, 3e-6)


def test_padded_positions_are_dropped_only_where_torch_drops_them():
    """Torch's two ways differ at padded positions; each is followed where torch takes it."""
    packed = encoder()
    x, how = torch.randn(N, L, E), {"src_key_padding_mask": padding()}
    (fused,), (plain_way,) = (outputs_of((packed,), x, False, grad, **how)[0] for grad in (False, True))
    assert not torch.allclose(fused[padding()], plain_way[padding()], atol=0.01)
    assert torch.allclose(fused[~padding()], plain_way[~padding()], atol=1e-5)
    model = unpack_attention(packed)
    assert type(model) is PaddedEncoder and isinstance(model, nn.TransformerEncoder)
    (blank,), (full,) = (outputs_of((model,), x, False, grad, **how)[0] for grad in (False, True))
    assert torch.allclose(blank, fused, atol=1e-5) and torch.allclose(full, plain_way, atol=1e-5)
    numbers = {"src_key_padding_mask": torch.zeros(N, L).masked_fill(padding(), -math.inf)}  # the same mask
    (mine,), (its,) = (outputs_of((m,), x, False, False, **numbers)[0] for m in (model, packed))
    assert torch.allclose(mine, its, atol=1e-5) and torch.allclose(mine, blank, atol=1e-5)
    skewed = {"src_key_padding_mask": padding(left_aligned=False)}  # torch drops no such positions
    (full,), (plain_way,) = (outputs_of((m,), x, False, False, **skewed)[0] for m in (model, packed))
    assert torch.allclose(full, plain_way, atol=1e-5) and not torch.allclose(
        full[:, 0], blank[:, -1], atol=0.01
    )
    with fused_path_off():
        (full,), (plain_way,) = (outputs_of((m,), x, False, False, **how)[0] for m in (model, packed))
    assert torch.allclose(full, plain_way, atol=1e-5) and not torch.allclose(full, blank, atol=0.01)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_decoder_layers_and_whole_transformers(batch_first, training):
    torch.manual_seed(0)
    how = {"dim_feedforward": 16, "batch_first": batch_first, "dropout": 0.2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = nonzero_biases(nn.Transformer(E, 4, 2, 2, **how))
    layer = nonzero_biases(nn.TransformerDecoderLayer(E, 3, **how))
    source, target = torch.randn(N, S, E), torch.randn(N, L, E)
    if not batch_first:
        source, target = source.transpose(0, 1), target.transpose(0, 1)
    causal = nn.Transformer.generate_square_subsequent_mask(L)
    padded = torch.arange(S) >= torch.tensor([[S], [S - 3], [1]])
    for gradients in (True, False):
        both = []
        for model in (whole, unpack_attention(whole)):
            torch.manual_seed(5)
            with torch.set_grad_enabled(gradients):
                both.append(
                    (
                        model.train(training)(
                            source,
                            target,
                            tgt_mask=causal,
                            tgt_is_causal=True,
                            src_key_padding_mask=padded,
                            memory_key_padding_mask=padded,
                        ),
                    )
                )
        same(both[1], both[0], 3e-6)
        both = []
        for model in (layer, unpack_attention(layer)):
            torch.manual_seed(5)
            with torch.set_grad_enabled(gradients):
                both.append((model.train(training)(target, source, tgt_mask=causal, tgt_is_causal=True),))
        same(both[1], both[0], 3e-6)
    names = [n for n, m in unpack_attention(whole).named_modules() if isinstance(m, UnpackedAttention)]
    assert len(names) == 2 + 2 * 2


# the factors run


def test_torch_fuses_the_packed_layer_and_not_the_unpacked_one():
    packed, x = encoder_layer().eval(), torch.randn(N, L, E)
    with torch.no_grad():
        assert ran(lambda: packed(x)).calls[FUSED[0]] == 1
        for model in (unpack_attention(packed), unpack_attention(encoder().eval())):
            calls = ran(lambda model=model: model(x, src_key_padding_mask=padding())).calls
            assert not any(calls[name] for name in FUSED) and calls["addmm"] + calls["mm"] in (6, 12)


PLACES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
    "linear1",
    "linear2",
)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", [LowRankLinear, PivotedLinear])
def test_the_factors_run_at_inference(place, form, gradients):
    model = unpack_attention(encoder(1).eval())
    name = f"layers.0.{place}"
    layer = form.from_linear(model.get_submodule(name), 2)
    model.set_submodule(name, layer)
    called = []
    layer.register_forward_hook(lambda *_: called.append(1))
    x = torch.randn(N, L, E)
    with torch.set_grad_enabled(gradients):
        for how in ({}, {"src_key_padding_mask": padding()}):
            model(x, **how)
    assert len(called) == 2
    layer._forward_hooks.clear()  # hooks keep torch off the fused path by themselves
    with torch.set_grad_enabled(gradients):
        mode = ran(lambda: model(x, src_key_padding_mask=padding()))
    assert not any(mode.calls[name] for name in FUSED)
    m, n = layer.out_features, layer.in_features
    if form is LowRankLinear:
        assert mode.products[(n, 2)] == mode.products[(2, m)] == 1  # mm takes a weight transposed
    dense = sum(count for shape, count in mode.products.items() if shape in ((n, m), (m, n)))
    whole = ran(lambda: unpack_attention(encoder(1).eval())(x)).products
    assert dense == sum(count for shape, count in whole.items() if shape in ((n, m), (m, n))) - 1


class Unguarded(nn.Module):
    """Somebody's own layer in factors, with the attributes that torch reads."""

    def __init__(self, linear, rank):
        super().__init__()
        low = LowRankLinear.from_linear(linear, rank)
        self.left, self.right, self.bias, self.rank = low.left, low.right, low.bias, rank
        self.out_features, self.in_features = linear.out_features, linear.in_features

    @property
    def weight(self):
        return self.left @ self.right

    def forward(self, x):
        return x @ self.right.T @ self.left.T + self.bias


@pytest.mark.parametrize("place", ["linear1", "linear2"])
@pytest.mark.parametrize("form", [Unguarded, LowRankLinear.from_linear])
def test_a_packed_encoder_layer_can_be_kept_off_the_fused_path(form, place):
    packed = encoder().eval()
    x, how = torch.randn(N, L, E), {"src_key_padding_mask": padding()}
    small = copy.deepcopy(packed)
    for layer in small.layers:
        rank = min(getattr(layer, place).weight.shape)
        setattr(layer, place, form(getattr(layer, place), rank))
    untouched = copy.deepcopy(small)
    leave_fused_path(small)
    with torch.no_grad():
        if form is Unguarded:
            assert ran(lambda: untouched(x)).calls[FUSED[0]] == 2  # the trap: no factor runs
        for seen in ({}, how):
            assert ran(lambda seen=seen: small(x, **seen)).calls[FUSED[0]] == 0
            same((small(x, **seen),), (packed(x, **seen),), 3e-6)
    layer = getattr(small.layers[1], place)
    m, n, r = layer.out_features, layer.in_features, layer.rank
    with torch.no_grad():
        products = ran(lambda: small(x)).products
    assert products[(n, r)] >= 2 and products[(r, m)] >= 2


def test_layers_without_a_part_of_ours_stay_fused():
    model = nn.Sequential(encoder_layer(), encoder_layer(1), encoder(1)).eval()
    model[1].linear1 = LowRankLinear.from_linear(model[1].linear1, 2)
    leave_fused_path(model)
    with torch.no_grad():
        assert ran(lambda: model(torch.randn(N, L, E))).calls[FUSED[0]] == 2
    assert type(model[2]) is nn.TransformerEncoder and model[2].use_nested_tensor


# what is copied, shared, left


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.MultiheadAttention(E, 4)
        self.b = self.a
        self.c = nn.MultiheadAttention(E, 4)
        self.tied = None

    def forward(self, x):
        for layer in (self.a, self.b, self.c):
            x = layer(x, x, x)[0]
        return x


def test_nothing_is_shared_or_changed_or_drawn():
    model, x = encoder().train(), torch.randn(N, L, E)
    before = snapshot(model, x)
    made = unpack_attention(model)
    assert snapshot(model, x) == before
    owned = [p.untyped_storage().data_ptr() for m in (model, made) for p in m.parameters()]
    assert len(set(owned)) == len(owned) and made.training
    for p in made.parameters():
        p.data.zero_()
    assert snapshot(model, x) == before


def test_a_module_that_stands_twice_is_unpacked_once():
    made = unpack_attention(Two())
    assert made.a is made.b and made.a is not made.c
    assert {type(m) for m in made.children()} == {UnpackedAttention}
    x = torch.randn(L, N, E)
    model = Two()
    same((unpack_attention(model)(x),), (model(x),))


def test_a_model_without_attention_is_a_copy():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    made = unpack_attention(model)
    assert made is not model and torch.equal(made[0].weight, model[0].weight)
    with torch.no_grad():
        layer = nn.TransformerDecoderLayer(E, 4)
        assert type(unpack_attention(layer).multihead_attn) is UnpackedAttention


def test_hooks_are_carried_over():
    packed, seen = attention(), []
    packed.register_forward_hook(lambda module, args, out: seen.append(type(module)))
    packed.register_forward_pre_hook(lambda module, args, kwargs: seen.append(len(kwargs)), with_kwargs=True)
    x = inputs(packed)
    unpack_attention(packed)(*x, need_weights=False)
    assert seen == [1, UnpackedAttention]


def test_it_can_be_copied_and_saved():
    made = unpack_attention(encoder()).eval()
    x, how = torch.randn(N, L, E), {"src_key_padding_mask": padding()}
    with torch.no_grad():
        for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), unpack_attention(made)):
            assert torch.equal(other(x, **how), made(x, **how))
    fresh = unpack_attention(encoder(seed=3))
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh.eval()(x), made(x))


class Other(nn.MultiheadAttention):
    pass


def pruned():
    model = attention()
    prune.l1_unstructured(model, "in_proj_weight", 0.5)
    return model


def parametrised():
    return parametrizations.weight_norm(attention(), "in_proj_weight")


def with_a_replaced_projection():
    model = attention()
    model.out_proj = LowRankLinear.from_linear(model.out_proj, 2)
    return model


def pruned_bias():
    model = attention()
    prune.l1_unstructured(model, "in_proj_bias", 0.5)
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Other(E, 4), "its class is Other"),
        (pruned, "its weights are pruned, parametrised or replaced"),
        (pruned_bias, "its weights are pruned, parametrised or replaced"),
        (parametrised, "its class is ParametrizedMultiheadAttention"),
        (with_a_replaced_projection, "its weights are pruned, parametrised or replaced"),
    ],
)
def test_what_cannot_be_unpacked_is_named_and_left(make, reason):
    model = nn.ModuleDict({"odd": make(), "even": attention()})
    with pytest.warns(UserWarning, match=r"^attention left as it is: odd \(" + reason + r"\)$") as caught:
        made = unpack_attention(model)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert type(made["odd"]) is type(model["odd"]) and type(made["even"]) is UnpackedAttention
    with pytest.raises(TypeError, match=rf"^attention=\w+ must be a plain nn.MultiheadAttention; {reason}$"):
        UnpackedAttention(model["odd"])


def test_a_tied_weight_stays_tied():
    model = Two()
    model.c.in_proj_weight = model.a.in_proj_weight
    reason = r"\(it shares a weight with another layer\)"
    with pytest.warns(UserWarning, match=rf"^attention left as it is: a {reason}, c {reason}$"):
        made = unpack_attention(model)
    assert made.c.in_proj_weight is made.a.in_proj_weight


@pytest.mark.parametrize("wrong", [None, torch.ones(3), "model"])
def test_only_modules(wrong):
    with pytest.raises(TypeError, match=r"^model=.* must be a torch.nn.Module$"):
        unpack_attention(wrong)
    with pytest.raises(TypeError, match=r"^attention=.* must be a plain nn.MultiheadAttention; its class is"):
        UnpackedAttention(wrong)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        (
            {"attn_mask": torch.zeros(S, L)},
            ValueError,
            "attn_mask=Tensor(shape=(7, 5), dtype=torch.float32) must",
        ),
        ({"attn_mask": torch.zeros(N, L, S)}, ValueError, "must be of shape (5, 7) or (12, 5, 7)"),
        ({"attn_mask": torch.zeros(L, S).long()}, TypeError, "must be of dtype bool or a floating one"),
        ({"key_padding_mask": torch.zeros(S)}, ValueError, "key_padding_mask=Tensor(shape=(7,)"),
        ({"key_padding_mask": torch.zeros(N, L)}, ValueError, "must be of shape (3, 7)"),
        ({"is_causal": True}, ValueError, "attn_mask=None must be the causal mask"),
    ],
)
def test_masks_that_do_not_fit(how, error, message):
    plain = unpack_attention(attention())
    with pytest.raises(error) as caught:
        plain(*inputs(plain), **how)
    assert message in str(caught.value)


def test_a_nested_tensor_is_refused_with_a_word():
    plain = unpack_attention(attention(batch_first=True))
    x = torch.nested.nested_tensor([torch.randn(2, E), torch.randn(3, E)])
    with pytest.raises(ValueError, match=r"^query='a nested tensor' must be padded; unpack the whole"):
        plain(x, x, x)
