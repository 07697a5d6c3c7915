"""Small trees of image files for tests: every file different, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, *, height: int = 20, width: int = 24, seed: int = 0) -> Path:
    """A picture with soft shapes and some noise, in the format that the file's ending names; makes the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x * a + y * b + c) for a, b, c in draw.uniform(0.05, 0.6, (3, 3))]
    pixels = 128 + 90 * np.stack(waves, axis=-1) + draw.normal(0, 12, (height, width, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def write_tree(root: Path, counts: Mapping[str, int], *, height: int = 20, width: int = 24, suffix: str = ".jpg", seed: int = 0) -> Path:
    """Returns `root`, with folders of this number of images each: `{"train/cat": 3, "train/dog": 2, "val/cat": 1}`."""
    for folder_number, (folder, count) in enumerate(counts.items()):
        for number in range(count):
            path = root / folder / f"{number:04d}{suffix}"
            write_image(path, height=height, width=width, seed=seed * 1_000_003 + folder_number * 1009 + number)
    return root
