"""The curves of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator


def draw_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Draw loss and root accuracy of training and validation over the epochs into a PNG file."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    epochs = [entry["epoch"] for entry in history]
    for axis, metric, title in zip(axes, ("loss", "root_accuracy"), ("loss", "root accuracy"), strict=True):
        for split in ("train", "valid"):
            axis.plot(epochs, [entry[split][metric] for entry in history], marker="o", markersize=3, label=split)
        axis.set_xlabel("epoch")
        axis.set_title(title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=120)
    partial.replace(path)
    plt.close(figure)
