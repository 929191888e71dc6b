"""The rank explorer's numbers, decoded from its HTML as the script does, and that they never change."""

import base64
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup

from lowrank_utils import (
    RankExplorer,
    RankSearch,
    low_rank_approximation,
    rank_for_energy,
    relative_error,
    singular_values,
)

SHAPES = [(10, 4), (4, 10), (6, 6), (64, 64), (7, 1), (1, 1)]


def matrix(m, n, seed=0):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def unpack(explorer):
    """W, U, S, V and the rest of what is embedded in the page."""
    soup = BeautifulSoup(explorer._repr_html_(), "html.parser")
    data = json.loads(soup.select_one(".lowrank-explorer")["data-explorer"])
    m, n, k = data["m"], data["n"], data["k"]

    def integers(name, dtype):
        return np.frombuffer(base64.b64decode(data[name]), dtype).astype(float)

    W = data["low"] + data["step"] * integers("W", "u1" if data["kind"] == "image" else "<i2")
    U, V = integers("U", "<i2") / 32767, integers("V", "<i2") / 32767
    return SimpleNamespace(
        **{name: value for name, value in data.items() if name not in "WUVS"},
        W=W.reshape(m, n),
        U=U.reshape(m, k),
        V=V.reshape(n, k),
        S=np.array(data["S"]),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_rebuild_the_approximation(shape):
    W = matrix(*shape)
    page, norm = unpack(RankExplorer(W)), float(W.norm())
    # entries are off by half a step at most
    assert np.abs(page.W - W.numpy()).max() <= 0.5001 * page.step
    assert page.step <= float(W.abs().max()) / 100
    for r in {1, (min(shape) + 1) // 2, min(shape)}:
        ours = (page.U[:, :r] * page.S[:r]) @ page.V[:, :r].T
        assert np.linalg.norm(ours - low_rank_approximation(W, r).numpy()) <= 0.02 * norm


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_and_energies_are_those_of_the_package(shape):
    W = matrix(*shape)
    page = unpack(RankExplorer(W))
    assert len(page.error) == len(page.energy) == page.k == min(shape)
    for r, (error, kept) in enumerate(zip(page.error, page.energy, strict=True), 1):
        assert error == round(relative_error(W, r), 3)
        assert rank_for_energy(W, kept - 5.1e-4) <= r
        assert kept + 5.1e-4 > 1 or rank_for_energy(W, kept + 5.1e-4) > r
    assert (page.error[-1], page.energy[-1]) == (0.0, 1.0)
    assert np.allclose(page.S, singular_values(W), rtol=0, atol=0.01 * page.S[0])


def test_scores_shapes_and_ranks_are_embedded():
    page = unpack(RankExplorer(matrix(10, 4), curve={2: 0.96666, 1: 1}, name="fc1"))
    assert (page.m, page.n, page.k, page.even, page.name) == (10, 4, 4, 2, "fc1")
    assert (page.slider["low"], page.slider["start"], page.slider["high"]) == (1, 1, 4)
    assert page.curve == {"1": 1.0, "2": 0.9667} and page.found is page.allowed is None


def test_a_search_marks_its_rank():
    search = RankSearch("fc1", 3, 3, 0.95, {1: 0.4, 2: 0.9, 3: 0.96}, 0.01, 3)
    page = unpack(RankExplorer(matrix(10, 4), curve=search))
    assert page.curve == {"1": 0.4, "2": 0.9, "3": 0.96}
    assert (page.found, page.allowed, page.slider["start"]) == (3, 0.94, 3)
    assert page.slider["marks"] == {"3": "found", "2": "break-even"}
    nothing = RankSearch("fc1", None, None, 0.95, {1: 0.4}, 0.01, 1)
    page = unpack(RankExplorer(matrix(10, 4), curve=nothing))
    assert (page.found, page.allowed, page.slider["start"]) == (None, 0.94, 1)


def test_the_whole_spectrum_of_an_image_is_embedded():
    image = matrix(90, 120)
    page = unpack(RankExplorer(image, kind="image"))
    assert page.k == 64 and len(page.S) == 90
    assert np.allclose(page.S, singular_values(image), rtol=0, atol=0.01 * page.S[0])
    assert unpack(RankExplorer(matrix(10, 4), max_rank=3)).U.shape == (10, 3)


def test_an_image_is_small_and_has_256_levels():
    image = (matrix(214, 320).sigmoid() * 255).round()
    explorer = RankExplorer(image, kind="image")
    page = unpack(explorer)
    assert page.k == 64
    assert np.abs(page.W - image.numpy()).max() <= 0.51 * page.step
    assert len(explorer._repr_html_()) <= 210_000


def test_a_digits_layer_is_small():
    assert len(RankExplorer(matrix(64, 64), curve=dict.fromkeys(range(1, 65), 0.9))._repr_html_()) <= 60_000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype(dtype):
    W = matrix(5, 3).to(dtype)
    kept = W.clone()
    page = unpack(RankExplorer(W))
    assert np.abs(page.W - W.double().numpy()).max() <= 0.51 * page.step
    assert torch.equal(W, kept)


def test_the_matrix_is_kept_as_it_was():
    W = matrix(5, 3)
    explorer = RankExplorer(W)
    before = explorer._repr_html_()
    W.zero_()
    assert explorer._repr_html_() == before


@pytest.mark.parametrize(
    "W",
    [torch.zeros(3, 4), torch.ones(4, 4), torch.eye(3), torch.full((2, 2), 1e-30), torch.ones(2, 2) * 1e30],
    ids=["zero", "rank one", "identity", "tiny", "huge"],
)
@pytest.mark.parametrize("kind", ["matrix", "image"])
def test_odd_matrices(W, kind):
    page = unpack(RankExplorer(W, kind=kind))
    scale = float(W.abs().max()) or 1.0
    assert np.abs(page.W - W.numpy()).max() <= 0.01 * scale
    assert np.isfinite(page.S).all()
    rebuilt = (page.U * page.S) @ page.V.T
    assert np.abs(rebuilt - W.numpy()).max() <= 0.01 * scale


def test_vectors_of_the_value_zero_are_left_out():
    page = unpack(RankExplorer(torch.ones(4, 4)))  # those would be made of rounding
    assert not page.U[:, 1:].any() and not page.V[:, 1:].any()
    assert (page.U[:, 0] > 0).all()


PRINT = """
import hashlib, torch
from lowrank_utils import RankExplorer
torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
wave = torch.arange(60.).outer(torch.arange(1., 41.)).sin()
product = torch.randn(64, 64, generator=g) @ torch.randn(64, 64, generator=g)
for W in (torch.randn(10, 4, generator=g), product, torch.ones(6, 6), wave):
    for kind in ("matrix", "image"):
        print(hashlib.sha256(RankExplorer(W, kind=kind)._repr_html_().encode()).hexdigest())
"""


def hashes(**environment):
    ran = subprocess.run(
        [sys.executable, "-c", PRINT],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_the_same_bytes_from_run_to_run_and_on_another_processor():
    first = hashes()
    assert len(set(first)) == 8
    assert hashes(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE") == first


def test_noise_of_another_processor_does_not_show():
    W = matrix(10, 4)
    page = RankExplorer(W)._repr_html_()
    noise = 1e-7 * torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
    assert RankExplorer(W + noise)._repr_html_() == page
    assert RankExplorer(W + 1e5 * noise)._repr_html_() != page


def test_markup_is_self_contained_and_escaped():
    text = RankExplorer(matrix(3, 2), name='<b>"W"\'</b>')._repr_html_()
    soup = BeautifulSoup(text, "html.parser")
    assert soup.find("b") is None
    assert json.loads(soup.div["data-explorer"])["name"] == '<b>"W"\'</b>'
    assert not soup.find_all(src=True) and not soup.find_all("link") and len(soup.find_all("script")) == 1
    addresses = [word for word in text.replace("`", '"').split('"') if "//www" in word]
    assert all("www.w3.org/" in word for word in addresses)  # namespaces: names, nothing is fetched


def test_without_scripts_the_errors_are_told():
    text = BeautifulSoup(
        RankExplorer(torch.diag(torch.tensor([4.0, 3.0])))._repr_html_(), "html.parser"
    ).p.text
    assert text == "W is 2 x 2. Relative error: 60.0 % at rank 1, 0.0 % at rank 2."


def test_repr_has_no_address():
    assert repr(RankExplorer(matrix(10, 4), name="fc1")) == "RankExplorer('fc1', 10 x 4, ranks 1 to 4)"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"W": [[1.0]]}, TypeError, "W of type list"),
        ({"W": torch.ones(2, 2, dtype=torch.int64)}, TypeError, "floating dtype"),
        ({"W": torch.ones(3)}, ValueError, "non-empty matrix"),
        ({"W": torch.tensor([[math.nan]])}, ValueError, "nan or inf"),
        ({"kind": "picture"}, ValueError, "kind='picture' must be one of 'image', 'matrix'"),
        ({"name": 3}, TypeError, "name=3 must be a string"),
        ({"max_rank": 5}, ValueError, "max_rank=5 must be an integer from 1 to 4"),
        ({"max_rank": 0}, ValueError, "max_rank=0"),
        ({"max_rank": 2.0}, TypeError, "max_rank=2.0"),
        ({"max_side": 9}, ValueError, r"W of shape \(10, 4\) must have at most max_side=9"),
        ({"max_side": True}, TypeError, "max_side=True"),
        ({"curve": [0.9]}, TypeError, r"curve=\[0.9\] must be a mapping"),
        ({"curve": {5: 0.9}}, ValueError, "rank in curve=5 must be an integer from 1 to 4"),
        ({"curve": {1: "0.9"}}, TypeError, "score at rank 1='0.9'"),
        ({"curve": {1: math.nan}}, ValueError, "score at rank 1=nan"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"W": matrix(10, 4)} | change
    with pytest.raises(error, match=message):
        RankExplorer(arguments.pop("W"), **arguments)
