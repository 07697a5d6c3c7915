"""What was answered comes back from its file, and what is not such a file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distillctl.errors import DataError
from distillctl.rundir.answers import Answers, answers_file, read_answers, write_answers


def answers(count: int = 4, classes: int = 3) -> Answers:
    draw = np.random.default_rng(0)
    shares = np.sort(draw.dirichlet(np.ones(classes), count), axis=1)[:, ::-1].astype(np.float32)
    order = np.argsort(draw.random((count, classes)), axis=1)
    return Answers(np.arange(count), order[:, 0], order, shares, shares[:, 0])


def test_it_comes_back(tmp_path: Path) -> None:
    file = answers_file(tmp_path, "test")
    assert file == tmp_path / "predictions" / "test-best.npz"
    before = answers()
    write_answers(file, before)
    found = read_answers(file)
    for name in ("index", "label", "classes", "probabilities", "own"):
        assert getattr(found, name).dtype == getattr(before, name).dtype
        assert (getattr(found, name) == getattr(before, name)).all()
    assert found.right.all()
    assert [path.name for path in file.parent.iterdir()] == ["test-best.npz"], "nothing half written stays"


def test_an_answer_is_right_where_the_likeliest_class_is_the_label() -> None:
    some = answers()
    assert Answers(some.index, some.classes[:, 1], some.classes, some.probabilities, some.own).right.sum() == 0


@pytest.mark.parametrize(
    "arrays",
    [
        {"label": np.zeros(3, np.int64)},
        {"classes": np.zeros((4, 2), np.int64)},
        {"classes": np.zeros((4, 0), np.int64), "probabilities": np.zeros((4, 0), np.float32)},
        {"own": np.zeros((4, 1), np.float32)},
        {"index": np.zeros((), np.int64)},
        {"own": np.array([None] * 4, dtype=object)},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    whole = {name: getattr(answers(), name) for name in ("index", "label", "classes", "probabilities", "own")}
    np.savez(tmp_path / "a.npz", **{**whole, **arrays})
    with pytest.raises(DataError, match=r"`.*a\.npz` (cannot be read|does not hold)"):
        read_answers(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing", b"a text"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_answers(tmp_path / "a.npz")
    with pytest.raises(DataError, match="cannot be read"):
        read_answers(tmp_path / "none.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="cannot be read"):
        read_answers(tmp_path / "one.npy")
