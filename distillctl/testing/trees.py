"""Small trees of image files for tests: every file different, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, *, seed: int = 0) -> Path:
    """Writes a picture of 24 × 20 pixels with soft shapes and some noise, in the format that its ending names; makes its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:20, 0:24]
    waves = [np.sin(x * a + y * b + c) for a, b, c in draw.uniform(0.05, 0.6, (3, 3))]
    pixels = 128 + 90 * np.stack(waves, axis=-1) + draw.normal(0, 12, (20, 24, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def write_tree(root: Path, counts: Mapping[str, int]) -> Path:
    """Returns `root`, with folders of this number of images each: `{"train/cat": 3, "train/dog": 2, "val/cat": 1}`."""
    for folder_number, (folder, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(root / folder / f"{number:04d}.jpg", seed=folder_number * 1009 + number)
    return root
