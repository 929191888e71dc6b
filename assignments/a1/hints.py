"""a1: typical mistakes, the checks that they fail, and what to say. A table in the guide has the same."""

from assignments.hints import Hints

HINTS = Hints()
HINTS(
    "v-not-vh",
    "truncate-test",
    "visible nearest full",
    "torch.linalg.svd returns Vh, not V. Print its shape for a matrix that is not square, and multiply "
    "all three factors before you cut.",
)
HINTS(
    "one-shape",
    "truncate-test",
    "bad_rank untouched",
    "Which side of a wide matrix is the smaller one? And what if somebody works in float64?",
)
HINTS(
    "nothing-done",
    "truncate-test",
    "visible nearest full bad_rank untouched",
    "Start with the SVD of W, all three factors, and check that their product is W. Then keep the first r.",
)
HINTS(
    "head-from-whole",
    "error-test",
    "small_error zero_error",
    "1 - 0.99999999 has no correct digit left in float32: sum the tail. And what is 0 / 0?",
)
HINTS(
    "without-squares",
    "error-test",
    "visible right_error small_error",
    "The squared Frobenius norm is the sum of the squares of the singular values.",
)
HINTS(
    "nothing-done",
    "error-test",
    "visible right_error small_error zero_error",
    "Call it with rank 0, then with the full rank: the two answers are known without any SVD.",
)
HINTS(
    "by-energy",
    "rank-for-test",
    "visible smallest",
    "The error is the square root of the energy's share: 1 % of the energy is 10 % error.",
)
HINTS(
    "from-one",
    "rank-for-test",
    "visible ends",
    "Rank 0 is a rank. What is its error?",
)
HINTS(
    "one-too-large",
    "rank-for-test",
    "visible smallest ends",
    "S[r:] is what rank r loses. Print r beside its error for a matrix of five rows.",
)
HINTS(
    "global-seed",
    "search-test",
    "repeatable",
    "Whoever calls you loses their own random numbers if you call torch.manual_seed: make a torch.Generator.",
)
HINTS(
    "from-one",
    "search-test",
    "same_draws",
    "The last trial is not the best one. With one trial you cannot see it: try 1, 7 and 40.",
)
HINTS(
    "nothing-done",
    "search-test",
    "visible same_draws repeatable",
    "Call it with two seeds and with two matrices: the answers must differ.",
)
HINTS(
    "weights-only",
    "output-test",
    "visible outputs few_samples",
    "Truncating W gives the smallest error of the weights. Which error is asked for?",
)
HINTS(
    "cholesky",
    "output-test",
    "few_samples",
    "With fewer samples than inputs, X^T X has no Cholesky factor. Is there a way without it?",
    raises="_LinAlgError",
)
HINTS(
    "nothing-done",
    "output-test",
    "visible outputs few_samples",
    "Print the rank of what you return.",
)
