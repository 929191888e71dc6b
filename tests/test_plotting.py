"""The figures: what is drawn, on which axes, with labels; pixels are not compared."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from oracles import snapshot
from torch import nn

from lowrank_utils import Harm, HarmCurve, LayerHarm, RankSearch, Report, plotting


@pytest.fixture(autouse=True)
def closed():
    with matplotlib.rc_context():
        yield
    plt.close("all")


SEARCH = RankSearch("fc1", 2, 3, 0.9, {1: 0.5, 2: 0.85, 3: 0.88}, 0.1, 3)
NONE = RankSearch("fc1", None, None, 0.9, {1: 0.5, 2: 0.6}, 0.1, 2)
HARM = Harm(
    {
        "conv": LayerHarm(
            (6, 10),
            (
                HarmCurve("channel", (1, 2), (16, 32), (16, 32), (4.0, 1.0), {0: 8.0, 1: 2.0}),
                HarmCurve("kernel", (1, 2), (12, 24), (12, 24), (4.0, 1.0), {0: 40.0, 1: 10.0}),
            ),
        ),
        "head": LayerHarm((5, 5), (HarmCurve("", (1, 2), (10, 20), (10, 20), (3.0, 1.0), {0: 9.0}),)),
    },
    "squared",
    10,
    5,
)
QUESTIONS = [("Is it hot?", "no", "Wait"), ("Is it late?", "yes", "Stop")]
BLOCKS = {"layers.0.up": 0.5, "layers.0.down": 0.1, "layers.2.up": 1.0}
PETALS = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
KINDS = torch.arange(30) % 3


def data(ax):
    return [tuple(map(list, line.get_data())) for line in ax.lines]


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


DRAW = {
    "spectrum": lambda ax: plotting.spectrum(torch.tensor([3.0, 2.0, 1.0]), kept=1, ax=ax),
    "decision_regions": lambda ax: plotting.decision_regions(nn.Linear(4, 3), PETALS, KINDS, ax=ax),
    "block_map": lambda ax: plotting.block_map(BLOCKS, label="share kept", ax=ax),
    "decision_chart": lambda ax: plotting.decision_chart(QUESTIONS, "Go", ax=ax),
    "harm_curves": lambda ax: plotting.harm_curves(HARM, ax=ax),
    "rank_curve": lambda ax: plotting.rank_curve(SEARCH, ax=ax),
    "band": lambda ax: plotting.band([1, 2, 3], torch.rand(5, 3), ax=ax),
    "strip": lambda ax: plotting.strip({"a": [0.5, 0.6], "b": [0.7]}, ax=ax),
}


@pytest.mark.parametrize("name", DRAW)
def test_it_draws_where_it_is_told(name):
    _, ax = plt.subplots()
    before = plt.get_fignums()
    assert DRAW[name](ax) is ax and plt.get_fignums() == before
    made = DRAW[name](None)
    assert isinstance(made, Axes) and made is not ax
    assert ax.collections or ax.lines or ax.patches or ax.images
    if name not in ("band", "decision_chart"):  # the caller says what a band's axes are; a chart has none
        assert ax.get_xlabel() and (ax.get_ylabel() or ax.get_yticklabels())
    ax.figure.canvas.draw()


@pytest.mark.filterwarnings("error")
def test_a_colour_bar_stands_beside_its_map_whatever_figure_is_current():
    figure = Figure()
    ax = figure.subplots()
    plotting.block_map(BLOCKS, label="share kept", ax=ax)
    assert figure.axes[1].get_ylabel() == "share kept" and plt.get_fignums() == []


def test_decision_chart_has_a_box_for_each_text_and_both_answers():
    ax = plotting.decision_chart(QUESTIONS, "Go")
    texts = [text.get_text() for text in ax.texts if text.get_text()]
    assert sorted(texts) == sorted(
        ["Is it hot?", "Wait", "no", "yes", "Is it late?", "Stop", "yes", "no", "Go"]
    )
    boxes = [patch.get_extents().bounds for patch in ax.patches]
    assert len(boxes) == 5
    for i, (left, bottom, width, height) in enumerate(boxes):
        for x, y, w, h in boxes[:i]:  # no box covers another
            assert left >= x + w or x >= left + width or bottom >= y + h or y >= bottom + height


def test_a_decision_is_yes_or_no():
    with pytest.raises(ValueError, match=r"^questions\[1\]\[1\]='maybe' must be one of 'no', 'yes'$"):
        plotting.decision_chart([*QUESTIONS[:1], ("Is it late?", "maybe", "Stop")], "Go")


@pytest.mark.parametrize("kept", [0, 2, 4])
@pytest.mark.parametrize("log", [False, True])
def test_spectrum_shows_every_value(kept, log):
    S = torch.tensor([4.0, 3.0, 2.0, 1.0], requires_grad=True)
    ax = plotting.spectrum(S, kept=kept, log=log)
    assert data(ax) == [([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0])]
    points = [c.get_offsets().tolist() for c in ax.collections]
    assert sum(points, []) == [[1, 4], [2, 3], [3, 2], [4, 1]]
    assert [len(p) for p in points] == ([kept, 4 - kept] if kept else [4])
    assert ax.get_yscale() == ("log" if log else "linear")
    if kept:
        assert labels(ax) == [f"kept: {kept}", f"dropped: {4 - kept}"]


def test_heatmaps_share_one_scale_symmetric_about_zero():
    """The seed notebook printed W' ten times larger than W."""
    A, B = torch.tensor([[1.0, -5.0]], requires_grad=True), torch.tensor([[0.5, 2.0]])
    fig = plotting.heatmaps({"W": A, "W'": B}, annotate=True)
    assert isinstance(fig, Figure)
    pictures = [ax.images[0] for ax in fig.axes[:2]]
    assert [p.get_clim() for p in pictures] == [(-5.0, 5.0)] * 2
    assert [p.get_array().tolist() for p in pictures] == [[[1.0, -5.0]], [[0.5, 2.0]]]
    assert [ax.get_title() for ax in fig.axes[:2]] == ["W", "W'"] and all(
        ax.get_xlabel() for ax in fig.axes[:2]
    )
    assert [t.get_text() for t in fig.axes[0].texts] == ["1.00", "-5.00"]
    assert not plotting.heatmaps({"W": B}).axes[0].texts


def test_decision_regions_show_the_nets_classes_and_leave_it_alone():
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    before = snapshot(net, PETALS, KINDS)
    ax = plotting.decision_regions(net, PETALS, KINDS)
    assert snapshot(net, PETALS, KINDS) == before
    assert labels(ax) == ["setosa", "versicolor", "virginica"]
    points = [c.get_offsets() for c in ax.collections if len(c.get_offsets()) == 10]
    assert len(points) == 3 and np.allclose(points[1], PETALS[KINDS == 1][:, 2:4])
    low, high = PETALS[:, 2].min().item(), PETALS[:, 2].max().item()
    assert ax.get_xlim()[0] <= low and ax.get_xlim()[1] >= high


def test_decision_regions_are_a_slice_at_the_sample_asked_for():
    class BySepals(nn.Module):  # the class is the sign of the first feature, which the axes do not show
        def forward(self, X):
            return torch.stack([-X[:, 0], X[:, 0], torch.full_like(X[:, 0], -9.0)], 1)

    for first, winner in ((-1.0, 0), (1.0, 1)):
        at = torch.tensor([first, 0.0, 0.0, 0.0])
        ax = plotting.decision_regions(BySepals(), PETALS, KINDS, at=at)
        filled = [i for i, path in enumerate(ax.collections[0].get_paths()) if len(path.vertices)]
        assert filled == [winner] and at.tolist() == [first, 0.0, 0.0, 0.0]


def test_decision_regions_in_double_and_with_more_classes_than_colours():
    X, y = PETALS.double(), torch.arange(30) % 9
    ax = plotting.decision_regions(nn.Linear(4, 9).double(), X, y, classes=[*"abcdefghi"])
    assert labels(ax) == [*"abcdefghi"]
    marks = ax.collections[-9:]
    assert len({(str(m.get_facecolor()), str(m.get_paths()[0].vertices)) for m in marks}) == 9
    plotting.decision_regions(nn.Linear(4, 9).double(), X, y, classes=[*"abcdefghi"], at=torch.zeros(4))


def test_a_class_without_a_name_is_no_blank():
    y = torch.arange(30) % 5
    figures = plt.get_fignums()
    with pytest.raises(ValueError, match=r"classes=\('setosa', .*\) must be names of all .* label 4 among"):
        plotting.decision_regions(nn.Linear(4, 5), PETALS, y)
    always = nn.Linear(4, 5)
    always.bias.data[3] = 1e6
    with pytest.raises(ValueError, match="label 3 among"):
        plotting.decision_regions(always, PETALS, KINDS)
    assert plt.get_fignums() == figures


@pytest.mark.parametrize("bias", [-1e6, 1e6])
def test_decision_regions_of_one_logit(bias):
    net = nn.Linear(4, 1)
    net.bias.data.fill_(bias)
    ax = plotting.decision_regions(net, PETALS, KINDS % 2, classes=["no", "yes"])
    filled = [len(path.vertices) > 0 for path in ax.collections[0].get_paths()]
    assert filled == [bias < 0, bias > 0]


def test_decision_regions_have_half_a_unit_of_margin():
    ax = plotting.decision_regions(nn.Linear(4, 3), PETALS, KINDS)
    low, high = PETALS[:, 2:].min(0).values, PETALS[:, 2:].max(0).values
    limits = [*ax.get_xlim(), *ax.get_ylim()]
    wanted = [low[0] - 0.5, high[0] + 0.5, low[1] - 0.5, high[1] + 0.5]
    assert limits == pytest.approx([float(w) for w in wanted])


@pytest.mark.filterwarnings("error")
def test_decision_regions_of_samples_with_a_gradient():
    net, X = nn.Linear(4, 3), PETALS.clone().requires_grad_()
    axes = [plotting.decision_regions(net, A, KINDS) for A in (X, PETALS)]
    assert X.requires_grad and X.grad is None
    assert axes[0].get_xlim() == axes[1].get_xlim() and axes[0].get_ylim() == axes[1].get_ylim()
    for drawn, plain in zip(axes[0].collections, axes[1].collections, strict=True):
        assert np.array_equal(drawn.get_offsets(), plain.get_offsets())


def test_more_ratio_curves_than_markers():
    _, ax = plt.subplots()
    assert plotting.ratio_curves([1.0, 2.0], {str(i): [i, i] for i in range(9)}, "time", ax) is ax
    assert len(ax.lines) == 10


def test_harm_curves_are_the_least_of_all_forms():
    ax = plotting.harm_curves(HARM)
    (x, y), (shares, harms) = data(ax)
    assert x == pytest.approx([12 / 60, 16 / 60, 32 / 60]) and y == pytest.approx([40.0, 8.0, 2.0])
    assert shares == pytest.approx([0.4, 0.8]) and harms == pytest.approx([9.0, 3.0])
    assert labels(ax) == ["conv", "head", "channel", "kernel", "product A B"]
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    wanted = [[16 / 60, 8.0], [32 / 60, 2.0], [12 / 60, 40.0], [24 / 60, 10.0], [0.4, 9.0]]
    assert np.allclose(points, wanted)
    many = Harm({f"layer {i}": HARM.layers["head"] for i in range(20)}, "kl", 1, 1)
    assert len({tuple(np.atleast_1d(line.get_color())) for line in plotting.harm_curves(many).lines}) == 20


def test_rank_curve_shows_the_limit_and_the_rank():
    ax = plotting.rank_curve(SEARCH, label="curve")
    assert data(ax)[0] == ([1, 2, 3], [0.5, 0.85, 0.88])
    assert [line[1][0] for line in data(ax)[1:]] == pytest.approx([0.9, 0.8])
    assert ax.collections[-1].get_offsets().tolist() == [[2, 0.85]]
    assert any("2" in text and "feasible" in text for text in labels(ax))
    assert not plotting.rank_curve(NONE).collections


def test_band_is_the_mean_and_the_middle_eight_tenths():
    runs = torch.arange(11.0)[:, None] * torch.tensor([[1.0, 2.0]])
    ax = plotting.band([5, 6], runs, label="ours")
    assert data(ax) == [([5, 6], [5.0, 10.0])]
    y = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (y.min(), y.max()) == (1.0, 18.0)  # the 10th and the 90th percentile
    plotting.band([5, 6], runs, ax=ax)
    assert ax.lines[0].get_marker() != ax.lines[1].get_marker()  # not told apart by colour alone


def test_strip_shows_every_value_and_the_mean():
    ax = plotting.strip({"a": [0.5, 0.75], "b": [0.25]}, unit="AUC")
    assert [c.get_offsets()[:, 0].tolist() for c in ax.collections] == [[0.5, 0.75], [0.25]]
    assert [line[0] for line in data(ax)] == [[0.625, 0.625], [0.25, 0.25]]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"] and ax.get_xlabel() == "AUC"


def test_the_frontier_rises_and_marks_what_was_returned():
    tried = {10: (0.5, {"0": 1}), 20: (0.4, {"0": 2}), 40: (0.9, {"0": 3})}
    report = Report((), 0.95, 0.9, 0.1, (100, 40), tried, {}, True)
    ax = plotting.frontier(report)
    points, returned = (c.get_offsets().tolist() for c in ax.collections)
    assert points == [[10, 0.5], [20, 0.4], [40, 0.9]] and returned == [[40, 0.9]]
    step, allowed = data(ax)
    assert step == ([10, 20, 40], [0.5, 0.5, 0.9]) and allowed[1] == pytest.approx([0.85, 0.85])
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "parameters"
    assert ax.lines[0].get_drawstyle() == "steps-post"  # a score holds from its size on


def test_images_keep_their_range():
    fig = plotting.images({"a": torch.tensor([[0.0, 2.0], [-1.0, 0.5]]), "b": torch.ones(3, 3)})
    assert [ax.get_title() for ax in fig.axes] == ["a", "b"]
    assert fig.axes[0].images[0].get_array().tolist() == [[0, 1], [0, 0.5]]
    assert fig.axes[0].images[0].get_clim() == (0, 1)
    colours = torch.rand(2, 3, 3)
    assert np.allclose(plotting.images({"c": colours}).axes[0].images[0].get_array(), colours)


@pytest.mark.parametrize("draw", [plotting.images, plotting.heatmaps])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_pictures_of_every_precision_with_a_gradient(draw, dtype):
    M = torch.tensor([[0.5, 0.25]], dtype=dtype, requires_grad=True)
    fig = draw({"a": M})
    assert fig.axes[0].images[0].get_array().tolist() == [[0.5, 0.25]]
    fig.canvas.draw()


def test_a_picture_of_bytes_is_not_drawn_white():
    assert plotting.images({"a": torch.tensor([[0, 1]])}).axes[0].images[0].get_array().tolist() == [[0, 1]]
    with pytest.raises(ValueError, match=r"pictures\['a'\]=Tensor.* must be from 0 to 1"):
        plotting.images({"a": torch.tensor([[0, 255]], dtype=torch.uint8)})


@pytest.mark.parametrize("kept", [-1, 4])
def test_a_spectrum_keeps_what_it_has(kept):
    with pytest.raises(ValueError, match=f"kept={kept} must be an integer from 0 to 3"):
        plotting.spectrum(torch.tensor([3.0, 2.0, 1.0]), kept=kept)


def test_images_leave_no_empty_frame():
    fig = plotting.images({str(i): torch.ones(2, 2) for i in range(4)}, columns=3)
    assert len(fig.axes) == 6 and not any(ax.axison for ax in fig.axes)


def test_style_is_asked_for_and_not_forced():
    default = matplotlib.rcParams["axes.spines.top"]
    assert default  # importing lowrank_utils.plotting changes nothing
    plotting.use_style()
    assert not matplotlib.rcParams["axes.spines.top"]
    colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    assert colours == list(plotting.COLOURS) and len(set(colours)) == len(plotting.MARKERS) == 7


def test_all_lists_the_figures():
    names = plotting.__all__
    assert names == sorted(names)
    functions = {
        n for n, f in vars(plotting).items() if getattr(f, "__module__", "").startswith(plotting.__name__)
    }
    assert {n for n in functions if not n.startswith("_")} == set(names)


def test_block_map_has_a_place_for_each_layer():
    ax = plotting.block_map(BLOCKS, label="share kept")
    grid = ax.images[0].get_array().filled(np.nan)
    assert np.array_equal(grid, [[0.5, 1.0], [0.1, np.nan]], equal_nan=True)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["up", "down"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "2"]
    assert sorted(t.get_text() for t in ax.texts) == ["0.10", "0.50", "1.00"]
    assert ax.figure.axes[1].get_ylabel() == "share kept"


@pytest.mark.parametrize(
    ("values", "rows", "grid"),
    [
        (
            {"encoder.layers.0.up": 1.0, "decoder.layers.0.up": 2.0, "decoder.layers.1.up": 3.0, "0.q": 4.0},
            ["encoder.layers.*.up", "decoder.layers.*.up", "q"],
            [[1, np.nan], [2, 3], [4, np.nan]],
        ),
        (
            {"blocks.0.ff.0.proj": 1.0, "blocks.1.ff.0.proj": 2.0, "0.proj": 3.0},
            ["blocks.0.ff.*.proj", "blocks.1.ff.*.proj", "*.proj"],
            [[1], [2], [3]],
        ),
        ({"a.0.up": 1.0, "b.1.up": 2.0, "a.1.ff.2": 3.0}, ["up", "ff.2"], [[1, 2], [np.nan, 3]]),
        ({"0.up": 1.0, "00.up": 2.0}, ["up"], [[1, 2]]),
    ],
)
def test_block_map_shows_each_value(values, rows, grid):
    ax = plotting.block_map(values, label="share")
    assert [t.get_text() for t in ax.get_yticklabels()] == rows
    assert np.array_equal(ax.images[0].get_array().filled(np.nan), grid, equal_nan=True)
    assert len(ax.texts) == len(values)


def test_block_map_writes_white_on_dark_and_black_on_light():
    ax = plotting.block_map({"0.a": 0.0, "1.a": 1.0}, label="share")
    assert [t.get_color() for t in ax.texts] == ["white", "black"]


def test_block_map_by_logarithm():
    ax = plotting.block_map({"0.a": 1.0, "1.a": 100.0, "2.a": 10.0}, label="price", log=True)
    assert np.allclose(ax.images[0].norm([1.0, 10.0, 100.0]), [0, 0.5, 1])
    assert [t.get_text() for t in ax.texts] == ["1", "1e+02", "10"]


@pytest.mark.parametrize("name", ["head", "3", "linear1"])
def test_block_map_wants_a_block(name):
    with pytest.raises(ValueError, match=f"values='{name}' must be named with the number of a block"):
        plotting.block_map({"layers.0.up": 0.5, name: 1.0}, label="share")
