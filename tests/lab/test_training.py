"""Training against gradient descent by hand, scores against numpy, scikit-learn and rank sums."""

import copy
import math

import numpy as np
import pytest
import torch
from oracles import plain_auc, snapshot
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import nn

from lowrank_utils import accuracy, auc, train_nets, train_nn
from lowrank_utils.model.metrics import accuracy_of, auc_of, log_odds, logits


def problem(seed=0, n=24, classes=3):
    torch.manual_seed(seed)
    X = torch.randn(n, 4, dtype=torch.float64)
    return X, torch.cat([torch.arange(classes), torch.randint(0, classes, (n - classes,))])


def net_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def by_hand(net, X, y, epochs, lr=0.1, momentum=0.0, weight_decay=0.0):
    """w <- w - lr v with v <- momentum v + grad + weight_decay w."""
    params, losses = list(net.parameters()), []
    velocity = [torch.zeros_like(p) for p in params]
    for _ in range(epochs):
        loss = -net(X).log_softmax(-1)[torch.arange(len(X)), y].mean()
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, params)
        with torch.no_grad():
            for p, g, v in zip(params, grads, velocity, strict=True):
                v.mul_(momentum).add_(g + weight_decay * p)
                p.sub_(lr * v)
    return losses


@pytest.mark.parametrize(
    "options",
    [{}, {"lr": 0.5}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"batch_size": 24}, {"batch_size": 99}],
)
def test_full_batch_gradient_descent(options):
    X, y = problem()
    net = net_of()
    twin = copy.deepcopy(net)
    losses = train_nn(net, X, y, epochs=30, **options)
    options.pop("batch_size", None)
    assert np.allclose(losses, by_hand(twin, X, y, 30, **options), rtol=1e-12)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-12, atol=1e-13)


def test_the_default_step_is_a_tenth():
    X, y = problem()
    a, b = net_of(), net_of()
    train_nn(a, X, y, epochs=3), train_nn(b, X, y, epochs=3, lr=0.1)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_it_learns():
    X, _ = problem(n=60)
    y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
    net = net_of()
    before = accuracy(net, X, y)
    losses = train_nn(net, X, y, epochs=300, lr=0.5)
    assert len(losses) == 300 and losses[-1] < losses[0] / 2
    assert accuracy(net, X, y) > max(before, 0.9)


def test_mini_batches_see_every_sample_once_an_epoch():
    X, y = problem(n=23)
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3).double()

        def forward(self, x):
            seen.append(x)
            return self.inner(x)

    torch.manual_seed(3)
    train_nn(Spy(), X, y, epochs=2, batch_size=5)
    assert [len(x) for x in seen] == [5, 5, 5, 5, 3] * 2
    epochs = [torch.cat(seen[:5]), torch.cat(seen[5:])]
    for rows in epochs:
        assert torch.equal(rows[rows[:, 0].argsort()], X[X[:, 0].argsort()])
    assert not torch.equal(*epochs)


def test_mini_batches_step_after_each_and_report_the_mean_loss():
    X, y = problem(n=10)
    net = net_of()
    twin = copy.deepcopy(net)
    torch.manual_seed(9)
    losses = train_nn(net, X, y, epochs=1, batch_size=4, lr=0.3)
    torch.manual_seed(9)
    order = torch.randperm(10)
    total = sum(len(b) * by_hand(twin, X[b], y[b], 1, lr=0.3)[0] for b in order.split(4))
    assert losses == pytest.approx([total / 10], rel=1e-12)
    assert all(
        torch.allclose(p, q, rtol=1e-12) for p, q in zip(net.parameters(), twin.parameters(), strict=True)
    )


def test_batches_follow_the_global_generator():
    X, y = problem()
    runs = []
    for seed in (1, 1, 2):
        net = net_of()
        torch.manual_seed(seed)
        runs.append(train_nn(net, X, y, epochs=3, batch_size=4))
    assert runs[0] == runs[1] != runs[2]


def test_training_switches_dropout_on_and_puts_every_mode_back():
    X, y = problem()
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    net.eval()
    net[2].train()
    modes = [m.training for m in net.modules()]
    seen = []
    net.register_forward_pre_hook(lambda m, _: seen.append([k.training for k in m.modules()]))
    train_nn(net, X, y, epochs=2)
    assert [m.training for m in net.modules()] == modes and all(all(s) for s in seen)
    assert net[1].num_batches_tracked == 2
    with pytest.raises(RuntimeError):
        train_nn(net, X[:, :3], y, epochs=1)
    assert [m.training for m in net.modules()] == modes


def test_samples_and_labels_are_left_alone():
    X, y = problem()
    before = X.clone(), y.clone()
    train_nn(net_of(), X, y, epochs=2)
    train_nn(net_of(), X, y, epochs=2, batch_size=5)
    assert torch.equal(X, before[0]) and torch.equal(y, before[1])


def test_a_net_that_works_in_place_sees_the_samples_anew_each_time():
    X, y = problem()
    before = X.clone()
    plain, writes = (nn.Sequential(nn.Dropout(0.3, place), *net_of()) for place in (False, True))
    losses = []
    for net in (plain, writes):
        torch.manual_seed(5)
        losses.append(train_nn(net, X, y, epochs=20))
    assert torch.equal(X, before) and losses[0] == losses[1]


def test_samples_with_a_history_get_no_gradient():
    X, y = problem()
    leaf = X.clone().requires_grad_()
    for samples in (leaf, 1.0 * leaf):
        assert train_nn(net_of(), samples, y, epochs=2) == train_nn(net_of(), X, y, epochs=2)
    assert leaf.grad is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs=0 must be an integer >= 1"),
        ({"epochs": 1.5}, TypeError, "epochs=1.5 must be an integer >= 1"),
        ({"epochs": True}, TypeError, "epochs=True must be an integer >= 1"),
        ({"lr": 0}, ValueError, "lr=0.0 must be a finite number > 0"),
        ({"lr": math.nan}, ValueError, "lr=nan must be a finite number > 0"),
        ({"lr": math.inf}, ValueError, "lr=inf must be a finite number > 0"),
        ({"lr": "0.1"}, TypeError, "lr='0.1' must be a finite number > 0"),
        ({"batch_size": 0}, ValueError, "batch_size=0 must be an integer >= 1"),
        ({"momentum": -0.1}, ValueError, "momentum=-0.1 must be a finite number >= 0"),
        ({"weight_decay": -1}, ValueError, "weight_decay=-1.0 must be a finite number >= 0"),
        ({"net": "net"}, TypeError, "net='net' must be a torch.nn.Module"),
        ({"X": torch.zeros(0, 4)}, ValueError, "X of shape (0, 4)"),
        ({"y": torch.zeros(3).long()}, ValueError, "y has 3 labels"),
        ({"y": [0, 1]}, TypeError, "X and y must be tensors"),
    ],
)
def test_impossible_requests(options, error, message):
    X, y = problem()
    net = net_of()
    before = snapshot(net)
    with pytest.raises(error) as caught:
        train_nn(**{"net": net, "X": X, "y": y, **options})
    assert str(caught.value).startswith(message) and snapshot(net) == before


# many nets side by side


def problems(count=3):
    pairs = [problem(seed) for seed in range(count)]
    return torch.stack([X for X, _ in pairs]), torch.stack([y for _, y in pairs])


def test_nets_side_by_side_are_the_nets_trained_alone():
    X, y = problems()
    nets, alone = [net_of(i) for i in range(3)], [net_of(i) for i in range(3)]
    history = train_nets(nets, X, y, epochs=30, lr=0.3)
    for i, net in enumerate(alone):
        losses = by_hand(net, X[i], y[i], 30, lr=0.3)
        assert np.allclose(history[:, i], losses, rtol=1e-6)  # kept in float32
        for p, q in zip(nets[i].parameters(), net.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=1e-12, atol=1e-13)
            assert p.requires_grad and p.is_leaf and p.grad is None
            assert p.untyped_storage().size() == p.numel() * p.element_size()  # no view of the stack


class Halving(nn.Linear):
    def forward(self, input):
        return super().forward(input.mul_(0.5))


@pytest.mark.parametrize("make", [lambda: net_of(0), lambda: Halving(4, 3).double()])
def test_nets_leave_the_samples_alone(make):
    X, y = problems()
    before = X.clone(), y.clone()
    nets = [make() for _ in range(3)]
    alone = copy.deepcopy(nets[0])
    train_nets(nets, X, y, epochs=5)
    assert torch.equal(X, before[0]) and torch.equal(y, before[1])
    train_nn(alone, X[0], y[0], epochs=5)  # each step sees the samples as they are
    for p, q in zip(nets[0].parameters(), alone.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-12, atol=1e-13)


def test_what_is_frozen_stays_as_it_is_and_the_rest_is_trained():
    X, y = problems()
    nets, alone = [net_of(i) for i in range(3)], [net_of(i) for i in range(3)]
    for net in (*nets, *alone):
        net[0].requires_grad_(False)
    train_nets(nets, X, y, epochs=9)
    for i, (net, one) in enumerate(zip(nets, alone, strict=True)):
        first = net_of(i)[0].weight
        train_nn(one, X[i], y[i], epochs=9)
        assert torch.equal(net[0].weight, first) and torch.equal(one[0].weight, first)
        assert torch.allclose(net[2].weight, one[2].weight, rtol=1e-12, atol=1e-13)


class Sharp(nn.Linear):
    def __init__(self, k):
        super().__init__(4, 3, dtype=torch.float64)
        self.k, self.seed = k, int(k)

    def forward(self, input):
        return self.k * super().forward(input) if self.k < 9 else super().forward(input)


def test_nets_that_compute_something_else_are_not_trained_as_the_first():
    X, y = problems()
    nets = [Sharp(k) for k in (1.0, 1.0, 5.0)]
    before = [snapshot(net) for net in nets]
    with pytest.raises(
        ValueError, match=r"^nets\[2\] must compute what nets\[0\] does with the parameters of"
    ):
        train_nets(nets, X, y, epochs=2)
    assert [snapshot(net) for net in nets] == before
    assert train_nets([Sharp(k) for k in (9.0, 10.0, 11.0)], X, y, epochs=2).isfinite().all()  # says nothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nets_of_lower_precision_are_not_mistaken_for_others(dtype):
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(200, 300), nn.Tanh(), nn.Linear(300, 3)).to(dtype) for _ in range(20)]
    X, y = 5 * torch.randn(20, 50, 200, dtype=dtype), torch.randint(0, 3, (20, 50))
    assert train_nets(nets, X, y, epochs=1).isfinite().all()


TWICE = net_of()
WITH_RELU = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
HALF_FROZEN = net_of()
HALF_FROZEN[0].requires_grad_(False)
TIED = [net_of() for _ in range(3)]
TIED[2][2] = TIED[0][2]
FROZEN = [net_of().requires_grad_(False) for _ in range(3)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs=0 must be an integer >= 1"),
        ({"lr": 0}, ValueError, "lr=0.0 must be a finite number > 0"),
        ({"nets": net_of()}, TypeError, "nets=Sequential must be a list of torch.nn.Module"),
        ({"nets": []}, ValueError, "X and y of shapes (3, 24, 4) and (3, 24) must be"),
        ({"nets": [net_of(), net_of()]}, ValueError, "X and y of shapes (3, 24, 4) and (3, 24) must be"),
        ({"nets": [TWICE, net_of(), TWICE]}, ValueError, "nets must be 3 different nets"),
        ({"nets": [net_of(), net_of(), nn.Linear(4, 3)]}, ValueError, "nets[2] must have the class"),
        ({"nets": [net_of(), WITH_RELU, net_of()]}, ValueError, "nets[1] must have the class, the parts"),
        ({"nets": [net_of(), HALF_FROZEN, net_of()]}, ValueError, "nets[1] must have the class, the parts"),
        ({"nets": TIED}, ValueError, "nets must hold parameters of their own; two of them share one"),
        ({"nets": FROZEN}, ValueError, "nets must have a parameter that requires a gradient"),
        ({"nets": [nn.BatchNorm1d(4) for _ in range(3)]}, ValueError, "nets must have no buffers"),
        ({"y": torch.zeros(3).long()}, ValueError, "X and y of shapes (3, 24, 4) and (3,) must be"),
        ({"X": torch.zeros(3, 5, 4)}, ValueError, "X and y of shapes (3, 5, 4) and (3, 24) must be"),
        ({"y": [0, 1]}, TypeError, "X and y must be tensors"),
    ],
)
def test_impossible_requests_for_many_nets(options, error, message):
    X, y = problems()
    nets = [net_of(i) for i in range(3)]
    before = [snapshot(net) for net in nets]
    with pytest.raises(error) as caught:
        train_nets(**{"nets": nets, "X": X, "y": y, **options})
    assert str(caught.value).startswith(message) and [snapshot(net) for net in nets] == before


# scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_accuracy_and_auc_against_three_oracles(seed, classes):
    torch.manual_seed(seed)
    scores = torch.randn(20, classes, dtype=torch.float64).repeat(3, 1)  # three of each: ties
    y = torch.cat([torch.arange(classes), torch.randint(0, classes, (60 - classes,))])
    net = nn.Identity()
    assert accuracy(net, scores, y) == accuracy_score(y, scores.numpy().argmax(1))
    P = scores.softmax(1).numpy()
    sklearns = roc_auc_score(y, P[:, 1]) if classes == 2 else roc_auc_score(y, P, multi_class="ovr")
    assert auc(net, scores, y) == pytest.approx(plain_auc(scores, y), abs=1e-14)
    assert auc(net, scores, y) == pytest.approx(float(sklearns), abs=1e-14)
    assert type(auc(net, scores, y)) is float and type(accuracy(net, scores, y)) is float


def test_accuracy_of_positions():
    scores = torch.randn(4, 5, 3)
    y = scores.argmax(-1)
    assert accuracy_of(scores, y) == 1.0
    y[0, 0] = (y[0, 0] + 1) % 3
    assert accuracy_of(scores, y) == 19 / 20


def test_chance_perfect_and_inverted():
    y = torch.tensor([0, 0, 1, 1])
    ranked = torch.stack([-torch.arange(4.0), torch.arange(4.0)], 1)
    assert auc_of(ranked, y) == 1.0 and auc_of(-ranked, y) == 0.0 and auc_of(torch.zeros(4, 2), y) == 0.5


def test_auc_is_taken_in_float64():
    """In float32 the softmax of confident logits is 1.0 for all of them, and their order is lost."""
    scores = torch.tensor([[0.0, 20.0], [0.0, 22.0], [0.0, 24.0], [0.0, 26.0]])
    y = torch.tensor([0, 0, 1, 1])
    assert auc(nn.Identity(), scores, y) == 1.0
    assert roc_auc_score(y, scores.softmax(1)[:, 1]) < 1.0  # the cheap setting


@pytest.mark.parametrize("others", [(), (-3.0,), (0.0, -9.0)])
def test_auc_ranks_samples_that_a_softmax_is_sure_of(others):
    """Also in float64 a probability is 1 from a logit of 37 on."""
    scores = torch.tensor([[0.0, high, *others] for high in (50.0, 60.0, 2000.0)])
    assert log_odds(scores)[:, 1].diff().tolist() == [10, 1940]
    assert auc_of(torch.tensor([[0.0, 50.0], [0.0, 60.0], [0.0, 70.0]]), torch.tensor([0, 0, 1])) == 1.0


@pytest.mark.parametrize("classes", [2, 3, 4, 9])
def test_log_odds_are_those_of_the_softmax_and_ties_stay_ties(classes):
    torch.manual_seed(classes)
    scores = torch.randint(-2, 3, (2000, classes)).float()
    P = scores.double().softmax(1)
    odds = log_odds(scores)
    assert torch.allclose(odds, P.logit(), rtol=0, atol=1e-13)
    kinds = {}  # a logit, and the others in any order and with any shift: one probability
    for i, row in enumerate(scores.tolist()):
        for c in range(classes):
            others = tuple(sorted(z - row[c] for j, z in enumerate(row) if j != c))
            kinds.setdefault(others, set()).add(float(odds[i, c]))
    assert all(len(values) == 1 for values in kinds.values())
    y = torch.randint(0, classes, (2000,))
    ranked = P.numpy().round(12)  # as sums of another order round them, not all ties of a softmax are ties
    sklearns = [roc_auc_score(y == c, ranked[:, c]) for c in range(classes)]
    wanted = sklearns[1] if classes == 2 else sum(sklearns) / classes
    assert auc_of(scores, y) == pytest.approx(float(wanted), abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_is_scored(dtype):
    scores = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]], dtype=dtype)
    y = torch.tensor([0, 1, 1])
    assert accuracy(nn.Identity(), scores, y) == 2 / 3 and auc(nn.Identity(), scores, y) == 0.5


@pytest.mark.parametrize("score", [accuracy, auc, lambda net, X, y: logits(net, X)])
@pytest.mark.parametrize("raises", [False, True])
def test_scoring_leaves_the_net_alone(score, raises):
    X, y = problem()
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    net.train()
    net[1].eval()
    X_in = X[:, :3] if raises else X
    before = snapshot(net, X, y)
    if raises:
        with pytest.raises(RuntimeError):
            score(net, X_in, y)
    else:
        first = score(net, X_in, y)
        assert torch.equal(torch.as_tensor(first), torch.as_tensor(score(net, X_in, y)))  # no dropout
    assert snapshot(net, X, y) == before


def test_scores_have_no_gradient():
    X, _ = problem()
    assert not logits(net_of(), X).requires_grad and torch.is_grad_enabled()


@pytest.mark.parametrize("score", [accuracy, auc])
@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2), ValueError, "y has 2 labels"),
        (
            torch.zeros(0, 2),
            torch.zeros(0),
            ValueError,
            "X of shape (0, 2) and y of shape (0,) must not be empty",
        ),
        (torch.zeros(3, 2), torch.zeros(3, 1), ValueError, ""),
        (3.0, None, TypeError, "X=3.0 must be a tensor, a tuple, a mapping or an iterable of batches"),
    ],
)
def test_scores_of_mismatched_labels(score, X, y, error, message):
    with pytest.raises(error) as caught:
        score(nn.Identity(), X, y)
    assert message in str(caught.value) and " " in str(caught.value)


def test_accuracy_names_both_shapes():
    with pytest.raises(ValueError, match=r"^y of shape \(3, 1\) must match the logits' \(3,\)$"):
        accuracy(nn.Identity(), torch.zeros(3, 2), torch.zeros(3, 1))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_class_that_a_mask_leaves_out_is_the_least_likely(classes):
    torch.manual_seed(0)
    scores, y = 3 * torch.randn(60, classes), torch.arange(60) % classes
    scores[torch.rand(60, classes) < 0.2] = -math.inf
    scores[scores.isneginf().all(1), 0] = 0.0
    P = scores.double().softmax(-1).numpy()
    areas = [roc_auc_score(y == c, P[:, c]) for c in range(classes)]
    assert auc(nn.Identity(), scores, y) == pytest.approx(np.mean(areas), abs=1e-12)


NO_ORDER = ([math.nan, 1.0], [math.inf, 0.0], [-math.inf, -math.inf])


@pytest.mark.parametrize(
    ("scores", "y", "message"),
    [
        (torch.eye(3), [0, 1, 1], "y must hold every one of the 3 classes for an AUC; it lacks [2]"),
        (torch.ones(4, 3), [0, 1, 2, 3], "y holds the label 3, but the logits only have 3 classes"),
        (torch.ones(4, 3), [0, 1, 2, -1], "y holds the label -1, but the logits only have 3 classes"),
        *((torch.tensor([row, [0.0, 1.0]]), [0, 1], "net(X) of shape (2, 2) has nan") for row in NO_ORDER),
        (torch.ones(3, 1), [0, 0, 0], "logits and y of shapes (3, 1) and (3,) must be (N, C) with C >= 2"),
        (torch.ones(2, 2, 3), [[0, 1], [2, 0]], "logits and y of shapes (2, 2, 3) and (2, 2) must be (N, C)"),
    ],
)
def test_auc_says_what_it_needs(scores, y, message):
    with pytest.raises(ValueError) as caught:
        auc(nn.Identity(), scores, torch.tensor(y))
    assert str(caught.value).startswith(message)
