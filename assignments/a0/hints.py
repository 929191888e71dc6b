"""a0: typical mistakes, the checks that they fail, and what to say. A table in the guide has the same."""

from assignments.hints import Hints

HINTS = Hints()
HINTS(
    "review-mixed-up",
    "review-test",
    "A B E",
    "Overfitting may be there, but does the claim fail by it? B counts what is not stored, E leaves out "
    "what is.",
)
HINTS(
    "review-not-finished",
    "review-test",
    "visible A H",
    "Two passages have no diagnosis yet: for A, ask what 30 other flowers would say; for H, call it "
    "with one flower and with 90.",
    raises="KeyError",
)
HINTS(
    "constants",
    "review-test",
    "visible B C D E F G H",
    "Each diagnosis fits one passage at most: for each passage, write down what its last sentence "
    "claims, then change one thing and run it again.",
)
HINTS(
    "still-dense",
    "cut-test",
    "visible smaller stays_low",
    "Sum the parameters of the new layer. Then train one step and print the rank.",
)
HINTS(
    "factors-share-the-bias",
    "cut-test",
    "gentle",
    "Train the new layer, then look at the old one: a bias that two layers hold changes in both. Clone it.",
)
HINTS(
    "a-bias-in-both",
    "cut-test",
    "visible smaller",
    "Print the shape of every parameter of the new layer: which of the two parts needs a bias?",
)
HINTS(
    "core-transposed",
    "fold-test",
    "square_core unequal any_number",
    "Transpose the product on paper. A 1 x 1 core is its own transpose, so rank 1 cannot show it.",
    raises="RuntimeError ValueError",
)
HINTS(
    "only-the-last-bias",
    "fold-test",
    "visible bias_too any_number",
    "Put in x = 0. What do the first layers send on?",
)
HINTS(
    "three-layers-only",
    "fold-test",
    "any_number",
    "The lists may have any length: start with the first layer and go on with one layer at a time.",
    raises="ValueError",
)
HINTS(
    "never-trained",
    "learned-test",
    "has_learned",
    "What is the accuracy of the net that you return, before anybody else trains it?",
)
HINTS(
    "seed-forgotten",
    "learned-test",
    "seeded share_of_W",
    "Call it twice with the same seed. For the distance, multiply both matrices by 10: should they be "
    "further apart?",
)
HINTS(
    "of-the-norms",
    "learned-test",
    "share_of_W",
    "Two matrices of the same norm can be far apart: W and -W. Subtract first, then take the norm.",
)
HINTS(
    "as-in-the-notebook",
    "cost-test",
    "visible one_sample any_batch no_trace with_core without_core",
    "Call it twice with one flower, then with 90. For the rank, write down the shapes of the three parts.",
)
HINTS(
    "over-the-modules",
    "cost-test",
    "called_twice",
    "A layer that is called twice is stored once and computed twice: count while the net runs.",
)
HINTS(
    "multiply-adds",
    "cost-test",
    "one_sample with_core without_core",
    'A multiply-add is 2 FLOPs. And "no more than" allows as many.',
)
HINTS(
    "constants",
    "cost-test",
    "visible one_sample any_batch no_trace called_twice with_core without_core",
    "Two nets need two numbers: call your function with a small net and a large one.",
)
HINTS(
    "above-one",
    "luck-test",
    "even votes",
    "What is p when the nets agree everywhere? And alpha is for both directions together.",
)
HINTS(
    "one-direction",
    "luck-test",
    "visible differ even",
    '"At least as uneven, in either direction": the sum is over one tail, and there are two.',
)
HINTS(
    "constants",
    "luck-test",
    "visible differ even votes",
    "Put in a pair of nets of which one is right six times alone, then the formula by hand.",
)
