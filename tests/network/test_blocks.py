"""Block after block gives what whole runs give, in time that grows with the depth; else it is whole runs."""

import copy

import pytest
import torch
from blockwise import MODULE, assert_same, both_ways
from oracles import Lambda, snapshot
from torch import nn
from torch.nn import functional as F
from zoo import ZOO, case

from lowrank_utils import calibrate, cascade, unpack_attention
from lowrank_utils.network import kept, stream

D = torch.float64


class Residual(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.a, self.b = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x, *, scale=1.0):
        return x + scale * self.b(F.gelu(self.a(x)))


class InPlace(Residual):
    def forward(self, x):
        return x.relu_().add_(self.b(torch.tanh_(self.a(x))))


class Gives(Residual):
    """A tuple, and takes one."""

    def forward(self, pair):
        x, total = pair
        x = super().forward(x)
        return x, total + x


def chain(kind):
    return nn.Sequential(*(kind() for _ in range(5)), nn.Linear(8, 4))


def in_a_loop(step, **more):
    """Blocks in a list, called by ``step(s, block, h, x)``, and a head."""

    def forward(s, x):
        h = torch.tanh(s.first(x))
        for block in s.blocks:
            h = step(s, block, h, x)
        return s.out(h)

    blocks = nn.ModuleList(Residual() for _ in range(5))
    return Lambda(forward, first=nn.Linear(8, 8), blocks=blocks, out=nn.Linear(8, 4), **more)


def linears():
    layers = []
    for _ in range(9):
        layers += [nn.Linear(8, 8), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(8, 4))


def two_chains():
    first, second = chain(Residual)[:5], chain(Residual)[:5]
    return Lambda(lambda s, x: s.out(s.second(s.first(x).sin()).cos()), first=first, second=second,
                  out=nn.Linear(8, 4))  # fmt: skip


def pairs():
    inner = nn.ModuleList(Residual() for _ in range(5))

    def forward(s, x):
        pair = (x, x * 0)
        for block in s.blocks:
            h, total = block(pair[0]), pair[1]
            pair = h, total + 1
        return s.out(pair[0])

    return Lambda(forward, blocks=inner, out=nn.Linear(8, 4))


def convolutions():
    layers = [nn.Conv1d(1, 3, 3)]
    for _ in range(6):
        layers += [nn.BatchNorm1d(3), nn.ReLU(inplace=True), nn.Conv1d(3, 3, 3, padding=1)]
    return nn.Sequential(nn.Unflatten(1, (1, 8)), *layers, nn.Flatten(), nn.Linear(18, 4))


def encoder():
    block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.3)
    model = Lambda(lambda s, x: s.out(s.encoder(x.view(-1, 2, 4) @ s.embed).mean(1)),
                   encoder=nn.TransformerEncoder(block, 3, enable_nested_tensor=False),
                   out=nn.Linear(8, 4))  # fmt: skip
    model.register_buffer("embed", torch.randn(4, 8))
    return unpack_attention(model)


def hooked():
    model = chain(Residual)
    for block in model[:5]:
        block.register_forward_pre_hook(lambda _, args: (args[0] + 0.1,))
        block.a.register_forward_hook(lambda _, args, out: 1.5 * out)
        block.register_forward_hook(lambda _, args, out: out.flip(1))
    return model


CUT = {  # models that have a chain of blocks, and what stands between or beside them
    "residual blocks": lambda: chain(Residual),
    "blocks that write in place": lambda: chain(InPlace),
    "linear layers, in-place ReLU": linears,
    "by keyword": lambda: in_a_loop(lambda s, b, h, x: b(x=h)),
    "another argument, the same for all": lambda: in_a_loop(lambda s, b, h, x: b(h, scale=x[:, :1])),
    "two chains": two_chains,
    "outputs in a tuple": pairs,
    "convolutions": convolutions,
    "encoder with padding of a batch": encoder,
    "hooks": hooked,
}


class Writes(Residual):
    """Leaves its mean behind, which the next block reads."""

    def forward(self, x):
        if self.begins:
            self.before[0] = torch.zeros(1)
        x = super().forward(x + self.before[0].mean())
        self.before[0] = x.detach()
        return x


def writes_state():
    model = chain(Writes)
    shared = [torch.zeros(1)]
    for block in model[:5]:
        block.before, block.begins = shared, block is model[0]
    return model


def grows():
    def step(s, block, h, x):  # an argument that depends on the blocks before
        s.kept = h if block is s.blocks[0] else s.kept + h
        return block(h, scale=s.kept.std())

    return in_a_loop(step)


def as_often_as_needed():
    def step(s, block, h, x):
        h = block(h)
        return block(h) if block is s.blocks[3] and float(x[0, 0]) > 0 else h

    return in_a_loop(step)


def reads_a_weight():
    return in_a_loop(lambda s, b, h, x: b(h, scale=s.first.weight.norm() * s.blocks[0].b.weight.norm()))


def glue():
    return in_a_loop(lambda s, b, h, x: torch.tanh(b(h)))


WHOLE = {  # models whose blocks do not tell all, or have none
    "state between blocks": writes_state,
    "an argument made of the blocks before": grows,
    "one block twice, for some batches": as_often_as_needed,
    "a weight read elsewhere": reads_a_weight,
    "operations between": glue,
}


def made(build, seed=0):
    torch.manual_seed(seed)
    model, X = build().to(D), torch.randn(150, 8, dtype=D)
    moments = calibrate(model, X, batch_size=40, target="inputs")
    ranks = {name: 3 for i, name in enumerate(moments) if i % 3 != 1}
    return model, X, moments, ranks


def passes(monkeypatch, run, layers):
    """How often each layer of the dense net, by its share of the weights, sees all rows."""
    rows = dict.fromkeys(layers, 0)
    real = stream.Stream.__init__

    def watched(self, model, *args):
        real(self, model, *args)
        if not watched.__dict__.get("dense"):
            watched.dense = True
            for name in layers:
                model.get_submodule(name).register_forward_pre_hook(
                    lambda _, args, name=name: rows.__setitem__(name, rows[name] + args[0][..., 0].numel())
                )

    monkeypatch.setattr(stream.Stream, "__init__", watched)
    run()
    return rows


@pytest.mark.parametrize("name", CUT)
def test_block_after_block(name, monkeypatch):
    model, X, moments, ranks = made(CUT[name])
    before = snapshot(model, X)
    for memory_gb in (1.0, 1e-5, 0.0):
        given = {"batch_size": 40, "memory_gb": memory_gb}
        small, whole, given_up = both_ways(monkeypatch, model, ranks, X, moments, **given)
        assert not given_up
        assert_same(small, whole)
    assert snapshot(model, X) == before


@pytest.mark.parametrize("name", CUT)
def test_each_layer_sees_the_data_a_few_times(name, monkeypatch):
    model, X, moments, ranks = made(CUT[name])
    monkeypatch.setattr(MODULE, "FEW", -1)
    seen = passes(monkeypatch, lambda: cascade(model, ranks, X, moments, batch_size=40), list(moments))
    often = [seen[layer] / moments[layer].rows for layer in moments]
    assert max(often) < 12  # whole runs: as many as there are layers after it, and a chain's blocks have two
    if name in ("residual blocks", "linear layers, in-place ReLU"):
        assert max(often[:-1]) < 7


@pytest.mark.parametrize("name", WHOLE)
def test_what_has_no_blocks_is_run_as_a_whole(name, monkeypatch):
    model, X, moments, ranks = made(WHOLE[name])
    small, whole, given_up = both_ways(monkeypatch, model, ranks, X, moments, batch_size=40)
    assert_same(small, whole)
    assert given_up == (name != "operations between"), name  # those have no chain to begin with


def wobbling(size):
    """Blocks that round otherwise at each run, as sums do whose order hangs on chance (some of a GPU's)."""

    class Wobbles(Residual):
        def forward(self, x, *, scale=1.0):
            y = super().forward(x, scale=scale)
            return y * (1 + size * (2 * torch.rand_like(y) - 1))

    return Wobbles


def test_a_net_that_rounds_by_chance_goes_block_after_block(monkeypatch):
    model, X, moments, ranks = made(lambda: chain(wobbling(1e-13)))
    small, whole, given_up = both_ways(monkeypatch, model, ranks, X, moments, batch_size=40)
    assert not given_up
    with torch.no_grad():  # products: of two factors the signs may differ
        assert torch.allclose(small(X), whole(X), rtol=0, atol=1e-8)


def test_chance_excuses_no_more_than_rounding(monkeypatch):
    def reads_elsewhere():
        model = reads_a_weight()
        model.blocks = nn.ModuleList(wobbling(1e-13)() for _ in range(5))
        return model

    for build in (reads_elsewhere, lambda: chain(wobbling(0.1))):
        model, X, moments, ranks = made(build)
        assert both_ways(monkeypatch, model, ranks, X, moments, batch_size=40)[2]


@pytest.mark.parametrize("name", ZOO)
def test_everything_else(name, monkeypatch):
    model, _, X, _, _ = case(name, 1)
    moments = calibrate(model, X, target="inputs")
    small, whole, _ = both_ways(monkeypatch, model, {next(iter(moments)): 2}, X, moments, batch_size=70)
    assert_same(small, whole)


def test_layers_that_read_one_tensor_share_a_covariance(monkeypatch):
    model, X, moments, ranks = made(encoder)
    sizes = []
    real = MODULE.Joint.__init__

    def counted(self, n, outputs, device):
        sizes.append(len(outputs))
        real(self, n, outputs, device)

    monkeypatch.setattr(MODULE.Joint, "__init__", counted)
    cascade(model, ranks, X, moments)
    assert sorted(sizes) == sorted([2, 1, 1, 1, 3, 1, 1, 1, 3, 1, 1, 1, 1])  # the first layer is cut as it is


def test_what_does_not_fit_into_memory_is_on_disk_for_a_while(monkeypatch, tmp_path):
    monkeypatch.setattr(kept.tempfile, "tempdir", str(tmp_path))
    model, X, moments, ranks = made(CUT["residual blocks"])
    monkeypatch.setattr(MODULE, "FEW", -1)
    written = []
    real = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (written.append(args[1]), real(*args)))
    cascade(model, ranks, X, moments, batch_size=40, memory_gb=1.0)
    assert not written
    cascade(model, ranks, X, moments, batch_size=40, memory_gb=2 * 40 * 8 * 8 / 1e9)  # two batches of four
    assert {path.name for path in written} == {"2.pt", "3.pt"}
    assert not list(tmp_path.iterdir())  # gone with the call


def test_interrupted_within_a_block(monkeypatch):
    model, X, moments, ranks = made(CUT["residual blocks"])
    monkeypatch.setattr(MODULE, "FEW", -1)
    calls = [0]

    def stop(*_):
        calls[0] += 1
        if calls[0] == 25:
            raise KeyboardInterrupt

    model[3].register_forward_hook(stop)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        cascade(model, ranks, X, moments, batch_size=40)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert len(model[3]._forward_hooks) == 1 and not model[3]._forward_pre_hooks
