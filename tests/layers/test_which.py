"""Which layers take part, which are left and why."""

import warnings

import pytest
import torch
from oracles import Lambda
from torch import nn
from torch.nn.utils import parametrizations, prune

from lowrank_utils import LowRankLinear
from lowrank_utils.layers.which import layer_of, layers_of, obstacle

ONE = nn.Sequential(nn.Linear(2, 2))
NESTED = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 4)))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Named(nn.Linear):
    """A subclass that computes the same."""


def shared():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


def tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    return net


def tied_embedding():
    net = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    net["head"].weight = net["embed"].weight
    return net


def pruned():
    net = nn.Sequential(nn.Linear(4, 4))
    prune.l1_unstructured(net[0], "weight", amount=0.5)
    return net


def pruned_bias():
    net = nn.Sequential(nn.Conv1d(4, 4, 1))
    prune.l1_unstructured(net[0], "bias", amount=0.5)
    return net


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)))


def test_layer_of_finds_it_by_its_dotted_name():
    assert layer_of(NESTED, "1.1") is NESTED[1][1] and layer_of(NESTED[0], "") is NESTED[0]


@pytest.mark.parametrize(
    ("net", "name", "message"),
    [
        (ONE, "fc1", "layer='fc1' must be one of the layers ['0']"),
        (ONE, 0, "layer=0 must be one of the layers ['0']"),
        (ONE, None, "layer=None must be one of the layers ['0']"),
        (
            nn.Sequential(nn.ReLU()),
            "0",
            "layer='0' must be one of the layers [], but it is ReLU, which",
        ),
        (ONE, "", "layer='' must be one of the layers ['0'], but it is Sequential, which is no matrix"),
        (shared(), "0", "layer='0' must be one of the layers [], but it shares its weight with ['2']"),
        (tied(), "0", "layer='0' must be one of the layers [], but it shares its weight with ['1.weight']"),
        (tied_embedding(), "head", "but it shares its weight with ['embed.weight']"),
    ],
)
def test_layer_of_refuses_the_rest(net, name, message):
    with pytest.raises(ValueError) as caught:
        layer_of(net, name)
    assert message in str(caught.value)


LEFT = {
    "shared": (shared(), "0", "shares its weight with ['x.2']"),
    "tied": (tied(), "0", "shares its weight with ['x.1.weight']"),
    "pruned": (pruned(), "0", "computes its weight (pruned, or weight_norm)"),
    "pruned bias": (pruned_bias(), "0", "computes its bias (pruned, or weight_norm)"),
    "old weight_norm": (old_weight_norm(), "0", "computes its weight (pruned, or weight_norm)"),
    "parametrized": (nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4))), "0", "parametrized"),
    "own forward": (nn.Sequential(Doubled(4, 4)), "0", "is Doubled, with a forward of its own"),
    "lazy": (nn.Sequential(nn.LazyLinear(3)), "0", "is lazy: call the model once first"),
    "meta": (nn.Sequential(nn.Linear(4, 4, device="meta")), "0", "is on the meta device"),
    "attention": (nn.Sequential(nn.MultiheadAttention(4, 2)), "0", "call unpack_attention first"),
    "its projection": (nn.Sequential(nn.MultiheadAttention(4, 2)), "0.out_proj", "never called"),
    "groups": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "0", "has 2 groups"),
    "recurrent": (nn.Sequential(nn.LSTM(4, 4)), "0", "is a fused LSTM"),
}


@pytest.mark.parametrize("case", LEFT)
def test_a_layer_with_an_obstacle_is_left_and_named_once(case):
    net, name, why = LEFT[case]
    whole = nn.ModuleDict({"x": net, "free": nn.Linear(2, 2)})
    with pytest.warns(UserWarning, match="^left as they are: ") as told:
        found = layers_of(whole)
    assert list(found) == ["free"] and len(told) == 1
    assert str(told[0].message).count(f"'x.{name}'") == 1 and why in str(told[0].message)
    with pytest.raises(ValueError, match="^layer="):  # asked for by name, it is an error
        layers_of(whole, layers=[f"x.{name}"])


def test_quantized_layers_are_named():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
    with pytest.warns(UserWarning, match="^left as they are: '0' is quantized$"):
        assert layers_of(net) == {}


def test_what_takes_part_by_itself_and_what_by_name():
    net = nn.ModuleDict({"a": Named(4, 3), "cut": LowRankLinear(4, 4, 2), "e": nn.Embedding(5, 3)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(layers_of(net)) == ["a"]
        assert list(layers_of(net, layers=["cut", "e", "a"], skip=["a"])) == ["cut", "e"]
        assert list(layers_of(NESTED, skip=["0"])) == ["1.1"]
    with pytest.raises(ValueError, match=r"^skip='b' must be a layer of the model"):
        layers_of(NESTED, skip=["b"])
    with pytest.raises(TypeError, match=r"^layers='0' must be a list of names$"):
        layers_of(NESTED, layers="0")
    with pytest.raises(TypeError, match=r"^skip=<generator .* must be a list of names$"):
        layers_of(NESTED, skip=(name for name in ["0"]))


def test_a_program_of_torchscript_is_refused():
    net = nn.Sequential(nn.Linear(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        programs = torch.jit.script(net), torch.jit.trace(net, torch.ones(1, 3))
    for program in programs:
        for asked in (lambda p=program: layers_of(p), lambda p=program: layer_of(p, "0")):
            with pytest.raises(TypeError, match="must be a module as it was before torch.jit.script"):
                asked()


def test_an_unknown_module_is_no_obstacle_to_others():
    net = Lambda(lambda s, x: s.a(x), a=nn.Linear(3, 3), norm=nn.LayerNorm(3))
    assert obstacle(net, "norm") == "is LayerNorm, which is no matrix applied to rows"
    assert list(layers_of(net)) == ["a"]


def test_groups_are_an_obstacle_and_one_group_is_none():
    convs = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 6, 3, groups=2), nn.Conv1d(3, 3, 1))
    told = [obstacle(convs, name) for name in "012"]
    assert told == [None, "has 2 groups, each a matrix of its own", None]
