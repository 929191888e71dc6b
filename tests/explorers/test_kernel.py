"""The kernel explorer's numbers, decoded from its HTML as the script does, and that they never change."""

import base64
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from torch import nn

from lowrank_utils import KernelExplorer, LowRankConv, conv_options

CONVS = {
    "pictures": lambda: nn.Conv2d(6, 10, 3, padding=1),
    "wide": lambda: nn.Conv2d(12, 4, (2, 5)),
    "sound": lambda: nn.Conv1d(4, 9, 16, stride=2),
    "one filter": lambda: nn.Conv2d(1, 1, 9),
    "1 x 1": lambda: nn.Conv2d(16, 12, 1),
}


def made(kind, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CONVS[kind]()


def unpack(explorer):
    soup = BeautifulSoup(explorer._repr_html_(), "html.parser")
    return json.loads(soup.select_one(".lowrank-explorer")["data-explorer"])


def filters(text, page):
    """Integers (ranks, filters, taps) times the step."""
    K = math.prod(page["shape"][2:])
    integers = np.frombuffer(base64.b64decode(text), np.int8).astype(float)
    return page["step"] * integers.reshape(-1, len(page["filters"]), K)


@pytest.mark.parametrize("kind", CONVS)
def test_filters_are_those_of_the_layer_in_every_form_at_every_rank(kind):
    conv = made(kind)
    page = unpack(KernelExplorer(conv))
    places = [(o - 1, i - 1) for o, i in page["filters"]]
    norms = conv.weight.detach().flatten(2).norm(dim=2)
    assert [float(norms[at]) for at in places] == pytest.approx(
        norms.flatten().sort().values.flip(0)[: len(places)].tolist()
    )
    before = torch.stack([conv.weight.detach()[at].flatten() for at in places]).numpy()
    assert np.abs(filters(page["before"], page)[0] - before).max() <= 0.501 * page["step"]
    for form, told in page["forms"].items():
        after = filters(told["after"], page)
        assert len(after) == len(told["ranks"])
        for rank, drawn in zip(told["ranks"], after, strict=True):
            rank = tuple(rank) if isinstance(rank, list) else rank
            W = LowRankConv.from_conv(conv, rank, form).weight.detach()
            ours = torch.stack([W[at].flatten() for at in places]).numpy()
            assert np.abs(drawn - ours).max() <= 0.501 * page["step"] + 1e-5


@pytest.mark.parametrize("size", [None, (12, 9)])
def test_costs_and_errors_are_those_of_conv_options(size):
    conv = made("pictures")
    page = unpack(KernelExplorer(conv, size))
    listed = conv_options(conv, size)
    assert (page["params"], page["macs"]) == (listed.params, listed.macs)
    for form, told in page["forms"].items():
        mine = [o for o in listed.options if o.form == form and o.params < listed.params]
        assert told["params"] == [o.params for o in mine] and told["macs"] == [o.macs for o in mine]
        assert told["error"] == [round(o.error, 3) for o in mine]
    assert page["unit"] == ("a sample" if size else "an output position")


def test_spectra_are_those_of_the_unfoldings():
    conv = made("sound")
    W, page = conv.weight.detach(), unpack(KernelExplorer(conv))
    unfoldings = {"channel": W.flatten(1), "input": W.transpose(0, 1).flatten(1), "kernel": W.flatten(0, 1)}
    unfoldings["tucker2"] = W.flatten(1)
    for form, A in unfoldings.items():
        assert page["forms"][form]["S"] == pytest.approx(torch.linalg.svdvals(A).tolist(), rel=1e-3)
    assert "spatial" not in page["forms"]


def test_scores_stand_at_their_ranks():
    conv = made("pictures")
    pair = next(o.rank for o in conv_options(conv).options if o.form == "tucker2")
    page = unpack(KernelExplorer(conv, curves={"kernel": {2: 0.5, 1: 0.25}, "tucker2": {pair: 1 / 3}}))
    assert page["forms"]["kernel"]["scores"] == {"0": 0.25, "1": 0.5}
    assert page["forms"]["tucker2"]["scores"] == {"0": 0.3333}
    assert page["forms"]["channel"]["scores"] == {}


def test_it_starts_at_half_of_the_numbers():
    page = unpack(KernelExplorer(made("pictures")))
    first = page["forms"]["channel"]
    start = page["slider"]["start"]
    assert first["params"][start - 1] <= page["params"] / 2 < first["params"][start]
    assert page["slider"]["high"] == len(first["ranks"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype_and_the_layer_is_kept(dtype):
    conv = made("pictures").to(dtype)
    kept = conv.weight.detach().clone()
    explorer = KernelExplorer(conv)
    before = explorer._repr_html_()
    assert torch.equal(conv.weight, kept)
    conv.weight.data.zero_()
    assert explorer._repr_html_() == before


def test_a_kernel_of_zeros():
    conv = made("pictures")
    conv.weight.data.zero_()
    page = unpack(KernelExplorer(conv))
    assert not filters(page["forms"]["spatial"]["after"], page).any()


PRINT = """
import hashlib, torch
from torch import nn
from lowrank_utils import KernelExplorer
torch.set_num_threads(1)
torch.manual_seed(0)
for conv in (nn.Conv2d(6, 10, 3), nn.Conv1d(16, 32, 64)):
    print(hashlib.sha256(KernelExplorer(conv)._repr_html_().encode()).hexdigest())
"""


def hashes(**environment):
    command = [sys.executable, "-c", PRINT]
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_the_same_bytes_from_run_to_run_and_on_another_processor():
    first = hashes()
    assert len(set(first)) == 2
    assert hashes(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE") == first


def test_markup_is_self_contained_escaped_small_and_says_something_without_scripts():
    conv = nn.Conv1d(16, 32, 64)
    text = KernelExplorer(conv, name="<b>c</b>")._repr_html_()
    soup = BeautifulSoup(text, "html.parser")
    assert soup.find("b") is None and not soup.find_all(src=True) and len(soup.find_all("script")) == 1
    assert len(text) < 120_000
    assert soup.p.text.startswith(
        "<b>c</b> is 32 x 16 x 64. Relative error at a quarter of the numbers: channel "
    )


def test_repr_has_no_address():
    text = repr(KernelExplorer(made("sound"), name="conv1"))
    assert text == "KernelExplorer('conv1', 9 x 4 x 16, forms channel, input, kernel, tucker2)"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"conv": nn.Linear(2, 2)}, TypeError, "conv=Linear"),
        ({"conv": nn.Conv2d(4, 4, 3, groups=2)}, ValueError, "of one group"),
        ({"conv": nn.Conv3d(2, 2, 3)}, ValueError, "nn.Conv1d or nn.Conv2d"),
        ({"conv": nn.Conv1d(1, 1, 1)}, ValueError, "some form saves numbers"),
        ({"conv": nn.Conv1d(32, 256, 128)}, ValueError, "must be smaller"),
        ({"name": 3}, TypeError, "name=3 must be a string"),
        ({"score": None}, TypeError, "score=None must be a string"),
        ({"size": 0}, ValueError, "size"),
        ({"curves": [1]}, TypeError, r"curves=\[1\] must be a mapping"),
        ({"curves": {"cp": {1: 0.5}}}, ValueError, "form in curves='cp'"),
        ({"curves": {"kernel": 0.5}}, TypeError, r"curves\['kernel'\]=0.5 must be a mapping"),
        ({"curves": {"kernel": {9: 0.5}}}, ValueError, "rank of 'kernel'=9 must be from 1 to"),
        ({"curves": {"kernel": {1: math.nan}}}, ValueError, "score at rank 1=nan"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"conv": made("pictures")} | change
    with pytest.raises(error, match=message):
        KernelExplorer(arguments.pop("conv"), **arguments)
