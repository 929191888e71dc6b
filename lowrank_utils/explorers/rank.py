"""The rank explorer: a matrix, its rank-r approximation and what they cost, under a slider, no kernel."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowrank_utils import _checks
from lowrank_utils.explorers.page import page
from lowrank_utils.factors.ranks import break_even_rank
from lowrank_utils.factors.svd import singular_values, thin_svd
from lowrank_utils.search.find_rank import RankSearch

UNIT = 32767  # an entry of U or V, from -1 to 1, is embedded as a 16-bit integer over this
IMAGE_TRIPLETS = 64


class RankExplorer:
    r"""W, W_r = U_r diag(S_r) V_r^T and their difference, with a slider for r, drawn by the page itself.

    Show it as the last value of a cell. The HTML holds the numbers and a script: it needs neither network
    nor kernel. A page without scripts, and JupyterLab as long as it does not trust the notebook, shows the
    errors as one sentence. Three roundings keep the page small
    and the same on every processor, whose last digits differ:

    * W is drawn from 3 significant digits of its largest entry (from 256 levels, if it is an image);
    * U, S and V are those of that W, U and V in steps of 1/32767;
    * the errors and energies shown are those of W as given, to a tenth of a percent.

    Rounded factors do not multiply to W: at full rank the page takes W itself, and the residual is exactly 0.
    Scores stand under the spectrum, on one rank axis. Theirs starts at the lower quartile where the rest lie
    within a quarter of the whole range; lower scores are then hollow dots on the axis, and named below it.

    Args:
        W: Matrix (m, n).
        curve: Score at some ranks, {rank: score}; or what ``find_rank`` returned, whose rank is then marked.
        name: What the page calls the matrix.
        kind: ``"matrix"`` draws 0 white, orange below, purple above; ``"image"`` draws W in grey.
        max_rank: Where the slider ends; by default at min(m, n), for an image at 64 at most.
        max_side: Most rows or columns to accept, since all of W goes into the page.

    Raises:
        TypeError: If W is no floating tensor, ``curve`` no mapping, or an argument of another wrong type.
        ValueError: If W is no finite matrix or exceeds ``max_side``; a rank or ``kind`` is out of range; a
            score is nan or inf.

    Example:
        >>> RankExplorer(torch.diag(torch.tensor([4.0, 3.0])), curve={1: 0.9}, name="fc1")
        RankExplorer('fc1', 2 x 2, ranks 1 to 2)
    """

    def __init__(
        self,
        W: Tensor,
        *,
        curve: Mapping[int, float] | RankSearch | None = None,
        name: str = "W",
        kind: str = "matrix",
        max_rank: int | None = None,
        max_side: int = 320,
    ) -> None:
        W = _checks.matrix(W)
        self.kind = _checks.choice(kind, "kind", ("image", "matrix"))
        if not isinstance(name, str):
            _checks.type_error("name", name, "a string")
        side, (self.m, self.n) = _checks.integer(max_side, "max_side", low=1), W.shape
        if max(W.shape) > side:
            raise ValueError(
                f"W of shape {tuple(W.shape)} must have at most max_side={side} rows and columns: "
                "pass a part of it, such as W[::2, ::2], or a larger max_side"
            )
        full = min(W.shape)
        if max_rank is None:
            max_rank = min(full, IMAGE_TRIPLETS) if kind == "image" else full
        self.name, self.max_rank = name, _checks.rank(max_rank, self.m, self.n, "max_rank")
        self.curve = _scores(curve, self.m, self.n)
        searched = curve if isinstance(curve, RankSearch) else None
        self.found = searched.rank if searched else None
        self.allowed = round(searched.baseline - searched.max_drop, 4) if searched else None
        self._W = W.double().cpu().clone()

    def __repr__(self) -> str:
        return f"RankExplorer({self.name!r}, {self.m} x {self.n}, ranks 1 to {self.max_rank})"

    def _data(self) -> dict[str, Any]:
        """What is embedded; W = low + step * integers."""
        W, k = self._W, self.max_rank
        low, step = 0.0, _decimal_step(float(W.abs().max()), 3)
        if self.kind == "image":
            low, high = (float(f"{float(x):.6g}") for x in (W.min(), W.max()))
            step = float(f"{(high - low) / 255:.5g}") or 1.0
        levels = ((W - low) / step).round()
        U, s, Vh = (factor.numpy() for factor in thin_svd(low + step * levels))
        # a singular vector of the value 0 is made of rounding alone: leave it out
        kept = s > max(self.m, self.n) * torch.finfo(torch.float64).eps * s[0]
        left, right = _integers((U * kept)[:, :k]), _integers((Vh.T * kept)[:, :k])  # (m, k), (n, k)
        # the sign from the rounded entries, and from the first of equals: rounding does not decide it
        peaks = left[np.abs(left).argmax(0), np.arange(k)]
        signs = np.where(peaks < 0, -1, 1)
        spectrum = singular_values(W)
        energy = (spectrum / (spectrum[0] or 1.0)).square()
        lost = (energy.flip(0).cumsum(0).flip(0) / (energy.sum() or 1.0)).tolist()[1 : k + 1]
        lost += [0.0] * (k - len(lost))  # at full rank
        even, found = break_even_rank(self.m, self.n), self.found
        shape = f"{self.m} \N{MULTIPLICATION SIGN} {self.n}"
        return {
            "slider": {
                "title": f"Rank explorer of {self.name}",
                "label": f"Rank r of {self.name} ({shape}), from 1 to {k}",
                "low": 1,
                "high": k,
                "start": found or max(1, min(even, k) // 2),
                "marks": {r: mark for r, mark in ((even, "break-even"), (found, "found")) if r and r <= k},
            },
            "name": self.name,
            "kind": self.kind,
            "m": self.m,
            "n": self.n,
            "k": k,
            "low": low,
            "step": step,
            "W": _base64(levels.numpy(), "u1" if self.kind == "image" else "<i2"),
            "U": _base64(left * signs, "<i2"),
            "V": _base64(right * signs, "<i2"),
            "S": [float(f"{x:.5g}") for x in s * kept],  # all, to draw the spectrum
            "error": [round(math.sqrt(x), 3) for x in lost],
            "energy": [round(1 - x, 3) for x in lost],
            "curve": self.curve,
            "found": found,
            "allowed": self.allowed,
            "even": even,
        }

    def _repr_html_(self) -> str:
        data = self._data()
        ranks = [2**i for i in range(self.max_rank.bit_length())]
        told = ", ".join(f"{100 * data['error'][r - 1]:.1f} % at rank {r}" for r in ranks)
        return page("rank", data, f"{self.name} is {self.m} x {self.n}. Relative error: {told}.")


def _scores(curve: object, m: int, n: int) -> dict[int, float]:
    """{rank: score} by rising rank, to 4 decimals."""
    scores = curve.curve if isinstance(curve, RankSearch) else {} if curve is None else curve
    if not isinstance(scores, Mapping):
        _checks.type_error("curve", curve, "a mapping {rank: score} or a RankSearch")
    found = {}
    for rank, score in scores.items():
        r = _checks.rank(rank, m, n, "rank in curve")
        found[r] = round(_checks.real(score, f"score at rank {r}", low=-math.inf), 4)
    return dict(sorted(found.items()))


def _decimal_step(largest: float, digits: int) -> float:
    """The power of ten that leaves ``largest`` with so many digits; 1 for 0."""
    return float(f"1e{math.floor(math.log10(largest)) - digits + 1}") or 1.0 if largest else 1.0


def _integers(unit_vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(unit_vectors * UNIT).astype(np.int64)


def _base64(integers: NDArray[Any], dtype: str) -> str:
    limit = np.iinfo(dtype)
    return base64.b64encode(np.clip(integers, limit.min, limit.max).astype(dtype).tobytes()).decode()
