"""Layers of an exported program, found again: the outputs of the model, and its layers' names."""

import pytest
import torch
from oracles import Lambda
from torch import nn
from torch.export import Dim, export
from zoo import ZOO, case

from lowrank_utils import compress, compress_within, from_exported, to_plain

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ODD = {  # what a program cannot give back under the old name, and why
    "functional operations before": ({"mix"}, set()),  # its weight is transposed first
    "in a fused transformer": (set(), {"block.self_attn.in_proj"}),  # packed, but in the program a layer
    "the model itself": ({""}, {"linear"}),  # a layer needs a name
}


def layers(model):
    return {name for name, module in model.named_modules() if isinstance(module, KINDS)}


def program_of(model, X):
    return export(model, (X,), dynamic_shapes=({0: Dim.AUTO},))


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # a recurrent layer's
@pytest.mark.parametrize("name", ZOO)
def test_the_layers_of_the_model(name):
    model, _, X, _, _ = case(name, 0)
    program = program_of(model, X)
    state = {key: value.clone() for key, value in program.state_dict.items()}
    found = from_exported(program)
    gone, new = ODD.get(name, (set(), set()))
    assert layers(found) == layers(model) - gone | new
    with torch.no_grad():
        expected = model(X[:7].clone())
        assert (found(X[:7].clone()) - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert program.state_dict.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in program.state_dict.items())


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(4, 6, 5, stride=2, padding=2, dilation=2),
        nn.Conv1d(4, 6, 5, padding="same", bias=False),
        nn.Conv2d(4, 6, (3, 5), stride=(1, 2), padding=(0, 2), groups=2),
        nn.Conv2d(4, 6, 3, padding="valid"),
        nn.Conv3d(4, 6, 2, padding=1),
    ],
    ids=repr,
)
def test_convolutions_as_they_were_told(conv):
    net = nn.Sequential(conv, nn.ReLU()).double()
    x = torch.randn(2, 4, *[9] * (conv.weight.ndim - 2), dtype=torch.float64)
    found = from_exported(export(net, (x,)))
    made = found.get_submodule("0")
    names = ("kernel_size", "stride", "dilation", "groups", "in_channels", "out_channels")
    assert type(made) is type(conv)
    assert [getattr(made, name) for name in names] == [getattr(conv, name) for name in names]
    assert torch.allclose(found(x), net(x), atol=1e-12)


class Everything(nn.Module):
    """A batch norm, a parameter, a buffer, a buffer that is not stored, and constants of the forward."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("seen", torch.zeros(4))
        self.register_buffer("shift", torch.zeros(4), persistent=False)
        self.plain = torch.full((4,), 2.0)

    def forward(self, x):
        self.seen.add_(1)
        x = self.norm(self.layer(x)) * self.scale + self.shift + self.plain + self.seen
        return x * torch.tensor([1.0, 2.0, 3.0, 4.0])


def test_nothing_is_shared_with_the_program():
    x = torch.randn(5, 4)
    program = export(Everything().train(), (x,))
    kept = {**program.state_dict, **program.constants}
    before = {name: tensor.clone() for name, tensor in kept.items()}
    assert len(kept) == 4 + 1 + 3 + 2 + 2  # layer and norm, scale, statistics, buffers, constants
    found = from_exported(program)
    places = {tensor.untyped_storage().data_ptr() for tensor in kept.values()}
    mine = [*found.parameters(), *found.buffers()]
    mine += [v for part in found.modules() for v in vars(part).values() if isinstance(v, torch.Tensor)]
    assert not places & {tensor.untyped_storage().data_ptr() for tensor in mine}
    expected = program.module()(x)  # counts in the program itself
    for name, tensor in kept.items():
        tensor.data.copy_(before[name])
    assert torch.equal(found(x), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.items())


def test_a_tied_weight_stays_a_tensor():
    def forward(s, x):
        return s.b(torch.relu(s.a(x))) @ s.b.weight

    net = Lambda(forward, a=nn.Linear(5, 6), b=nn.Linear(6, 4)).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    found = from_exported(export(net, (x,)))
    assert layers(found) == {"a"}
    assert torch.allclose(found(x), net(x), atol=1e-12)


def test_round_trip_through_compression_and_a_file(tmp_path):
    """Compressed as a program, written as plain torch, read again: the outputs of the compressed one."""
    model, _, X, y, _ = case("after convolutions", 0)
    small, report = compress_within(from_exported(program_of(model, X)), X, y, max_drop=0.06)
    assert report.feasible
    torch.export.save(program_of(to_plain(small), X), tmp_path / "small.pt2")
    again = from_exported(torch.export.load(tmp_path / "small.pt2"))
    with torch.no_grad():
        assert torch.allclose(again(X), small(X), atol=1e-10)
    params = sum(p.numel() for p in small.parameters())
    assert sum(p.numel() for p in again.parameters()) == params == report.params[1]


def test_the_same_cut_as_of_the_model():
    model, layer, X, _, _ = case("mlp, middle", 1)
    found = from_exported(program_of(model, X))
    with torch.no_grad():
        a, b = compress(model, {layer: 3})(X), compress(found, {layer: 3})(X)
    assert torch.allclose(a, b, atol=1e-12)


def test_train_and_eval_can_be_called_again():
    """torch forbids both on a program's own module."""
    model, _, X, _, _ = case("mlp, first", 0)
    assert not from_exported(program_of(model, X)).train().eval().training


@pytest.mark.parametrize("wrong", [nn.Linear(2, 2), None, "net.pt2"])
def test_no_program(wrong):
    with pytest.raises(TypeError, match="program=.* must be a torch.export.ExportedProgram"):
        from_exported(wrong)
