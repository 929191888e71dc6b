"""a4: typical mistakes, the checks that they fail, and what to say. A table in the guide has the same."""

from assignments.hints import Hints

HINTS = Hints()
HINTS(
    "no-biases",
    "count-test",
    "visible parameters break_even",
    "Count a layer of 3 x 6 at rank 2 by hand, with its bias. Does it store more than the dense one, or "
    "as much?",
)
HINTS(
    "none-is-full-rank",
    "count-test",
    "visible parameters",
    "None stands for a dense layer, m n numbers: two factors of full rank store more than that.",
)
HINTS(
    "smaller-side",
    "count-test",
    "break_even",
    "min(m, n) is the largest rank that there is. At which rank do r (m + n) numbers exceed m n?",
)
HINTS(
    "by-gain-alone",
    "allocate-test",
    "ranks_of_rule",
    "A rank of a large layer costs more. What is a bargain? Write gain and cost of each layer's next "
    "rank into a table, and note which ones still fit.",
)
HINTS(
    "past-break-even",
    "allocate-test",
    "ample too_small",
    "What does a layer cost above break-even? And what should happen if not even rank 1 fits?",
)
HINTS(
    "stops-early",
    "allocate-test",
    "ranks_of_rule",
    "If the best step does not fit, another one may: the rule goes on until no layer is left.",
)
HINTS(
    "one-trap",
    "trap-test",
    "ten_times any_factor",
    "Which number in your trap sets the factor? Make it depend on the argument.",
)
HINTS(
    "too-large",
    "trap-test",
    "ten_times any_factor",
    "At most 2000 rows and columns: which energies does the trap need, and which only make it larger?",
)
HINTS(
    "no-room",
    "trap-test",
    "visible twice ten_times any_factor",
    "Sum (m + n) over the layers: rank 1 everywhere must fit your budget, with room for one of two steps.",
)
HINTS(
    "bias-as-it-was",
    "aware-test",
    "aware_free",
    "What error is left if all samples are the same? The bias can carry it.",
)
HINTS(
    "by-weight",
    "aware-test",
    "aware_fixed aware_free aware_few",
    "The inputs decide which directions matter: cut the outputs X W^T, not W.",
)
HINTS(
    "mean-forgotten",
    "aware-test",
    "visible aware_fixed aware_free aware_few",
    "You took the mean away from the inputs. Where does it come back? The bias has to carry it.",
)
HINTS(
    "by-weight",
    "hand-in-test",
    "tight_low tight_high",
    "Plain SVD is good at 3914 parameters. Look at 2800, with the inputs in mind.",
)
HINTS(
    "uniform-svd-tight",
    "hand-in-test",
    "loose tight_low tight_high",
    "Start data-aware, then train the factors.",
)
HINTS(
    "aware-not-tuned",
    "hand-in-test",
    "loose tight_high",
    "A good start. You have y too: train the factors for some epochs.",
)
HINTS(
    "dense",
    "hand-in-test",
    "visible loose tight_low tight_high",
    "It has the right form, and that is all: count its numbers against the table's first column.",
)
HINTS(
    "no-layers",
    "hand-in-test",
    "visible form loose tight_low tight_high",
    "Compare your list with `layers`: as many entries, each a tuple of tensors, the sizes of the layers "
    "as they were.",
    raises="TypeError",
)
HINTS(
    "narrower",
    "hand-in-test",
    "visible form loose tight_low tight_high",
    "The sizes were given: 64, 128, 64, 10. Which matrices have these sizes and fewer numbers?",
)
