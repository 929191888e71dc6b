"""The table by layer: its sums are the totals, each number is in its place, what was not counted is told."""

from __future__ import annotations

import warnings

import pytest
import torch
from oracles import Lambda, snapshot
from test_backward_macs import LAW, with_gradient
from test_macs import LAYER, MHA, ZOO, Fn, Raw, Restless, Tied, Twice, encoder, z
from torch import nn
from torch.utils.checkpoint import checkpoint

from lowrank_utils import (
    LayerCost,
    LowRankLinear,
    Net,
    activation_bytes,
    compress,
    cost_by_layer,
    count_macs,
    count_params,
)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "make", "inputs", "macs"), ZOO, ids=[row[0] for row in ZOO])
def test_the_forward_adds_up(name, make, inputs, macs):
    model = make()
    model(*inputs)  # a lazy layer has no parameters before
    table = cost_by_layer(model, *inputs)
    assert sum(row.macs for row in table.rows) == table.total.macs == macs
    assert sum(row.params for row in table.rows) == table.total.params == count_params(model)
    assert not table.not_counted
    assert all(row.backward_macs is None and row.activation_bytes is None for row in table.rows)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("make", "inputs", "macs"), [row[1:] for row in LAW], ids=[row[0] for row in LAW])
def test_the_backward_adds_up_and_belongs_to_the_layer_of_the_forward(make, inputs, macs):
    inputs = [with_gradient(x) for x in inputs]
    model = make()
    model(*inputs)
    table = cost_by_layer(model, *inputs, backward=True)
    assert sum(row.backward_macs for row in table.rows) == table.total.backward_macs == 2 * macs
    assert all(row.backward_macs == 2 * row.macs for row in table.rows)  # each product in its own place
    assert sum(row.activation_bytes for row in table.rows) == table.total.activation_bytes


def test_rows_of_the_seeds_net():
    table = cost_by_layer(Net(), torch.zeros(120, 4), backward=True)
    assert table.rows == (  # torch.relu is done by the net itself, and saves its output: fc2's input
        LayerCost("", "Net", 1, 0, 0, 0, 120 * 10 * 4),
        LayerCost("fc1", "Linear", 1, 50, 4800, 4800, 120 * 4 * 4),
        LayerCost("fc2", "Linear", 1, 33, 3600, 7200, 0),
    )
    assert table.total == LayerCost("total", "", 3, 83, 8400, 12000, 6720)
    assert dict(table.free) == {"relu": 1} and not table.not_counted
    assert table["fc1"].macs == 4800
    with pytest.raises(KeyError, match=r"layer='fc3' must be one of \['', 'fc1', 'fc2'\]"):
        _ = table["fc3"]


def test_what_is_done_outside_of_any_layer_is_the_models():
    assert [(r.layer, r.macs) for r in cost_by_layer(Raw(), z(2, 8)).rows] == [("", 2 * (24 + 18))]
    table = cost_by_layer(encoder(), z(2, 5, 8), backward=True)
    attention = table["layers.1.self_attn"]  # out_proj's weight is used by self_attn, without a call of it
    assert (attention.kind, attention.macs, attention.calls) == ("MultiheadAttention", MHA, 1)
    assert (table["layers.1.self_attn.out_proj"].params, table["layers.1.self_attn.out_proj"].macs) == (72, 0)
    assert table["layers.1.linear1"].macs + table["layers.1.linear2"].macs == LAYER - MHA
    assert {"layers.0.norm1", "layers.2.linear2"} <= {row.layer for row in table.rows}


def test_calls_and_sharing():
    twice = cost_by_layer(Twice(), z(2, 8), backward=True)["fc"]
    assert (twice.calls, twice.params, twice.macs, twice.backward_macs) == (2, 72, 256, 2 * (64 + 128))
    tied = cost_by_layer(Tied(), torch.arange(10).reshape(2, 5))
    assert [(r.layer, r.params, r.macs) for r in tied.rows] == [("embed", 88, 0), ("head", 0, 880)]


def test_a_layer_whose_first_node_is_a_product():
    """A convolution makes one node only, with the number at which its layer starts."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 6, 1))
    table = cost_by_layer(model, z(2, 3, 7, 7), backward=True)
    assert [row.macs for row in table.rows] == [98 * 12, 98 * 20, 98 * 30]
    assert [row.backward_macs for row in table.rows] == [98 * 12, 2 * 98 * 20, 2 * 98 * 30]


def test_compressed_layers_have_rows():
    table = cost_by_layer(compress(Net(), {"fc1": 1}), torch.zeros(120, 4))
    row = table["fc1"]
    assert (row.kind, row.params, row.macs) == (LowRankLinear.__name__, 14 + 10, 120 * 14)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_layer_that_a_checkpoint_runs_again_is_charged_for_it(reentrant):
    net = Lambda(lambda s, x: checkpoint(s.a, x, use_reentrant=reentrant), a=nn.Sequential(nn.Linear(8, 6)))
    plain = Lambda(lambda s, x: s.a(x), a=net.a)
    x = z(2, 8).requires_grad_()
    table, without = (cost_by_layer(model, x, backward=True) for model in (net, plain))
    assert without["a.0"].backward_macs == 2 * 96
    again = 96 if reentrant else 0  # the other kind needs no output of the last layer
    assert table["a.0"].backward_macs == table.total.backward_macs == 2 * 96 + again


def test_a_layer_that_raises_is_left_by_the_count_too():
    class Stop(nn.Module):
        def forward(self, x):
            raise KeyError("caught")

    def forward(self, x):
        try:
            self.stop(x)
        except KeyError:
            return x @ self.late.weight.T

    table = cost_by_layer(Lambda(forward, stop=Stop(), late=nn.Linear(8, 6)), z(2, 8))
    assert table[""].macs == 96 and table["late"].macs == 0


@torch.library.custom_op("lowrank_test::table_mm", mutates_args=())
def table_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


def test_what_was_not_counted_is_told():
    model = Fn(lambda a: table_mm(table_mm(a, a), torch.linalg.inv(a)) * torch.softmax(a, -1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the table tells, without a warning
        table = cost_by_layer(model, torch.eye(3))
    assert table.not_counted == {"lowrank_test::table_mm": 2, "aten::linalg_inv_ex": 1}
    assert table.free == {"_softmax": 1, "mul": 1}
    assert str(table).splitlines()[-2:] == [
        "NOT COUNTED: aten::linalg_inv_ex (1), lowrank_test::table_mm (2)",
        "free: _softmax (1), mul (1)",
    ]


def test_a_product_written_elementwise_is_among_the_free():
    W = z(6, 8)
    table = cost_by_layer(Fn(lambda x: (W * x).sum(-1)), z(8))
    assert table.total.macs == 0 and table.free == {"mul": 1, "sum": 1}


def test_moving_numbers_is_not_reckoning():
    moves = Fn(lambda x: torch.cat([x.T.clone(), torch.zeros(8, 2), x.flip(0).T, x[torch.tensor([1])].T], 1))
    assert cost_by_layer(moves, z(2, 8)).free == {}


def test_it_prints_aligned():
    lines = str(cost_by_layer(Net(), torch.zeros(120, 4))).splitlines()
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[0].split() == ["layer", "kind", "calls", "params", "MACs"]
    assert lines[1].split() == ["(model)", "Net", "1", "0", "0"] or lines[1].split()[0] == "fc1"
    assert lines[-2].split() == ["total", "2", "83", "8,400"] and lines[-1] == "free: relu (1)"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripted_and_compiled_models_have_a_table():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 6), nn.ReLU()))
    assert cost_by_layer(scripted, z(2, 8)).total.macs == 96
    compiled = torch.compile(nn.Sequential(nn.Linear(8, 6), nn.ReLU()), backend="eager")
    compiled(z(2, 8))
    assert cost_by_layer(compiled, z(2, 8), backward=True)["0"].backward_macs == 96


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_nothing_is_left_behind():
    model, x = nn.Sequential(Net(), nn.Dropout(), nn.BatchNorm1d(3)), z(5, 4)
    restless, y, wrong = Restless(True), z(4, 8), z(5, 7)
    before = snapshot(model, x)
    cost_by_layer(model, x, backward=True)
    assert snapshot(model, x) == before
    with pytest.raises(RuntimeError, match="as told"):
        cost_by_layer(restless, y)
    with pytest.raises(RuntimeError):
        cost_by_layer(model, wrong, backward=True)
    assert snapshot(model, x) == before


def test_wrong_calls():
    with pytest.raises(TypeError, match=r"model='net' must be a torch\.nn\.Module"):
        cost_by_layer("net")
    with pytest.raises(ValueError, match="backward=True must be False"):
        cost_by_layer(nn.Identity(), z(3), backward=True)


def test_totals_are_those_of_the_single_functions():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 5)), z(2, 3, 9, 9)
    total = cost_by_layer(model, x, backward=True).total
    assert total.macs == count_macs(model, x)
    assert total.backward_macs == count_macs(model, x, backward=True)
    assert total.activation_bytes == activation_bytes(model, x)
