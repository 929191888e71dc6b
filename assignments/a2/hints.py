"""a2: typical mistakes, the checks that they fail, and what to say. A table in the guide has the same."""

from assignments.hints import Hints

HINTS = Hints()
HINTS(
    "bisection-for-a-search",
    "search-test",
    "visible smallest safe_rank nothing equality gaps",
    "You have the whole curve. Why skip ranks? Look at every one.",
    raises="KeyError",
)
HINTS(
    "in-the-order-of-the-dict",
    "search-test",
    "equality gaps",
    "Print 0.97 - 0.96. And a dict keeps the order in which it was filled: sort the ranks.",
)
HINTS(
    "strictly-less",
    "search-test",
    "equality",
    '"At most" allows equality, and floating point puts 0.97 - 0.96 above 0.01: leave room for rounding.',
)
HINTS(
    "long-curves",
    "bisect-test",
    "furthest shortest",
    "Write down which ranks the bisection asks for. All others are yours to choose. How few ranks does "
    "that take?",
)
HINTS(
    "always-rising",
    "bisect-test",
    "visible misses furthest infeasible shortest",
    "On a curve that rises the bisection is right. Which ranks does it never look at?",
)
HINTS(
    "for-one-baseline",
    "bisect-test",
    "misses infeasible shortest",
    "The scores must follow the arguments baseline and max_drop: another caller passes other ones.",
)
HINTS(
    "all-leaks",
    "leak-test",
    "visible kept_features scaling rank_on_validation honest_accuracy",
    "Change one row of the test part. Which of the five values change, and in which line do they come up?",
)
HINTS(
    "only-scaling-mended",
    "leak-test",
    "visible kept_features rank_on_validation honest_accuracy",
    "Scaling is the famous leak, and on the die it changes nothing. What chose the features?",
)
HINTS(
    "rank-still-on-test",
    "leak-test",
    "rank_on_validation honest_accuracy",
    "The best of ten tries on the test part is no test any more: which part may choose?",
)
HINTS(
    "reports-validation",
    "leak-test",
    "honest_accuracy",
    "Those samples chose the rank, so they flatter it. Report on samples that chose nothing.",
)
HINTS(
    "normal-interval",
    "interval-test",
    "visible inner all_or_none other_confidence many needed",
    "What does your interval say of 30 of 30? Start from the two equations in the text and solve them "
    "by bisection.",
)
HINTS(
    "small-n-and-95-only",
    "interval-test",
    "other_confidence many needed",
    "math.comb(2000, 1000) is no float: take logarithms, math.lgamma. And 0.025 belongs to one "
    "confidence only.",
    raises="OverflowError",
)
HINTS(
    "wilson",
    "interval-test",
    "visible inner all_or_none other_confidence many",
    "This is another interval (Wilson's?): close, but the text asks for the exact one, by the binomial "
    "tails.",
)
HINTS(
    "peeks-and-naive",
    "splits-test",
    "rank_by_split full_net_stays overlap",
    "Who chose the rank? And the splits share their samples, so their scores are not independent: see "
    "Nadeau and Bengio (2003).",
)
HINTS(
    "drops-a-split-and-1.96",
    "splits-test",
    "full_net_stays overlap confidence",
    "Leaving out the failures flatters the mean. And with 8 splits the quantile is 2.36, not 1.96.",
)
HINTS(
    "never-cut",
    "splits-test",
    "visible rank_by_split score_on_test full_net_stays",
    "Which rank loses nothing at all on validation? Look for the smallest one that is feasible there.",
)
HINTS(
    "reports-the-promise",
    "splits-test",
    "visible score_on_test full_net_stays",
    "The validation score is the promise. What was kept?",
)
