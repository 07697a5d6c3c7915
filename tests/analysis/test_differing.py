"""How far two answers lie apart, and pictures that are written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distillctl.analysis.differing import Pictures, differences, most_different, read_pictures, write_pictures
from distillctl.errors import DataError
from distillctl.rundir.answers import FOLDER, Answers


def answers(probabilities: np.ndarray, kept: int) -> Answers:
    """Those of full probabilities (N, C), of which the likeliest are kept."""
    classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :kept]
    shares = np.take_along_axis(probabilities, classes, 1).astype(np.float32)
    label = np.zeros(len(probabilities), np.int64)
    return Answers(np.arange(len(probabilities)), label, classes, shares, probabilities[:, 0].astype(np.float32))


def drawn(seed: int, classes: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), 30)


def test_with_all_classes_it_is_the_total_variation_distance() -> None:
    one, other = drawn(1, 5), drawn(2, 5)
    expected = [max(0.0, 0.5 * sum(abs(p - q) for p, q in zip(a, b, strict=True))) for a, b in zip(one, other, strict=True)]
    assert differences(answers(one, 5), answers(other, 5)) == pytest.approx(expected, abs=1e-6)


def test_what_is_not_kept_counts_as_zero() -> None:
    one, other = answers(np.array([[0.5, 0.3, 0.2]]), 1), answers(np.array([[0.1, 0.6, 0.3]]), 1)
    assert differences(one, other) == pytest.approx([0.5 * (0.5 + 0.6)], abs=1e-6)


def test_the_most_different_first_without_those_that_are_alike() -> None:
    one = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4], [0.2, 0.8]])
    other = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9], [0.9, 0.1]])
    found = answers(one, 2), answers(other, 2)
    assert most_different(*found).tolist() == [3, 2, 0]
    assert most_different(*found, limit=1).tolist() == [3]


def test_pictures_come_back(tmp_path: Path) -> None:
    pictures = Pictures("val", (7, 2), (b"first", b"the second"))
    write_pictures(tmp_path, pictures)
    assert read_pictures(tmp_path) == pictures
    write_pictures(tmp_path, Pictures("test", (), ()))
    assert read_pictures(tmp_path) == Pictures("test", (), ())


def test_damaged_pictures_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_pictures(tmp_path)
    write_pictures(tmp_path, Pictures("val", (7, 2), (b"first", b"the second")))
    path = tmp_path / FOLDER / "differing.npz"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match="cannot be read"):
        read_pictures(tmp_path)
    np.savez(path, split="val", index=np.arange(3), data=np.zeros(4, np.uint8), ends=np.array([4]))
    with pytest.raises(DataError, match="does not hold the pictures"):
        read_pictures(tmp_path)
