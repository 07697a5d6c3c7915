"""The files that an evaluation leaves."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distillctl.cli import eval as command
from distillctl.cli.class_table import write_classes
from distillctl.cli.evaluations import check_folder, stem, write_evaluation
from distillctl.commands.evaluate import Report
from distillctl.errors import MachineError, ProfileError

LINE = {"name": "=1+2", "correct": 2, "count": 3, "precision": 0.5, "recall": 2 / 3, "f1": 4 / 7}
EMPTY = {"name": 'b, "c"', "correct": 0, "count": 0, "precision": None, "recall": None, "f1": None}


def report(**more: Any) -> Report:
    base = Report(
        run=Path("runs/a"),
        checkpoint="best",
        epoch=3,
        split="test",
        tta="",
        figures={"top1": 2 / 3, "count": 3},
        plain=None,
        classes=[LINE, EMPTY],
        shown=[("top-1", "66.67%")],
        confusion=torch.tensor([[2, 1], [0, 0]]),
        class_figures={"precision": "precision", "recall": "recall", "f1": "F1"},
    )
    return replace(base, **more)


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_three_files(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "too"
    write_evaluation(folder, report())
    assert sorted(path.name for path in folder.iterdir()) == ["test-best-confusion.csv", "test-best.csv", "test-best.json"]
    assert json.loads((folder / "test-best.json").read_text()) == report().as_dict()
    assert rows(folder / "test-best.csv") == [
        ["name", "images", "correct", "precision", "recall", "f1"],
        ["'=1+2", "3", "2", "0.5", str(2 / 3), str(4 / 7)],
        ['b, "c"', "0", "0", "", "", ""],
    ]
    assert rows(folder / "test-best-confusion.csv") == [["true", "'=1+2", 'b, "c"'], ["'=1+2", "2", "1"], ['b, "c"', "0", "0"]]


BOXES = [
    {"name": "cat", "count": 1200, "ap": 0.25, "ap50": 1.0},
    {"name": "dining table", "count": 7, "ap": 0.0, "ap50": 0.0625},
    {"name": "=2", "count": 0, "ap": None, "ap50": None},
]
OF_BOXES = {"classes": BOXES, "class_figures": {"ap": "AP", "ap50": "AP50"}, "counts": "objects", "confusion": None}


def test_long_words_stand_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    command.print_report(report(shown=[("AP", "1.0%"), ("AP medium", "2.0%")]), per_class=False)
    assert capsys.readouterr().out.splitlines() == [
        "run       runs/a (best, epoch 3)", "split     test, 3 images", "AP        1.0%", "AP medium 2.0%",
    ]  # fmt: skip
    command.print_report(report(), per_class=False)
    assert capsys.readouterr().out.splitlines() == ["run     runs/a (best, epoch 3)", "split   test, 3 images", "top-1   66.67%"]


def test_classes_whose_answers_are_not_right_or_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The evaluation's file has the figures by their keys, the table and the screen in words."""
    found = report(**OF_BOXES)
    write_evaluation(tmp_path, found)
    lines = [["cat", "1200", "0.25", "1.0"], ["dining table", "7", "0.0", "0.0625"], ["'=2", "0", "", ""]]
    assert rows(tmp_path / "test-best.csv") == [["name", "objects", "ap", "ap50"], *lines]
    write_classes(tmp_path / "classes.csv", found)
    assert rows(tmp_path / "classes.csv") == [["name", "objects", "AP", "AP50"], *lines]
    write_classes(tmp_path / "classes.html", found)
    page = (tmp_path / "classes.html").read_text()
    assert "<th>name</th><th>objects</th><th>AP</th><th>AP50</th>" in page
    assert "<td>cat</td><td>1200</td><td>25.00%</td><td>100.00%</td>" in page
    assert "<td>=2</td><td>0</td><td>–</td><td>–</td>" in page
    command.print_report(found, per_class=True)
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "                     AP     AP50  objects",
        "  cat            25.00%  100.00%    1,200",
        "  dining table    0.00%    6.25%        7",
        "  =2                  –        –        0",
    ]


def test_what_has_no_classes_is_one_file(tmp_path: Path) -> None:
    write_evaluation(tmp_path, report(classes=[], confusion=None))
    assert [path.name for path in tmp_path.iterdir()] == ["test-best.json"]


def test_without_a_matrix(tmp_path: Path) -> None:
    write_evaluation(tmp_path, report(confusion=None))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test-best.csv", "test-best.json"]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"tta": "flip", "split": "val", "checkpoint": "last"}, "val-last-flip"),
        ({"checkpoint": "a/b/best.pt"}, "test-best.pt"),
        ({"run": None, "model": "timm/vit", "checkpoint": "../a b.pt"}, "test-timm_vit-a_b.pt"),
        ({"run": None, "model": "file:nets.py:Net", "checkpoint": "x" * 300}, f"test-file_nets.py_Net-{'x' * 80}"),
    ],
)
def test_names_of_files(more: dict[str, Any], name: str) -> None:
    assert stem(report(**more)) == name


def test_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run may lie on a medium that is read only: here a file is in the place of the folder."""
    (tmp_path / "evaluations").write_text("")
    command._write(None, report(run=tmp_path))
    said = capsys.readouterr().err
    assert said.startswith(f"note: the evaluation cannot be written to `{tmp_path / 'evaluations'}`: ")
    assert said.endswith("`--out FOLDER` names another place\n")
    with pytest.raises(MachineError, match="the evaluation cannot be written"):
        command._write(tmp_path / "evaluations" / "deeper", report(run=tmp_path))
    with pytest.raises(ProfileError, match="is a file"):
        check_folder(tmp_path / "evaluations")
    check_folder(tmp_path / "nowhere")


def test_a_named_folder_takes_the_place_of_the_runs(tmp_path: Path) -> None:
    command._write(tmp_path / "here", report(run=tmp_path / "run"))
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    command._write(None, report(run=None, model="resnet8"))  # nothing says where
