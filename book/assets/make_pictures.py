"""Draw the pictures of the landing page: `.venv/bin/python book/assets/make_pictures.py`."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_image

from lowrank_utils import low_rank_approximation

HERE = Path(__file__).parent
INK, BLUE, ORANGE = "#1a1a1a", "#0072b2", "#d55e00"
RANKS = (5, 20, 60)


def photo_strip() -> None:
    """The same photograph at four ranks, with the share of numbers that each one stores."""
    photo = torch.tensor(load_sample_image("china.jpg").mean(axis=2)) / 255  # (m, n)
    m, n = photo.shape
    views = [(low_rank_approximation(photo, r).clamp(0, 1), f"rank {r}", r * (m + n)) for r in RANKS]
    views.append((photo, f"the photograph, rank {min(m, n)}", m * n))
    figure, axes = plt.subplots(2, 2, figsize=(6.2, 5), layout="constrained")
    for ax, (view, name, stored) in zip(axes.flat, views, strict=True):
        ax.imshow(view, cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"{name}\n{stored / (m * n):.0%} of the numbers", fontsize=11, color=INK)
        ax.set_axis_off()
    figure.savefig(HERE / "photo-ranks.jpg", dpi=150, pil_kwargs={"quality": 80})


def social_card() -> None:
    """W as the product of a tall and a wide matrix, with the title: 1200 by 630 pixels."""
    figure = plt.figure(figsize=(12, 6.3), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, 12), ylim=(0, 6.3))
    ax.set_axis_off()
    boxes = [
        (1.2, 1.0, 3.4, 2.6, INK, "W"),
        (6.0, 1.0, 0.6, 2.6, BLUE, "U"),
        (7.1, 3.0, 3.4, 0.6, ORANGE, "$V^\\top$"),
    ]
    for x, y, width, height, colour, name in boxes:
        ax.add_patch(Rectangle((x, y), width, height, color=colour))
        ax.text(x + width / 2, y + height / 2, name, color="white", size=34, ha="center", va="center")
    ax.text(5.3, 2.3, "≈", size=54, ha="center", va="center", color=INK)
    ax.text(7.1, 1.9, "mn numbers become\nr (m + n)", size=26, color=INK, va="center")
    ax.text(1.2, 5.2, "Low-rank compression", size=46, color=INK, weight="bold", va="center")
    ax.text(1.2, 4.4, "of neural networks, every number run and checked", size=27, color=INK, va="center")
    figure.savefig(HERE / "social-card.png", dpi=100)


if __name__ == "__main__":
    photo_strip()
    social_card()
