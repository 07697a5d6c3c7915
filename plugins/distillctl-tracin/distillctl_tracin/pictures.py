"""A contact sheet of proponents and opponents, and the distributions of values as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from distillctl_tracin import ranks
from distillctl_tracin.trace import Traced

SHOWN, ACROSS = 12, 8
"""Training images on the sheet, and images of the other side in a row."""
_TILE, _GAP, _LINE, _LARGE = 84, 10, 15, 168
_INK, _FAINT, _SAME = "#1a1a1a", "#595959", "#1a9850"
_MOST = 1_000_000
"""Values that a histogram looks at."""


def draw_sheet(traced: Traced, names: Sequence[str]) -> Image.Image:
    """For each of the first training images the images whose loss it lowered and raised most, a pair of rows for each network.

    Under a picture stand its class and its value; green are those of the training image's class. names: of the networks.
    """
    run, networks = traced.run.run, list(traced.networks.values())
    count = min(SHOWN, len(traced.train))
    rows = [(network, sign) for network in networks for sign in (1, -1)]
    height = len(rows) * (_TILE + 2 * _LINE + _GAP) + 2 * _GAP
    sheet = Image.new("RGB", (2 * _GAP + _LARGE + 120 + ACROSS * (_TILE + _GAP), _GAP + count * height), "#ffffff")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    classes = run.task.data.classes
    pictures = run.pictures("train", traced.train[:count])
    for number in range(count):
        top, label = _GAP + number * height, traced.labels[0][number]
        sheet.paste(_picture(pictures[number], _LARGE), (_GAP, top))
        draw.text((_GAP, top + _LARGE + 4), _cut(classes[label], font, _LARGE), _INK, font)
        draw.text((_GAP, top + _LARGE + 4 + _LINE), f"training image {traced.train[number]}", _FAINT, font)
        for place, (network, sign) in enumerate(rows):
            y, values = top + place * (_TILE + 2 * _LINE + _GAP), network.values[number]
            chosen = np.argsort(-sign * values, kind="stable")[:ACROSS].tolist()
            x = 2 * _GAP + _LARGE
            draw.text((x, y), _cut(names[networks.index(network)], font, 110), _INK, font)
            draw.text((x, y + _LINE), "proponent of" if sign > 0 else "opponent of", _FAINT, font)
            found = run.pictures(traced.split, [traced.test[i] for i in chosen])
            for column, i in enumerate(chosen):
                left, other = x + 120 + column * (_TILE + _GAP), traced.labels[1][i]
                sheet.paste(_picture(found[column], _TILE), (left, y))
                draw.text((left, y + _TILE + 2), _cut(classes[other], font, _TILE), _SAME if other == label else _INK, font)
                draw.text((left, y + _TILE + 2 + _LINE), f"{values[i]:.3g}", _FAINT, font)
    return sheet


def _picture(pixels: Tensor, side: int) -> Image.Image:
    """(C, H, W), uint8 → a square of so many pixels."""
    array = pixels.expand(3, -1, -1).permute(1, 2, 0).numpy()
    small = max(array.shape[:2]) * 2 <= side
    return Image.fromarray(np.ascontiguousarray(array)).resize(
        (side, side), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    )


def _cut(text: str, font: Any, width: int) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def write_distributions(path: Path, traced: Traced, names: Sequence[str]) -> None:
    """How values are distributed for each network, and with two of them the common share of the first k for every k, beside chance.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    networks = list(traced.networks.values())
    figure = Figure(figsize=(4.2 * (len(networks) + (len(networks) > 1)), 3.4), layout="constrained")
    every = figure.subplots(1, len(networks) + (len(networks) > 1), squeeze=False)[0]
    for axes, network, name in zip(every, networks, names, strict=False):
        flat = network.values.reshape(-1)
        axes.hist(flat[:: -(-flat.size // _MOST)], bins=101, color="#4477aa", log=True)
        axes.axvline(0, color="#1a1a1a", linewidth=0.8)
        axes.set(title=name, xlabel="influence", ylabel="pairs")
    if traced.other is not None:
        _common_shares(every[-1], traced)
    figure.savefig(path, dpi=150)


def _common_shares(axes: Any, traced: Traced) -> None:
    pool = len(traced.test)
    depths = [ranks.depths(one, other) for one, other in zip(traced.run.values[:200], traced.other.values[:200], strict=True)]  # type: ignore[union-attr]
    depth = np.arange(1, pool + 1)
    shares = np.array([np.cumsum(np.bincount(found, minlength=pool)) / depth for found in depths])
    places = np.unique(np.geomspace(1, pool, 100).astype(int))
    laws = [ranks.chance(int(k), pool) for k in places]
    low, high = ([getattr(law, name) / k for law, k in zip(laws, places, strict=True)] for name in ("low", "high"))
    axes.fill_between(places, low, high, color="#bbbbbb", label="chance, 95 %")
    axes.plot(places, shares.mean(0)[places - 1], color="#aa3377", label="common")
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="k", ylabel="common share of the first k", title="proponents")
    axes.legend(loc="upper left", frameon=False)
