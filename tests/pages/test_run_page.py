"""The report of one run: what stands in it, and what is said where something is missing."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillctl.analysis.records import RunRecord
from distillctl.pages.run_page import CLASSES, run_page
from distillctl.rundir.directory import RunDirectory

Make = Callable[..., Path]
EVIL = "<script>alert(1)</script>"


def shown(run: Path, control: Path | None = None) -> str:
    return run_page(RunRecord.read(run), None if control is None else RunRecord.read(control))


def words(page: str) -> str:
    """What a page shows, with a blank between cells."""
    body = re.sub(r"<(script|style).*?</\1>", "", page.split("<body>")[1], flags=re.DOTALL)
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", body)).split())


def charts(page: str) -> dict[str, Any]:
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return {data["title"]: data for data in map(json.loads, blocks)}


@pytest.fixture(scope="module")
def pair(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    return make_run(folder / "taught"), make_run(folder / "alone", method="none", top1=0.5)


def test_all_of_it_stands_there(pair: tuple[Path, Path]) -> None:
    page = shown(*pair)
    told = words(page)
    assert re.findall("<h2>(.*?)</h2>", page) == [
        *("Figures", "Curves", "Classes", "Taken for each other", "Calibration", "Where student and teacher differ most", "Cost", "Profile")
    ]
    assert "resnet56 → resnet8" in told
    assert "teacher student, epoch 3 control gain over the control top-1 90.00% 75.00% 50.00% +25.00 points" in told
    assert "loss 0.4000 0.9000 0.9000 0.0000" in told
    assert "same answer to 50.00% of the images" in told
    assert "Guessing reaches 33.33%" in told
    assert "The control learnt from labels alone: alone." in told
    assert "parameters 1,000 MACs of an image 2.00 M ms of a forward 0.50 images forward 12" in told
    assert 'name = "resnet8"' in told


def test_classes_confusions_and_images(pair: tuple[Path, Path]) -> None:
    page = shown(pair[0])
    told = words(page)
    # The student takes one of two dogs for a cat, which the teacher does not.
    assert (
        "class images student teacher gain over the teacher cat 1 100.0% 100.0% 0.0 owl 1 100.0% 100.0% 0.0 dog 2 50.0% 100.0% −50.0"
        in told
    )
    assert "dog → cat 1 0" in told
    assert "dog student: cat 60% teacher: dog 60% image 1, 0.30 apart" in told
    assert page.count('<img src="data:image/png') == 2
    assert "gain over the control" in words(shown(*pair)), "a control goes before the teacher"


def test_calibration_is_drawn(pair: tuple[Path, Path]) -> None:
    page = shown(pair[0])
    drawn = charts(page)["Accuracy by confidence"]
    assert [line["name"] for line in drawn["lines"]] == ["student", "teacher"]
    assert drawn["diagonal"]
    assert drawn["lines"][0]["weight"] == [0.25] * 4
    # The bins hold 0.5, 0.6, 0.8 and 0.9, of which the second is wrong.
    assert f"student {(0.5 + 0.6 + 0.2 + 0.1) / 4:.4f} 70.00% 75.00%" in words(page)


def test_every_name_is_text(make_run: Make, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a<b>&", classes=(EVIL, '"><img src=x>', "owl"), terms=("task", EVIL))
    page = shown(run)
    assert page.count("<script>") == 1
    assert "<img src=x>" not in page
    assert "</script><script" not in page.replace("\n", "")
    assert EVIL in words(page)
    assert charts(page)["Loss"]["lines"][2]["name"] == EVIL


def test_without_answers_one_sentence_stands_there(make_run: Make, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", answers=False)
    assert "The answers to single images are not there. `distillctl eval" in words(shown(run))
    going = shown(make_run(tmp_path / "b", finished=False))
    assert "There are no figures yet." in words(going)
    assert "The run is not finished." in words(going)
    assert charts(going)["top-1"]["lines"][1]["y"] == [0.25, 0.5, 0.75]
    empty = words(shown(make_run(tmp_path / "c", finished=False, epochs=0)))
    assert "No epoch is finished yet." in empty


def test_without_a_teacher_or_pictures(make_run: Make, tmp_path: Path) -> None:
    assert "The run has no teacher." in words(shown(make_run(tmp_path / "a", method="none")))
    run = make_run(tmp_path / "b")
    (run / "predictions" / "differing.npz").unlink()
    assert "Pictures of the images are not there" in words(shown(run))
    (run / "predictions" / "test-teacher.npz").write_bytes(b"nothing")
    assert "The teacher's answers are not there." in words(shown(run))
    (run / "model.json").unlink()
    assert "1 → 0" in words(shown(run)), "numbers stand for names"
    shutil.rmtree(run / "predictions")
    (run / "metrics.jsonl").unlink()
    shown(run)


def test_of_many_classes_the_ends_are_shown_first(make_run: Make, tmp_path: Path) -> None:
    import numpy as np

    from distillctl.rundir.answers import Answers, answers_file, write_answers

    count = CLASSES + 10
    run = make_run(tmp_path / "a", classes=tuple(f"class {i}" for i in range(count)))
    label = np.arange(count)
    for who, right in (("best", label % 2 == 0), ("teacher", label >= 0)):
        guess = np.where(right, label, 0)[:, None]
        ones = np.ones(count, np.float32)
        write_answers(answers_file(run, "test", who), Answers(label, label, guess, ones[:, None], ones))
    told = words(shown(run))
    assert "10 classes between" in told
    assert "The 20 pairs with most images of 25." in told


def test_several_teachers_and_figures_that_mean_nothing(make_run: Make, tmp_path: Path) -> None:
    run = RunDirectory(make_run(tmp_path / "a"))
    teachers = {name: {"top1": top1, "loss": 1.0} for name, top1 in (("resnet20", 0.6), ("resnet56", -1.0))}
    run.update(result={**run.info()["result"], "teachers": teachers})
    told = words(shown(run.path))
    assert "teacher resnet20 teacher resnet56 teachers student, epoch 3 top-1 60.00% 90.00% 75.00% loss" in told
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps({**line, "val": {"top1": -1, "loss": 1}}) + "\n" for line in lines))
    assert "top-1" not in charts(shown(run.path)), "all that is left is training"
