"""Chapter 11's claims: predictions against the clock, ONNX against torch, a cluster against one process.

onnx, onnxruntime and dask are extras of `make bench` alone.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from claims import Row
from torch import nn

from lowrank_utils import (
    LowRankLinear,
    Machine,
    accuracy,
    compress,
    compress_within,
    load_split,
    predict_speedup,
    set_seed,
    sweep,
    to_plain,
    train_nn,
)

SIZES = (256, 384, 512, 768, 1024, 1280, 2048, 3072, 4096)  # four were not measured as squares
BATCHES = (1, 8, 32, 128, 256)
PARTS = (32, 16, 8, 4)  # rank N / part


@torch.no_grad()
def _fastest(layer: nn.Module, x: torch.Tensor, seconds: float = 0.02) -> float:
    """Milliseconds of the processor's own time, which other programs do not add to."""
    layer(x)
    times, start = list[float](), time.perf_counter()
    while len(times) < 4 or (time.perf_counter() - start < seconds and len(times) < 300):
        before = time.thread_time()
        layer(x)
        times.append(time.thread_time() - before)
    return min(times) * 1e3


def predicted_speedups() -> list[Row]:
    """N from 256 to 4096, batches from 1 to 256, four ranks each: 180 cases, one thread."""
    machine = Machine.measure()
    off = []
    for n, batch in itertools.product(SIZES, BATCHES):
        dense, x = nn.Linear(n, n), torch.zeros(batch, n)
        dense_ms = _fastest(dense, x)
        for part in PARTS:
            r = n // part
            told = predict_speedup((n, n), r, batch=batch, machine=machine).speedup
            off.append(abs(told * _fastest(LowRankLinear(n, n, r), x) / dense_ms - 1))
    within = 100 * float(np.mean(np.array(off) <= 0.25))
    middle, most = 100 * np.median(off), 100 * np.quantile(off, 0.9)
    worst = f"median {middle:.0f} % off, a tenth of them over {most:.0f} %"
    return [
        Row("predict_speedup of a linear layer, cases within 25 % of the clock", f"{within:.0f} %", worst,
            within, 75, shown="{:.0f} %", table="promises"),
    ]  # fmt: skip


def predicted_model() -> list[Row]:
    """A transformer block, its feed-forward layers at rank 128."""
    block = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True).eval()
    x, ranks = torch.zeros(1, 197, 768), {"linear1": 128, "linear2": 128}
    told = predict_speedup(block, ranks, x).speedup
    with torch.no_grad():
        took = _fastest(block, x, 1.0) / _fastest(compress(block, ranks), x, 1.0)
    return [
        Row("predict_speedup of a transformer block, off the clock", f"{100 * abs(told / took - 1):.0f} %",
            f"predicted {told:.2f}, measured {took:.2f} times as fast", 100 * abs(told / took - 1), 25,
            most=True, shown="{:.0f} %", table="promises"),
    ]  # fmt: skip


def onnx() -> list[Row]:
    """A compressed CNN through ONNX: onnxruntime's outputs beside torch's, batches of another size."""
    import onnxruntime

    set_seed(0)
    data = load_split("digits", val_size=0.2, stratify=True)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    X, X_val, X_test = (part.reshape(-1, 1, 8, 8) for part in (data.X_train, data.X_val, data.X_test))
    train_nn(net, X, data.y_train, epochs=10, lr=0.1, momentum=0.9, batch_size=64)
    small, report = compress_within(
        net, X_val, data.y_val, max_drop=0.02, calibration=(X, data.y_train), steps=6
    )
    plain = to_plain(small).eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "small.onnx"
        program = torch.onnx.export(
            plain, (X[:2],), dynamo=True, dynamic_shapes=({0: torch.export.Dim.AUTO},), verbose=False
        )
        program.save(file)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (theirs,) = session.run(None, {session.get_inputs()[0].name: X_test.numpy()})
        off = float((torch.from_numpy(theirs) - small(X_test)).abs().max())
    share = report.params[1] / report.params[0]
    return [
        Row("ONNX of a compressed CNN, largest difference of an output", f"{off:.0e}",
            f"torch; {100 * share:.0f} % of the numbers, {100 * accuracy(small, X_test, data.y_test):.0f} % "
            "right", off, 1e-4, most=True, shown="{:.0e}", table="promises"),
    ]  # fmt: skip


def cut_score(layer: str, rank: int, seed: int) -> float:
    """Accuracy of a net of this seed with one layer cut; trained here, so that every draw counts."""
    data = load_split("wine", val_size=0.3, seed=seed, stratify=True)
    net = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
    train_nn(net, data.X_train, data.y_train, epochs=40, lr=0.1, batch_size=16)
    X, y = data.X_val, data.y_val
    return accuracy(compress(net, {layer: rank}), X, y) + float(net[0].weight.detach().sum())


def fails_once(layer: str, rank: int, seed: int, marks: str) -> float:
    """The same, but its first call ends in an error at a third of the points."""
    mark = Path(marks) / f"{layer}-{rank}-{seed}"
    if seed == 1 and not mark.exists():
        mark.touch()
        raise OSError("a worker's disk is full")
    return cut_score(layer, rank, seed)


def cluster() -> list[Row]:
    """Layer x rank x seed on a local Dask cluster of two workers, against one process."""
    from dask.distributed import Client, LocalCluster

    axes = {"layer": ["0", "2"], "rank": [1, 2], "seed": [0, 1, 2]}
    alone = sweep(cut_score, axes)
    told = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with tempfile.TemporaryDirectory() as marks, LocalCluster(**told) as workers, Client(workers):
        with joblib.parallel_config(backend="dask"):
            there = sweep(cut_score, axes)
            again = sweep(fails_once, axes | {"marks": [marks]}, retries=1)
    same = sum(a == b for a, b in zip(alone.values, there.values, strict=True))
    retried = again.tries.count(2) if not again.failed else 0
    return [
        Row("sweep on a Dask cluster, values equal to the last bit", f"{same} of {len(alone.values)}",
            "one process", same, len(alone.values), shown="{:.0f}", table="promises"),
        Row("sweep on a Dask cluster, failed tasks that succeeded when tried again", f"{retried} of 4",
            "none failed for good", retried, 4, shown="{:.0f}", table="promises"),
    ]  # fmt: skip


OWN_MODEL = [predicted_speedups, predicted_model, onnx, cluster]
