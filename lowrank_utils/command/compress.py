"""``compress``: the smallest program that keeps a metric within a drop, in plain torch."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lowrank_utils.command.arrays import Arrays, pair
from lowrank_utils.command.programs import (
    check_one_input,
    checked_output,
    layers_in,
    read_program,
    warn_of_training,
    write_program,
)
from lowrank_utils.command.said import Refused, as_json, first_line
from lowrank_utils.command.signature import example, export_like
from lowrank_utils.cost.macs import count_macs
from lowrank_utils.model.metrics import accuracy, auc
from lowrank_utils.network.plain import to_plain
from lowrank_utils.network.report import Report
from lowrank_utils.network.within import compress_within

METRICS = {"accuracy": accuracy, "auc": auc}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command is told."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL.pt2", help="what torch.export.save wrote: a program of one input"
    )
    parser.add_argument(
        "--data",
        metavar="FILE.npz",
        required=True,
        help="arrays X_val and y_val, on which the ranks are chosen; if they are there, X_train and y_train "
        "to calibrate on, and X_test and y_test for the report; floating ones are cast to MODEL's dtype",
    )
    parser.add_argument(
        "--max-drop", type=float, required=True, help="largest drop of the metric, 0.01 for a point"
    )
    parser.add_argument(
        "--output",
        metavar="SMALL.pt2",
        required=True,
        help="where to write the smaller program, which takes what MODEL takes",
    )
    parser.add_argument("--metric", choices=sorted(METRICS), default="accuracy")
    parser.add_argument("--skip", nargs="+", default=[], metavar="LAYER", help="layers to leave dense")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(told: argparse.Namespace, say: Any) -> tuple[int, str]:
    """Compress and write: 0 and what was done; or 1, where nothing smaller keeps the metric."""
    output = checked_output(Path(told.output))
    if not 0 <= told.max_drop < math.inf:
        raise Refused("--max-drop", told.max_drop, "a finite number >= 0")
    say("reading program and data")
    program, model = read_program(told.model)
    check_one_input(program)
    warn_of_training(program)
    arrays = Arrays("--data", Path(told.data), program)
    validation = pair("--data", arrays, "val", needed=True)
    calibration = pair("--data", arrays, "train", needed=False)
    test = pair("--data", arrays, "test", needed=False)
    if validation is None:
        raise Refused("--data", sorted(arrays), "arrays among which are X_val and y_val")
    X, y = validation
    _check_layers(told, model)
    say("trying the program, on the data and in another export")
    metric = METRICS[told.metric]
    with _blaming_data(told.data):
        macs = [_macs_a_sample(model, X)]
    with _blaming_data("X_test and y_test"):
        scores = [] if test is None else [metric(model, *test)]
    call = example(program, X)
    export_like(model, program, told.model, call)
    say("choosing ranks")
    with _blaming_data(told.data):
        small, report = compress_within(
            model, X, y, max_drop=told.max_drop, metric=told.metric, calibration=calibration, skip=told.skip
        )
    if report.feasible:
        say("writing")
        write_program(export_like(to_plain(small).eval(), program, told.model, call), output)
    card: dict[str, Any] = {
        "feasible": report.feasible,
        "metric": told.metric,
        "max_drop": told.max_drop,
        "params": report.params,
        "macs_a_sample": [*macs, _macs_a_sample(small, X)],
        "validation": [report.baseline, report.score],
        "ranks": {row.layer: row.rank for row in report.layers},
    }
    if test is not None:
        card["test"] = [*scores, metric(small, *test)]
    if report.feasible:
        card["written"] = str(output)
    return 0 if report.feasible else 1, as_json(card) if told.json else _text(card, report)


def _check_layers(told: argparse.Namespace, model: nn.Module) -> None:
    """Check that there are layers to cut, and some that are not to be skipped."""
    unknown = sorted(set(told.skip) - {name for name, _ in model.named_modules()})
    if unknown:
        raise Refused("--skip", unknown[0], f"one of the layers {[n for n, _ in model.named_children()]}")
    layers = layers_in(model, told.model)
    if set(layers) <= set(told.skip):
        raise Refused("--skip", told.skip, f"fewer than all layers that can have a rank, {layers}")


def _macs_a_sample(model: nn.Module, X: Tensor) -> int:
    """MACs of the first sample alone; of a program that takes no batch of one, the mean of all."""
    try:
        return count_macs(model, X[:1])
    except (RuntimeError, ValueError, TypeError, IndexError):
        return round(count_macs(model, X) / len(X))


@contextmanager
def _blaming_data(which: str) -> Iterator[None]:
    """Refuse the data where the model cannot be called with them, or no metric be taken."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        limit = f"data that the model can be called with and scored on ({first_line(error)})"
        raise Refused("--data", which, limit) from error


def _text(card: Mapping[str, Any], report: Report) -> str:
    """What was found, for people."""
    lines = [str(report), "MACs a sample: {:,} -> {:,}".format(*card["macs_a_sample"])]
    if "test" in card:
        lines.append("test data: {} {:.4f} -> {:.4f}".format(card["metric"], *card["test"]))
    if "written" in card:
        lines.append(f"written: {card['written']}")
    return "\n".join(lines)
