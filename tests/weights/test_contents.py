"""Which of the weights in a file are taken, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.errors import DataError
from distillctl.weights.state_dict import find_weights


def weights(value: float) -> dict[str, Tensor]:
    return {"conv.weight": torch.full((2,), value), "fc.bias": torch.full((3,), value)}


def named(front: str, value: float) -> dict[str, Tensor]:
    return {front + name: tensor for name, tensor in weights(value).items()}


def found(folder: Path, content: Any, key: str = "", side: Any = "student") -> tuple[float, list[str]]:
    torch.save(content, folder / "file.pt")
    state, notes = find_weights(folder / "file.pt", key, side)
    assert state.keys() == weights(0).keys()
    return float(state["fc.bias"][0]), notes


AVERAGED = {"state_dict": weights(1), "state_dict_ema": weights(2), "epoch": 3}
DISTILLER = {"model": {**named("module.student.", 1), **named("module.teacher.", 2)}}


@pytest.mark.parametrize(
    ("content", "side", "value", "note"),
    [
        (weights(1), "student", 1, None),
        ({"state_dict": weights(1)}, "student", 1, "the weights are `state_dict` of the file"),
        (AVERAGED, "student", 2, "the weights are `state_dict_ema` of the file, which also has `state_dict`: `student.key` chooses"),
        (AVERAGED, "teacher", 2, "the weights are `state_dict_ema` of the file, which also has `state_dict`: `teacher.key` chooses"),
        ({"teacher": weights(2), "student": weights(1)}, "student", 1, "the weights are `student` of the file"),
        ({"teacher": weights(2), "student": weights(1)}, "teacher", 2, "`teacher` of the file, which also has `student`: `teacher.key` c"),
        (DISTILLER, "student", 1, "the weights are those of `student.` in the file, which also has `teacher.`: `student.key` chooses"),
        (DISTILLER, "teacher", 2, "the weights are those of `teacher.` in the file, which also has `student.`: `teacher.key` chooses"),
        ({"model": named("student.", 1)}, "teacher", 1, "the weights are `model` of the file"),
        ({"net": {"inner": weights(1)}}, "student", 1, "the weights are `net.inner` of the file"),
    ],
)  # fmt: skip
def test_what_is_taken_is_said(tmp_path: Path, content: Any, side: str, value: float, note: str | None) -> None:
    taken, notes = found(tmp_path, content, side=side)
    assert taken == value
    assert notes == [] if note is None else note in notes[-1]


@pytest.mark.parametrize(
    ("content", "key", "value"),
    [
        (AVERAGED, "state_dict", 1),
        (AVERAGED, "state_dict_ema", 2),
        ({"model": AVERAGED}, "model.state_dict", 1),
        ({"mine": weights(1), "yours": weights(2)}, "yours", 2),
        ({**named("a.", 1), **named("b.c.", 2)}, "b.c", 2),
        ({"state_dict": {**named("a.", 1), **named("b.", 2)}}, "state_dict.b", 2),
        ({"state_dict": {**named("a.", 1), **named("b.", 2)}}, "b", 2),
        ({"student": weights(1), "ema": {"model": weights(2)}}, "ema.model", 2),
        (DISTILLER, "module.teacher", 2),
    ],
)
def test_a_stated_key_chooses(tmp_path: Path, content: Any, key: str, value: float) -> None:
    assert found(tmp_path, content, key) == (value, [])


def test_a_key_that_leads_nowhere_lists_what_there_is(tmp_path: Path) -> None:
    torch.save({"state_dict": weights(1)}, tmp_path / "file.pt")
    with pytest.raises(DataError, match=r"has nothing under `state_dict_ema`: its content is a mapping with the keys `conv\.weight`"):
        find_weights(tmp_path / "file.pt", "state_dict_ema")


@pytest.mark.parametrize(("side", "value"), [("student", 1), ("teacher", 2)])
def test_a_distiller_within_a_program(tmp_path: Path, side: str, value: float) -> None:
    content = {"state_dict": {"criterion.center": torch.ones(1), **named("model.student.", 1), **named("model.teacher.", 2)}}
    taken, notes = found(tmp_path, content, side=side)
    assert taken == value
    assert any(f"`{side}.key` chooses" in note for note in notes)


@pytest.mark.parametrize("average", ["ema_model", "params_ema", "ema_state_dict"])
def test_averages_by_other_names(tmp_path: Path, average: str) -> None:
    value, notes = found(tmp_path, {"model": weights(1), average: weights(2)})
    assert value == 2
    assert notes == [f"the weights are `{average}` of the file, which also has `model`: `student.key` chooses"]


def test_what_to_state_where_no_key_is_known(tmp_path: Path) -> None:
    torch.save({"generator": weights(1), "discriminator": weights(2), "optimizer": {"lr": 0.1}}, tmp_path / "file.pt")
    with pytest.raises(DataError) as caught:
        find_weights(tmp_path / "file.pt", side="teacher")
    assert caught.value.problems[0].hint == "`teacher.key` says which part of it: `generator`, `discriminator`"
    assert found(tmp_path, {"generator": weights(1), "discriminator": weights(2)}, "discriminator")[0] == 2
    torch.save({name: value.numpy() for name, value in weights(1).items()}, tmp_path / "arrays.pt")
    with pytest.raises(DataError, match="of which none is a tensor") as caught:
        find_weights(tmp_path / "arrays.pt")
    assert "torch.from_numpy" in caught.value.problems[0].hint
