"""Made-up data in the two layouts, and a cache folder for every test."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets  # type: ignore[import-untyped]
from PIL import Image

CLASSES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay"]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the user who runs the tests stays out of it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DISTILLCTL_CACHE", str(folder))
    return folder


@pytest.fixture
def pixels() -> dict[str, Any]:
    """Random images: split → (10 classes, images a class, 32, 32, 3)."""
    generator = np.random.default_rng(0)
    return {split: generator.integers(0, 256, (10, count, 32, 32, 3), dtype=np.uint8) for split, count in (("train", 4), ("test", 2))}


@pytest.fixture
def folders(tmp_path: Path, pixels: dict[str, Any]) -> Path:
    """Image folders of ten classes."""
    root = tmp_path / "folders"
    for split, images in pixels.items():
        for name, members in zip(CLASSES, images, strict=True):
            (root / split / name).mkdir(parents=True)
            for i, image in enumerate(members):
                Image.fromarray(image).save(root / split / name / f"{i:02d}.png")
    return root


@pytest.fixture
def archive(tmp_path: Path, pixels: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's files of CIFAR-10 with made-up content, and their checksums in torchvision's class."""
    parent = tmp_path / "downloads"
    folder = parent / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> str:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(images: Any, labels: list[int]) -> dict[str, Any]:
        return {"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), "labels": labels}

    labels = [c for c in range(10) for _ in range(2)]
    train, test = pixels["train"], pixels["test"]
    parts = {"data_batch_1": train[:, :2], "data_batch_2": train[:, 2:], "test_batch": test}
    sums = {name: write(name, batch(images.reshape(-1, 32, 32, 3), labels)) for name, images in parts.items()}
    lists = {
        "train_list": [[name, sums[name]] for name in ("data_batch_1", "data_batch_2")],
        "test_list": [["test_batch", sums["test_batch"]]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", {"label_names": CLASSES})},
    }
    for name, value in lists.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR10, name, value)
    return parent
