"""The command, on a student's run and its teacher's: what it prints, writes and refuses; and what holds of all influences."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from distillctl import DataError, RunError, cli, open_run
from distillctl_tracin.gradients import gradients_of
from distillctl_tracin.request import Request
from distillctl_tracin.trace import trace

RUN = "runs/student"


def run(*arguments):
    return cli.run(["tracin", *arguments, "--device", "cpu"])


def traced(one, other, out, train=(17, 3), **more):
    return trace(one, other, Request(train, topk=(5, 10, 39), **more), out)


def test_two_copies_of_a_run_have_everything_in_common(student, inside):
    copy = inside / "copy"
    shutil.copytree(student.path, copy)
    found = traced(student, open_run(copy, device="cpu"), inside)
    assert [[(o.proponents, o.opponents) for o in one.overlaps] for one in found.likeness] == [[(5, 5), (10, 10), (39, 39)]] * 2
    for one in found.likeness:
        assert (one.spearman, one.kendall, one.rank_biased) == pytest.approx((1, 1, 1))
    assert np.array_equal(found.run.values, found.other.values)


def test_it_is_the_formula(student, inside):
    """Sum over checkpoints of rate times the dot product of gradients, computed image by image."""
    found = traced(student, None, inside, layers=["fc", "layer3"], test=8)
    expected = np.zeros((2, 8))

    def gradient(model, split, index):
        chosen = [p for name, p in model.named_parameters() if name.split(".")[0] in ("fc", "layer3")]
        (batch,) = student.batches(split, [index])
        loss = torch.nn.functional.cross_entropy(model(batch.images), batch.labels)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, chosen)]).double().numpy()

    for epoch, rate in ((2, 0.1), (4, 0.01)):
        with student.student(epoch) as model:
            tests = [gradient(model, "test", j) for j in range(0, 40, 5)]
            expected += rate * np.array([[gradient(model, "train", i) @ other for other in tests] for i in (17, 3)])
    assert np.abs(found.run.values - expected).max() <= 1e-5 * np.abs(expected).max()
    assert found.run.rates == pytest.approx({2: 0.1, 4: 0.01})


def test_influence_is_additive_over_checkpoints(student, inside):
    both = traced(student, None, inside / "both").run.values
    parts = [traced(student, None, inside / str(epoch), checkpoints=[epoch]).run.values for epoch in (2, 4)]
    np.testing.assert_allclose(both, parts[0] + parts[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("layers", [["last"], ["all"]], ids=str)
def test_influence_on_each_other_is_symmetric_and_on_oneself_positive(student, inside, layers):
    values = traced(student, None, inside, train=range(6), split="train", layers=layers).run.values[:, :6]
    np.testing.assert_allclose(values, values.T, rtol=1e-5, atol=1e-6 * np.abs(values).max())
    assert (values.diagonal() > 0).all()


@pytest.mark.parametrize(("layers", "project"), [(["last"], None), (["fc", "layer3"], None), (["layer3"], 32)], ids=str)
def test_the_size_of_blocks_changes_nothing(student, inside, monkeypatch, layers, project):
    whole = traced(student, None, inside / "whole", layers=layers, project=project).run.values
    with student.student(4) as model:
        count = gradients_of(model, "fc", layers).count
    monkeypatch.setattr("distillctl_tracin.gradients.BUDGET", 4 * count * 3)
    batches = type(student).batches
    monkeypatch.setattr(
        type(student), "batches", lambda self, split, index=None, *, size=None: batches(self, split, index, size=min(size or 3, 3))
    )
    pieces = traced(student, None, inside / "pieces", layers=layers, project=project).run.values
    assert np.abs(whole - pieces).max() <= 1e-6 * np.abs(whole).max()


def test_all_against_all_is_the_same_as_some(student, inside):
    every = traced(student, None, inside / "all", train=None).run.values
    assert every.shape == (30, 40)
    np.testing.assert_allclose(every[[17, 3]], traced(student, None, inside / "two").run.values, rtol=1e-5, atol=1e-7)
    loaded = np.load(inside / "all" / "influence.npy")
    assert np.array_equal(loaded, every)


@pytest.mark.slow
def test_a_projection_is_not_exact_and_close(student, inside):
    exact = traced(student, None, inside / "exact", layers=["layer3"]).run.values
    near = traced(student, None, inside / "near", layers=["layer3"], project=4096).run.values
    assert 0 < np.abs(exact - near).max() < 0.3 * np.abs(exact).max()
    again = traced(student, None, inside / "again", layers=["layer3"], project=4096, seed=1).run.values
    assert not np.allclose(near, again)


def test_networks_of_different_shapes_are_projected(student, teacher, inside):
    found = traced(student, teacher, inside, layers=["layer1", "fc"], project=64, test=4)
    assert found.run.parameters != found.other.parameters
    assert found.run.values.any()
    assert found.other.values.any()


def test_what_is_printed_and_written(student, teacher, inside, capsys):
    out = inside / "files"
    assert run(RUN, "--train", "17,3", "--topk", "5,10,1000", "--out", str(out)) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80 + len(str(out))
    lines = [line.split() for line in text.splitlines()]
    assert ["student", RUN, "(cifar/resnet8)"] in lines
    assert ["teacher", str(teacher.path), "(cifar/resnet14)"] in lines
    assert ["epochs", "2,", "4"] in lines
    assert "the first 1,000 are not compared" in text
    found = json.loads((out / "tracin.json").read_text())
    row = next(line for line in lines if line and line[0] == "5" and len(line) == 10)
    overlap = found["overlap"][0]
    assert row[3] == f"{overlap['chance']:.1f}" == "0.6"
    assert float(row[1]) == overlap["proponents"]
    tops = [[image["overlap"][0]["proponents"] for image in found["images"]], (overlap["chance_low"], overlap["chance_high"])]
    assert row[-3:] == [str(overlap["above"]), "of", "2"] == [str(sum(count > tops[1][1] for count in tops[0])), "of", "2"]
    assert overlap["below"] == sum(count < tops[1][0] for count in tops[0])
    assert found["run"]["rates"] == pytest.approx({"2": 0.1, "4": 0.01})
    assert found["run"]["ms_per_value"] > 0
    assert found["run"]["epochs"]["train_seconds"] > 0
    assert found["run"]["epochs"]["evaluation_seconds"] > 0
    assert [image["class"] for image in found["images"]] == ["cat", "dog"]
    values, others = np.load(out / "influence.npy"), np.load(out / "influence-other.npy")
    with (out / "influence.csv").open() as file:
        pairs = list(csv.DictReader(file))
    assert len(pairs) == 80
    assert [(p["train"], p["train_label"], p["test"], p["test_label"]) for p in pairs[40:42]] == [
        ("3", "3", "0", "0"),
        ("3", "3", "1", "1"),
    ]
    assert float(pairs[41]["run"]) == values[1, 1]
    assert float(pairs[41]["other"]) == others[1, 1]
    with (out / "overlap.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["train"], r["k"]) for r in rows] == [("17", "5"), ("17", "10"), ("3", "5"), ("3", "10")]
    tops = [set(np.argsort(-side[1])[:5].tolist()) for side in (values, others)]
    assert int(rows[2]["proponents"]) == len(tops[0] & tops[1])
    assert {path.name for path in out.glob("*.png")} == {"images.png", "distributions.png"}


@pytest.fixture
def unplotted(monkeypatch):
    """Plots take most of the time of a command; one test draws them."""
    monkeypatch.setattr("distillctl_tracin.pictures.write_distributions", lambda path, traced, names: None)


def test_json_is_all_that_is_printed(inside, unplotted, capsys):
    assert run(RUN, "--train", "17", "--test", "8", "--topk", "3", "--json", "--out", str(inside)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((inside / "tracin.json").read_text())
    assert found["test_images"] == 8
    with (inside / "influence.csv").open() as file:
        assert [line["test"] for line in csv.DictReader(file)] == ["0", "5", "10", "15", "20", "25", "30", "35"]


def test_a_run_without_a_teacher_is_not_compared(teacher, inside, unplotted, capsys):
    assert run(str(teacher.path), "--train", "17", "--out", str(inside)) == 0
    out = capsys.readouterr().out
    assert "by chance" not in out
    assert "overlap" not in json.loads((inside / "tracin.json").read_text())


def test_without_matplotlib_a_note_stands_for_the_plot(inside, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert run(RUN, "--train", "17", "--topk", "3", "--out", str(inside)) == 0
    assert "pip install 'distillctl-tracin[plots]'" in capsys.readouterr().out
    assert not (inside / "distributions.png").exists()


@pytest.fixture
def bare(teacher, inside):
    """A copy of the teacher's run without its checkpoints."""
    path = inside / "bare"
    shutil.copytree(teacher.path, path, ignore=shutil.ignore_patterns("epoch-*"))
    return path


def test_a_run_without_checkpoints_is_refused(bare, capsys):
    assert run(str(bare), "--train", "17") == 1
    err = capsys.readouterr().err
    assert "kept no checkpoints of its epochs" in err
    assert "train.keep_every" in err
    assert run(RUN, str(bare), "--train", "17") == 1
    assert not Path(RUN, "tracin").exists()


def test_a_teacher_without_checkpoints_is_said_and_left_out(student, bare, inside, unplotted, capsys, monkeypatch):
    monkeypatch.setattr("distillctl.commands.opened_run._teacher", lambda run, registry: bare)
    assert run(RUN, "--train", "17", "--out", str(inside / "out")) == 0
    out = capsys.readouterr().out
    assert "not compared: its teacher's run" in out


def test_other_images_are_not_compared(student, inside):
    other = open_run(student.path, device="cpu", overrides=["dataset.limit=20"])
    with pytest.raises(DataError, match=r"the train images of .* are not the same"):
        traced(student, other, inside)


def test_values_that_are_not_finite_are_refused(student, inside, monkeypatch):
    def call(self, images, labels):
        return [(torch.full((len(labels), 1), torch.nan),)]

    monkeypatch.setattr("distillctl_tracin.gradients.LastLayer.__call__", call)
    with pytest.raises(RunError, match="are not finite"):
        traced(student, None, inside)


def test_changed_images_are_refused(student, inside, unplotted, capsys, monkeypatch):
    """As `eval` refuses them."""
    monkeypatch.setattr("distillctl.commands.resume_check.content_hash", lambda images: "0" * 12)
    assert run(RUN, "--train", "17", "--out", str(inside)) == 1
    assert "changed since" in capsys.readouterr().err
    assert run(RUN, "--train", "17", "--out", str(inside), "--accept-change") == 0


MISTAKES = {
    "no training images": ([], "nothing says which training images"),
    "a word": (["--train", "some"], "`some` is not a list of numbers"),
    "a number too large": (["--train", "30"], "there is no training image 30: 30 are counted from 0"),
    "test": (["--train", "1", "--test", "0"], "`0` is not a number of images"),
    "split": (["--train", "1", "--split", "dev"], "unknown split `dev`"),
    "an epoch": (["--train", "1", "--checkpoints", "2,3"], "there is no checkpoint of epoch 3"),
    "a layer": (["--train", "1", "--layers", "layer9"], "has no layer `layer9`"),
    "a projection": (["--train", "1", "--project", "9"], "`--project` has no effect on the last layer"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(inside, capsys, arguments, message):
    assert run(RUN, *arguments, "--out", str(inside)) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
