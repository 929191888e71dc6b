"""The kernel explorer: one convolution, cut along an axis of your choice, under a slider, no kernel."""

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
from lowrank_utils.factors.svd import thin_svd
from lowrank_utils.factors.unfold import Rank, unfolding
from lowrank_utils.layers.conv_options import ConvOption, conv_options
from lowrank_utils.layers.stages import Conv

FILTERS = 6  # that are drawn: those of the largest norm
LEVELS = 127  # of an entry, from 0 to the largest one that is drawn
MOST = 300_000  # bytes of drawn filters
AXES = {
    "channel": "fewer output channels, then a mixture",
    "input": "a mixture of the input channels first",
    "kernel": "taps that all filters share",
    "spatial": "columns, then rows",
    "tucker2": "input and output channels at once",
}


class KernelExplorer:
    r"""A convolution's kernel in each low-rank form, with a choice of the form and a slider for its rank.

    Show it as the last value of a cell. For the chosen form the page draws the singular values of its
    unfolding and the strongest filters before and after, and says parameters, multiply-adds, error and score.
    Another form starts at the largest rank that needs no more numbers. The HTML holds the numbers and a
    script: it needs neither network nor kernel. Filters are embedded in 127 levels, errors to a tenth of a
    percent. A page without scripts, and JupyterLab as long as it does not trust the notebook, shows one
    sentence. Tucker's ranks are the balanced pairs of ``conv_options``, and its spectrum that of the outputs.

    Args:
        conv: ``nn.Conv1d`` or ``nn.Conv2d`` of one group; it is not changed.
        size: The input's size along each axis, for the multiply-adds of one sample; without it they are for
            one output position.
        curves: Score at some ranks of some forms, ``{form: {rank: score}}``; Tucker's ranks are pairs.
        name: What the page calls the layer.
        score: What the page calls the score.

    Raises:
        TypeError: If ``conv`` is no convolution, ``curves`` no mapping, ``name`` or ``score`` no string.
        ValueError: If ``conv`` has groups, three axes or too many numbers; a form or a rank in ``curves``
            saves no numbers; or a score is nan or inf.

    Example:
        >>> KernelExplorer(torch.nn.Conv1d(4, 8, 16), name="conv1")
        KernelExplorer('conv1', 8 x 4 x 16, forms channel, input, kernel, tucker2)
    """

    def __init__(
        self,
        conv: Conv,
        size: int | tuple[int, ...] | None = None,
        *,
        curves: Mapping[str, Mapping[Any, float]] | None = None,
        name: str = "the layer",
        score: str = "score",
    ) -> None:
        conv = _checks.convolution(conv)
        W = _checks.kernel(conv.weight, conv.groups)
        for argument, value in (("name", name), ("score", score)):
            if not isinstance(value, str):
                _checks.type_error(argument, value, "a string")
        if conv.groups != 1 or W.ndim > 4:
            _checks.value_error("conv", conv, "an nn.Conv1d or nn.Conv2d of one group")
        self.name, self.score = name, score
        self._W = W.detach().double().cpu().clone()
        listed = conv_options(conv, size)
        self._macs, self._per_sample = listed.macs, listed.size is not None
        self.forms: dict[str, list[ConvOption]] = {}
        for option in listed.options:
            if option.params < W.numel():
                self.forms.setdefault(option.form, []).append(option)
        if not self.forms:
            _checks.value_error("conv", conv, "a convolution of which some form saves numbers")
        count = sum(map(len, self.forms.values())) * min(FILTERS, len(W) * W.shape[1]) * W[0, 0].numel()
        if count > MOST:
            raise ValueError(
                f"conv's kernel {tuple(W.shape)} must be smaller: its filters take {count:,} bytes"
            )
        self.curves = self._scores({} if curves is None else curves)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self._W.shape))
        return f"KernelExplorer({self.name!r}, {shape}, forms {', '.join(self.forms)})"

    def _scores(self, curves: object) -> dict[str, dict[int, float]]:
        """{form: {place of the rank among those of the form: score}}, to 4 decimals."""
        if not isinstance(curves, Mapping):
            _checks.type_error("curves", curves, "a mapping {form: {rank: score}}")
        found: dict[str, dict[int, float]] = {}
        for form, curve in curves.items():
            options = self.forms[_checks.choice(form, "form in curves", tuple(self.forms))]
            if not isinstance(curve, Mapping):
                _checks.type_error(f"curves[{form!r}]", curve, "a mapping {rank: score}")
            ranks: list[Rank] = [option.rank for option in options]
            scored = {}
            for rank, value in curve.items():
                if rank not in ranks:
                    _checks.value_error(f"rank of {form!r}", rank, f"from {ranks[0]} to {ranks[-1]}")
                scored[ranks.index(rank)] = round(
                    _checks.real(value, f"score at rank {rank}", low=-math.inf), 4
                )
            found[form] = dict(sorted(scored.items()))
        return found

    def _data(self) -> dict[str, Any]:
        """What is embedded; a filter is ``step`` times its integers."""
        W, K = self._W, self._W[0, 0].numel()
        norms = W.flatten(2).norm(dim=2).flatten()  # (m n,)
        strongest = norms.argsort(descending=True, stable=True)[:FILTERS]
        entries = (strongest[:, None] * K + torch.arange(K)).flatten()  # places in W
        before = W.flatten()[entries]  # (F K,)
        after = {form: self._after(form, entries) for form in self.forms}  # (ranks, F K)
        largest = max(float(x.abs().max()) for x in (before, *after.values()))
        step = float(f"{largest / LEVELS:.4g}") or 1.0
        forms = {}
        for form, options in self.forms.items():
            spectrum = thin_svd(unfolding(W, "channel" if form == "tucker2" else form))[1]
            forms[form] = {
                "says": AXES[form],
                "ranks": [option.rank for option in options],
                "params": [option.params for option in options],
                "macs": [option.macs for option in options],
                "error": [round(option.error, 3) for option in options],
                "S": [float(f"{float(x):.4g}") for x in spectrum],
                "after": _levels(after[form] / step),
                "scores": self.curves.get(form, {}),
            }
        first = next(iter(self.forms))
        half = max(1, sum(option.params <= W.numel() / 2 for option in self.forms[first]))
        n = W.shape[1]
        return {
            "slider": {
                "title": f"Kernel explorer of {self.name}",
                "label": "Rank",
                "low": 1,
                "high": len(self.forms[first]),
                "start": half,
                "marks": {},
            },
            "name": self.name,
            "score": self.score,
            "shape": list(W.shape),
            "params": W.numel(),
            "macs": self._macs,
            "unit": "a sample" if self._per_sample else "an output position",
            "step": step,
            "filters": [[int(i) // n + 1, int(i) % n + 1] for i in strongest],
            "before": _levels(before / step),
            "forms": forms,
        }

    def _after(self, form: str, entries: Tensor) -> Tensor:
        """These entries of the form's kernel at each of its ranks, (ranks, entries)."""
        W, options = self._W, self.forms[form]
        if form != "tucker2":
            U, S, Vh = thin_svd(unfolding(W, form))
            places = unfolding(torch.arange(W.numel()).reshape(W.shape), form)
            at = places.flatten().argsort()[entries]  # of W's entries, in the unfolding
            row, column = at // places.shape[1], at % places.shape[1]
            terms = U[row] * S * Vh.T[column]  # (entries, k)
            ranks = torch.tensor([option.rank for option in options])
            return terms.cumsum(1)[:, ranks - 1].T
        P, Q = (thin_svd(unfolding(W, each))[0] for each in ("channel", "input"))
        core = torch.einsum("op,oi...,iq->pq...", P, W, Q).flatten(2)
        K = core.shape[2]
        o, i, t = entries // (K * W.shape[1]), entries // K % W.shape[1], entries % K
        found = []
        for option in options:
            r_out, r_in = option.rank  # type: ignore[misc]
            rows = torch.einsum("ep,pqk->eqk", P[o, :r_out], core[:r_out, :r_in])
            found.append(torch.einsum("eqk,eq->ek", rows, Q[i, :r_in])[torch.arange(len(t)), t])
        return torch.stack(found)

    def _repr_html_(self) -> str:
        told = []
        for form, options in self.forms.items():
            within = [option for option in options if option.params <= self._W.numel() / 4]
            if within:
                told.append(f"{form} {100 * within[-1].error:.1f} %")
        shape = " x ".join(map(str, self._W.shape))
        sentence = f"{self.name} is {shape}. Relative error at a quarter of the numbers: {', '.join(told)}."
        return page("kernel", self._data(), sentence)


def _levels(values: Tensor) -> str:
    """Integers from -127 to 127, a byte each."""
    integers: NDArray[np.int8] = values.round().clamp(-LEVELS, LEVELS).to(torch.int8).numpy()
    return base64.b64encode(np.ascontiguousarray(integers).tobytes()).decode()
