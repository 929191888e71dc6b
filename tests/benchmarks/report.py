"""The tables of `make bench`, for the terminal and as a page of the book.

On the page each row names its run, so that rows measured anew stand beside older ones of another processor.
"""

from __future__ import annotations

import datetime
import platform
import re
import string
import subprocess
from importlib.metadata import distributions
from pathlib import Path

from claims import Row
from grading import Attack

Cells = list[str]

TABLES = {
    "speed": (
        "Speed",
        "Milliseconds of one call, the median of interleaved rounds on one thread. The value names its unit, "
        "which is the floor's too: *times as fast* is the peer's time over ours, *times as long* ours over "
        "the peer's, *passes* are over the data. Where several sizes were measured, the row shows the least "
        "favourable.",
        ("what", "ours", "peer", "value", "floor"),
    ),
    "accuracy": (
        "Accuracy",
        "Per cent of the test samples, 1000 of MNIST-5k and 360 of digits, means over 5 seeds, without "
        "fine-tuning unless the row says so; *points* are a difference of two of these. "
        "Iris: means of 400 nets. The small-rank SVD: how far its error "
        "lies above the smallest possible one. The pitch detector: 3000 synthetic tones, right within half a "
        "semitone; the net as it comes, with the taps that meet padding alone (chapter 8 leaves them out "
        "first); harm and batch norms by 300 others without labels, no training. Tucker-2 by the patches: "
        "equal ranks in the norm of the layers' outputs, by the same 300; off by, of the net's outputs, "
        "relative to their spread. The sentence encoder, "
        "all-MiniLM-L6-v2: 2000 first lines of docstrings, and whether the nearest of 2000 bodies is theirs; "
        "ranks and factors by 400 other texts without labels, no training; ours are pivoted layers, "
        "refitted, those before a sum to what the sum lacks. Adapters: the relative "
        "difference of the numbers themselves.",
        ("what", "ours", "peer", "floor"),
    ),
    "promises": (
        "Your own model",
        "What chapter 11 promises. Predictions are compared with the processor's own time, on one thread, "
        "after two seconds of measuring: N from 256 to 4096, five of the nine sizes among those measured, "
        "batches 1 to 256, ranks N/32 to N/4.",
        ("what", "ours", "peer", "bound"),
    ),
    "marking": (
        "Marking",
        "Minutes for a class of 60, two at a time. The peer is nbgrader's own run, which has the visible "
        "tests only.",
        ("what", "ours", "peer", "ceiling"),
    ),
    "attacks": (
        "Coursework under attack",
        "One class of assignment a1, marked in one run: eight students with the teacher's answers, and one "
        "for each line below, whose answer to question 4 (4 of 25 points), or whose file, does harm. What "
        "stands in code quotes is what the attacker's program said, and the feedback shows. A file that one "
        "of them wrote was on its own memory disk, and went with it.",
        ("attack", "what happened", "marks of the others"),
    ),
}
INTRO = """\
# Benchmarks

What the book claims about speed and about whole networks, measured by `make bench`: ours and its peer side by
side in one run. Ratios travel from machine to machine, times do not. A floor is the least that the project
promises; `none` promises nothing. The last column names the run; most runs did not note their commit.
"""
EQUAL_SHARES = """\
*Equal shares* cuts every layer to the same share of its weights by plain SVD. The head has ten outputs, so
its share is rank 1, and that is the first thing that fails: with the head left dense, and the others sharing
the rest, equal shares come within a point of ours at 6 % of the weights. Below that the head is not the whole
story. The other layers need different shares too, and at 1.5 % equal shares fail with either head.

*One rank with ours in all else* gives all layers the same rank, and keeps the weighted, refitted factors. It
seldom fills a budget, so the row compares the two at the share that it takes. On these classifiers a rank for
each layer, chosen by tails, gains 0.3 points at 5 % and 0.4 at 6 %, and nothing on digits at 9 %. Below, one
rank for all is ahead: by one point at 2.6 %, by five at 1.3 %, by more than thirty on digits at 3.9 %
(chapter 6 says how tails mislead). On the sentence encoder, whose ranks are chosen by measured harm, choosing
gains 2 points at 60 %, and 5 at 40 and 30 %: one rank has 46.6, 41.5 and 37.4 %, twice on the Intel of run l.
(These runs are not stored: their 32 texts of 128 tokens were 1.37 times as fast, short of the floor of 1.40,
and int8 had 48.4 %.) Try one rank for all beside any choice, and `norm=2`
for a chain that you cut deep.

*A narrow dense net* has as many weights, its hidden layers narrower in their ratio, and is trained anew on
the same labels; what is cut has seen no step since. At 6 % and 5 % the two are 0.3 and 0.2 points apart, and
on digits at 10 % the narrow net is half a point ahead. Below 5 % of MNIST-5k it leaves the cut net behind: by
1.5 points at 3 %, by more than 13 at 1.5 %, and still by 7 after fine-tuning. If you can train, train that
one.

*The sentence encoder in int8* keeps all its numbers, in a quarter of the bytes, and names the right body for
48.7 % of the texts. The cut encoder names as many with 60 % of the numbers (48.8 %), which in float32 are
more than twice these bytes; with 40 % it is 2.6 points behind int8. Without two of the six layers, which
leaves two thirds of the numbers, it is 46.6 %. Both at once, 40 % of the numbers in int8, is 40.4 %. So try
int8 first. Its speed is not measured here; chapter 9 times it.

*Counted words* are no network: TF-IDF of the same tokens, each as rare as the 400 other texts say, names the
right body for 43.7 %: about as many as the encoder with 30 % of its linear layers' numbers, and 2.4 points
fewer than with 40 %. The mean of the table's rows, with no layer at all, has 16.7 %, more than twice what the
plain SVD leaves at 40 %. The dense encoder with counted words beside it has 54.1 % (chapter 9 says what
follows).
"""
PROCESSORS = """\
Every floor was met on the processor of its run: `make bench` stores no run that falls short. The pivoted
layer hangs most on the processor. Where torch and MKL were told to use AVX2 alone, on the machine of its
run, it had 1.21 against dense, 1.22 against two factors and 0.96 at rank 3N/4, and 0.73 to 0.97 at batches 1
and 8.

On an AMD EPYC that has no more than AVX2 (that of run k), some runs fall short: of four, at N = 512,
it had 1.01 to 1.08 against dense (floor 1.05), 1.12 to 1.17 against two factors (1.05) and 0.89 to 0.93 at
rank 3N/4 (0.90). With its permutation folded into the next layer (`fold_permutations`) it had 1.13 to 1.20
against dense.

At N = 512 and one sample its four small operations cost more in calls than they save in
products: 0.81 to 0.91. Folded it has three, and is about even (0.95 to 1.06). Leave so small a layer dense,
or measure it where you use it. (All runs before those four had a forward that was slower at small batches.)
"""


def table(rows: list[Row | Attack]) -> str:
    """Plain text, a line each."""
    blocks = []
    for name, (_, _, head) in TABLES.items():
        lines = [list(head), *(row.cells() for row in rows if row.table == name)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        blocks += ["\n".join(text)] if len(lines) > 1 else []
    return "\n\n".join(blocks)


def stored_rows(page: str) -> dict[str, list[Cells]]:
    """The rows of each table of a stored page, and of its runs, by the heading above."""
    found: dict[str, list[Cells]] = {}
    for part in page.replace("\N{NO-BREAK SPACE}", " ").split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        found[heading] = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    return found


def key(row: Cells) -> str:
    """What a row is about, without the sizes at which it was worst."""
    return row[0].split(" (")[0]


def this_run() -> str:
    """Machine, versions and commit of a run."""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        told = info.read()
    names = sorted(set(re.findall(r"^model name\s*: (.+)$", told, re.M)))
    units = "AVX-512" if "avx512f" in told else "AVX2" if "avx2" in told else "neither AVX-512 nor AVX2"
    peers = (
        "torch", "numpy", "scipy", "tensorly", "tensorly-torch", "opt-einsum", "aimet-torch", "onnxruntime",
        "dask", "transformers",
    )  # fmt: skip
    there = {d.name.lower().replace("_", "-"): d.version for d in distributions()}
    versions = ", ".join(f"{peer} {there[peer]}" for peer in peers if peer in there)
    machine = f"{', '.join(names)} with {units}, {platform.system()}"
    return f"{machine}; Python {platform.python_version()}, {versions}{code(Path(__file__).parent)}"


def code(folder: Path) -> str:
    """The commit of a folder's git clone, and whether files differ from it; nothing outside of one."""
    git = ["git", "-C", str(folder)]
    try:
        commit, changed = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"; commit {commit}{' and changes' if changed else ''}"


def page(rows: list[Row | Attack], stored: str = "", run: str = "", date: str = "") -> str:
    """The page of the book: these rows, and those of a stored page that were not measured again."""
    old = stored_rows(stored)
    runs = {name: (when, machine) for name, when, machine in old.get("Runs", [])}
    new = next(letter for letter in string.ascii_lowercase if letter not in runs)
    runs[new] = (date or datetime.date.today().isoformat(), run or this_run())
    tables: dict[str, list[Cells]] = {}
    for name, (heading, _, _) in TABLES.items():
        fresh = {key(row.cells()): [*row.cells(), new] for row in rows if row.table == name}
        kept = [fresh.pop(key(line), line) for line in old.get(heading, [])]
        tables[name] = [*kept, *fresh.values()]
    used = [
        letter for letter in runs if any(line[-1] == letter for lines in tables.values() for line in lines)
    ]
    parts = [INTRO]
    for name, lines in tables.items():
        heading, told, head = TABLES[name]
        letters = [[*line[:-1], string.ascii_lowercase[used.index(line[-1])]] for line in lines]
        parts += [f"## {heading}\n", f"{told}\n", _markdown([*head, "run"], letters)]
        parts += [EQUAL_SHARES] if name == "accuracy" else []
    told_runs = [[string.ascii_lowercase[i], *runs[letter]] for i, letter in enumerate(used)]
    parts += ["## Runs\n", _markdown(["run", "date", "machine and versions"], told_runs), PROCESSORS]
    return "\n".join(parts)


def _markdown(head: Cells, lines: list[Cells]) -> str:
    """A table whose numbers stay beside their units."""
    first, *rest = [f"| {' | '.join(line)} |" for line in [head, *lines]]
    rest = [re.sub(r"(?<=\d) (?=(?:ms|min|%)(?:\W|$))", "\N{NO-BREAK SPACE}", line) for line in rest]
    return "\n".join([first, "|---" * len(head) + "|", *rest]) + "\n"
