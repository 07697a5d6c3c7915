"""A deployed detector: with torchvision alone, as an ONNX file, and the command that finds boxes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from distillctl import ProfileError, RunError, export, load_student, predict
from distillctl.commands import export as command
from distillctl.models import onnx_files
from distillctl.models.deploy import write_student
from distillctl.models.onnx_files import OnnxModel
from distillctl_detection import plugin
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.options import FasterRCNNOptions

README = Path(__file__).parents[1] / "README.md"
OPTIONS = {
    "backbone": "mobilenet_v2", "width": 16, "head_width": 32, "anchor_size": 12.0, "proposals": 60, "score_threshold": 0.3,
    "backbone_checkpoint": "gone.pth",
}  # fmt: skip
INPUT = {"channels": 3, "size": 128, "resize": 128, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "canvas": [124, 116, 104]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, and beside it a photograph that is wider than high. Biases make some boxes likely."""
    folder = tmp_path_factory.mktemp("deployed")
    torch.manual_seed(4)
    options = FasterRCNNOptions(**OPTIONS)  # type: ignore[arg-type]
    model = FasterRCNN(3, options).eval()
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=1.0)
    write_student(
        folder, model, spec=plugin.FASTERRCNN, shown_name="fasterrcnn", options=options.model_dump(mode="json"), outputs=3,
        classes=["ant", "bee", "cat"], preprocessing=INPUT, package="distillctl-detection", version="1", extra={"task": "detection"},
    )  # fmt: skip
    pixels = torch.randint(256, (90, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    Image.fromarray(pixels.numpy()).save(folder / "photo.png")
    return folder


def test_a_finished_student_does_not_name_the_file_from_which_its_backbone_started(run: Path) -> None:
    options = json.loads((run / "model.json").read_text())["options"]
    assert options["width"] == 16
    assert "backbone_checkpoint" not in options
    load_student(run)


@pytest.mark.slow
def test_torchvision_alone_finds_the_same_boxes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of the README, which has nothing of ours."""
    (program,) = re.findall(r"```python\n(import json\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert "distillctl" not in program
    monkeypatch.chdir(run)
    made: dict[str, Any] = {}
    exec(program, made)
    (ours,) = predict(load_student(run), [run / "photo.png"])
    assert len(ours.answers) > 3
    assert made["labels"] == [name for name, _ in ours.answers]
    torch.testing.assert_close(made["scores"], torch.tensor([score for _, score in ours.answers]), atol=1e-5, rtol=0)
    torch.testing.assert_close(made["boxes"], torch.tensor(ours.boxes), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_an_onnx_file_of_one_image(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers as the student, and is not written where it does not; there it is compared on noise, as there are no images."""
    monkeypatch.setattr(command, "_NOISE", 4)
    found = export(run)
    assert (found.parity.source, found.parity.images, found.parity.same) == ("noise", 4, 4)
    assert found.parity.edges is not None
    assert found.parity.edges < 0.01
    assert found.input == "uint8 pixels (1, 3, 128, 128)"
    student = load_student(run)
    boxes, labels, scores = OnnxModel(found.path)(student.transform.pixels(run / "photo.png")[None])
    (said,) = predict(student, [run / "photo.png"])
    assert [student.classes[label] for label in labels.tolist()] == [name for name, _ in said.answers]
    assert (boxes / 0.8).tolist() == [pytest.approx(box, abs=0.02) for box in said.boxes]  # a photo of 160 pixels on a canvas of 128
    assert scores.tolist() == pytest.approx([score for _, score in said.answers], abs=1e-4)
    told: dict[str, Any] = json.loads(Path(f"{found.path}.json").read_text())
    assert (told["classes"], told["preprocessing"]["canvas"]) == (["ant", "bee", "cat"], [124, 116, 104])


@pytest.mark.slow
@pytest.mark.parametrize(("output", "change"), [(0, 0.02), (1, 1), (2, 0.0002)])
def test_a_file_that_finds_other_boxes_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: int, change: float
) -> None:
    """Edges by 0.02 pixels, another class, scores by 0.0002."""

    class Other(OnnxModel):
        def forward(self, images: Tensor) -> Any:
            found = list(super().forward(images))
            found[output] = found[output] + change
            return tuple(found)

    monkeypatch.setattr(command, "_NOISE", 2)
    monkeypatch.setattr(onnx_files, "OnnxModel", Other)
    with pytest.raises(RunError, match=r"finds other boxes than `.*` on 2 of 2 images; no file is written"):
        export(run, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"int8": True}, "no int8 form: the edges"), ({"format": "torch-export"}, "the number of its boxes depends on the image")],
)
def test_forms_that_a_detector_does_not_have(run: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        export(run, **options)
    assert not list(run.glob("export/*.pt2"))


def test_weights_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_NOISE", 2)
    found = export(run, format="safetensors")
    assert (found.parity.same, found.parity.images, found.parity.difference) == (2, 2, 0.0)
