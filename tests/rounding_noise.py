"""Rounding noise: what another processor, or another LAPACK, could have done to a notebook's numbers.

While ``RoundingNoise(ulps, seed)`` is on, each element of every floating result of a product, a reduction,
a decomposition or a transcendental function is multiplied by 1 + u, with u uniform within ``ulps`` units of
the last place of its dtype. Sums, differences, products and quotients of two numbers are left alone: IEEE 754
fixes them to the last bit. So are values that are whole numbers: counts, zeros and ones are exact on every
processor. The draws come from a generator of its own, so the notebook's seeds hold: a table of factors 1 + u,
of which each result takes a stretch that begins anywhere.

It reaches torch, and of SciPy and scikit-learn what chapters use beside it: ``scipy.linalg.eigh`` and the
mean and scale of ``StandardScaler``. It does not reach other functions of numpy and SciPy.

A kernel enters it by a startup file, which ``startup`` writes:

    ROUNDING_NOISE=16:0 pytest --nbval --nbval-current-env book       # 16 ulp, seed 0
"""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

VARIABLE = "ROUNDING_NOISE"
FAKE = (FakeTensor, FunctionalTensor)  # what torch.export traces with: they hold no numbers
PRODUCTS = """mm addmm bmm baddbmm addbmm mv addmv dot vdot addr convolution convolution_backward
    linalg_matrix_exp _trilinear einsum scaled_dot_product_attention
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
    _addmm_activation mkldnn_linear""".split()
REDUCTIONS = """sum nansum mean var std var_mean std_mean prod cumsum cumprod norm linalg_vector_norm trace
    logsumexp logcumsumexp native_layer_norm native_layer_norm_backward native_batch_norm
    native_batch_norm_backward _native_batch_norm_legit native_group_norm avg_pool2d _adaptive_avg_pool2d
    _softmax _log_softmax _softmax_backward_data _log_softmax_backward_data nll_loss_forward
    nll_loss2d_forward mse_loss binary_cross_entropy _cdist_forward _euclidean_dist histc""".split()
DECOMPOSITIONS = """_linalg_svd linalg_svd _linalg_eigh linalg_eigh linalg_eig linalg_qr linalg_cholesky_ex
    cholesky_inverse cholesky_solve linalg_lstsq linalg_inv_ex _linalg_solve_ex linalg_lu_factor_ex linalg_lu
    linalg_lu_solve linalg_solve_triangular triangular_solve _linalg_det _linalg_slogdet linalg_pinv
    linalg_householder_product geqrf ormqr""".split()
TRANSCENDENTAL = """exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh
    sigmoid erf erfc erfinv pow rsqrt gelu gelu_backward silu silu_backward softplus softplus_backward
    log_sigmoid_forward elu mish tanh_backward sigmoid_backward lgamma digamma logaddexp""".split()
NOISY = {*PRODUCTS, *REDUCTIONS, *DECOMPOSITIONS, *TRANSCENDENTAL}
NOISY |= {f"{name}_" for name in NOISY}  # the forms that write in place, addmm_ and the like


TABLE, PIECE = 2**20, 2**18  # factors drawn for a dtype; how many numbers are moved at once

# Where the noise stands among what torch does to a call: a place that torch leaves to tests, above autograd.
# There it is called for the operators that it moves. A dispatch mode is asked about every call, views and
# optimizers included: it took four times as long as a small net's step without it, this takes 2.4 times.
PLACE = "TESTING_ONLY_GenericMode"
KEY = torch._C._parse_dispatch_key(PLACE)
ITSELF, BELOW = torch._C.DispatchKeySet(KEY), torch._C._dispatch_keyset_full_after(KEY)


def operators() -> Iterator[Any]:
    """What another processor may round differently: those of ``NOISY`` that are not made of others."""
    for name in sorted(NOISY):
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            operator = getattr(packet, overload)
            known = torch._C._dispatch_has_kernel(operator.name())  # some are of TorchScript alone
            has = functools.partial(torch._C._dispatch_has_kernel_for_dispatch_key, operator.name())
            if known and (has("CPU") or not has("CompositeImplicitAutograd")):
                yield operator


def watched(operator: Any) -> Callable[..., Any]:
    """This operator, with its floating results moved by the noise that is on."""
    in_vmap = torch._C._functorch.peek_interpreter_stack

    def run(keys: Any, *args: Any, **kwargs: Any) -> Any:
        if in_vmap() is not None:  # it comes again, with the tensors that hold the numbers
            return operator.redispatch(keys & BELOW, *args, **kwargs)
        with torch._C._ExcludeDispatchKeyGuard(ITSELF):  # what it calls in turn is part of it
            out = operator(*args, **kwargs)
            # below what counts operators, and records them
            with torch._C._DisableTorchDispatch(), torch._C._AutoDispatchBelowAutograd():
                for result in out if isinstance(out, tuple | list) else (out,):
                    if (
                        isinstance(result, Tensor)
                        and not isinstance(result, FAKE)
                        and result.is_floating_point()
                        and not result.is_meta
                        and result.numel()
                    ):
                        RoundingNoise.on[-1].move(result.data)
        return out

    return run


@functools.cache
def watch() -> list[torch.library.Library]:
    """Put the noise in its place, once in a process; they work for as long as they are kept."""
    rest = torch.library.Library("_", "IMPL", PLACE)
    rest.fallback(torch.library.fallthrough_kernel)
    ours = torch.library.Library("aten", "IMPL", PLACE)
    for operator in operators():
        ours.impl(operator, watched(operator), with_keyset=True)
    return [rest, ours]


class RoundingNoise:
    """While it is on, results that a processor may round differently are rounded differently.

    Args:
        ulps: Largest move, in units of the last place (eps of the dtype, relative to the value).
        seed: Of the noise alone.
    """

    on: list[RoundingNoise] = []  # the last one moves

    def __init__(self, ulps: float, seed: int) -> None:
        self.ulps, self.generator = ulps, torch.Generator().manual_seed(seed)
        self.place, self.tables = random.Random(seed), dict[torch.dtype, Tensor]()

    def __enter__(self) -> RoundingNoise:
        watch()
        RoundingNoise.on.append(self)
        torch._C._dispatch_tls_set_dispatch_key_included(KEY, True)
        return self

    def __exit__(self, *error: object) -> None:
        RoundingNoise.on.remove(self)
        torch._C._dispatch_tls_set_dispatch_key_included(KEY, bool(RoundingNoise.on))

    def move(self, x: Tensor) -> None:
        """Multiply the elements that are no whole numbers by 1 + u; once more rounded to x's dtype."""
        flat = x.reshape(-1)  # a view, or a copy of what lies scattered
        factors = self.factors(x.dtype)
        for part in (flat,) if flat.numel() <= PIECE else flat.split(PIECE):
            start = self.place.randrange(TABLE - PIECE)
            moved = part * factors[start : start + part.numel()]
            if moved.dtype != x.dtype:
                moved = moved.to(x.dtype)
            torch.where(part == part.round(), part, moved, out=part)
        if not x.is_contiguous():
            x.copy_(flat.view(x.shape))

    def factors(self, dtype: torch.dtype) -> Tensor:
        """The 1 + u for results of this dtype."""
        if dtype not in self.tables:
            wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
            u = torch.rand(TABLE, generator=self.generator, dtype=wide) * 2 - 1
            self.tables[dtype] = 1 + self.ulps * torch.finfo(dtype).eps * u
        return self.tables[dtype]


def wrap_scipy_and_sklearn(noise: RoundingNoise) -> None:
    """Let the noise reach what the package takes from SciPy and scikit-learn."""
    import scipy.linalg
    from sklearn.preprocessing import StandardScaler

    def moved(x: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(x).copy())
        noise.move(tensor)
        return tensor.numpy()

    eigh, fit = scipy.linalg.eigh, StandardScaler.fit

    @functools.wraps(eigh)
    def noisy_eigh(*args: Any, **kwargs: Any) -> Any:
        out = eigh(*args, **kwargs)
        return tuple(map(moved, out)) if isinstance(out, tuple) else moved(out)

    @functools.wraps(fit)
    def noisy_fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        fitted = fit(self, *args, **kwargs)
        fitted.mean_, fitted.scale_ = moved(fitted.mean_), moved(fitted.scale_)
        return fitted

    scipy.linalg.eigh = noisy_eigh
    StandardScaler.fit = noisy_fit


def enter(setting: str) -> RoundingNoise:
    """Turn the noise on for the rest of this process; ``setting`` is "ulps:seed"."""
    ulps, seed = setting.split(":")
    noise = RoundingNoise(float(ulps), int(seed))
    wrap_scipy_and_sklearn(noise)
    noise.__enter__()
    return noise


def startup(folder: Path) -> dict[str, str]:
    """Write an IPython profile whose kernels enter the noise; what to add to their environment."""
    where = folder / "profile_default" / "startup"
    where.mkdir(parents=True)
    lines = (
        f"import os, sys; sys.path.append({str(Path(__file__).parent)!r})\n"
        "import rounding_noise\n"
        f"_noise = rounding_noise.enter(os.environ[{VARIABLE!r}])\n"
        "sys.path.pop(); del rounding_noise\n"
    )
    (where / "00-rounding-noise.py").write_text(lines)
    return {"IPYTHONDIR": str(folder), VARIABLE: os.environ[VARIABLE]}
