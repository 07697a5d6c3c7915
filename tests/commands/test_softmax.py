"""`softmax`: whose answers to which images, what is printed, and what is refused. The formulas are in `tests/analysis/test_softened.py`."""

from __future__ import annotations

import contextlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillctl.analysis.differing import read_pictures
from distillctl.analysis.softened import gradient, softened
from distillctl.analysis.softened import softmax as probabilities
from distillctl.cli import run
from distillctl.commands import train as training
from distillctl.commands.softmax import softmax
from distillctl.errors import DataError, ProfileError
from distillctl.rundir.answers import answers_file, read_answers
from distillctl.rundir.directory import RunDirectory

pytestmark = pytest.mark.slow

TEACHER = """
[dataset]
name = "digits"
limit = 200
[student]
name = "resnet8"
[train]
epochs = 1
"""
STUDENT = TEACHER + '[teacher]\nprofile = "teacher.toml"\nallow_untrained = true\n[method]\nname = "kd"\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its teacher and its control."""
    folder = tmp_path_factory.mktemp("softmax")
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "student.toml").write_text(STUDENT)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert run(["train", "student.toml", "--device", "cpu", "--quiet", "--out", "runs/one"]) == 0
    return folder


@pytest.fixture
def place(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def test_a_runs_student_and_its_teacher(place: Path) -> None:
    found = softmax("runs/one", device="cpu")
    assert list(found.logits) == ["teacher", "student"]
    assert found.names == {"teacher": "resnet8", "student": "resnet8"}
    assert (found.images, found.labelled, list(found.classes)) == ("445 images of test", True, [str(i) for i in range(10)])
    label = read_answers(answers_file(Path("runs/one"), "test")).label
    for who, lines in found.softened.items():
        assert lines[2] == softened(found.logits[who], label, 4.0)
        kept = read_answers(answers_file(Path("runs/one"), "test", "best" if who == "student" else who))
        assert 1 - lines[0].others == pytest.approx(kept.own.mean(), abs=1e-6), "at 1 they are the answers of the run"
    assert found.gradients[2] == gradient(found.logits["teacher"], found.logits["student"], label, 4.0)
    assert [one.label for one in found.shown] == [str(label[one.row]) for one in found.shown]
    assert [one.row for one in found.shown] == [0, 111, 222, 333]
    assert all(one.file.startswith(b"\x89PNG") for one in found.shown)


def test_a_profiles_teacher_teaches_a_student_that_knows_nothing(place: Path) -> None:
    found = softmax("student.toml", temperatures=[1, 1000], split="val", device="cpu")
    assert list(found.logits) == ["teacher"]
    assert found.softened["teacher"][1].entropy == pytest.approx(math.log(10), abs=1e-4)
    blank = np.zeros_like(found.logits["teacher"])
    label = np.array([0] * len(blank))
    assert found.gradients[0].size == gradient(found.logits["teacher"], blank, label, 1).size
    assert "gives every class the same probability" in found.against


def test_several_teachers_answer_as_one(place: Path) -> None:
    (teacher,) = Path("runs").glob("teacher-*")
    both = "".join(f'[[teacher]]\nrun = "{path}"\nallow_untrained = true\n' for path in (teacher, "runs/one"))
    Path("two.toml").write_text(TEACHER + both + '[method]\nname = "kd"\n')
    found, whole = softmax("two.toml", device="cpu"), softmax("runs/one", device="cpu")
    mean = sum(probabilities(logits, 1.0) for logits in whole.logits.values()) / 2
    assert probabilities(found.logits["teacher"], 1.0) == pytest.approx(mean, abs=1e-5)


def test_images_of_one_class(place: Path) -> None:
    whole, some = softmax("runs/one", device="cpu"), softmax("runs/one", label="3", device="cpu")
    label = read_answers(answers_file(Path("runs/one"), "test")).label
    assert some.logits["student"] == pytest.approx(whole.logits["student"][label == 3], abs=1e-5)
    assert some.images == f"{(label == 3).sum()} images of test of class 3"
    assert {one.label for one in some.shown} == {"3"}


def test_an_image_of_ones_own(place: Path) -> None:
    """The student of digits sees a picture as `predict` shows it; its label is not known."""
    Image.fromarray(np.arange(0, 256, 4, np.uint8).reshape(8, 8)).save("mine.png")
    found = softmax("runs/one", image="mine.png", device="cpu")
    assert (found.labelled, found.images, len(found.logits["student"])) == (False, "mine.png", 1)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(["predict", "runs/one", "mine.png", "--json", "--device", "cpu", "--top", "1"]) == 0
    assert json.loads(out.getvalue())["answers"][0]["class"] == str(found.logits["student"][0].argmax())


def test_what_is_printed_and_drawn(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["softmax", "runs/one", "--temperatures", "1,4", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    head, *rows = out[out.index("\nT ") :].strip().splitlines()[:3]
    assert head.split("  ") == ["T", "entropy t", "others t", "entropy s", "others s", "gradient", "on label", "on others"]
    assert [row.split()[0] for row in rows] == ["1", "4"]
    assert out.splitlines()[-1] == "picture    runs/one/softmax.html"
    page = Path("runs/one/softmax.html").read_text(encoding="utf-8")
    assert page.count("<img src=") == 4
    assert page.count("T = 4") == 8, "two networks for each image"
    assert run(["softmax", "student.toml", "--temperatures", "2", "--json", "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["picture"] == "softmax-student.html"
    assert set(told["temperatures"][0]) == {"temperature", "teacher", "gradient"}


@pytest.mark.slow
def test_a_plot_for_papers(place: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run(["softmax", "runs/one", "--temperatures", "1,4", "--device", "cpu", "--out", "s.svg"]) == 0
    text = Path("s.svg").read_text(encoding="utf-8")
    assert text.count(">T = 4<") == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no run directory `nowhere`"),
        (["runs/one", "--temperatures", "1,zero"], "`1,zero` is not a list of temperatures"),
        (["runs/one", "--temperatures", "1,0"], "a temperature is a number above 0"),
        (["runs/one", "--class", "eleven"], "no class is called `eleven`"),
        (["runs/one", "--class", "3", "--image", "a.png"], "`--class` chooses images of the data"),
        (["runs/one", "--out", "a.txt"], "`a.txt` ends in none of"),
        (["runs/one", "--split", "dev"], "unknown split `dev`"),
        (["teacher.toml"], "`teacher.toml` has no [teacher]"),
    ],
    ids=str,
)
def test_mistakes(place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["softmax", *arguments, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


def test_a_teacher_that_is_not_trained_yet(place: Path) -> None:
    with pytest.raises(ProfileError, match="is not trained yet"):
        softmax("student.toml", root="elsewhere", device="cpu")


def test_an_image_that_is_not_there(place: Path) -> None:
    with pytest.raises(DataError):
        softmax("runs/one", image="none.png", device="cpu")


def test_a_mistyped_name_is_told_without_torch(place: Path) -> None:
    code = "import sys; from distillctl.cli import run; print(run(['softmax', 'nowhere']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "2 False\n"


def test_a_training_leaves_a_report_with_pictures(place: Path) -> None:
    """Of the run and of its teacher, which has none to differ from."""
    page = Path("runs/one/report.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/png') == 24
    (teacher,) = Path("runs").glob("teacher-*")
    assert "The run has no teacher." in (teacher / "report.html").read_text(encoding="utf-8")
    assert "<td>finished</td>" in page


def test_an_evaluation_beside_the_teacher_writes_the_pictures_again(place: Path) -> None:
    pictures, before = Path("runs/one/predictions/differing.npz"), read_pictures(Path("runs/one"))
    pictures.unlink()
    for arguments, there in (
        (["--against-teacher", "--checkpoint", "last"], False),
        (["--against-teacher", "--split", "val"], False),
        (["--against-teacher"], True),
    ):
        with contextlib.redirect_stdout(io.StringIO()):
            assert run(["eval", "runs/one", "--device", "cpu", *arguments]) == 0
        assert pictures.is_file() is there
    assert read_pictures(Path("runs/one")) == before


def test_a_report_that_fails_is_one_line_and_the_run_is_finished(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(path: Path) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr(training, "write_run_report", fails)
    assert run(["train", "teacher.toml", "--device", "cpu", "--out", "runs/two"]) == 0
    out, _ = capsys.readouterr()
    assert "warning: the run is complete, but its report could not be written: ValueError: two lines" in out
    assert RunDirectory(Path("runs/two")).finished
