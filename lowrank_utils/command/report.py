"""``report``: which layers hold a model's numbers, multiply-adds and time, and what a rank could save."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lowrank_utils.command.arrays import read_inputs
from lowrank_utils.command.programs import layers_in, read_program
from lowrank_utils.command.said import Refused, as_json, first_line
from lowrank_utils.cost.survey import survey


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command is told."""
    parser.add_argument("model", type=Path, metavar="MODEL.pt2", help="what torch.export.save wrote")
    parser.add_argument(
        "--input",
        metavar="SHAPE|FILE",
        help="8x3x224x224 for random numbers, or a .npy or .npz file, whose arrays have the names of the "
        "inputs (or arr_0, arr_1 ..); by default what it was exported with",
    )
    parser.add_argument("--no-timing", action="store_true", help="counts alone, no predicted times")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(told: argparse.Namespace, say: Any) -> tuple[int, str]:
    """The survey, with 0."""
    say("reading the program")
    program, model = read_program(told.model)
    layers_in(model, told.model)
    inputs = read_inputs(told.input, program)
    say("counting" if told.no_timing else "counting, and timing this machine")
    try:
        found = survey(model, *inputs, timing=not told.no_timing)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shapes = [tuple(getattr(x, "shape", ())) for x in inputs]
        limit = f"what the model can be called with ({first_line(error)})"
        raise Refused("--input", shapes, limit) from error
    if not told.json:
        return 0, str(found)
    card: dict[str, Any] = {
        "params": found.params,
        "macs": found.macs,
        "params_share": found.params_share,
        "macs_share": found.macs_share,
        "not_counted": dict(found.not_counted),
        "layers": [asdict(row) for row in found.rows],
    }
    if found.prediction is not None:
        both = found.prediction
        card["at_half"] = {
            "dense_ms": both.dense_ms,
            "low_rank_ms": both.low_rank_ms,
            "speedup": both.speedup,
        }
    return 0, as_json(card)
