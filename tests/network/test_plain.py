"""A model in plain torch layers: the same outputs, and a state that loads where this package is not."""

import subprocess
import sys

import pytest
import torch
from oracles import snapshot
from torch import nn
from zoo import ZOO, case

from lowrank_utils import (
    LowRankConv,
    LowRankLinear,
    PivotedLinear,
    UnpackedAttention,
    compress,
    compress_within,
    to_plain,
    unpack_attention,
)

OURS = (LowRankLinear, PivotedLinear, LowRankConv)


def ours_in(model):
    return [name for name, module in model.named_modules() if isinstance(module, OURS)]


@pytest.mark.parametrize("pivoted", [False, True])
@pytest.mark.parametrize("name", ZOO)
def test_outputs_stay_and_the_model_is_left_alone(name, pivoted):
    model, layer, X, _, shape = case(name, 0)
    small = compress(model, {layer: min(shape) // 2 or 1}, pivoted=pivoted)
    before = snapshot(small)
    plain = to_plain(small)
    assert snapshot(small) == before and ours_in(small) and not ours_in(plain)
    with torch.no_grad():
        expected = small(X.clone())
        found = plain(X.clone())
    eps = torch.finfo(expected.dtype).eps  # the same products, in another order where it was pivoted
    assert (found - expected).abs().max() <= 1e4 * eps * expected.abs().max()
    shared = {p.data_ptr() for p in small.parameters()} & {p.data_ptr() for p in plain.parameters()}
    assert not shared


@pytest.mark.parametrize("form", ["channel", "input", "kernel", "spatial", "tucker2"])
def test_convolutions_in_every_form(form):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, (3, 5), stride=(2, 1), padding=1).double()
    made = LowRankConv.from_conv(conv, (4, 3) if form == "tucker2" else 2, form)
    net = nn.Sequential(made, nn.ReLU(), nn.Conv2d(8, 4, 1).double())
    plain = to_plain(net)
    x = torch.randn(2, 6, 12, 13, dtype=torch.float64)
    assert {type(module) for module in plain[0]} == {nn.Conv2d}
    assert torch.allclose(plain(x), net(x), rtol=0, atol=1e-12)


def test_a_core_is_a_layer_between():
    layer = LowRankLinear(7, 5, 3, core=True).double()
    plain = to_plain(layer)
    x = torch.randn(4, 7, dtype=torch.float64)
    assert [tuple(part.weight.shape) for part in plain] == [(3, 7), (3, 3), (5, 3)]
    assert torch.allclose(plain(x), layer(x), atol=1e-12)


def test_a_layer_in_two_places_stays_one_and_hooks_move():
    shared = LowRankLinear(6, 6, 2)
    shared.register_forward_hook(lambda module, args, out: 2 * out)
    shared.requires_grad_(False)
    net = nn.Sequential(shared, nn.ReLU(), shared).eval()
    plain = to_plain(net)
    x = torch.randn(3, 6)
    assert plain[0] is plain[2] and not any(p.requires_grad for p in plain.parameters())
    assert not plain[0][0].training
    assert torch.allclose(plain(x), net(x), atol=1e-6)


def test_a_fused_encoder_stays_off_its_path_and_attention_stays_ours():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval().double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    for model in (encoder, unpack_attention(encoder)):
        with pytest.warns(UserWarning) if model is encoder else torch.no_grad():
            small = compress(model, 3)
        plain = to_plain(small)
        with torch.no_grad():  # eval without gradients: here torch would read linear1.weight
            assert torch.allclose(plain(x), small(x), atol=1e-12)
    assert isinstance(plain.self_attn, UnpackedAttention) and not ours_in(plain)


def test_a_dense_model_is_copied():
    net = nn.Sequential(nn.Linear(3, 2))
    plain = to_plain(net)
    assert plain is not net and torch.equal(plain[0].weight, net[0].weight)
    assert plain[0].weight.data_ptr() != net[0].weight.data_ptr()
    with pytest.raises(TypeError, match="model=3 must be a torch.nn.Module"):
        to_plain(3)


ELSEWHERE = """
import sys
sys.modules["lowrank_utils"] = None  # an import of it raises
import torch
from torch import nn
state = torch.load("state.pt", weights_only=True)
net = nn.Sequential(
    nn.Sequential(nn.Linear(9, 2, bias=False), nn.Linear(2, 14)), nn.ReLU(),
    nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 4),
).double()
print(net.load_state_dict(state))
x, y = torch.load("data.pt", weights_only=True)
with torch.no_grad():
    assert torch.allclose(net(x), y, atol=1e-12)
    whole = torch.load("whole.pt", weights_only=False)  # the pickled module names torch's classes alone
    assert torch.allclose(whole(x), y, atol=1e-12)
    program = torch.export.load("program.pt2").module()
    assert torch.allclose(program(x), y, atol=1e-12)
"""


def test_it_loads_where_the_package_is_not(tmp_path):
    model, _, X, y, _ = case("mlp, first", 0)
    small = compress(model, {"0": 2})
    plain = to_plain(small)
    torch.save(plain.state_dict(), tmp_path / "state.pt")
    torch.save(plain, tmp_path / "whole.pt")
    torch.save((X, small(X).detach()), tmp_path / "data.pt")
    torch.export.save(torch.export.export(plain, (X,)), tmp_path / "program.pt2")
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert (ran.returncode, ran.stdout) == (0, "<All keys matched successfully>\n"), ran.stderr


def test_what_compress_within_returns():
    model, _, X, y, _ = case("after convolutions", 0)
    small, report = compress_within(model, X, y, max_drop=0.06)
    plain = to_plain(small)
    assert report.feasible and not ours_in(plain)
    with torch.no_grad():
        assert torch.allclose(plain(X), small(X), atol=1e-10)
