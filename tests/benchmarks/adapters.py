"""LoRALinear against the library that most people use: the same numbers, and the time of a training step."""

from __future__ import annotations

import torch
from claims import Row, rounds
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_utils import LoRALinear

SHAPES = ((30, 20), (20, 20), (20, 30))  # m, n
RANK, ALPHA = 4, 6.0


def peft_layer(linear: nn.Linear, rank: int, start: bool | str) -> nn.Module:
    """The same layer with an adapter, as peft's users make it."""
    import peft

    config = peft.LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=["0"], init_lora_weights=start)
    return peft.get_peft_model(nn.Sequential(linear), config)


def factors(theirs: nn.Module) -> tuple[nn.Module, nn.Parameter, nn.Parameter]:
    """Its layer, A and B."""
    layer = theirs.base_model.model[0]
    return layer, layer.lora_A["default"].weight, layer.lora_B["default"].weight


def off(first: Tensor, second: Tensor) -> float:
    """Relative difference."""
    return float((first - second).detach().norm() / second.detach().norm())


def differences(m: int, n: int) -> dict[str, float]:
    """How far outputs, gradients and merged weight are from peft's, in double precision."""
    torch.manual_seed(m)
    linear = nn.Linear(n, m).double()
    ours = LoRALinear.from_linear(linear, RANK, alpha=ALPHA)
    ours.B.data.normal_()
    theirs = peft_layer(nn.Linear(n, m).double(), RANK, True)
    layer, A, B = factors(theirs)
    layer.base_layer.load_state_dict(linear.state_dict())
    A.data, B.data = ours.A.data.clone(), ours.B.data.clone()
    x = torch.randn(50, n).double()
    found = {"output": off(ours(x), theirs(x))}
    for net in (ours, theirs):
        net(x).tanh().sum().backward()
    found |= {"gradient of A": off(ours.A.grad, A.grad), "gradient of B": off(ours.B.grad, B.grad)}
    merged = theirs.merge_and_unload()[0]
    found["merged weight"] = off(ours.merge().weight, merged.weight)
    return found


def starts_apart(m: int, n: int) -> float:
    """How far the PiSSA start is from peft's, in single precision: it takes no other."""
    torch.manual_seed(m)
    linear = nn.Linear(n, m)
    ours = LoRALinear.from_linear(linear, RANK, alpha=ALPHA, start="pissa")
    layer, A, B = factors(peft_layer(linear, RANK, "pissa"))  # it changes the layer
    return max(off(ours.B @ ours.A, B @ A), off(ours.W, layer.base_layer.weight))


def adapter_against_peft() -> list[Row]:
    """The same function, gradients, merge and PiSSA start; and a step of training side by side."""
    found = [differences(m, n) for m, n in SHAPES]
    worst = {what: max(each[what] for each in found) for what in found[0]}
    value, told = 100 * max(worst.values()), ", ".join(worst)
    start = 100 * max(starts_apart(m, n) for m, n in SHAPES)
    x = torch.randn(64, 768)
    linear = nn.Linear(768, 768)
    ours, theirs = LoRALinear.from_linear(linear, 8), peft_layer(nn.Linear(768, 768), 8, True)

    def step(net: nn.Module) -> None:
        net.zero_grad()
        F.mse_loss(net(x), x).backward()

    times = rounds(lambda: step(ours), lambda: step(theirs), repeat=15, inner=20)
    return [
        Row(
            f"LoRALinear against peft 0.21.2: {told}, the largest difference",
            f"{value:.0e} %", "0 %", value, 1e-10, most=True, shown="{:.0e} %", table="accuracy",
        ),
        Row(
            "LoRALinear's PiSSA start against peft's, in single precision, the largest difference",
            f"{start:.0e} %", "0 %", start, 1e-2, most=True, shown="{:.0e} %", table="accuracy",
        ),
        Row(
            "training step of an adapter of rank 8 on 768 x 768, batch 64, against peft's",
            f"{times[0]:.2f} ms", f"{times[1]:.2f} ms", times[1] / times[0],
        ),
    ]  # fmt: skip
