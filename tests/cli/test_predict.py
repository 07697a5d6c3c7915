"""`predict`: rows, files, lists of paths, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from itertools import islice

import pytest
from PIL import Image

from distillctl.cli import coco_results, prediction_rows, render, run
from distillctl.cli import predict as command
from distillctl.commands import predict as predictions
from distillctl.commands.predict import Prediction
from distillctl.errors import Problem
from distillctl.testing.trees import write_image

HOSTILE = ("=1+1", "evil\x1b[31m\u202e", 'two\nlines, "quoted"\t中文')


@pytest.fixture
def place(deployed, tmp_path, monkeypatch):
    """A folder with a run and five photos, three of them in folders called like classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    deployed(tmp_path / "runs" / "tiny")
    for number, name in enumerate(("1.png", "2.jpg", "10.png", "a/1.png", "b/1.png")):
        write_image(tmp_path / "photos" / name, seed=number)
    return tmp_path


def paths(*names):
    return [os.path.join("photos", *name.split("/")) for name in names]


ALL = paths("1.png", "2.jpg", "10.png", "a/1.png", "b/1.png")


def rows(text):
    return list(csv.reader(io.StringIO(text)))


def typed(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_program_reads_columns_between_tabs(place, capsys):
    assert run(["predict", "runs/tiny", "photos", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == ALL
    for _, *answers, error in lines:
        assert sorted(answers[::2]) == ["a", "b", "c"]
        assert sum(map(float, answers[1::2])) == pytest.approx(1)
        assert error == ""


def test_json_lines(place, capsys):
    assert run(["predict", "runs/tiny", "photos", "--json", "--top", "2", "--workers", "1", "--batch-size", "2"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["path"] for one in found] == ALL
    for one in found:
        assert list(one) == ["path", "answers"]
        assert [list(answer) for answer in one["answers"]] == [["class", "probability"]] * 2
        assert one["answers"][0]["probability"] >= one["answers"][1]["probability"]


def test_files_are_read_back(place, capsys):
    for name in ("a.csv", "a.jsonl"):
        assert run(["predict", "runs/tiny", "photos", "--top", "50", "--out", name]) == 0
        assert capsys.readouterr().out == f"{name}: 5 images\n"
    header, *lines = rows((place / "a.csv").read_text(encoding="utf-8"))
    assert header == ["path", "label", "probability", "label_2", "probability_2", "label_3", "probability_3", "error"]
    objects = [json.loads(line) for line in (place / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line[0] for line in lines] == [one["path"] for one in objects] == ALL
    for line, one in zip(lines, objects, strict=True):
        flat = [cell for answer in one["answers"] for cell in (answer["class"], answer["probability"])]
        assert [float(cell) if number % 2 else cell for number, cell in enumerate(line[1:-1])] == flat


def test_a_terminal_is_shown_what_fits(place, capsys, monkeypatch):
    monkeypatch.setattr(render, "on_terminal", lambda: True)
    for columns in (30, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert run(["predict", "runs/tiny", "photos"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 5
        assert all(len(line) <= columns for line in lines)
        assert {line.count("%") for line in lines} <= ({3} if columns == 80 else {1, 2})


def test_lines_of_a_terminal():
    one = Prediction("p.jpg", (("wren", 0.931), ("robin", 0.04), ("a bird with a long name", 0.01)))
    assert prediction_rows.terminal_line(one, 80) == "p.jpg  wren 93.1%  robin 4.0%  a bird with a long name 1.0%"
    assert prediction_rows.terminal_line(one, 40) == "p.jpg  wren 93.1%  robin 4.0%"
    long = Prediction("folder/" * 20 + "p.jpg", (("n" * 100, 0.5), ("m", 0.2)))
    shown = prediction_rows.terminal_line(long, 80)
    assert len(shown) == 80
    assert shown.startswith("…")
    assert "p.jpg  nnn" in shown
    assert shown.endswith("n… 50.0%")
    broken = Prediction("p.jpg", (), Problem("the image `p.jpg` is " + "missing " * 30))
    assert prediction_rows.terminal_line(broken, 40) == "p.jpg  is missing missing missing missi…"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_that_somebody_gave_steer_nothing(deployed, place, capsys, hostile, monkeypatch):
    classes = (hostile, f"{hostile}2", "c")
    deployed(place / "runs" / "tiny", classes)
    for arguments in ([], ["--json"], ["--out", "a.csv"], ["--out", "a.jsonl"], ["--sheet", "s.png"]):
        assert run(["predict", "runs/tiny", ALL[0], *arguments]) == 0
        assert all(line.isprintable() for text in capsys.readouterr() for line in text.replace("\t", " ").splitlines())
    (one,) = [json.loads(line) for line in (place / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {answer["class"] for answer in one["answers"]} == set(classes)
    _, line = rows((place / "a.csv").read_text(encoding="utf-8"))
    assert len(line) == 8
    assert all(cell.isprintable() and not cell.startswith("=") for cell in line)
    monkeypatch.setattr(render, "on_terminal", lambda: True)
    assert run(["predict", "runs/tiny", ALL[0]]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("name", ["=1+1.png", "-x.png", "mark\u202e.png", "文件 🦜.png", "a,b;c.png"])
def test_names_of_files_steer_nothing(place, capsys, name):
    write_image(place / "odd" / name)
    assert run(["predict", "runs/tiny", "odd", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["path"] == os.path.join("odd", name)
    assert out.removesuffix("\n").isprintable()
    assert run(["predict", "runs/tiny", "odd", "--out", "a.csv"]) == 0
    assert rows((place / "a.csv").read_text(encoding="utf-8"))[1][1] in "abc"


def test_broken_files_are_named_and_the_exit_code_says_so(place, capsys):
    for number in range(12):
        (place / "photos" / f"x{number}.png").write_bytes(b"")
    assert run(["predict", "runs/tiny", "photos", "--out", "a.csv", "--top", "1", "--workers", "0"]) == 1
    out, err = capsys.readouterr()
    assert out == "a.csv: 17 images\n"
    first, *named, last = err.splitlines()
    assert first == "error: 12 of 17 images could not be used"
    assert len(named) == 10
    assert named[0].startswith(f"  {paths('x0.png')[0]}: cannot be decoded: ")
    assert last == "  and 2 more, which the answers name"
    lines = rows((place / "a.csv").read_text(encoding="utf-8"))[1:]
    assert len(lines) == 17
    assert {line[0] for line in lines if line[3]} == set(paths(*(f"x{number}.png" for number in range(12))))
    assert all(line[1:3] == ["", ""] for line in lines if line[3])
    assert run(["predict", "runs/tiny", "photos/x0.png", "--json"]) == 1
    one = json.loads(capsys.readouterr().out)
    assert one["answers"] == []
    assert one["error"].startswith("cannot be decoded")


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_a_list_of_paths(place, capsys, monkeypatch, arguments):
    odd = ["photos/*.png", "line\u2028separator.png"]  # neither a pattern nor two lines
    typed(monkeypatch, f"{ALL[1]}\r\n{ALL[2]}\n\n{odd[0]}\n{odd[1]}".encode())
    assert run(["predict", "runs/tiny", *arguments, "--json"]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["path"] for line in out.splitlines()] == [*ALL[1:3], *odd]
    assert "photos/*.png: is missing" in err


def test_a_list_between_nul(place, capsys, monkeypatch):
    typed(monkeypatch, "\0".join([*ALL, ""]).encode())
    assert run(["predict", "runs/tiny", "-0", ALL[4], "-", "--json"]) == 0
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == [ALL[4], *ALL]


@pytest.mark.posix
def test_paths_that_are_no_utf8(place, capsys, monkeypatch):
    name = b"photos/\xff.png"
    (place / "photos" / "1.png").rename(os.fsdecode(os.path.join(os.fsencode(place), name)))
    typed(monkeypatch, name)
    assert run(["predict", "runs/tiny", "--json", "--sheet", "s.png"]) == 0
    assert os.fsencode(json.loads(capsys.readouterr().out)["path"]) == name
    for arguments in ([], ["--out", "a.csv"], ["--out", "a.jsonl"]):
        typed(monkeypatch, name)
        assert run(["predict", "runs/tiny", *arguments]) == 0


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["tiny", "photos"], "there is no run directory `tiny`", "did you mean `runs/tiny`?"),
        (["runs/tinny", "photos"], "there is no run directory `runs/tinny`", "did you mean `runs/tiny`?"),
        (["photos/1.png"], "`photos/1.png` is not a run directory", "the run comes first, and then the images"),
        (["photos", "photos"], "`photos` is not a run directory: it has no `run.json`", ""),
        (["birds.toml", "photos"], "there is no run directory `birds.toml`", "`distillctl train birds.toml` makes a run"),
        (["x" * 300, "photos"], "is not a path", ""),
        (["runs/tiny", "nix.png", "photo*"], "there is no file `nix.png`", ""),
        (["runs/tiny", "*.gif"], "the pattern `*.gif` matches nothing\n  --> predict PATH", ""),
        (["runs/tiny"], "standard input names no images", "a path a line"),
        (["runs/tiny", "photos", "--out", "a.xlsx"], "`a.xlsx` ends in none of `.csv`, `.jsonl`, `.json`\n  --> --out", ""),
        (["runs/tiny", "photos", "--sheet", "a.gif"], "`a.gif` ends in none of `.png`, `.jpg`, `.jpeg`\n  --> --sheet", ""),
        (["runs/tiny", "photos", "--out", "no/a.csv"], "there is no folder `no`\n  --> --out", ""),
        (["runs/tiny", "photos", "--sheet", "folder.png"], "`folder.png` is a folder\n  --> --sheet", ""),
        (["runs/tiny", "photos", "--out", "a.csv", "--json"], "`--json` prints the answers", "`--out FILE.jsonl` has JSON"),
        (["runs/tiny", "photos", "--top", "0"], "invalid value for `--top`", ""),
    ],
    ids=lambda value: "",
)
def test_what_is_refused_before_the_student_is_read(place, capsys, monkeypatch, arguments, message, hint):
    (place / "folder.png").mkdir()
    monkeypatch.setattr("distillctl.build.student.load_student", lambda *_, **__: pytest.fail("the student was read"))
    assert run(["predict", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message.replace("/", os.sep) in err.replace("/", os.sep)
    assert hint.replace("/", os.sep) in err.replace("/", os.sep)


def test_a_person_who_names_no_images_is_not_waited_for(place, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert run(["predict", "runs/tiny"]) == 2
    assert "no images are named" in capsys.readouterr().err


def test_an_unfinished_run(place, capsys):
    (place / "runs" / "young").mkdir()
    (place / "runs" / "young" / "run.json").write_text("{}")
    assert run(["predict", "runs/young", "photos"]) == 1
    assert "a run writes it when it is finished" in capsys.readouterr().err


def test_parts_of_pictures_are_told(deployed, place, capsys):
    deployed(place / "runs" / "tiny", boxes=True)
    assert run(["predict", "runs/tiny", "photos", "--top", "1"]) == 0
    assert capsys.readouterr().err.startswith("note: the student was trained on the parts of pictures that boxes cut out")


def test_a_sheet(place, capsys):
    assert run(["predict", "runs/tiny", "photos", "--sheet", "s.png", "--sheet-limit", "3"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 5
    assert err == "s.png: 3 images, the first of 5: `--sheet-limit N` draws more\n"
    with Image.open(place / "s.png") as image:
        assert image.width == 2 * 214 + 14
    assert run(["predict", "runs/tiny", "photos", "--sheet", "s.jpg", "--out", "a.csv"]) == 0
    assert capsys.readouterr() == ("a.csv: 5 images\ns.jpg: 5 images\n", "")


def test_an_interrupted_file_leaves_the_one_before(place, capsys, monkeypatch):
    (place / "a.csv").write_text("before")
    asked = predictions.predict

    def interrupted(*arguments, **options):
        yield from islice(asked(*arguments, **options), 2)
        assert [path.suffix for path in place.glob(".a.csv*")] == [".tmp"]
        raise KeyboardInterrupt

    monkeypatch.setattr(predictions, "predict", interrupted)
    assert run(["predict", "runs/tiny", "photos", "--out", "a.csv"]) == 130
    assert (place / "a.csv").read_text() == "before"
    assert sorted(path.name for path in place.iterdir()) == ["a.csv", "photos", "runs"]
    assert capsys.readouterr().err.endswith("interrupted\n")


def test_rows_come_as_they_are_computed(place, monkeypatch):
    """What was printed when the third prediction is asked for, of a long list."""
    asked, printed = [], []
    monkeypatch.setattr(command.typer, "echo", lambda text, **_: printed.append(text))

    def endless(_student, files, **_options):
        for number, path in enumerate(files):
            asked.append((number, len(printed)))
            yield Prediction(path, (("a", 1.0),))

    monkeypatch.setattr(predictions, "predict", endless)
    assert run(["predict", "runs/tiny", "photos"]) == 0
    assert asked == [(number, number) for number in range(5)]


def test_progress_is_for_people(place, capsys, monkeypatch):
    monkeypatch.setattr(command.time, "monotonic", iter(range(1000)).__next__)
    given = [Prediction(f"{number}.png", (("a", 1.0),)) for number in range(3)]
    seen = command._Seen(1)
    assert list(seen.watched(iter(given), 3)) == given
    assert seen.first == given[:1]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(seen.watched(iter(given), 3)) == given
    assert "\r2 of 3 images, " in capsys.readouterr().err
    assert list(seen.watched(iter(given), 3, quiet=True)) == given
    assert capsys.readouterr().err == ""


def test_a_disk_that_is_full(place, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_atomically", full)
    assert run(["predict", "runs/tiny", "photos", "--out", "a.csv"]) == 3
    assert capsys.readouterr().err == "error: `a.csv` cannot be written: no space left on device\n"


@pytest.fixture
def finder(deployed, place):
    """A run whose student finds three boxes in every picture, of 24 × 20 pixels."""
    (place / "broken.png").write_text("no image")
    deployed(place / "runs" / "finder", extra={"task": "tiny_boxes", "class_ids": [4, 9, 40]}, size=24, canvas=[0, 0, 0])
    return place


BOXES = ((0, 0, 24, 24), (0, 0, 12, 12), (3, 3, 6, 6))


def test_a_box_has_a_row(finder, capsys):
    assert run(["predict", "runs/finder", *ALL[:2], "broken.png", "--out", "a.csv"]) == 1
    header, *lines = rows((finder / "a.csv").read_text(encoding="utf-8"))
    assert header == ["path", "label", "score", "left", "top", "right", "bottom", "error"]
    assert [line[:2] for line in lines] == [[path, name] for path in ALL[:2] for name in "abc"] + [["broken.png", ""]]
    assert [tuple(map(float, line[3:7])) for line in lines[:3]] == list(BOXES)
    assert [line[7] for line in lines[:6]] == [""] * 6
    assert "it is not an image" in lines[6][7]
    capsys.readouterr()
    assert run(["predict", "runs/finder", ALL[0], "--min-score", "0.9"]) == 0
    assert capsys.readouterr().out == ALL[0] + "\t" * 7 + "\n"  # nothing was found there
    assert run(["predict", "runs/finder", ALL[0], "--top", "1"]) == 0
    assert capsys.readouterr().out == f"{ALL[0]}\ta\t0.875\t0.0\t0.0\t24.0\t24.0\t\n"


def test_boxes_as_json(finder, capsys):
    assert run(["predict", "runs/finder", ALL[0], "--json", "--min-score", "0.5"]) == 0
    answers = [{"class": name, "score": score, "box": list(box)} for name, score, box in zip("ab", (0.875, 0.5), BOXES, strict=False)]
    assert json.loads(capsys.readouterr().out) == {"path": ALL[0], "answers": answers}


def test_results_as_coco_takes_them(finder, capsys):
    assert run(["predict", "runs/finder", *ALL[2:3], *ALL[:1], "broken.png", "--out", "a.json", "--min-score", "0.2"]) == 1
    found = json.loads((finder / "a.json").read_text(encoding="utf-8"))
    assert found[1] == {"image_id": 1, "category_id": 9, "bbox": [0.0, 0.0, 12.0, 12.0], "score": 0.5, "file_name": ALL[2]}
    assert [(row["image_id"], row["category_id"]) for row in found] == [(1, 4), (1, 9), (2, 4), (2, 9)]
    assert run(["predict", "runs/finder", *ALL[:3], "--out", "a.json", "--top", "1"]) == 0
    assert [row["image_id"] for row in json.loads((finder / "a.json").read_text(encoding="utf-8"))] == [1, 2, 10]
    assert run(["predict", "runs/finder", ALL[0], "--out", "a.json", "--min-score", "1"]) == 0
    assert json.loads((finder / "a.json").read_text(encoding="utf-8")) == []


def test_numbers_of_images():
    assert coco_results.image_ids(["val/000000000139.jpg", "7.png"]) == [139, 7]
    for names in (["1.png", "a/1.png"], ["1.png", "x.png"], ["1.png", "²3.png"], ["1.png", f"{10**18}.png"], ["1.png", "-3.png"]):
        assert coco_results.image_ids(names) == [1, 2]


def test_a_terminal_is_shown_likely_boxes(finder, capsys, monkeypatch):
    monkeypatch.setattr(render, "on_terminal", lambda: True)
    for stated, shown in (([], "a 87.5%  b 50.0%"), (["--min-score", "0.1"], "a 87.5%  b 50.0%  c 12.5%")):
        assert run(["predict", "runs/finder", ALL[0], *stated]) == 0
        assert capsys.readouterr().out == f"{ALL[0]}  {shown}\n"


def test_boxes_are_drawn(finder, capsys):
    assert run(["predict", "runs/finder", "photos", "broken.png", "--draw", "drawn", "--sheet", "sheet.png"]) == 1
    assert sorted(path.name for path in (finder / "drawn").iterdir()) == ["1-2.png", "1-3.png", "1.png", "10.png", "2.jpg"]
    assert "drawn: 5 pictures" in capsys.readouterr().err
    with Image.open(finder / "drawn" / "10.png") as drawn, Image.open(ALL[2]) as picture:
        assert drawn.size == picture.size
        assert drawn.convert("RGB").tobytes() != picture.convert("RGB").tobytes()
    with Image.open(finder / "sheet.png") as sheet:
        assert sheet.width > 400


@pytest.mark.parametrize("folder", ["photos", "photos/../photos"])
def test_a_drawing_replaces_no_picture(finder, capsys, folder):
    before = (finder / ALL[0]).read_bytes()
    assert run(["predict", "runs/finder", ALL[0], "--draw", folder]) == 2
    assert "would be replaced by its drawing" in capsys.readouterr().err
    assert (finder / ALL[0]).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--draw", "drawn"], "`--draw` is for boxes, and this student tells classes apart"),
        (["--min-score", "0.5"], "`--min-score` is for boxes"),
        (["--out", "a.json"], "`--out a.json` is for boxes"),
    ],
)
def test_what_is_for_boxes_alone(place, capsys, arguments, words):
    assert run(["predict", "runs/tiny", ALL[0], *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (place / "drawn").exists()
