"""The claims, one function each: what is measured, against whom, and the floor."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
import torchvision
from peers import tucker_score
from torch import nn

from lowrank_utils import (
    LowRankLinear,
    PivotedLinear,
    allocate_ranks,
    break_even_rank,
    calibrate,
    cascade,
    count_params,
    find_rank,
    fold_permutations,
    low_rank_approximation,
    set_seed,
    truncated_svd,
    unpack_attention,
    weighted_factors,
)
from lowrank_utils.layers.views import layer_view
from lowrank_utils.layers.which import layer_of, layers_of
from lowrank_utils.network.stream import Stream

SEEDS = range(5)


@dataclass
class Row:
    """A line of a table; ``value``, a ratio or what ``ours`` says, is held against ``floor``, in its unit."""

    claim: str
    ours: str
    peer: str
    value: float
    floor: float | None = None
    most: bool = False  # the floor is a ceiling
    shown: str = "{:.2f}"
    table: str = "speed"
    unit: str = "{} times as fast"  # of the value in the table of speed

    @property
    def reached(self) -> bool:
        if self.floor is None:
            return True
        return self.value <= self.floor if self.most else self.value >= self.floor

    def cells(self) -> list[str]:
        sign = "at most " if self.most else ""
        floor = "none" if self.floor is None else sign + self.shown.format(self.floor)
        ratio = [self.unit.format(self.shown.format(self.value))] if self.table == "speed" else []
        return [self.claim, self.ours, self.peer, *ratio, floor]


def rounds(*calls: Callable[[], object], repeat: int = 7, inner: int = 1) -> list[float]:
    """Median milliseconds of each call, taken in turn, so that a busy moment hits all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(repeat):
        for call, spent in zip(calls, times, strict=True):
            start = time.perf_counter()
            for _ in range(inner):
                call()
            spent.append((time.perf_counter() - start) / inner * 1e3)
    return [statistics.median(spent) for spent in times]


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between."""
    layers: list[nn.Module] = []
    for n, m in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def nested_search() -> list[Row]:
    """All 309 ranks of fc1 in one scan, against a Tucker decomposition a rank."""
    set_seed(0)
    net, X, y = mlp(784, 512, 256, 10), torch.randn(500, 784), torch.randint(10, (500,))
    ranks = break_even_rank(512, 784)

    def tucker_ranks() -> None:
        for rank in (ranks // 4, ranks // 2, ranks):
            tucker_score(net, X, y, rank)

    def tucker_binary() -> None:
        low, high = 1, ranks
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if tucker_score(net, X, y, middle) >= 0.09 else (middle + 1, high)

    def scan() -> None:
        assert len(find_rank(net, "0", X, y, max_drop=0.0).curve) == ranks

    ours, some, binary = rounds(scan, tucker_ranks, tucker_binary, repeat=3)
    per_rank, theirs = ours / ranks, some / 3
    return [
        Row("find_rank, one of 309 ranks, against Tucker",
            f"{per_rank:.2f} ms", f"{theirs:.0f} ms", theirs / per_rank, 60, shown="{:.0f}"),
        Row("find_rank, all 309 ranks, against bisection by Tucker",
            f"{ours:.0f} ms", f"{binary:.0f} ms", binary / ours, 1.5, shown="{:.1f}"),
    ]  # fmt: skip


@torch.no_grad()
def pivoted() -> list[Row]:
    """The pivoted form against dense and against two factors; the worst of the sizes and batches counts."""
    # (what, small batches): ratio, our time, the peer's, where
    found: dict[tuple[str, bool], list[tuple[float, str, str, str]]] = {}
    for N in (512, 1024, 2048):
        dense = nn.Linear(N, N)
        for share in (0.5, 0.75):
            rank = int(N * share)
            ours, two = PivotedLinear.from_linear(dense, rank), LowRankLinear.from_linear(dense, rank)
            folded = fold_permutations(nn.Sequential(ours, nn.Linear(N, 1)), torch.ones(1, N))[0]
            for batch in (1, 8, 32, 64, 128):
                x = torch.randn(batch, N)
                d, p, f, t = rounds(
                    *(lambda layer=layer: layer(x) for layer in (dense, ours, folded, two)),  # noqa: B023
                    repeat=21,
                    inner=20,
                )
                where = f"N = {N}, batch {batch}"
                kinds = [("half", p, d), ("folded", f, d), ("two", p, t)]
                for kind, mine, peer in kinds if share == 0.5 else [("most", p, d)]:
                    measured = (peer / mine, f"{mine:.3f} ms", f"{peer:.3f} ms", where)
                    found.setdefault((kind, batch < 32), []).append(measured)
    rows = []
    for kind, claim, floor in (
        ("half", "pivoted at rank N/2, against dense", 1.05),
        ("folded", "pivoted at rank N/2, its permutation folded, against dense", 1.05),
        ("two", "pivoted at rank N/2, against two factors", 1.05),
        ("most", "pivoted at rank 3N/4, against dense", 0.9),
    ):
        for small, batches in ((False, "batches 32 to 128"), (True, "batches 1 and 8")):
            ratio, time_ms, peer_ms, where = min(found[kind, small])
            name = f"{claim}, {batches} (least: {where})"
            rows.append(Row(name, time_ms, peer_ms, ratio, None if small else floor))
    return rows


@torch.no_grad()
def factored_forward() -> list[Row]:
    """A forward of 1024 x 1024 at rank 64 against tensorly-torch with as many parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tltorch import FactorizedLinear
    ours, x, rows = LowRankLinear(1024, 1024, 64), torch.randn(32, 1024), []
    for kind, floor in (("tucker", 3), ("cp", 10)):
        share = 64 * 2048 / 1024**2
        peer = FactorizedLinear(
            (32, 32), (32, 32), factorization=kind, rank=share, implementation="factorized"
        )
        a, b = rounds(lambda: ours(x), lambda: peer(x), repeat=21)  # noqa: B023
        claim = f"factored forward, {count_params(peer):,} numbers, against tensorly-torch's {kind}"
        rows.append(Row(claim, f"{a:.3f} ms", f"{b:.2f} ms", b / a, floor, shown="{:.0f}"))
    return rows


def data_aware() -> list[Row]:
    """Data-aware factors against the plain SVD of the same layer; the worst shape counts."""
    found: dict[bool, list[tuple[float, str, str, str]]] = {False: [], True: []}
    for m, n in ((512, 784), (256, 512), (1024, 1024), (1024, 256)):
        set_seed(0)
        net = nn.Sequential(nn.Linear(n, m), nn.ReLU(), nn.Linear(m, 10))
        moments = calibrate(net, torch.randn(2000, n), torch.randint(10, (2000,)))["0"]
        W = net[0].weight.detach()
        one, two, plain = rounds(
            lambda: weighted_factors(W, moments, two_sided=False).at(32),  # noqa: B023
            lambda: weighted_factors(W, moments).at(32),  # noqa: B023
            lambda: torch.linalg.svd(W, full_matrices=False),  # noqa: B023
            repeat=5,
        )
        for sided, ours in ((False, one), (True, two)):
            found[sided].append((plain / ours, f"{ours:.0f} ms", f"{plain:.0f} ms", f"{m} x {n}"))
    rows = []
    for sided, name, floor in ((False, "data-aware", 1 / 3), (True, "two-sided", None)):
        ratio, ours_ms, plain_ms, shape = min(found[sided])
        claim = f"{name} factors, against the plain SVD (least: {shape})"
        rows.append(Row(claim, ours_ms, plain_ms, ratio, floor))
    return rows


def small_rank_svd() -> list[Row]:
    """truncated_svd of a 2048 x 2048 layer against the full SVD, in time and in error."""
    set_seed(0)
    i = torch.arange(1, 2049.0)
    U, V = (torch.linalg.qr(torch.randn(2048, 2048)).Q for _ in range(2))
    layers = {"random": nn.Linear(2048, 2048).weight.detach(), "decaying": (U * i**-0.5) @ V.T}
    speed, excess = [], []
    for name, W in layers.items():
        S = torch.linalg.svdvals(W.double())
        for rank in (16, 64, 256):
            full, ours = rounds(
                lambda: torch.linalg.svd(W, full_matrices=False),  # noqa: B023
                lambda: truncated_svd(W, rank),  # noqa: B023
                repeat=3,
            )
            best = S[rank:].square().sum().sqrt()
            error = (W - low_rank_approximation(W, rank)).double().norm() / best - 1
            speed.append((full / ours, f"{ours:.0f} ms", f"{full:.0f} ms", f"{name}, rank {rank}"))
            excess.append(100 * float(error))
    ratio, a, b, where = min(speed)
    return [
        Row(f"small-rank SVD of 2048 x 2048, against the full SVD (least: {where})", a, b, ratio, 3),
        Row("error of the small-rank SVD above the optimum", f"{max(0.0, *excess):.4f} %", "full SVD 0 %",
            max(0.0, *excess), 0.1, most=True, shown="{:.4f} %", table="accuracy"),
    ]  # fmt: skip


def spectra_of_a_vit() -> list[Row]:
    """Ranks for the 25 matrices of vit_b_16, without data, against LAPACK's singular values of the same."""
    set_seed(0)
    net = torchvision.models.vit_b_16()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "left as they are")  # packed attention
        names = [k for k, view in layers_of(net).items() if type(view.layer) is nn.Linear]
        ours, theirs = rounds(
            lambda: allocate_ranks(net, 0.5, layers=names),
            lambda: [torch.linalg.svdvals(layer_view(layer_of(net, k)).weight.double()) for k in names],
            repeat=3,
        )
    claim = f"ranks for vit_b_16, {len(names)} matrices, against their float64 SVD"
    return [Row(claim, f"{ours / 1e3:.1f} s", f"{theirs / 1e3:.1f} s", theirs / ours, 3)]


def linear_in_depth() -> list[Row]:
    """A refit of chains of 6 to 48 equal layers, and of an encoder with the sizes of all-MiniLM-L6-v2."""
    set_seed(0)
    depths, times, X = (6, 12, 24, 48), [], torch.randn(4096, 256)
    for depth in depths:
        net = mlp(*[256] * (depth + 1))
        moments = calibrate(net, X)
        ranks = dict.fromkeys(moments, 32)
        spent = []
        for _ in range(3):
            begin = time.process_time()  # a busy machine would bend the line
            cascade(net, ranks, X, moments)
            spent.append(time.process_time() - begin)
        times.append(statistics.median(spent))
    x, y = (torch.tensor(values).double().log() for values in (depths, times))
    slope = float((x - x.mean()) @ (y - y.mean()) / (x - x.mean()).square().sum())
    passes, backward = _passes_of_an_encoder()
    return [
        Row("cascade of 6, 12, 24 and 48 equal layers, slope of log time against log depth",
            f"slope {slope:.2f}, {times[0]:.1f} s to {times[-1]:.1f} s", "whole runs: slope 2", slope, 1.2,
            most=True, unit="slope {}"),
        Row("cascade of an encoder with 36 linear layers, passes of the dense net over the data",
            f"{passes:.1f} passes", "whole runs: 35 passes", passes, 8, most=True, shown="{:.1f}",
            unit="{} passes"),
        Row("calibrate of that encoder, forward and backward passes over the data",
            f"{backward:.1f} passes", "a layer at a time: 36 passes", backward, 3, most=True, shown="{:.1f}",
            unit="{} passes"),
    ]  # fmt: skip


def _passes_of_an_encoder() -> tuple[float, float]:
    """Multiply-adds of the dense net's layers, in those of one pass over all data: cascade and calibrate."""
    block = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True)
    net = unpack_attention(nn.TransformerEncoder(block, 6, enable_nested_tensor=False)).eval()
    X, seen, back = torch.randn(64, 32, 384), [0], [0]
    names = list(calibrate(net, X[:1]))

    def macs(layer: nn.Linear, rows: torch.Tensor) -> int:
        return rows[..., 0].numel() * layer.weight.numel()

    def count(layer: nn.Linear, args: tuple[torch.Tensor, ...]) -> None:
        seen[0] += macs(layer, args[0])

    def count_back(layer: nn.Linear, args: object, grads: tuple[torch.Tensor, ...]) -> None:
        back[0] += macs(layer, grads[0])

    for name in names:  # the copies keep the hooks; in the small net a layer stops a run before its own
        net.get_submodule(name).register_forward_pre_hook(count)
        net.get_submodule(name).register_full_backward_hook(count_back)
    net(X)
    one, seen[0] = seen[0], 0
    moments = calibrate(net, X, batch_size=16)
    both, seen[0] = max(seen[0], back[0]) / one, 0
    real = Stream.run

    def of_the_dense_net(self: Stream, i: int) -> object:
        before = seen[0]
        output = real(self, i)
        if any(isinstance(module, LowRankLinear) for module in self.model.modules()):
            seen[0] = before
        return output

    with mock.patch.object(Stream, "run", of_the_dense_net):
        cascade(net, dict.fromkeys(moments, 64), X, moments, batch_size=16)
    return seen[0] / one, both


CLAIMS: list[Callable[[], list[Row]]] = [
    nested_search, pivoted, factored_forward, data_aware, small_rank_svd, spectra_of_a_vit,
    linear_in_depth,
]  # fmt: skip
