"""Models with a linear layer in every place where one can stand: name -> (model, layer, X)."""

import torch
from oracles import Lambda
from torch import Tensor, nn
from torch.nn import functional as F

N = 203  # a prime: no share k/203 is one of the drops that the tests allow


def _mlp():
    return nn.Sequential(nn.Linear(9, 14), nn.ReLU(), nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 4))


def _in_place():
    return nn.Sequential(nn.Linear(9, 12), nn.ReLU(inplace=True), nn.Linear(12, 4))


def _nested():
    inner = nn.Sequential(nn.Tanh(), nn.Sequential(nn.Linear(10, 12, bias=False), nn.ReLU()))
    return nn.Sequential(nn.Linear(9, 10), inner, nn.Linear(12, 4))


def _residual():
    def forward(s, x: Tensor) -> Tensor:
        h = torch.tanh(s.a(x))
        return s.out(F.relu(h + s.layer(h)))

    return Lambda(forward, a=nn.Linear(9, 12), layer=nn.Linear(12, 12), out=nn.Linear(12, 4))


def _residual_in_place():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(12, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(F.relu(x, inplace=True))

    def forward(s, x: Tensor) -> Tensor:
        h = s.a(x)
        return s.out(F.relu(s.layer(s.block(h))) + h)  # h is not what s.a gave: the block wrote to it

    layers = {"block": Block(), "layer": nn.Linear(12, 12), "out": nn.Linear(12, 4)}
    return Lambda(forward, a=nn.Linear(9, 12), **layers)


def _residual_written_later():
    def forward(s, x: Tensor) -> Tensor:
        h = s.a(x)
        z = s.layer(h)
        return s.out(h.add_(z).tanh_())

    return Lambda(forward, a=nn.Linear(9, 9), layer=nn.Linear(9, 9), out=nn.Linear(9, 4))


def _hooked():
    model = _residual()
    model.a.register_forward_hook(lambda _, args, out: 2 * out - 0.3)
    model.layer.register_forward_pre_hook(lambda _, args: (args[0] + 0.1,))
    model.layer.register_forward_hook(lambda _, args, out: 1.5 * out)
    return model


def _conv():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(48, 11), nn.BatchNorm1d(11), nn.ReLU(), nn.Linear(11, 4),
    )  # fmt: skip


def _functional():
    def forward(s, x: Tensor) -> Tensor:
        x = F.layer_norm(x, (9,)) @ s.mix.weight.T + x.mean(1, keepdim=True)
        return s.out(F.gelu(s.layer(x)).sin_())

    return Lambda(forward, mix=nn.Linear(9, 9), layer=nn.Linear(9, 13), out=nn.Linear(13, 4))


def _tokens():  # the layer's input is (N, 5, 6)
    def forward(s, x: Tensor) -> Tensor:
        return s.out(F.relu(s.layer(torch.tanh(s.embed(x)))).mean(1))

    return Lambda(forward, embed=nn.Linear(3, 6), layer=nn.Linear(6, 10), out=nn.Linear(10, 4))


def _twice():
    def forward(s, x: Tensor) -> Tensor:
        return s.out(F.relu(s.layer(F.relu(s.layer(s.a(x))))))

    return Lambda(forward, a=nn.Linear(9, 10), layer=nn.Linear(10, 10), out=nn.Linear(10, 4))


def _twice_used_prefix():
    def forward(s, x: Tensor) -> Tensor:
        h = s.a(x)
        return s.out(F.relu(s.layer(h)) + s.a(h))

    return Lambda(forward, a=nn.Linear(9, 9), layer=nn.Linear(9, 9), out=nn.Linear(9, 4))


def _keyword():
    return Lambda(
        lambda s, x: s.out(torch.tanh(s.layer(input=x))), layer=nn.Linear(9, 8), out=nn.Linear(8, 4)
    )


def _recurrent():
    def forward(s, x: Tensor) -> Tensor:
        states, _ = s.rnn(x)  # a module that gives a tuple
        return s.out(F.relu(s.layer(states[:, -1])) + states[:, 0])

    return Lambda(forward, rnn=nn.GRU(3, 8, batch_first=True), layer=nn.Linear(8, 8), out=nn.Linear(8, 4))


def _transformer():
    # in eval mode and without gradients torch takes a fused path that never calls linear1
    block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.3)
    return Lambda(lambda s, x: s.out(s.block(s.embed(x)).mean(1)), embed=nn.Linear(3, 8), block=block,
                  out=nn.Linear(8, 4))  # fmt: skip


def _whole():
    return nn.Linear(9, 4)


# name -> (builder, layer, shape of one sample)
ZOO = {
    "mlp, first": (_mlp, "0", (9,)),
    "mlp, middle": (_mlp, "2", (9,)),
    "mlp, last": (_mlp, "4", (9,)),
    "in-place ReLU after it": (_in_place, "0", (9,)),
    "nested, no bias": (_nested, "1.1.0", (9,)),
    "residual": (_residual, "layer", (9,)),
    "residual, prefix in place": (_residual_in_place, "layer", (9,)),
    "residual, written to later": (_residual_written_later, "layer", (9,)),
    "residual, hooks": (_hooked, "layer", (9,)),
    "after convolutions": (_conv, "5", (1, 6, 6)),
    "functional operations before": (_functional, "layer", (9,)),
    "3-D inputs": (_tokens, "layer", (5, 3)),
    "called twice": (_twice, "layer", (9,)),
    "prefix called again": (_twice_used_prefix, "layer", (9,)),
    "called by keyword": (_keyword, "layer", (9,)),
    "after a recurrent layer": (_recurrent, "layer", (5, 3)),
    "in a fused transformer": (_transformer, "block.linear1", (4, 3)),
    "the model itself": (_whole, "", (9,)),
}


def case(name: str, seed: int, dtype: torch.dtype = torch.float64, *, train: bool = False):
    """(model, layer, X, y, (m, n)); y is what the model says, wrong for about one sample in six."""
    torch.manual_seed(1000 * list(ZOO).index(name) + seed)
    build, layer, shape = ZOO[name]
    model, X = build().to(dtype), torch.randn(N, *shape, dtype=dtype)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= 2  # less linear, so that the rank matters
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        last.bias -= model.eval()(X.clone()).mean(0)  # so that no class wins everywhere
        y = model(X.clone()).argmax(-1)
    y = torch.where(torch.rand(N) < 0.2, torch.randint(0, 4, (N,)), y)
    y[:4] = torch.arange(4)  # every class is there
    linear = model.get_submodule(layer) if layer else model
    return model.train(train), layer, X, y, tuple(linear.weight.shape)
