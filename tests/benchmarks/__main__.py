"""Measure every claim about speed and accuracy, side by side with its peer: `make bench`.

One thread, interleaved rounds, medians; ratios, since seconds depend on the machine. Exits with 1 where a
figure falls short of its floor; otherwise `--store` writes the tables to book/benchmarks.md. With names of
claims it measures these alone, and puts their rows in the place of the stored ones.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import torch
from adapters import adapter_against_peft
from claims import CLAIMS, Row
from convolutions import CONVOLUTIONS
from decompositions import DECOMPOSITIONS
from encoder import ENCODER
from grading import Attack, coursework, robustness
from networks import NETWORKS
from own_model import OWN_MODEL
from pitch import pitch_by_draw, pitch_by_patches, pitch_detector
from report import page, table, this_run
from tqdm import tqdm

STORED = Path(__file__).parents[2] / "book" / "benchmarks.md"


def main() -> int:
    torch.set_num_threads(1)
    chosen = [word for word in sys.argv[1:] if not word.startswith("-")]
    known = [
        *CLAIMS, *NETWORKS, *DECOMPOSITIONS, *CONVOLUTIONS, *ENCODER, *OWN_MODEL,
        pitch_detector, pitch_by_draw, pitch_by_patches, adapter_against_peft, coursework, robustness,
    ]  # fmt: skip
    unknown = set(chosen) - {claim.__name__ for claim in known}
    if unknown:
        print(f"no claim is called {', '.join(sorted(unknown))}; there are", *(c.__name__ for c in known))
        return 2
    run = this_run() if "--store" in sys.argv else ""  # before anything is committed meanwhile
    claims = [claim for claim in known if not chosen or claim.__name__ in chosen]
    rows: list[Row | Attack] = []
    broken: list[str] = []
    for claim in tqdm(claims, desc="bench", unit="claim"):
        try:
            rows += claim()
        except Exception:  # an hour of others is not lost
            traceback.print_exc()
            broken.append(claim.__name__)
    print(table(rows))
    short = [row for row in rows if not row.reached]
    if "--store" in sys.argv and not short and not broken:
        stored = STORED.read_text(encoding="utf-8") if chosen else ""
        STORED.write_text(page(rows, stored, run), encoding="utf-8")
    print(f"{len(rows)} figures, {len(short)} below their floor" + "".join(f"\n- {r.claim}" for r in short))
    print("".join(f"{name} ended in an error, printed above\n" for name in broken), end="")
    return bool(short or broken)


if __name__ == "__main__":
    raise SystemExit(main())
