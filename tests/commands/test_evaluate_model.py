"""Networks that no run has, on images of a profile or of a run: the figures are those of plain torch code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl import cli
from distillctl.api.tracker import Tracker
from distillctl.build import models
from distillctl.commands.evaluate import Report, evaluate_run
from distillctl.commands.evaluate_model import evaluate_model
from distillctl.commands.train import train
from distillctl.errors import DataError, DistillError, ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

CLASSES = 5
DATA = """
seed = 3
[dataset]
name = "npz"
root = "images.npz"
[evaluate]
batch_size = 7
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """Images as arrays, profiles, weights in several layouts, and a run on the same images."""
    path = tmp_path_factory.mktemp("without_a_run")
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {"classes": np.array(list("abcde"))}
    for split, count in (("train", 20), ("val", 10), ("test", 23)):
        arrays[f"{split}_images"] = draw.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % CLASSES
    np.savez(path / "images.npz", **arrays)
    (path / "data.toml").write_text(DATA)
    (path / "bare.toml").write_text('[dataset]\nname = "npz"\nroot = "images.npz"\n')
    (path / "taught.toml").write_text(DATA + '[teacher]\nname = "resnet14"\ncheckpoint = "teacher.pt"\n')
    torch.manual_seed(0)
    state = network("resnet8").state_dict()
    torch.save(state, path / "plain.pt")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, path / "wrapped.pth")
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    safetensors.torch.save_file(halves, path / "half.safetensors")
    torch.save({"model": {**{f"teacher.{n}": v for n, v in network("resnet14").state_dict().items()}, **front(state)}}, path / "both.pt")
    torch.save({"best": front(state), "last": state}, path / "keyed.pt")
    torch.save(network("resnet14").state_dict(), path / "teacher.pt")
    torch.save(network("resnet8", 7).state_dict(), path / "seven.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        (path / "run.toml").write_text(DATA + '[student]\nname = "resnet8"\n[train]\nepochs = 1\n')
        train(load("run.toml", registry=registry), registry, Tracker(), out=Path("run"), device="cpu")
        taught = '[student]\nname = "resnet8"\n[method]\nname = "kd"\n[train]\nepochs = 1\n'
        (path / "kd.toml").write_text((path / "taught.toml").read_text() + "allow_untrained = true\n" + taught)
        train(load("kd.toml", registry=registry), registry, Tracker(), out=Path("kd"), device="cpu")
    return path


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def front(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"student.{name}": value for name, value in state.items()}


def network(name: str, classes: int = CLASSES) -> nn.Module:
    from distillctl_cifar import models as cifar

    return getattr(cifar, name)(num_classes=classes)


def pixels(split: str = "test") -> tuple[Tensor, Tensor]:
    with np.load("images.npz") as file:
        return torch.from_numpy(file[f"{split}_images"]).permute(0, 3, 1, 2) / 255, torch.from_numpy(file[f"{split}_labels"]).long()


def own_input() -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the training images."""
    seen = pixels("train")[0].double()
    return seen.mean((0, 2, 3)).tolist(), seen.std((0, 2, 3), correction=0).tolist()


@torch.no_grad()
def logits_of(model: nn.Module, mean: list[float], std: list[float], split: str = "test") -> Tensor:
    m, s = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return model.eval()((pixels(split)[0] - m) / s)


def evaluated(registry: Registry, *overrides: str, model: str = "resnet8", data: str = "data.toml", **more: Any) -> Report:
    return evaluate_model(model, Path(data), registry, device="cpu", overrides=overrides, **more)


def same(report: Report, logits: Tensor, split: str = "test") -> None:
    labels = pixels(split)[1]
    right = int((logits.argmax(1) == labels).sum())
    assert (report.figures["count"], report.figures["top1"]) == (len(labels), right / len(labels))
    assert report.figures["loss"] == pytest.approx(float(F.cross_entropy(logits.double(), labels)), abs=1e-6)


@pytest.mark.parametrize("file", ["plain.pt", "wrapped.pth", "half.safetensors", "both.pt"])
def test_the_figures_are_those_of_plain_torch_code(inside: Path, registry: Registry, file: str) -> None:
    model = network("resnet8")
    state = torch.load("plain.pt")
    halves = file == "half.safetensors"
    model.load_state_dict({n: v.half().float() if halves and v.is_floating_point() else v for n, v in state.items()})
    report = evaluated(registry, checkpoint=Path(file))
    same(report, logits_of(model, *own_input()))
    assert (report.run, report.model, report.split, report.epoch) == (None, "resnet8", "test", None)
    assert any("`teacher.`" in note and "`model.key` chooses" in note for note in report.notes) == (file == "both.pt")


def test_a_profile_needs_a_dataset_alone(inside: Path, registry: Registry) -> None:
    model = network("resnet8")
    model.load_state_dict(torch.load("plain.pt"))
    for split in ("train", "val"):
        same(evaluated(registry, data="bare.toml", checkpoint=Path("plain.pt"), split=split), logits_of(model, *own_input(), split), split)


def test_the_network_sees_what_it_was_trained_with(inside: Path, registry: Registry) -> None:
    model = network("resnet8")
    model.load_state_dict(torch.load("plain.pt"))
    mean, std = [0.5, 0.5, 0.5], [0.25, 0.5, 0.75]
    report = evaluated(registry, f"model.mean={mean}", f"model.std={std}", checkpoint=Path("plain.pt"))
    same(report, logits_of(model, mean, std))
    assert report.notes == ("the model sees images normalised by mean [0.5, 0.5, 0.5] and std [0.25, 0.5, 0.75]",)
    large = evaluated(registry, "model.image_size=24", checkpoint=Path("plain.pt"))
    own = own_input()
    model.register_forward_pre_hook(lambda _, args: F.interpolate(args[0], size=(24, 24), mode="bilinear", antialias=True))
    same(large, logits_of(model, *own))
    assert large.notes == ("the model sees images at 24 instead of 16 pixels",)
    with pytest.raises(ProfileError, match=r"`model\.mean` must have 3 numbers, one for each channel, not 1"):
        evaluated(registry, "model.mean=[0.5]", checkpoint=Path("plain.pt"))


def test_weights_by_name_bring_their_normalisation(inside: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(1)
    state = resnet18(num_classes=CLASSES).state_dict()
    monkeypatch.setattr(models, "_pretrained", lambda *_: state)
    model = resnet18(num_classes=CLASSES)
    model.load_state_dict(state)
    report = evaluated(registry, model="torchvision/resnet18", weights="IMAGENET1K_V1")
    same(report, logits_of(model, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert report.notes[0].endswith("of IMAGENET1K_V1")
    assert report.notes[1].endswith("`model.image_size = 224` resizes for it")
    assert report.checkpoint == "IMAGENET1K_V1"


def test_a_distillers_teacher_alone(inside: Path, registry: Registry) -> None:
    """Of a file with both parts the student is evaluated, of one with a teacher alone, the teacher."""
    state = torch.load("teacher.pt")
    torch.save({"model": {f"teacher.{name}": value for name, value in state.items()}}, "alone.pt")
    found = evaluated(registry, model="resnet14", checkpoint=Path("alone.pt"))
    assert found.figures == evaluated(registry, model="resnet14", checkpoint=Path("teacher.pt")).figures


def test_options_of_the_model_and_the_key_of_the_file(inside: Path, registry: Registry) -> None:
    plain = evaluated(registry, checkpoint=Path("plain.pt")).figures
    for key in ("best", "last"):
        assert evaluated(registry, f"model.key={key}", checkpoint=Path("keyed.pt")).figures == plain
    with pytest.raises(ProfileError, match="unknown option `dropuot` for model"):
        evaluated(registry, "model.dropuot=0.5", checkpoint=Path("plain.pt"))
    with pytest.raises(ProfileError, match=r"`model\.key` has no effect without `checkpoint`"):
        evaluated(registry, "model.key=best", weights="some")


def test_the_images_of_a_run(inside: Path, registry: Registry) -> None:
    """And its own weights, from outside."""
    before = evaluate_run(Path("run"), registry, device="cpu")
    report = evaluated(registry, data="run", checkpoint=Path("run/student.safetensors"))
    assert report.figures == before.figures
    assert report.as_dict()["data"] == "run"
    with np.load("images.npz") as file:
        arrays = dict(file)
    arrays["test_labels"] = arrays["test_labels"][::-1]
    np.savez("others.npz", **arrays)
    with pytest.raises(DataError, match="changed since `run` began: the data `test`"):
        evaluated(registry, "dataset.root=others.npz", data="run", checkpoint=Path("plain.pt"))
    other = evaluated(registry, "dataset.root=others.npz", data="run", checkpoint=Path("plain.pt"), accept_change=True)
    assert other.as_dict()["set"] == ["dataset.root=others.npz"]


def test_classes_in_another_order_are_told(inside: Path, registry: Registry) -> None:
    model = network("resnet8")
    model.load_state_dict(torch.load("plain.pt"))
    with np.load("images.npz") as file:
        arrays = dict(file)
    arrays["test_labels"] = (logits_of(model, *own_input()).argmax(1).numpy() + 1) % CLASSES
    np.savez("turned.npz", **arrays)
    report = evaluated(registry, "dataset.root=turned.npz", checkpoint=Path("plain.pt"))
    assert report.figures["top1"] == 0
    assert report.notes[0].startswith(
        "the model was trained otherwise: its answers fit the classes far better in another order (100.0% are"
    )


def against(mine: Tensor, theirs: Tensor) -> tuple[float, float]:
    kl = F.kl_div(mine.double().log_softmax(1), theirs.double().log_softmax(1), log_target=True, reduction="batchmean")
    return float(kl), float((mine.argmax(1) == theirs.argmax(1)).double().mean())


def test_figures_against_the_teacher(inside: Path, registry: Registry) -> None:
    teacher, model = network("resnet14"), network("resnet8")
    teacher.load_state_dict(torch.load("teacher.pt"))
    model.load_state_dict(torch.load("plain.pt"))
    named = evaluated(registry, data="taught.toml", checkpoint=Path("plain.pt"), against_teacher=True)
    of_run = evaluated(registry, data="kd", checkpoint=Path("plain.pt"), against_teacher=True)
    kl, agreement = against(logits_of(model, *own_input()), logits_of(teacher, *own_input()))
    for report in (named, of_run):
        assert report.figures["teacher_kl"] == pytest.approx(kl, abs=1e-6)
        assert report.figures["teacher_agreement"] == agreement
    model.load_state_dict(safetensors.torch.load_file("kd/student.safetensors"))
    kl, agreement = against(logits_of(model, *own_input()), logits_of(teacher, *own_input()))
    run = evaluate_run(Path("kd"), registry, device="cpu", against_teacher=True)
    assert (run.figures["teacher_kl"], run.figures["teacher_agreement"]) == (pytest.approx(kl, abs=1e-6), agreement)
    assert run.more[-2:] == [f"KL to the teacher {run.figures['teacher_kl']:.4f}", f"agreement with it {agreement:.2%}"]


def test_several_scales(inside: Path, registry: Registry) -> None:
    model = network("resnet8")
    model.load_state_dict(torch.load("plain.pt"))
    mean, std = own_input()
    m, s = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    seen = (pixels()[0] - m) / s
    with torch.no_grad():
        views = [model.eval()(F.interpolate(seen, size=(side, side), mode="bilinear", antialias=True)) for side in (12, 16, 20)]
    report = evaluated(registry, checkpoint=Path("plain.pt"), tta="multi_scale")
    same(report, torch.stack(views).mean(0))
    assert (report.tta, report.plain) == ("multi_scale", evaluated(registry, checkpoint=Path("plain.pt")).figures)
    with pytest.raises(ProfileError, match="the model `resnet8` sees images at one size alone"):
        evaluated(registry, "model.image_size=24", checkpoint=Path("plain.pt"), tta="multi_scale")
    Path("large.toml").write_text(Path("taught.toml").read_text() + "image_size = 24\n")
    with pytest.raises(ProfileError, match="the teacher `resnet14` sees images at one size alone"):
        evaluated(registry, data="large.toml", checkpoint=Path("plain.pt"), tta="multi_scale", against_teacher=True)


PLAIN = ["--model", "resnet8", "--checkpoint", "plain.pt", "--data"]
REFUSED = {
    "other classes": (["--model", "resnet8", "--checkpoint", "seven.pt", "--data", "data.toml"], "made for 7 classes, the model has 5"),
    "a run, too": (["run", "--model", "resnet8", "--checkpoint", "plain.pt", "--data", "data.toml"], "so that RUN means nothing"),
    "a run's checkpoint": (["--model", "resnet8", "--checkpoint", "best", "--data", "run"], "`best` is a checkpoint of a run"),
    "two weights": (["--model", "a", "--checkpoint", "plain.pt", "--weights", "b", "--data", "run"], "both say which weights"),
    "no weights": (["--model", "resnet8", "--data", "data.toml"], "`--model` does not say which weights"),
    "no data": (["--model", "resnet8", "--checkpoint", "plain.pt"], "`--model` does not say on which images"),
    "no model": (["--data", "data.toml"], "`--data` goes with `--model NAME`"),
    "weights of a run": (["run", "--weights", "DEFAULT"], "`--weights` goes with `--model NAME`"),
    "unknown model": (["--model", "resnet9", "--checkpoint", "plain.pt", "--data", "data.toml"], "no model is called `resnet9`"),
    "unknown weights": (["--model", "torchvision/resnet18", "--weights", "X", "--data", "data.toml"], "knows no weights called `X`"),
    "no such file": (["--model", "resnet8", "--checkpoint", "plane.pt", "--data", "data.toml"], "did you mean `plain.pt`"),
    "no such data": ([*PLAIN, "date.toml"], "did you mean `data.toml`"),
    "a folder of data": ([*PLAIN, "."], "`.` is not a run directory"),
    "another key": ([*PLAIN, "run", "--set", "train.epochs=2"], "is not a key"),
    "a teacher's way": (
        [*PLAIN, "run", "--set", "model.run=run"],
        "means nothing here",
    ),
    "nothing to accept": (
        [*PLAIN, "data.toml", "--accept-change"],
        "no earlier images",
    ),
    "no teacher": ([*PLAIN, "data.toml", "--against-teacher"], "has no [teacher]"),
    "a run without one": (["run", "--against-teacher"], "`run` was trained without a teacher"),
    "a file as a folder": (["run", "--out", "data.toml"], "`data.toml` is a file"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused(inside: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert cli.run(["eval", *words, "--device", "cpu"]) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert "hint: " in said


def test_the_command_says_the_same_and_writes_it(inside: Path, registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "resnet8", "--checkpoint", "wrapped.pth", "--data", "data.toml", "--device", "cpu", "--out", "found"]
    assert cli.run(words) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ["model   resnet8 (wrapped.pth)", "data    data.toml", "split   test, 23 images"]
    assert [line.split()[0] for line in shown[4:]] == ["top-1", "top-5", "mpa", "loss", "more"]
    assert shown[3] == "note    the weights are `state_dict` of the file"
    assert all(len(line) <= 80 for line in shown)
    assert cli.run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(evaluated(registry, checkpoint=Path("wrapped.pth")).as_dict()))
    assert json.loads(Path("found/test-resnet8-wrapped.pth.json").read_text()) == told
    shutil.rmtree("found")


@pytest.mark.parametrize(
    ("override", "tta", "split"),
    [
        ("dataset.limit=5", "", "train"),
        ("evaluate.every=2", None, ""),
        ('evaluate.tta="multi_scale"', "auto", ""),
        ("evaluate.tta_resize=20", None, ""),
        ("evaluate.tta_scales=[0.5, 1]", "multi_scale", ""),
    ],
)
def test_a_key_that_does_nothing_is_refused(inside: Path, registry: Registry, override: str, tta: str | None, split: str) -> None:
    """tta, split: with which it does something; None where arrays have none."""
    with pytest.raises(ProfileError, match=r"has no effect (on|without) "):
        evaluated(registry, override, checkpoint=Path("plain.pt"), tta="flip")
    with pytest.raises(ProfileError, match=r"has no effect (on|without) "):
        evaluate_run(Path("run"), registry, device="cpu", overrides=[override])
    if tta is not None:
        evaluated(registry, override, checkpoint=Path("plain.pt"), tta=tta, split=split)


def test_only_what_an_evaluation_reads_is_looked_at(inside: Path, registry: Registry) -> None:
    Path("odd.toml").write_text(DATA + 'tta = "flip"\n[student]\nname = "nobody"\n[train]\nepochs = -1\nworkers = 0\n[method]\nname = 3\n')
    report = evaluated(registry, data="odd.toml", checkpoint=Path("plain.pt"))
    assert report.figures == evaluated(registry, checkpoint=Path("plain.pt")).figures
    with pytest.raises(DistillError, match="evaluate"):
        evaluated(registry, "evaluate.batch_size=0", data="odd.toml", checkpoint=Path("plain.pt"))
