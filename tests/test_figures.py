"""Figures are compared: what rounding does to one passes, what a mistake does to it does not."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import figures
import matplotlib
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
X = np.linspace(0, 1, 40)


def draw(shift=0.0, curves=2, label="accuracy", colour="#0072B2", points=40, size=(6.4, 3.4), ring=False):
    """A figure in the book's size, as a notebook stores it."""
    fig, ax = plt.subplots(figsize=size, dpi=120, layout="constrained")
    ax.plot(X[:points], (X**2 * (1 + shift))[:points], color=colour, marker="o", label="first")
    if curves > 1:
        ax.plot(X, X**3, color="#D55E00", lw=1.5, label="second")
    if ring:
        ax.scatter([0.5], [0.8], s=60, facecolor="none", edgecolor="black")
    ax.set(xlabel="rank", ylabel=label)
    file = io.BytesIO()
    fig.savefig(file)
    plt.close(fig)
    return base64.b64encode(file.getvalue()).decode()


RED = io.BytesIO()
Image.new("RGB", (1, 1), "red").save(RED, "png")
STORED = draw()


@pytest.mark.parametrize("shift", [0.0, 1e-6, 1e-4])
def test_a_figure_moved_by_rounding_passes(shift):
    assert figures.compare([STORED], [draw(shift=shift)])[0] == ""


@pytest.mark.parametrize(
    ("fresh", "word"),
    [
        (base64.b64encode(RED.getvalue()).decode(), "pixels"),
        (draw(curves=1), "differs"),
        (draw(label="error"), "differs"),
        (draw(label="Accuracy"), "differs"),
        (draw(colour="#009E73"), "differs"),
        (draw(points=39), "differs"),
        (draw(shift=0.05), "differs"),
        (draw(ring=True), "differs"),
        (draw(size=(6.4, 3.5)), "pixels"),
    ],
    ids=["red pixel", "curve", "label", "capital", "colour", "point", "shift", "ring", "size"],
)
def test_a_mistake_is_seen(fresh, word):
    assert word in figures.compare([STORED], [fresh])[0]


def test_a_figure_too_few_or_too_many_is_seen():
    assert figures.compare([STORED], [])[0] == "1 figures are stored, 0 were drawn"
    assert figures.compare([], [STORED])[0] and figures.compare([], []) == ("", 0.0)


def test_a_notebook_whose_figure_is_another_fails(tmp_path):
    """Through nbval, which by itself skips images."""
    source = "import matplotlib.pyplot as plt\n_ = plt.plot([0, 1], [0, {}])"
    for name, end in (("same", 1), ("other", 2)):
        fig = plt.figure()
        plt.plot([0, 1], [0, end])
        file = io.BytesIO()
        fig.savefig(file, bbox_inches="tight")  # as the inline backend does
        plt.close(fig)
        png = base64.b64encode(file.getvalue()).decode()
        text = "<Figure size 640x480 with 1 Axes>"
        nb = new_notebook(cells=[new_code_cell(source.format(1), execution_count=1)])
        nb.cells[0].outputs = [new_output("display_data", {"image/png": png, "text/plain": text})]
        nbformat.write(nb, tmp_path / f"{name}.ipynb")
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['figures']\n")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(tmp_path), "-c", "/dev/null", "--color=no", "-rA", "-q"]
    env = os.environ | {"PYTHONPATH": str(HERE)}
    env.pop("ROUNDING_NOISE", None)
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert "PASSED same.ipynb::Cell 0" in ran.stdout and "FAILED other.ipynb::Cell 0" in ran.stdout, (
        ran.stdout
    )
    assert "same " in ran.stdout and "figures, by 0.00 at most" in ran.stdout
