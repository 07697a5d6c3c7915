"""A finished run as a file for other programs: it answers the same, or there is no file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from distillctl.api.tracker import Tracker
from distillctl.build.student import load_student
from distillctl.cli import run as command
from distillctl.cli.export import print_exported
from distillctl.commands import export as module
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.export import Exported, Parity, export
from distillctl.commands.export_request import check_request
from distillctl.commands.run_images import RunImages
from distillctl.commands.train import train
from distillctl.errors import DataError, MachineError, ProfileError, RunError
from distillctl.models import onnx_files
from distillctl.models.fake_quantise import restore
from distillctl.models.onnx_files import OnnxModel
from distillctl.models.pixel_input import PixelInput
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

pytestmark = pytest.mark.slow

PROFILE = """
[dataset]
name = "digits"
limit = 400
[student]
name = "resnet8"
[method]
name = "none"
[train]
epochs = 2
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    folder = tmp_path_factory.mktemp("export")
    (folder / "p.toml").write_text(PROFILE)
    return train(load(folder / "p.toml", registry=registry), registry, Tracker(), out=folder / "run").path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def pixels(run: Path, registry: Registry, count: int = 500) -> torch.Tensor:
    return torch.cat(list(RunImages.of(run, registry).shown(count)))


def test_pixels_are_what_the_images_have(run: Path, registry: Registry) -> None:
    data = RunImages.of(run, registry)
    assert data.split == "test"
    shown = torch.cat(list(data.shown(7)))
    rows = [i * len(data.images) // 7 for i in range(7)]
    assert torch.equal(shown, data.images.images[rows].permute(0, 3, 1, 2))  # type: ignore[union-attr]
    trained = torch.cat(list(data.trained(50)))
    assert len(trained) == 50
    assert len({tuple(image.flatten().tolist()) for image in trained}) > 45, "drawn from all over the split, not a class of it"
    assert len(torch.cat(list(data.trained(10_000)))) == 400, "`dataset.limit` holds"


def test_figures_are_those_of_eval(run: Path, registry: Registry) -> None:
    student = load_student(run, registry=registry)
    network = PixelInput(student.model, student.transform.mean, student.transform.std)
    found = RunImages.of(run, registry).figures(network)
    assert found is not None
    assert {"top1", "top5", "mpa", "loss", "count"} <= found.keys()
    assert found.items() <= evaluate_run(run, registry).figures.items()


def test_onnx(run: Path, registry: Registry) -> None:
    found = export(run, registry)
    assert found.path == run / "export" / "student.onnx"
    assert found.parity.source == "test"
    assert found.parity.images == found.parity.same == 445
    assert 0 < found.parity.difference <= 1e-4
    assert found.after is None
    onnx = OnnxModel(found.path)
    assert RunImages.of(run, registry).figures(onnx)["top1"] == evaluate_run(run, registry).figures["top1"]  # type: ignore[index]
    assert json.loads(onnx.metadata["classes"]) == list(map(str, range(10)))
    told = json.loads((run / "export" / "student.onnx.json").read_text(encoding="utf-8"))
    assert told["preprocessing"] == {**load_student(run, registry=registry).info["input"], "normalised": "inside"}
    assert told["sha256"] == module.sha256(found.path)
    assert told["bytes"] == found.path.stat().st_size
    assert sorted(p.name for p in (run / "export").iterdir()) == ["student.onnx", "student.onnx.json"]


def test_normalised_by_the_caller(run: Path, registry: Registry) -> None:
    found = export(run, registry, pixels=False, images=20, out=run.parent / "own.onnx")
    assert found.path == run.parent / "own.onnx"
    assert found.parity.images == 20
    student = load_student(run, registry=registry)
    seen = pixels(run, registry, 20)
    with torch.no_grad():
        wanted = student.model(student.transform.normalise(seen))
    assert torch.allclose(OnnxModel(found.path)(student.transform.normalise(seen)), wanted, atol=1e-4)
    assert "normalised float32 (batch, 3, 8, 8)" in found.input
    assert not (run / "export").exists()


@pytest.mark.parametrize("inside", [True, False])
def test_torch_export(run: Path, registry: Registry, inside: bool) -> None:
    found = export(run, registry, format="torch-export", pixels=inside)
    assert found.path.name == "student.pt2"
    files = {"classes": "", "preprocessing": ""}
    program = torch.export.load(found.path, extra_files=files).module()
    student = load_student(run, registry=registry)
    seen = pixels(run, registry, 9)
    normalised = student.transform.normalise(seen)
    with torch.no_grad():
        assert torch.allclose(program(seen if inside else normalised), student.model(normalised), atol=1e-4)
    assert json.loads(files["classes"]) == list(student.classes)


def test_safetensors(run: Path, registry: Registry) -> None:
    found = export(run, registry, format="safetensors")
    with safetensors.safe_open(found.path, "pt") as file:
        assert json.loads(file.metadata()["preprocessing"])["normalised"] == "by the caller"
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    state = load_student(run, registry=registry).model.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], value) for name, value in state.items())


def test_int8(run: Path, registry: Registry) -> None:
    found = export(run, registry, int8=True, calibration=100)
    assert found.path.name == "student-int8.onnx"
    assert found.before is not None
    assert found.before.items() <= evaluate_run(run, registry).figures.items()
    answers = OnnxModel(found.path)
    assert found.after == RunImages.of(run, registry).figures(answers)
    assert found.loss == found.before["top1"] - found.after["top1"]  # type: ignore[index]
    assert abs(found.loss) < 0.05
    assert found.parity.difference > 1e-3, "it was quantised"
    assert found.size < 0.6 * export(run, registry).size
    assert json.loads(answers.metadata["classes"]) == list(map(str, range(10)))


def test_a_file_that_answers_otherwise_is_not_written(run: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    write = onnx_files.write_onnx

    def wrong(model: Any, *args: Any, **keywords: Any) -> None:
        with torch.no_grad():
            model.network.fc.bias[0] += 2e-3
        write(model, *args, **keywords)
        with torch.no_grad():
            model.network.fc.bias[0] -= 2e-3

    monkeypatch.setattr(onnx_files, "write_onnx", wrong)
    with pytest.raises(RunError, match=r"a logit differs by 0\.002"):
        export(run, registry)
    assert not any((run / "export").iterdir())


def test_weights_that_differ_are_not_written(run: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    save = safetensors.torch.save

    def wrong(tensors: dict[str, torch.Tensor], **keywords: Any) -> bytes:
        return save({**tensors, "fc.bias": tensors["fc.bias"] + 1e-2}, **keywords)

    monkeypatch.setattr(safetensors.torch, "save", wrong)
    with pytest.raises(RunError, match="no file is written"):
        export(run, registry, format="safetensors")
    assert not any((run / "export").iterdir())


def test_not_a_number_is_not_alike() -> None:
    with pytest.raises(RunError, match="differs by nan"):
        module._check_parity(Parity("test", 1, float("nan"), 1.0, 0), SimpleNamespace(path="run"))  # type: ignore[arg-type]
    module._check_parity(Parity("test", 1, 5e-4, 60.0, 1), SimpleNamespace(path="run"))  # type: ignore[arg-type] # of large logits


def test_compare_sees_one_image_alone_and_many() -> None:
    """A file that knows only batches of one size, or answers wrongly for one row, is found."""
    reference = torch.nn.Flatten()
    seen: list[int] = []

    class Other(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return images.flatten(1) + (len(images) == 1) * 0.5

    shown = torch.rand(5, 1, 2, 2)
    assert module._compare(reference, Other(), ("test", iter([shown]))).difference == pytest.approx(0.5)
    assert seen == [1, 4]


@pytest.mark.slow
def test_without_the_images(run: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise DataError("there is no folder `photos`")

    monkeypatch.setattr(RunImages, "of", gone)
    found = export(run, registry)
    assert found.parity.source == "noise"
    assert found.parity.images == 32
    assert "there is no folder `photos`" in found.notes[0]
    with pytest.raises(DataError, match="int8 needs training images"):
        export(run, registry, int8=True)


@pytest.mark.slow
def test_a_student_without_its_run(run: Path, tmp_path: Path, registry: Registry) -> None:
    for name in ("student.safetensors", "model.json"):
        shutil.copy(run / name, tmp_path / name)
    assert export(tmp_path, registry).parity.source == "noise"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"format": "tflite"}, "unknown format"),
        ({"format": "safetensors", "int8": True}, "no int8 form"),
        ({"format": "safetensors", "pixels": False}, "has no input"),
        ({"out": "there/is/none/a.onnx"}, "there is no folder"),
        ({"out": "a.pt"}, "does not end in `.onnx`"),
        ({"overrides": ["train.epochs=3"]}, "has no effect here"),
    ],
)
def test_refused(run: Path, registry: Registry, options: dict[str, Any], error: str) -> None:
    with pytest.raises(ProfileError, match=error):
        export(run, registry, **options)


def test_what_is_mistyped_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "model.json").touch()
    program = """
import sys
from distillctl.cli import run
assert run(["export", "none"]) == 2
assert run(["export", ".", "--format", "tflite"]) == 2
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "there is no run directory `none`" in done.stderr
    assert "unknown format `tflite`" in done.stderr
    assert check_request("onnx", int8=True, pixels=False) == "onnx"


def test_an_unfinished_run(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(DataError, match="holds no deployed student"):
        export(tmp_path, registry)


def test_a_place_that_cannot_be_written(run: Path, registry: Registry) -> None:
    (run / "export").write_text("a file")
    with pytest.raises(MachineError, match="cannot be made"):
        export(run, registry)


@pytest.mark.slow
def test_screen(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert command(["export", str(run), "--images", "40"]) == 0
    shown = capsys.readouterr().out
    assert "uint8 pixels (batch, 3, 8, 8)" in shown
    assert "for 40 of 40 test images" in shown
    assert max(map(len, shown.replace(str(run), "").splitlines())) <= 80
    assert command(["export", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"]["same"] == 445


def test_a_head_that_a_method_gave_is_not_loaded_again(run: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    load = module.load_student

    def with_head(*arguments: Any, **keywords: Any) -> Any:
        student = load(*arguments, **keywords)
        return replace(student, info={**student.info, "head": {"layers": []}})

    monkeypatch.setattr(module, "load_student", with_head)
    assert "trains a new one" in export(run, registry, int8=True, calibration=8).notes[0]
    assert not export(run, registry, format="safetensors").notes


@pytest.mark.parametrize(("after", "told"), [(0.89, True), (0.897, False), (0.91, False)])
def test_how_lost_accuracy_is_regained_is_told(after: float, told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    from distillctl.builtin.classification_task import Classification

    figures = [{"top1": value, "count": 200} for value in (0.9, after)]
    found = Exported(
        Path("r"), Path("r/a.onnx"), "onnx", True, 9, "", "", Parity("test", 1, 0.1, 1.0, 1), "test", *figures, task=Classification
    )
    print_exported(found)
    shown = capsys.readouterr().out
    assert ("train.quantize=int8" in shown) is told
    assert ("points less" if after < 0.9 else "1.00 points more") in shown


QUANTISED = PROFILE + 'quantize = "int8"\n'


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    (folder / "p.toml").write_text(QUANTISED)
    return train(load(folder / "p.toml", registry=registry), registry, Tracker(), out=folder / "run").path


def test_a_run_trained_for_int8(quantised: Path, finished: Path, registry: Registry) -> None:
    info = json.loads((quantised / "model.json").read_text(encoding="utf-8"))
    assert info["quantize"]["kind"] == "int8"
    assert {"conv1", "fc"} <= info["quantize"]["ranges"].keys()
    with (
        safetensors.safe_open(quantised / "student.safetensors", "pt") as file,
        safetensors.safe_open(finished / "student.safetensors", "pt") as plain,
    ):
        assert sorted(file.keys()) == sorted(plain.keys()), "the weights load with the model's package alone"
    result = json.loads((quantised / "run.json").read_text(encoding="utf-8"))["result"]
    assert evaluate_run(quantised, registry).figures["loss"] == result["best"]["loss"], "`eval` tells what the training told"
    assert evaluate_run(quantised, registry, checkpoint="last").figures["loss"] == result["last"]["loss"]
    student = load_student(quantised, registry=registry)
    conv: Any = student.model.conv1
    scale = conv._parameters["weight"].abs().amax((1, 2, 3), keepdim=True) / 127
    steps = conv.weight / scale
    assert torch.allclose(steps, steps.round(), atol=1e-3), "it computes with 8 bits"


def test_weights_in_floating_point_are_evaluated_in_it(quantised: Path, registry: Registry, tmp_path: Path) -> None:
    """The deployed file has no ranges; a checkpoint of the run has them."""
    student = load_student(quantised, registry=registry)
    restore(student.model)
    plain = PixelInput(student.model, student.transform.mean, student.transform.std)
    wanted = RunImages.of(quantised, registry).figures(plain)
    assert wanted is not None
    found = evaluate_run(quantised, registry, checkpoint=str(quantised / "student.safetensors")).figures
    assert found["loss"] == wanted["loss"]
    best = evaluate_run(quantised, registry).figures
    assert best["loss"] != wanted["loss"]
    assert evaluate_run(quantised, registry, checkpoint=str(quantised / "checkpoints" / "best.pt")).figures["loss"] == best["loss"]


@pytest.mark.slow
def test_such_a_run_is_exported(quantised: Path, registry: Registry, tmp_path: Path) -> None:
    plain = export(quantised, registry, out=tmp_path)
    assert plain.parity.difference < 1e-4, "in floating point without --int8"
    found = export(quantised, registry, int8=True, out=tmp_path)
    assert found.after is not None
    simulated = evaluate_run(quantised, registry).figures
    assert abs(found.after["top1"] - simulated["top1"]) < 0.02
