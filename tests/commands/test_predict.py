"""Answers of a deployed student to files."""

from __future__ import annotations

import math
import os
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from distillctl import load_student
from distillctl.api.specs import TaskSpec
from distillctl.commands.predict import Prediction, class_names, predict
from distillctl.data.deployed_view import Preprocessing
from distillctl.errors import DataError
from distillctl.plugin.catalog import Plugin
from distillctl.testing.trees import write_image

ENDINGS = ("jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm")


@pytest.fixture
def student(deployed, tmp_path):
    _, registry = deployed(tmp_path / "run")
    return load_student(tmp_path / "run", registry=registry)


@pytest.fixture
def finder(deployed, tmp_path):
    """A student of boxes."""
    _, registry = deployed(tmp_path / "finder", extra={"task": "tiny_boxes"}, resize=16)
    return load_student(tmp_path / "finder", registry=registry)


@pytest.fixture
def files(tmp_path):
    """Forty pictures of 24 × 20 pixels."""
    return [str(write_image(tmp_path / "photos" / f"{number}.png", seed=number)) for number in range(40)]


def test_equal_to_plain_torch_code_on_files_of_every_format(deployed, tmp_path):
    model, registry = deployed(tmp_path / "run")
    paths = [write_image(tmp_path / "photos" / f"{number}.{ending}", seed=number) for number, ending in enumerate(ENDINGS)]
    found = list(predict(load_student(tmp_path / "run", registry=registry), paths, batch_size=4, registry=registry))
    assert [one.path for one in found] == [str(path) for path in paths]
    for path, one in zip(paths, found, strict=True):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))[2:18, 4:20] / 255  # the short side is as long as it becomes
        seen = torch.from_numpy((pixels - [0.5, 0.4, 0.3]) / 0.2).permute(2, 0, 1)[None]
        with torch.no_grad():
            shares = torch.softmax(model.double()(seen)[0], 0).tolist()
        expected = sorted(zip("abc", shares, strict=True), key=lambda pair: -pair[1])
        assert [name for name, _ in one.answers] == [name for name, _ in expected]
        assert [share for _, share in one.answers] == pytest.approx([share for _, share in expected], abs=1e-5)
        assert math.fsum(share for _, share in one.answers) == pytest.approx(1, abs=1e-15)  # as float64 has it
        assert one.problem is None
        assert one.error == ""


def test_the_logits_are_those_of_an_evaluation_to_the_bit(student, files):
    logits = student.logits(files).double()
    found = list(predict(student, files, workers=0))
    for one, row in zip(found, logits, strict=True):
        assert dict(one.answers) == dict(zip("abc", row.softmax(0).tolist(), strict=True))


@pytest.mark.parametrize("workers", [0, 2, "auto"])
def test_order_and_answers_for_any_number_of_workers(student, files, workers):
    names = [*files[::-1], files[0]]
    alone = {one.path: one for one in predict(student, files, workers=0)}
    found = list(predict(student, names, workers=workers, batch_size=7))
    assert [one.path for one in found] == names
    for one in found:
        assert [name for name, _ in one.answers] == [name for name, _ in alone[one.path].answers]
        assert dict(one.answers) == pytest.approx(dict(alone[one.path].answers), abs=1e-6)


def test_broken_files_are_told_and_the_others_go_on(student, files, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    whole = write_image(tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    odd = {"text.jpg": "it is not an image", "cut.jpg": "cannot be decoded", "gone.jpg": "is missing", "photos": "is not a file"}
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        odd["pipe"] = "is not a file"
    broken = [str(tmp_path / name) for name in odd]
    mixed = [broken[0], files[0], *broken[1:], files[1]]
    found = {one.path: one for one in predict(student, mixed, batch_size=2)}
    for path, words in zip(broken, odd.values(), strict=True):
        assert words in found[path].error
        assert path not in found[path].error
        assert path in found[path].problem.message
        assert found[path].answers == ()
    for path in files[:2]:
        assert dict(found[path].answers) == pytest.approx(dict(next(predict(student, [path])).answers), abs=1e-6)
    assert all(one.error for one in predict(student, broken, batch_size=len(broken)))  # a batch of nothing but these


def test_nothing_is_read_before_it_is_asked_for_and_no_answer_is_kept(student, files, monkeypatch):
    read = []
    placed = Preprocessing.placed
    monkeypatch.setattr(Preprocessing, "placed", lambda self, path: (read.append(path), placed(self, path))[1])
    predictions = predict(student, files * 10, batch_size=8, workers=0)
    assert read == []
    first = next(predictions)
    assert len(read) <= 16
    alive = weakref.WeakSet([first])
    del first
    most = 0
    for one in predictions:
        alive.add(one)
        most = max(most, len(alive))
    assert len(read) == 400
    assert most <= 9  # a batch, and the one that is asked for


def test_top(student, files):
    assert [len(one.answers) for one in predict(student, files[:2], top=1)] == [1, 1]
    assert len(next(predict(student, files[:1], top=50)).answers) == 3
    shares = [share for _, share in next(predict(student, files[:1])).answers]
    assert shares == sorted(shares, reverse=True)
    for wrong in ({"top": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            predict(student, files, **wrong)


def test_among_equals_the_first_class(student, files):
    torch.nn.init.zeros_(student.model.fc.weight)
    torch.nn.init.zeros_(student.model.fc.bias)
    assert next(predict(student, files[:1])).answers == (("a", 1 / 3), ("b", 1 / 3), ("c", 1 / 3))


def test_without_classes_answers_are_positions_of_the_logits(deployed, files, tmp_path):
    _, registry = deployed(tmp_path / "unnamed", classes=(), outputs=12)
    student = load_student(tmp_path / "unnamed", registry=registry)
    student = replace(student, info={**student.info, "task": "unlabelled"})
    assert list(class_names(student)) == [str(number) for number in range(12)]
    (one,) = predict(student, files[:1], top=12)
    assert sorted(int(name) for name, _ in one.answers) == list(range(12))
    assert one.answers[0][0] == str(int(student.logits(files[:1]).argmax()))


def test_an_answer_that_is_not_finite_is_a_problem_of_its_image(student, files):
    with torch.no_grad():
        student.model.fc.bias[1] = float("nan")
    (one,) = predict(student, files[:1])
    assert one == Prediction(files[0], (), one.problem)
    assert one.error == "gets an answer that is not finite"


def test_no_images(student):
    assert list(predict(student, [])) == []


def test_a_student_that_says_nothing_to_a_picture(deployed, files, tmp_path):
    _, registry = deployed(tmp_path / "run")
    registry.tasks.add(TaskSpec(name="mute", summary="for tests", implementation="distillctl.api.task:Task"), Plugin("t", "t", "1"))
    student = load_student(tmp_path / "run", registry=registry)
    with pytest.raises(DataError, match="neither tells classes apart nor finds boxes: its task is `mute`"):
        predict(replace(student, info={**student.info, "task": "mute"}), files, registry=registry)


def test_boxes_lie_in_the_picture(finder, files):
    """Of pictures of 24 × 20 pixels the view shows the middle, 20 pixels wide and high, at 16/20 of its size; 19 × 16 pixels are cut."""
    (one,) = predict(finder, files[:1])
    assert [name for name, _ in one.answers] == ["a", "b", "c"]
    left, scale = 2 * 24 / 19, 24 / 19  # to the left of a view are 2 of 19 pixels
    boxes = [(0, 0, 16, 16), (0, 0, 8, 8), (2, 2, 4, 4)]
    expected = [(left + x * scale, y * 1.25, left + right * scale, bottom * 1.25) for x, y, right, bottom in boxes]
    assert [pytest.approx(box) for box in one.boxes] == expected
    assert [score for _, score in one.answers] == [0.875, 0.5, 0.125]


def test_boxes_are_left_out_by_number_and_by_score(finder, files):
    (one,) = predict(finder, files[:1], top=2)
    assert (len(one.answers), len(one.boxes)) == (2, 2)
    (one,) = predict(finder, files[:1], min_score=0.5)
    assert [name for name, _ in one.answers] == ["a", "b"]
    assert len(one.above(0.6).boxes) == len(one.above(0.6).answers) == 1
    assert one.above(0.9).boxes == one.above(0.9).answers == ()


def test_classes_are_told_whatever_their_score(student, files):
    assert len(next(predict(student, files[:1], min_score=1.0)).answers) == 3


def test_a_network_that_gives_something_else(student, files):
    with pytest.raises(DataError, match="does not give the 3 numbers"):
        next(predict(replace(student, model=torch.nn.Flatten()), files[:1]))
