"""Chapter 9: the share of rows that find their own, the matrix of one head, an encoder of fewer layers."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, normalize

from answers import right, wrong


def recall_at(S, B, k):
    """As the chapter does it: a tensor of one number."""
    nearest = (normalize(S, dim=1) @ normalize(B, dim=1).T).topk(k, dim=1).indices
    return (nearest == torch.arange(len(S))[:, None]).any(1).float().mean()


def by_numpy(S, B, k):
    S, B = S.numpy().astype(float), B.numpy().astype(float)
    B = B / np.linalg.norm(B, axis=1, keepdims=True)  # the length of S[i] moves no row of B past another
    order = np.argsort(-S @ B.T, axis=1)
    return np.mean([i in row for i, row in enumerate(order[:, :k])])


def by_loop(S, B, k):
    hits = 0
    for i, s in enumerate(S):
        near = cosine_similarity(s[None], B, dim=1)
        hits += int((near > near[i]).sum()) < k
    return hits / len(S)


def by_distance(S, B, k):
    """Between points of the unit sphere the distance has the same order; double precision."""
    away = torch.cdist(normalize(S.double(), dim=1), normalize(B.double(), dim=1))
    place = away.argsort(1).argsort(1).diagonal()
    return [float(p < k) for p in place].count(1.0) / len(place)


def by_sorting(S, B, k):
    """Plain Python on lists."""
    S, B = S.tolist(), B.tolist()

    def cosine(x, y):
        dot, xx, yy = (sum(p * q for p, q in zip(*two, strict=True)) for two in ((x, y), (x, x), (y, y)))
        return dot / (xx * yy) ** 0.5

    found = (i in sorted(range(len(B)), key=lambda j: -cosine(s, B[j]))[:k] for i, s in enumerate(S))
    return sum(found) / len(S)


def by_stacking(S, B, k):
    """Cosines of all pairs at once, in an array of one number."""
    cosines = cosine_similarity(S[:, None], B[None], dim=2).numpy()
    threshold = np.partition(cosines, len(B) - k, axis=1)[:, len(B) - k]
    return np.array([(np.diag(cosines) >= threshold).mean()])


def scored(score, more=0, largest=True):
    """The share by other scores, or of another k."""

    def answer(S, B, k):
        nearest = score(S, B).topk(k + more, dim=1, largest=largest).indices
        return (nearest == torch.arange(len(S))[:, None]).any(1).float().mean().item()

    return answer


def cosines(S, B):
    return normalize(S, dim=1) @ normalize(B, dim=1).T


def by_columns(S, B):
    return normalize(S, dim=0) @ normalize(B, dim=0).T


def correlations(S, B):
    return torch.corrcoef(torch.cat([S, B]))[: len(S), len(S) :]


def of_share(change):
    """What another function makes of the right share."""
    return lambda S, B, k: change(float(recall_at(S, B, k)), len(S), k)


def in_place(S, B, k):
    S /= S.norm(dim=1, keepdim=True)
    B /= B.norm(dim=1, keepdim=True)
    return recall_at(S, B, k)


def in_place_by_out(S, B, k):
    return recall_at(S, normalize(B, dim=1, out=B), k)


def from_the_other_side(S, B, k):
    nearest = cosines(S, B).topk(k, dim=0).indices
    return (nearest == torch.arange(len(S))).any(0).float().mean()


def sorted_once(S, B, k):
    return (cosines(S, B).argsort(1, descending=True).diagonal() < k).float().mean()


def without_itself(S, B, k):
    return scored(lambda S, B: cosines(S, B).fill_diagonal_(-2))(S, B, min(k, len(S) - 1))


def rows(E, head, heads):
    size = E // heads
    return slice(head * size, (head + 1) * size)


def head_scores_matrix(W_q, W_k, head, heads):
    mine = rows(len(W_q), head, heads)
    return W_q[mine].T @ W_k[mine]


def head_by_numpy(W_q, W_k, head, heads):
    mine = rows(len(W_q), head, heads)
    return np.einsum("ri,rj->ij", W_q.numpy()[mine].astype(float), W_k.numpy()[mine].astype(float))


def head_by_mask(W_q, W_k, head, heads):
    """All other rows of one of the two set to 0; the product is as large as ever."""
    kept = torch.arange(len(W_q)) // (len(W_q) // heads) == head
    return (W_q.double() * kept[:, None]).T @ W_k.double()


def head_by_views(W_q, W_k, head, heads):
    E = len(W_q)
    return torch.einsum("hri,hrj->hij", W_q.view(heads, -1, E), W_k.view(heads, -1, E))[head]


def head_by_units(W_q, W_k, head, heads):
    """Scores of all pairs of unit vectors, through two layers; nested lists."""
    E = len(W_q)
    query, key = nn.Linear(E, E, bias=False), nn.Linear(E, E, bias=False)
    query.weight, key.weight = nn.Parameter(W_q), nn.Parameter(W_k)
    q, k = (layer(torch.eye(E)).chunk(heads, dim=1)[head] for layer in (query, key))
    return (q @ k.T).tolist()


def head_by_loop(W_q, W_k, head, heads):
    mine = rows(len(W_q), head, heads)
    return sum(torch.outer(q, k) for q, k in zip(W_q[mine], W_k[mine], strict=True))


def head(change):
    """What another function makes of the right matrix."""
    return lambda W_q, W_k, head, heads: change(head_scores_matrix(W_q, W_k, head, heads), len(W_q), heads)


def other_signs(M, E, heads):
    return M * (-1.0) ** torch.arange(E)


def of_rows(pick):
    """The product of other rows, ``pick(E, head, heads)``."""

    def answer(W_q, W_k, head, heads):
        mine = pick(len(W_q), head, heads)
        return W_q[mine].T @ W_k[mine]

    return answer


def columns(W_q, W_k, head, heads):
    mine = rows(len(W_q), head, heads)
    return W_q[:, mine] @ W_k[:, mine].T


def small(W_q, W_k, head, heads):
    mine = rows(len(W_q), head, heads)
    return W_q[mine] @ W_k[mine].T


def every_head(W_q, W_k, head, heads):
    return torch.stack([head_scores_matrix(W_q, W_k, h, heads) for h in range(heads)])


def truncated(W, rank):
    U, S, Vh = torch.linalg.svd(W)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]


def all_cut(W_q, W_k, head, heads):
    return truncated(W_q.T @ W_k, len(W_q) // heads)


def head_in_place(W_q, W_k, head, heads):
    W_q[: head * len(W_q) // heads] = 0
    W_q[(head + 1) * len(W_q) // heads :] = 0
    return W_q.T @ W_k


def without(net, which):
    """As the chapter does it."""
    short = copy.deepcopy(net)
    short.layers = nn.ModuleList(layer for i, layer in enumerate(short.layers) if i not in which)
    short.num_layers = len(short.layers)
    return short


def by_pop(net, which):
    """From the back, so that no number changes; num_layers is left as it was."""
    short = copy.deepcopy(net)
    for i in sorted(which, reverse=True):
        short.layers.pop(i)
    return short


def by_state(net, which):
    """A new encoder in training mode, and a state whose layers are counted anew."""
    kept = [i for i in range(len(net.layers)) if i not in set(which)]
    norm = copy.deepcopy(net.norm)
    short = nn.TransformerEncoder(net.layers[0], len(kept), norm, enable_nested_tensor=False)
    names = {f"layers.{old}.": f"layers.{new}." for new, old in enumerate(kept)}
    state = {}
    for name, weight in net.state_dict().items():
        for old, new in names.items():
            if name.startswith(old):
                state[name.replace(old, new, 1)] = weight
        if name.startswith("norm"):
            state[name] = weight
    short.load_state_dict(state)
    return short


def by_layers(net, which):
    """Each layer copied by itself, frozen, with nested tensors where they are to be had."""
    kept = tuple(copy.deepcopy(net.layers[i]) for i in sorted({*range(len(net.layers))} - {*which}))
    norm, nested = copy.deepcopy(net.norm), not kept[0].norm_first
    short = nn.TransformerEncoder(kept[0], 1, norm, enable_nested_tensor=nested)
    short.layers = nn.ModuleList(kept)
    return short.requires_grad_(False).train()


def by_constructor(net, which):
    """A subclass, all settings read from net."""

    class Encoder(nn.TransformerEncoder):
        pass

    first, kept = net.layers[0], [layer for i, layer in enumerate(net.layers) if i not in which]
    layer = nn.TransformerEncoderLayer(
        first.self_attn.embed_dim,
        first.self_attn.num_heads,
        first.linear1.out_features,
        first.dropout.p,
        first.activation,
        first.norm1.eps,
        first.self_attn.batch_first,
        first.norm_first,
    )
    norm = None if net.norm is None else nn.LayerNorm(net.norm.normalized_shape)
    short = Encoder(layer, len(kept), norm, enable_nested_tensor=False)
    for mine, theirs in zip(short.layers, kept, strict=True):
        mine.load_state_dict(theirs.state_dict())
    if norm is not None:
        norm.load_state_dict(net.norm.state_dict())
    return short


def keeping(pick):
    """A deep copy with the layers ``pick(n, which)``, in that order."""

    def answer(net, which):
        short = copy.deepcopy(net)
        short.layers = nn.ModuleList(copy.deepcopy(short.layers[i]) for i in pick(len(net.layers), which))
        return short

    return answer


def others(n, which):
    return [i for i in range(n) if i not in which]


def then(change):
    """The right encoder, changed afterwards: ``change(short, net)`` may return another one."""

    def answer(net, which):
        short = without(net, which)
        return change(short, net) or short

    return answer


def popping(order):
    """Layers taken out of a copy one after the other, while the numbers behind them change."""

    def answer(net, which):
        short = copy.deepcopy(net)
        for i in order(which):
            del short.layers[i]
        return short

    return answer


def of_net_itself(net, which):
    net.layers = nn.ModuleList(layer for i, layer in enumerate(net.layers) if i not in which)
    return net


def shallow(net, which):
    short = copy.copy(net)
    short.layers = nn.ModuleList(layer for i, layer in enumerate(net.layers) if i not in which)
    return short


def sharing(net, which):
    """A new encoder of net's own layers."""
    kept = [layer for i, layer in enumerate(net.layers) if i not in which]
    short = nn.TransformerEncoder(kept[0], len(kept), net.norm, enable_nested_tensor=False)
    short.layers = nn.ModuleList(kept)
    return short


def sharing_the_norm(net, which):
    kept = [copy.deepcopy(layer) for i, layer in enumerate(net.layers) if i not in which]
    short = nn.TransformerEncoder(kept[0], len(kept), net.norm, enable_nested_tensor=False)
    short.layers = nn.ModuleList(kept)
    return short


def detached(net, which):
    """Parameters of its own, which lie where net's lie."""
    short = without(net, which)
    for i, j in enumerate(others(len(net.layers), which)):
        for mine, theirs in zip(short.layers[i].parameters(), net.layers[j].parameters(), strict=True):
            mine.data = theirs.detach()
    return short


def net_for_nothing(net, which):
    return without(net, which) if which else net


def first_copied(net, which):
    return nn.TransformerEncoder(net.layers[0], len(net.layers) - len(which), copy.deepcopy(net.norm))


def defaults(net, which):
    """The right weights in layers that know nothing of net's activation."""
    short = without(net, which)
    plain = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    layers = nn.TransformerEncoder(plain, len(short.layers), short.norm, enable_nested_tensor=False)
    layers.load_state_dict(short.state_dict())
    return layers


def new_weights(short, net):
    short.layers[1].linear1.reset_parameters()


def one_head(short, net):
    for layer in short.layers:
        layer.self_attn.num_heads, layer.self_attn.head_dim = 1, 8


def no_norm(short, net):
    short.norm = None


def a_norm(short, net):
    short.norm = nn.LayerNorm(8)


def another_norm(short, net):
    if net.norm is not None:
        short.norm = nn.LayerNorm(8)


def in_a_sequential(short, net):
    short.layers = nn.Sequential(*short.layers)


def in_a_list(short, net):
    layers = list(short.layers)
    del short.layers
    short.layers = layers


def deaf(short, net):
    """The mask is taken, and not handed on."""

    class Deaf(nn.TransformerEncoder):
        def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
            return super().forward(src)

    short.__class__ = Deaf


def maskless(short, net):
    """Its forward takes one argument."""

    class Maskless(nn.TransformerEncoder):
        def forward(self, src):
            return super().forward(src)

    short.__class__ = Maskless


def averaged(short, net):
    """One vector for each sentence."""

    class Averaged(nn.TransformerEncoder):
        def forward(self, *told, **by_name):
            return super().forward(*told, **by_name).mean(1)

    short.__class__ = Averaged


def identities(net, which):
    short = copy.deepcopy(net)
    for i in which:
        short.layers[i] = nn.Identity()
    return short


def sorted_in_place(net, which):
    which.sort(reverse=True)
    return by_pop(net, which)


ANSWERS = [
    right("9.1", "a tensor", recall_at),
    right("9.1", "numpy, B alone scaled", by_numpy),
    right("9.1", "row by row", by_loop),
    right("9.1", "distances on the sphere", by_distance),
    right("9.1", "lists", by_sorting),
    right("9.1", "all pairs, an array", by_stacking),
    right("9.2", "a slice", head_scores_matrix),
    right("9.2", "numpy, double precision", head_by_numpy),
    right("9.2", "a mask on one side", head_by_mask),
    right("9.2", "views", head_by_views),
    right("9.2", "unit vectors, nested lists", head_by_units),
    right("9.2", "a sum of outer products", head_by_loop),
    right("9.3", "deep copy", without),
    right("9.3", "from the back", by_pop),
    right("9.3", "a state counted anew", by_state),
    right("9.3", "layer by layer, frozen", by_layers),
    right("9.3", "a subclass with net's settings", by_constructor),
    right("9.3", "an order of its own", keeping(lambda n, which: sorted({*range(n)} - {*which}))),
    right("9.3", "layers in a Sequential", then(in_a_sequential)),
    wrong("9.1", "a number", 0.5, "itself, which is then called as"),
    wrong("9.1", "dot products", scored(lambda S, B: S @ B.T), "long rows of B"),
    wrong("9.1", "S alone scaled", scored(lambda S, B: normalize(S, dim=1) @ B.T), "long rows of B"),
    wrong("9.1", "distances", scored(lambda S, B: -torch.cdist(S, B)), "distances depend"),
    wrong("9.1", "columns scaled", scored(by_columns), "columns"),
    wrong("9.1", "from B to S", lambda S, B, k: recall_at(B, S, k), "it is S that searches"),
    wrong("9.1", "the other axis", from_the_other_side, "it is S that searches"),
    wrong("9.1", "k + 1", scored(cosines, 1), "for k + 1"),
    wrong("9.1", "k - 1", scored(cosines, -1), "for k - 1"),
    wrong("9.1", "the nearest alone", lambda S, B, k: recall_at(S, B, 1), "whatever k is"),
    wrong("9.1", "farthest", scored(cosines, largest=False), "least similar"),
    wrong("9.1", "either sign", scored(lambda S, B: cosines(S, B).abs()), "sign"),
    wrong("9.1", "correlation", scored(correlations), "mean"),
    wrong("9.1", "centred", scored(lambda S, B: cosines(S - S.mean(0), B - B.mean(0))), "average row"),
    wrong("9.1", "per cent", of_share(lambda share, N, k: 100 * share), "percentage"),
    wrong("9.1", "a count", of_share(lambda share, N, k: round(share * N)), "how many"),
    wrong("9.1", "the rest", of_share(lambda share, N, k: 1 - share), "do not find"),
    wrong("9.1", "precision", of_share(lambda share, N, k: share / k), "by k as well"),
    wrong("9.1", "rounded", of_share(lambda share, N, k: round(share, 2)), "rounded"),
    wrong("9.1", "twice", of_share(lambda share, N, k: share**2), "is not the share"),
    wrong("9.1", "never all", of_share(lambda share, N, k: min(share, 0.9)), "among all rows"),
    wrong("9.1", "sorted once", sorted_once, "stands at place i"),
    wrong("9.1", "without its own", without_itself, "among the candidates"),
    wrong("9.1", "S in S", lambda S, B, k: recall_at(S, S, k), "is S searched in S"),
    wrong("9.1", "always", lambda S, B, k: 1, "every row finds its own"),
    wrong("9.1", "hits", lambda S, B, k: cosines(S, B).argmax(1) == torch.arange(len(S)), "one number"),
    wrong("9.1", "text", of_share(lambda share, N, k: f"{share:.0%}"), "one number"),
    wrong("9.1", "nan", of_share(lambda share, N, k: share * float("nan")), "one number"),
    wrong("9.1", "None", lambda S, B, k: print(end=""), "returns None"),
    wrong("9.1", "in place", in_place, "changes its argument S"),
    wrong("9.1", "in place by out", in_place_by_out, "changes its argument B"),
    wrong("9.1", "beyond all", lambda S, B, k: scored(cosines, len(B))(S, B, k), "raised"),
    wrong("9.2", "a matrix", torch.eye(4), "itself, which is then called as"),
    wrong("9.2", "transposed", head(lambda M, E, heads: M.T), "z^T M x"),
    wrong("9.2", "root of the size", head(lambda M, E, heads: M / (E / heads) ** 0.5), "the head's size"),
    wrong("9.2", "root of E", head(lambda M, E, heads: M / E**0.5), "root of E"),
    wrong("9.2", "size", head(lambda M, E, heads: M / (E / heads)), "multiple"),
    wrong("9.2", "symmetric", head(lambda M, E, heads: (M + M.T) / 2), "symmetric"),
    wrong("9.2", "rank cut", head(lambda M, E, heads: truncated(M, E // heads - 1)), "its rank is 3"),
    wrong("9.2", "zeros", head(lambda M, E, heads: 0 * M), "its rank is 0"),
    wrong("9.2", "other signs", head(other_signs), "not this head's score"),
    wrong("9.2", "nan", head(lambda M, E, heads: M * float("nan")), "nan"),
    wrong("9.2", "all heads", lambda W_q, W_k, head, heads: W_q.T @ W_k, "all heads"),
    wrong("9.2", "all heads, cut", all_cut, "truncated SVD"),
    wrong("9.2", "each head", every_head, "one is asked for"),
    wrong("9.2", "no transposition", lambda W_q, W_k, head, heads: W_q @ W_k.T, "which side"),
    wrong("9.2", "columns", columns, "these are columns"),
    wrong("9.2", "rows times rows", small, "4 x 4"),
    wrong("9.2", "cut after the product", lambda *told: small(*told)[:, :2], "(12, 12)"),
    wrong("9.2", "interleaved", of_rows(lambda E, head, heads: slice(head, None, heads)), "side by side"),
    wrong("9.2", "size for heads", of_rows(lambda E, head, heads: rows(E, head, E // heads)), "as many as"),
    wrong("9.2", "counted from 1", of_rows(lambda E, h, heads: rows(E, h - 1, heads)), "counted from 0"),
    wrong("9.2", "the next", of_rows(lambda E, h, heads: rows(E, h + 1, heads)), "next head"),
    wrong("9.2", "one row", of_rows(lambda E, head, heads: slice(head, head + 1)), "its rank is 1"),
    wrong("9.2", "queries twice", lambda Q, K, *told: head_scores_matrix(Q, Q, *told), "come from W_k"),
    wrong("9.2", "keys twice", lambda Q, K, *told: head_scores_matrix(K, K, *told), "come from W_q"),
    wrong("9.2", "W_k first", lambda Q, K, *told: head_scores_matrix(K, Q, *told), "z^T M x"),
    wrong("9.2", "in place", head_in_place, "changes its argument W_q"),
    wrong("9.2", "no such attribute", lambda W_q, W_k, head, heads: W_q.weight, "raised AttributeError"),
    wrong("9.3", "layers for the function", nn.ModuleList(), "itself, which is then called as"),
    wrong("9.3", "net itself", lambda net, which: net, "that is net itself"),
    wrong("9.3", "net where nothing goes", net_for_nothing, "that is net itself"),
    wrong("9.3", "out of net itself", of_net_itself, "out of net itself"),
    wrong("9.3", "a shallow copy", shallow, "a deep one"),
    wrong("9.3", "a ModuleList", lambda net, which: without(net, which).layers, "ModuleList"),
    wrong("9.3", "a Sequential", lambda net, which: nn.Sequential(*without(net, which).layers), "takes no"),
    wrong("9.3", "a list of layers", lambda net, which: list(without(net, which).layers), "a list of 3"),
    wrong("9.3", "layers in a list", then(in_a_list), "must be an nn.ModuleList"),
    wrong("9.3", "numbers shift", popping(list), "other numbers"),
    wrong("9.3", "numbers shift the other way", popping(lambda which: [*which][::-1]), "other numbers"),
    wrong("9.3", "a copy of all", lambda net, which: copy.deepcopy(net), "still has all 5 layers"),
    wrong("9.3", "kept for left out", keeping(lambda n, which: sorted(which)), "layers to leave out"),
    wrong("9.3", "the last", keeping(lambda n, which: range(n - len(which))), "lost the last 2"),
    wrong("9.3", "the first", keeping(lambda n, which: range(len(which), n)), "lost the first 2"),
    wrong("9.3", "counted from 1", keeping(lambda n, w: [i for i in range(n) if i + 1 not in w]), "from 0"),
    wrong("9.3", "turned round", keeping(lambda n, which: others(n, which)[::-1]), "in the order [4, 2, 0]"),
    wrong("9.3", "one too many", keeping(lambda n, which: others(n, which)[:-1]), "layers [0, 2] are kept"),
    wrong("9.3", "none", keeping(lambda n, which: []), "no layers at all"),
    wrong("9.3", "copies of the first", first_copied, "copies of layer 0"),
    wrong("9.3", "new weights", then(new_weights), "layer 1 is none of net's"),
    wrong("9.3", "identities", identities, "which has no weights: take it out"),
    wrong("9.3", "no norm", then(no_norm), "is missing"),
    wrong("9.3", "a norm too many", then(a_norm), "net has no norm"),
    wrong("9.3", "another norm", then(another_norm), "other weights than that of net"),
    wrong("9.3", "net's own layers", sharing, "all its weights are net's own"),
    wrong("9.3", "net's own norm", sharing_the_norm, "its norm.weight is net's own"),
    wrong("9.3", "net's own numbers", detached, "net's own"),
    wrong("9.3", "default settings", defaults, "activation"),
    wrong("9.3", "one head", then(one_head), "heads"),
    wrong("9.3", "deaf to the mask", then(deaf), "other outputs with src_key_padding_mask"),
    wrong("9.3", "no mask taken", then(maskless), "called with src_key_padding_mask the result raises"),
    wrong("9.3", "averaged", then(averaged), "of shape (3, 8), not a tensor of shape (3, 6, 8)"),
    wrong("9.3", "training switched on", lambda net, which: without(net.train(), which), "train and eval"),
    wrong("9.3", "sorted in place", sorted_in_place, "changes its argument which"),
    wrong("9.3", "None", lambda net, which: net_for_nothing(net, which) and None, "returns None"),
]  # fmt: skip
