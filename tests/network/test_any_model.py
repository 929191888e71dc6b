"""`compress_within` in one call, on models of every kind."""

import pytest
import torch
from oracles import Lambda, snapshot
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from lowrank_utils import (
    compress_within,
    count_macs,
    count_params,
    load_docstrings,
    load_minilm,
    minilm_tokens,
    unpack_attention,
)


def _residual_net():
    torch.manual_seed(0)
    return resnet18(num_classes=10).eval(), {"skip": ["conv1"], "steps": 3}, 0.02, torch.randn(2, 3, 32, 32)


def _vision_transformer():
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_dim": 64, "mlp_dim": 128}
    model = VisionTransformer(image_size=32, patch_size=8, **sizes, num_classes=10).eval()
    return unpack_attention(model), {"steps": 3}, 0.3, torch.randn(2, 3, 32, 32)


COSTS = {"resnet18": _residual_net, "vision transformer": _vision_transformer}


@pytest.mark.parametrize("name", COSTS)
def test_by_a_metric_of_the_model_alone(name):
    """Random weights, so what counts is cost: the smallest net that has a given share of the parameters."""
    model, options, share, x = COSTS[name]()
    before = count_params(model)

    def is_large_enough(net):
        return float(count_params(net) >= share * before)

    as_it_was = snapshot(model, x)
    small, report = compress_within(model, metric=is_large_enough, max_drop=0.0, **options)
    assert snapshot(model, x) == as_it_was
    assert share * before <= count_params(small) < 3 * share * before and report.feasible
    assert count_macs(small, x) < count_macs(model, x)
    assert all(row.macs is None for row in report.layers)
    assert small(x).shape == model(x).shape


def trained(model, X, y, loss, epochs=60):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(epochs):
        optimizer.zero_grad()
        loss(model(X), y).backward()
        optimizer.step()
    return model.eval()


def _cnn():
    from lowrank_utils import load_split

    data = load_split("digits", val_size=0.2, stratify=True)
    X, X_val = (x.reshape(-1, 1, 8, 8) for x in (data.X_train, data.X_val))
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(288, 10),
    )  # fmt: skip
    model = trained(model, X, data.y_train, nn.functional.cross_entropy, 25)
    return model, (X_val, data.y_val), {"calibration": (X, data.y_train), "max_drop": 0.05}


def sequences(classes):
    """Which of the positions holds the largest first entry."""
    X = torch.randn(400, classes, 6)
    return X, X[:, :, 0].argmax(1)


def _encoder():
    X, y = sequences(4)
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
    model = Lambda(lambda s, x: s.head(s.encoder(s.embed(x))).squeeze(-1), embed=nn.Linear(6, 16),
                   encoder=encoder, head=nn.Linear(16, 1))  # fmt: skip
    model = trained(model, X, y, nn.functional.cross_entropy)
    return unpack_attention(model), (X, y), {}


def _lstm():
    X, y = sequences(3)
    layers = {"rnn": nn.LSTM(6, 16, batch_first=True), "hidden": nn.Linear(48, 40), "head": nn.Linear(40, 3)}
    model = Lambda(lambda s, x: s.head(s.hidden(s.rnn(x)[0].flatten(1)).relu()), **layers)
    return trained(model, X, y, nn.functional.cross_entropy), (X, y), {}


def _regression():
    X = torch.randn(300, 8)
    y = X[:, :2].sin() + X[:, 2:4]
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
    model = trained(model, X, y, nn.functional.mse_loss, 150)

    def minus_error(net, X, y):
        return -float((net(X) - y).square().mean())

    def squares(outputs, batch):
        return (outputs - batch.labels).square().sum()

    return model, (X, y), {"metric": minus_error, "loss": squares, "max_drop": 0.05}


def _one_logit():
    X = torch.randn(300, 8)
    y = (X[:, 0] * X[:, 1] > 0).float()
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    loss = nn.functional.binary_cross_entropy_with_logits
    model = trained(model, X, y[:, None], loss, 150)

    def summed(outputs, batch):
        return loss(outputs[:, 0], batch.labels.float(), reduction="sum")

    return model, (X, y.long()), {"loss": summed}


def _sentence_encoder():
    """all-MiniLM-L6-v2 as it is used; a few of its layers, on a few words of a few texts."""
    model = unpack_attention(load_minilm())
    X = minilm_tokens([pair.summary for pair in load_docstrings(48)], most=12)
    few, seen = X[:24], X[24:]
    with torch.no_grad():
        embeddings = model(few)

    def cosine(net, X, y):
        with torch.no_grad():
            return float((net(X) * embeddings).sum(1).mean())

    layers = [f"encoder.layers.{i}.linear1" for i in range(1, 5)]
    options = {"metric": cosine, "calibration": seen, "layers": layers, "refit": False, "steps": 3}
    options |= {"mask": lambda tokens: tokens != 0}
    # the table of words alone is half the numbers, and these layers a tenth
    return model, (few, None), options | {"max_drop": 0.1, "left": 0.96}


SCORED = {
    "cnn": _cnn,
    "encoder": _encoder,
    "lstm": _lstm,
    "regression": _regression,
    "one logit": _one_logit,
    "all-MiniLM-L6-v2": _sentence_encoder,
}


@pytest.mark.filterwarnings("ignore:left as they are. 'rnn' is a fused LSTM")
@pytest.mark.parametrize("name", SCORED)
def test_by_data(name):
    torch.manual_seed(0)
    model, (X, y), options = SCORED[name]()
    left = options.pop("left", 0.8)
    given = [X] if y is None else [X, y]
    before = snapshot(model, *given)
    small, report = compress_within(model, X, y, **({"max_drop": 0.03, "steps": 4} | options))
    assert report.feasible and count_params(small) < left * count_params(model)
    assert report.baseline - report.score <= report.max_drop + 1e-9
    assert count_macs(small, X[:1]) < count_macs(model, X[:1])
    assert str(report).count("\n") == len(report.layers) + 1 and report.layers[0].macs > 0
    assert snapshot(model, *given) == before
