"""a3: typical mistakes, the checks that they fail, and what to say. A table in the guide has the same."""

from assignments.hints import Hints

HINTS = Hints()
HINTS(
    "dense",
    "forward-test",
    "thin",
    "Count the multiplications of both orders for one sample: (x V^T) U^T, or x (U V)^T?",
    raises="RuntimeError",
)
HINTS(
    "bias-always",
    "forward-test",
    "no_bias",
    "What is x + None?",
    raises="TypeError",
)
HINTS(
    "one-sample-a-column",
    "forward-test",
    "leading",
    "x may have no leading dimension, or two. Which of the two products works on the last dimension alone?",
    raises="RuntimeError",
)
HINTS(
    "dense",
    "gradients-test",
    "gradients_thin",
    "Count again, for the gradient: which product is m x n? Both gradients can do without it.",
    raises="RuntimeError",
)
HINTS(
    "two-dimensions",
    "gradients-test",
    "gradients_batched",
    "A transformer passes (batch, words, n): flatten the leading dimensions first.",
    raises="RuntimeError",
)
HINTS(
    "autograd",
    "gradients-test",
    "by_hand",
    "Right numbers; the question asks for the products. Write them down and keep the shapes beside them.",
    raises="RuntimeError",
)
HINTS(
    "default-layers",
    "init-test",
    "variance balanced_start two_layers",
    "A default layer has variance 1/(3 fan-in). Multiply the two, and sum over r.",
)
HINTS(
    "global-draws",
    "init-test",
    "own_generator two_layers same_scale",
    "The layer must be repeatable from `generator` alone. And measure both ratios before you state them.",
)
HINTS(
    "all-the-scale-in-v",
    "init-test",
    "balanced_start",
    "The product is right. Print the squared norms of U and V: where could a factor move from one to "
    "the other?",
)
HINTS(
    "aliased",
    "from-linear-test",
    "balanced bias",
    "Compare U^T U with V V^T. Then change your bias and look at the layer's.",
)
HINTS(
    "any-rank",
    "from-linear-test",
    "bad_rank",
    "What does S[:rank] do for rank 0, and for a rank above min(m, n)? Nobody is told.",
)
HINTS(
    "v-not-vh",
    "from-linear-test",
    "visible best balanced",
    "torch.linalg.svd returns Vh. Print its shape for a layer that is not square.",
)
HINTS(
    "no-inner-bias",
    "fold-test",
    "visible square_core other_core count",
    "Put x = 0 through all three layers.",
)
HINTS(
    "inner-size-of-v",
    "fold-test",
    "other_core count",
    "With a core of 2 x 4, which inner size costs less: 2 or 4? The core can go to either side.",
)
HINTS(
    "weights-counted-only",
    "fold-test",
    "visible count",
    "The text counts biases too: the first two disappear with the layers.",
)
HINTS(
    "one-after-the-other",
    "step-test",
    "factored_step rank_after",
    "A gradient step takes all gradients at one point: keep the old U until V has moved. What is the "
    "rank of G^T X for one sample?",
)
HINTS(
    "not-cut",
    "step-test",
    "visible dense_step",
    "First cut W, then take the gradient at what is left.",
)
HINTS(
    "no-limit",
    "step-test",
    "dense_step factored_step rank_after",
    "The loss is the mean over the samples, not the sum. And no rank is above min(m, n).",
)
