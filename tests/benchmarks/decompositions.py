"""The truncated SVD against libraries at their default settings; and what a search and an import cost."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from claims import Row, mlp, rounds
from pitch import detector
from scipy.sparse.linalg import svds
from sklearn.utils.extmath import randomized_svd
from tensorly import backend_context
from tensorly.decomposition import partial_tucker
from torch import Tensor, nn

from lowrank_utils import LowRankLinear, break_even_rank, find_rank, set_seed, truncated_svd
from lowrank_utils.factors.unfold import compose, kernel_factors

SPECTRA: dict[str, Callable[[int], Tensor]] = {
    "falling as 1/i": lambda k: 1 / torch.arange(1, k + 1),
    "of a random matrix": lambda k: torch.empty(0),
}
SIZES = ((512, 784, 16), (512, 784, 128), (1024, 1024, 64), (2048, 2048, 32))


def _matrix(m: int, n: int, values: Tensor) -> Tensor:
    W = torch.randn(m, n)
    if not len(values):
        return W
    U, _, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return ((U * values) @ Vh).float()


def _excess(W: Tensor, U: Tensor, S: Tensor, Vh: Tensor, best: float) -> float:
    """Per cent by which the error lies above the least possible one."""
    error = (W.double() - (U.double() * S.double()) @ Vh.double()).norm()
    return 100 * (float(error) / best - 1)


def svd_peers() -> list[Row]:
    """Time and error of the truncated SVD; the worst excess of each stands beside its time."""
    set_seed(0)
    rows = []
    for spectrum, of in SPECTRA.items():
        for m, n, r in SIZES:
            W = _matrix(m, n, of(min(m, n)))
            best = float(torch.linalg.svdvals(W.double())[r:].norm())

            def scipys(W: Tensor = W, r: int = r) -> tuple[Tensor, ...]:
                U, S, Vh = svds(W.numpy(), r)
                return tuple(map(torch.from_numpy, (U.copy(), S.copy(), Vh.copy())))

            def sklearns(W: Tensor = W, r: int = r) -> tuple[Tensor, ...]:
                return tuple(map(torch.from_numpy, randomized_svd(W.numpy(), r, random_state=0)))

            def torchs(W: Tensor = W, r: int = r) -> tuple[Tensor, ...]:
                U, S, V = torch.svd_lowrank(W, r)
                return U, S, V.T

            def ours(W: Tensor = W, r: int = r) -> tuple[Tensor, ...]:
                return truncated_svd(W, r)

            def lapack(W: Tensor = W, r: int = r) -> tuple[Tensor, ...]:
                U, S, Vh = torch.linalg.svd(W, full_matrices=False)
                return U[:, :r], S[:r], Vh[:r]

            peers = {"linalg.svd": lapack, "svds": scipys, "randomized_svd": sklearns, "svd_lowrank": torchs}
            spent, *others = rounds(ours, *peers.values(), repeat=3)
            told = [
                f"{name} {ms:.0f} ms, {_excess(W, *call(), best):.4f} %"
                for (name, call), ms in zip(peers.items(), others, strict=True)
            ]
            mine = f"{spent:.0f} ms, {_excess(W, *ours(), best):.4f} %"
            claim = f"truncated_svd, {m} x {n}, rank {r}, spectrum {spectrum}: error above the least"
            rows.append(Row(claim, mine, "; ".join(told), others[0] / spent))
    return rows


SLOWER = "{} times as long"


def scan_limit() -> list[Row]:
    """A scan of 309 ranks in units of what it must do: one SVD, and 309 runs of what comes after."""
    set_seed(0)
    net, X, y = mlp(784, 512, 256, 10), torch.randn(500, 784), torch.randint(10, (500,))
    ranks = break_even_rank(512, 784)
    hidden = torch.randn(500, 512)

    def least() -> None:
        truncated_svd(net[0].weight, 512)
        with torch.no_grad():
            for _ in range(ranks):
                net[1:](hidden)

    ours, limit = rounds(lambda: find_rank(net, "0", X, y, max_drop=0.0), least, repeat=5)
    claim = "find_rank, all 309 ranks, against one SVD and 309 runs after the layer"
    return [Row(claim, f"{ours:.0f} ms", f"{limit:.0f} ms", ours / limit, 1.6, most=True, unit=SLOWER)]


def import_time() -> list[Row]:
    """What the package adds to torch: processor time of a fresh process."""

    def spent(module: str) -> float:
        code = f"import time, {module}; print(time.process_time())"
        command = [sys.executable, "-c", code]
        return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    both = [(spent("lowrank_utils"), spent("torch")) for _ in range(5)]
    ours, theirs = (statistics.median(times) for times in zip(*both, strict=True))
    claim = "import lowrank_utils, against torch alone"
    return [Row(claim, f"{ours:.1f} s", f"{theirs:.1f} s", ours / theirs, 1.4, most=True, unit=SLOWER)]


class _Unrolled(nn.Module):
    """An LSTM step by step, its two matrices in low rank: what a cut nn.LSTM would have to run."""

    def __init__(self, lstm: nn.LSTM, rank: int) -> None:
        super().__init__()
        made = []
        for weight, bias in ((lstm.weight_ih_l0, lstm.bias_ih_l0), (lstm.weight_hh_l0, lstm.bias_hh_l0)):
            dense = nn.Linear(weight.shape[1], weight.shape[0])
            dense.weight.data, dense.bias.data = weight.data, bias.data
            made.append(LowRankLinear.from_linear(dense, rank))
        self.inputs, self.states = made

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, n) -> (N, T, h)."""
        gates, out = self.inputs(x), []
        h = c = x.new_zeros(len(x), self.states.in_features)
        for t in range(x.shape[1]):
            i, f, g, o = (gates[:, t] + self.states(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            out.append(h)
        return torch.stack(out, 1)


def unrolled_lstm() -> list[Row]:
    """An LSTM rebuilt from low-rank matrices, against torch's fused one: why nn.LSTM is left as it is."""
    set_seed(0)
    rows, n, steps = [], 256, 64
    lstm, rank = nn.LSTM(n, n, batch_first=True).eval(), break_even_rank(4 * n, n) // 4
    small = _Unrolled(lstm, rank).eval()
    with torch.no_grad():
        for batch in (1, 32):
            x = torch.randn(batch, steps, n)
            ours, theirs = rounds(lambda x=x: small(x), lambda x=x: lstm(x), repeat=5)
            claim = f"LSTM rebuilt from matrices at a quarter of break-even, {steps} steps, batch {batch}"
            rows.append(Row(claim, f"{ours:.0f} ms", f"fused nn.LSTM {theirs:.0f} ms", theirs / ours))
    return rows


def two_svds_for_hooi() -> list[Row]:
    """Tucker-2 by two SVDs against ``partial_tucker`` of tensorly, which goes on from there (HOOI)."""
    set_seed(0)
    layers = [detector().get_submodule(name).weight.detach() for name in ("conv2", "conv6")]
    rows = []
    for W in (*layers, torch.randn(128, 64, 3, 3), torch.randn(512, 512, 3, 3)):
        ranks = len(W) // 4, W.shape[1] // 4

        def hooi(W: Tensor = W, ranks: tuple[int, int] = ranks) -> Tensor:
            with backend_context("numpy"):  # tensorly-torch leaves another one behind
                (core, (P, Q)), _ = partial_tucker(W.double().numpy(), ranks, [0, 1])
            return torch.from_numpy(np.einsum("or,rshw,is->oihw", P, core, Q))

        def ours(W: Tensor = W, ranks: tuple[int, int] = ranks) -> Tensor:
            return compose(kernel_factors(W, ranks, "tucker2"), "tucker2")

        ms, theirs_ms = rounds(ours, hooi, repeat=3)
        far, near = (float((W - made()).norm() / W.norm()) for made in (ours, hooi))
        rows.append(
            Row(
                f"Tucker-2 of {' x '.join(map(str, W.shape))} at ranks {ranks[0]}, {ranks[1]}",
                f"{ms:.1f} ms and {far:.3f} of the norm missed",
                f"partial_tucker {theirs_ms:.1f} ms and {near:.3f}",
                theirs_ms / ms,
                3.0,
            )
        )
    return rows


DECOMPOSITIONS = [svd_peers, two_svds_for_hooi, scan_limit, import_time, unrolled_lstm]
