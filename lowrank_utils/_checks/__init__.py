"""Error wording in one place: every message names the argument, its value and the limit."""

from lowrank_utils._checks.kernels import convolution, kernel, kernel_form, kernel_rank
from lowrank_utils._checks.tensors import classes_last, computes_alike, labelled, matrix, module, stacked
from lowrank_utils._checks.values import choice, integer, number, rank, real, sizes
from lowrank_utils._checks.words import (
    finite_in,
    long_run_other,
    long_run_settings,
    needs,
    no_samples,
    one_a_sample,
    packed,
    type_error,
    value_error,
)

__all__ = [
    "choice",
    "classes_last",
    "computes_alike",
    "convolution",
    "finite_in",
    "integer",
    "kernel",
    "kernel_form",
    "kernel_rank",
    "labelled",
    "long_run_other",
    "long_run_settings",
    "matrix",
    "module",
    "needs",
    "no_samples",
    "number",
    "one_a_sample",
    "packed",
    "rank",
    "real",
    "sizes",
    "stacked",
    "type_error",
    "value_error",
]
