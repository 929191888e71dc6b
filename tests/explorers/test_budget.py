"""What the budget explorer embeds, counted anew from the networks that compress_within tried."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch
from bs4 import BeautifulSoup
from torch import nn

from lowrank_utils import (
    BudgetExplorer,
    accuracy,
    calibrate,
    cascade,
    compress_within,
    count_macs,
    count_params,
    set_seed,
    train_nn,
    weighted_factors,
)


def trained(seed=0):
    """A 12-16-12-3 net in double precision, and the data it was trained on."""
    set_seed(seed)
    X = torch.randn(240, 12, dtype=torch.float64)
    y = (X[:, :4].sum(1) > 0).long() + (X[:, 4] > 0.5).long()
    layers = [nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)]
    net = nn.Sequential(*layers).double()
    train_nn(net, X, y, epochs=150, momentum=0.9)
    return net, X, y


@pytest.fixture(scope="module")
def tried():
    net, X, y = trained()
    return net, X, y, compress_within(net, X, y, max_drop=0.03, steps=6)[1]


def unpack(explorer):
    soup = BeautifulSoup(explorer._repr_html_(), "html.parser")
    root = soup.select_one(".lowrank-explorer[data-kind=budget]")
    return json.loads(root["data-explorer"])


def test_every_network_is_as_embedded(tried):
    net, X, y, report = tried
    page, moments = unpack(BudgetExplorer(report)), calibrate(net, X, y)
    names = [layer["name"] for layer in page["layers"]]
    assert names == ["0", "2", "4"] and len(page["networks"]) == len(report.tried) + 1 >= 6
    for network in page["networks"][:-1]:
        ranks = {name: r for name, r in zip(names, network["ranks"], strict=True) if r}
        small = cascade(net, ranks, X, moments, stretch=1.0)
        assert network["params"] == count_params(small)
        assert network["macs"] == count_macs(small, X[:1])
        assert network["score"] == round(accuracy(small, X, y), 4)
        for name, r, weights, error in zip(
            names, network["ranks"], network["weights"], network["errors"], strict=True
        ):
            (m, n), energy = (
                net.get_submodule(name).weight.shape,
                weighted_factors(net.get_submodule(name).weight, moments[name]).S.square(),
            )
            assert weights == (r * (m + n) if r else m * n)
            assert error == (round(float((energy[r:].sum() / energy.sum()).sqrt()), 3) if r else 0)


def test_the_dense_network_comes_last(tried):
    net, X, y, report = tried
    page = unpack(BudgetExplorer(report))
    sizes = [network["params"] for network in page["networks"]]
    assert sizes == sorted(set(sizes)) and sizes[-1] == count_params(net)
    last = page["networks"][-1]
    assert (last["ranks"], last["errors"], last["macs"]) == ([0] * 3, [0] * 3, count_macs(net, X[:1]))
    assert last["score"] == page["baseline"] == round(accuracy(net, X, y), 4)


def test_the_slider_starts_at_what_was_returned(tried):
    report = tried[3]
    page = unpack(BudgetExplorer(report, name="net", score="accuracy"))
    assert page["networks"][page["slider"]["start"] - 1]["params"] == report.params[1]
    assert page["slider"]["marks"] == {str(page["chosen"]): "returned"}
    assert (page["name"], page["score"], page["drop"], page["feasible"]) == ("net", "accuracy", 0.03, True)
    nothing = dataclasses.replace(report, feasible=False, params=(report.params[0],) * 2)
    page = unpack(BudgetExplorer(nothing))
    assert page["slider"]["start"] == len(page["networks"]) and not page["feasible"]


def test_a_layer_called_twice_costs_twice():
    set_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), nn.Flatten(), nn.Linear(12, 2)).double()
    X = torch.randn(40, 2, 6, dtype=torch.float64)  # each sample sends two rows through "0" and "2"
    y = torch.arange(40) % 2
    page = unpack(BudgetExplorer(compress_within(net, X, y, max_drop=1.0, steps=3)[1]))
    assert page["networks"][-1]["macs"] == count_macs(net, X[:1]) == 2 * (48 + 48) + 24


PRINT = """
import hashlib, torch
from test_budget import *
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
net, X, y = trained()
page = BudgetExplorer(compress_within(net, X, y, max_drop=0.03, steps=6)[1])._repr_html_()
print(hashlib.sha256(page.encode()).hexdigest())
"""


def hashed(**environment):
    folder = os.path.dirname(__file__)
    ran = subprocess.run(
        [sys.executable, "-c", PRINT],
        env=os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_same_bytes_from_run_to_run_and_on_another_processor():
    first = hashed()
    assert hashed(OMP_NUM_THREADS="2") == first
    assert hashed(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE") == first


def test_without_scripts_one_sentence_tells_the_result(tried):
    report = tried[3]
    soup = BeautifulSoup(BudgetExplorer(report, name="<b>net</b>")._repr_html_(), "html.parser")
    (before, after), text = report.params, soup.p.text
    assert text.startswith(f"<b>net</b>: networks of {min(report.tried)} to {before} parameters were tried.")
    assert text.endswith(
        f"{after} parameters, validation score {report.score:.4f} after {report.baseline:.4f}."
    )
    assert soup.find("b") is None and not soup.find_all(src=True)


def test_repr(tried):
    report = tried[3]
    sizes = f"{min(report.tried)} to {report.params[0]} parameters"
    text = repr(BudgetExplorer(report, name="net"))
    assert text == f"BudgetExplorer('net', 3 layers, {len(report.tried)} networks from {sizes})"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"report": {}}, TypeError, "report={} must be a Report"),
        ({"name": 3}, TypeError, "name=3 must be a string"),
        ({"score": None}, TypeError, "score=None must be a string"),
    ],
)
def test_bad_arguments(tried, change, error, message):
    arguments = {"report": tried[3]} | change
    with pytest.raises(error, match=message):
        BudgetExplorer(arguments.pop("report"), **arguments)


def test_a_report_of_nothing(tried):
    with pytest.raises(ValueError, match="report.tried={} must be of one network at least"):
        BudgetExplorer(dataclasses.replace(tried[3], tried={}))
