"""The answers of networks at several temperatures, as a plot for papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distillctl.analysis.softened import Temperatures, softmax
from distillctl.pages.plots import figure, plain, save
from distillctl.pages.softmax_page import likeliest


def write_softmax_plot(path: Path, found: Temperatures) -> None:
    """Writes bars of the likeliest classes: a row for each image, a column for each temperature.

    Raises:
        OSError: it cannot be written.
    """
    made = figure(0.6 + 1.5 * len(found.temperatures), 0.4 + 1.7 * len(found.shown))
    grid = made.subplots(len(found.shown), len(found.temperatures), squeeze=False)
    width = 0.8 / len(found.logits)
    for one, line in zip(found.shown, grid, strict=True):
        chosen = likeliest(found, one.row)
        for axes, value in zip(line, found.temperatures, strict=True):
            for side, (who, answers) in enumerate(found.logits.items()):
                shares = softmax(answers[one.row : one.row + 1], value)[0][chosen]
                axes.bar(np.arange(len(chosen)) + side * width, shares, width, label=who)
            axes.set_title(f"T = {value:g}", fontsize=8)
            axes.set_xticks(np.arange(len(chosen)), [plain(found.classes[number]) for number in chosen], rotation=90, fontsize=6)
            axes.tick_params(axis="y", labelsize=6)
        line[0].set_ylabel(plain(one.label or one.name), fontsize=8)
    grid[0][0].legend(fontsize=6)
    save(path, made)
