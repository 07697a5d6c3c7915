"""A detector from an ONNX file: what it is fed, how its outputs are read, and its average precision through `eval`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor

from distillctl import DistillError, ProfileError, RunError
from distillctl.commands.dry_run import dry_run
from distillctl.commands.evaluate_model import evaluate_model
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl_detection.foreign import COCO_CLASSES, COCO_IDS, ForeignDetector, decode_yolox
from distillctl_detection.onnx_options import OnnxOptions

# Tiny files with known answers.


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]) -> Path:
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def image(*sides: Any, rank: int = 4) -> Any:
    return helper.make_tensor_value_info("images", TensorProto.FLOAT, [*([1] if rank == 4 else []), 3, *sides])


def yolox(path: Path, raw: Any, side: int = 32) -> Path:
    """It gives `raw` (A, 5 + K), whatever it sees, plus 0 times the mean of the image."""
    raw = np.asarray(raw, dtype=np.float32)[None]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["raw", "nothing"], ["output"]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, list(raw.shape))
    return save(path, nodes, [image(side, side)], [output], {"raw": raw, "zero": np.float32(0)})


def decoded(path: Path, boxes: Any, labels: Any, scores: Any, sides: tuple[Any, Any] = (32, 32), *, sizes: bool = False) -> Path:
    """Outputs `labels`, `boxes` and `scores` with a dimension for the batch. With `sizes`, boxes are shares of `orig_target_sizes`."""
    boxes, labels = np.asarray(boxes, dtype=np.float32)[None], np.asarray(labels, dtype=np.int64)[None]
    held = {"raw": boxes, "numbers": labels, "given": np.asarray(scores, dtype=np.float32)[None], "zero": np.float32(0)}
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["given", "nothing"], ["third"]),
        helper.make_node("Identity", ["numbers"], ["first"]),
    ]
    inputs = [image(*sides)]
    if sizes:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
        nodes += [
            helper.make_node("Cast", ["orig_target_sizes"], ["sizes"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["sizes", "sizes"], ["twice"], axis=1),
            helper.make_node("Mul", ["raw", "twice"], ["second"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["raw"], ["second"]))
    count = boxes.shape[1]
    outputs = [
        helper.make_tensor_value_info("first", TensorProto.INT64, [1, count]),
        helper.make_tensor_value_info("second", TensorProto.FLOAT, [1, count, 4]),
        helper.make_tensor_value_info("third", TensorProto.FLOAT, [1, count]),
    ]
    return save(path, nodes, inputs, outputs, held)


def colours(path: Path, sides: tuple[Any, Any] = ("h", "w")) -> Path:
    """As torchvision exports: an image (3, H, W), no dimension for the batch. Three boxes whose scores are the means of
    the channels of the upper left 4×4 pixels, over 1000.
    """
    held = {
        "boxes": np.array([[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16]], dtype=np.float32),
        "numbers": np.array([1, 2, 3]),
        "start": np.array([0, 0]),
        "end": np.array([4, 4]),
        "axes": np.array([1, 2]),
        "large": np.float32(1000),
    }
    nodes = [
        helper.make_node("Slice", ["images", "start", "end", "axes"], ["corner"]),
        helper.make_node("ReduceMean", ["corner", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "large"], ["third"]),
        helper.make_node("Identity", ["boxes"], ["first"]),
        helper.make_node("Identity", ["numbers"], ["second"]),
    ]
    outputs = [
        helper.make_tensor_value_info("first", TensorProto.FLOAT, [3, 4]),
        helper.make_tensor_value_info("second", TensorProto.INT64, [3]),
        helper.make_tensor_value_info("third", TensorProto.FLOAT, [3]),
    ]
    return save(path, nodes, [image(*sides, rank=3)], outputs, held)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def detector(file: Path, classes: tuple[str, ...] = ("a", "b", "c"), **options: Any) -> ForeignDetector:
    return ForeignDetector(file, OnnxOptions(**{"classes": list(classes), **options}))


def raw(cells: int = 21, classes: int = 2) -> Tensor:
    return torch.rand(cells, 5 + classes, generator=torch.Generator().manual_seed(0))


def test_yolox_is_decoded_as_loops_do_it() -> None:
    given = raw().double()
    boxes, scores, labels = decode_yolox(given, 32, 32)
    row = 0
    for stride in (8, 16, 32):
        for y in range(32 // stride):
            for x in range(32 // stride):
                d_x, d_y, w, h, objectness, *classes = given[row].tolist()
                centre, half = ((x + d_x) * stride, (y + d_y) * stride), (math.exp(w) * stride / 2, math.exp(h) * stride / 2)
                expected = [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]
                assert boxes[row].tolist() == pytest.approx(expected, abs=1e-9)
                assert float(scores[row]) == pytest.approx(objectness * max(classes))
                assert int(labels[row]) == classes.index(max(classes))
                row += 1
    assert row == len(given) == len(boxes)


def test_wide_inputs_have_their_cells_row_by_row() -> None:
    boxes, _, _ = decode_yolox(torch.zeros(8 * 4 + 4 * 2 + 2, 7), 32, 64)
    assert boxes[1].tolist() == [4, -4, 12, 4]  # the second cell lies beside the first
    assert boxes[8].tolist() == [-4, 4, 4, 12]
    with pytest.raises(RunError, match="gives 41 cells for 64×32 pixels, where strides 8, 16 and 32 have 42"):
        decode_yolox(torch.zeros(41, 7), 32, 64)


def found(file: Path, images: Tensor, within: list[Tensor] | None = None, **options: Any) -> list[dict[str, Tensor]]:
    return detector(file, **options)(images, within)


def coloured() -> Tensor:
    """(1, 3, 40, 40): grey but for a picture of 16×16 at x 10, y 4, red 0.1, green 0.2, blue 0.3."""
    images = torch.full((1, 3, 40, 40), 0.9)
    images[0, :, 4:20, 10:26] = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    return images


PART = [torch.tensor([10.0, 4.0, 26.0, 20.0])]


def test_only_the_picture_is_looked_at_and_boxes_are_those_of_the_view(tmp_path: Path) -> None:
    (one,) = found(colours(tmp_path / "c.onnx"), coloured(), PART, white=255, score_threshold=0)
    assert one["labels"].tolist() == [3, 2, 1]  # the brightest channel first
    assert one["scores"].tolist() == pytest.approx([0.0765, 0.051, 0.0255])
    assert one["boxes"].tolist() == [[10, 12, 18, 20], [18, 4, 26, 12], [10, 4, 18, 12]]
    (whole,) = found(colours(tmp_path / "c.onnx"), coloured(), white=255)
    assert whole["boxes"][0].tolist() == [0, 0, 8, 8]
    assert whole["scores"].tolist() == pytest.approx([0.9 * 0.255] * 3)


def test_the_order_of_colours_and_the_white_that_the_file_expects(tmp_path: Path) -> None:
    (one,) = found(colours(tmp_path / "c.onnx"), coloured(), PART, white=255, channels="bgr", score_threshold=0)
    assert one["labels"].tolist() == [1, 2, 3]
    (one,) = found(colours(tmp_path / "c.onnx"), coloured(), PART, score_threshold=0)
    assert one["scores"].tolist() == pytest.approx([0.0003, 0.0002, 0.0001])


def test_a_picture_is_resized_to_the_input_and_boxes_back(tmp_path: Path) -> None:
    file = decoded(tmp_path / "d.onnx", [[0, 0, 16, 8], [20, 30, 40, 50]], [0, 1], [0.5, 0.4])
    (one,) = found(file, torch.zeros(1, 3, 64, 64), [torch.tensor([0.0, 0.0, 64.0, 32.0])])
    # 64×32 become 32×16: what reaches beyond is cut, and what lies in the grey is not there.
    assert one["boxes"].tolist() == [[0, 0, 32, 16]]
    (one,) = found(file, torch.zeros(1, 3, 64, 64), [torch.tensor([0.0, 0.0, 64.0, 32.0])], fit="stretch")
    assert one["boxes"].tolist() == [[0, 0, 32, 8], [40, 30, 64, 32]]


def test_shares_of_the_size_that_it_is_told(tmp_path: Path) -> None:
    file = decoded(tmp_path / "s.onnx", [[0, 0, 0.5, 0.25]], [2], [0.5], (32, 32), sizes=True)
    (one,) = found(file, torch.zeros(1, 3, 64, 64), [torch.tensor([8.0, 16.0, 40.0, 64.0])])  # stretched by default
    assert one["boxes"].tolist() == [[8, 16, 24, 28]]
    assert one["labels"].tolist() == [3]


def test_grey_stands_beside_the_picture(tmp_path: Path) -> None:
    model = detector(decoded(tmp_path / "d.onnx", [[0, 0, 1, 1]], [0], [0.5]), white=255)
    canvas, scale = model._fitted(torch.ones(3, 8, 16))
    assert canvas.shape == (3, 32, 32)
    assert canvas[:, :16].unique().tolist() == [255]
    assert canvas[:, 16:].unique().tolist() == pytest.approx([114])
    assert scale.tolist() == [2, 2, 2, 2]


def test_of_detections_that_cover_each_other_the_better_one_stays(tmp_path: Path) -> None:
    boxes = [[0, 0, 16, 16], [0, 0, 16, 15], [0, 0, 16, 14], [20, 20, 30, 30]]
    file = decoded(tmp_path / "d.onnx", boxes, [0, 0, 1, 0], [0.5, 0.6, 0.4, 0.3])
    images = torch.zeros(1, 3, 32, 32)
    assert found(file, images)[0]["scores"].tolist() == pytest.approx([0.6, 0.5, 0.4, 0.3])
    assert found(file, images, nms=0.65)[0]["scores"].tolist() == pytest.approx([0.6, 0.4, 0.3])
    assert found(file, images, detections=2)[0]["scores"].tolist() == pytest.approx([0.6, 0.5])
    assert found(file, images, score_threshold=0.35)[0]["scores"].tolist() == pytest.approx([0.6, 0.5, 0.4])
    assert found(file, images, [torch.zeros(4)])[0]["boxes"].shape == (0, 4)


def test_yolox_drops_what_covers_by_default(tmp_path: Path) -> None:
    cells = torch.zeros(21, 7)
    cells[:2, 4:6] = 1.0  # cells at x 0 and 8, of size 8: moved onto each other
    cells[1, 0], cells[1, 5] = -0.9, 0.8
    (one,) = found(yolox(tmp_path / "y.onnx", cells), torch.zeros(1, 3, 32, 32), classes=("a", "b"))
    assert one["scores"].tolist() == [1.0]
    assert detector(yolox(tmp_path / "y.onnx", cells)).flipped
    assert detector(yolox(tmp_path / "y.onnx", cells)).white == 255


def test_classes_are_matched_by_their_names(tmp_path: Path) -> None:
    file = decoded(tmp_path / "d.onnx", [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16]], [0, 1, 2], [0.9, 0.8, 0.7])
    model = detector(file)
    assert model.adopt(("x", "c", "a")) == ["x"]
    assert model(torch.zeros(1, 3, 32, 32))[0]["labels"].tolist() == [3, 2]


def test_labels_are_numbered_from_0_from_1_or_as_coco_does_it(tmp_path: Path) -> None:
    boxes = [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16]]
    file = decoded(tmp_path / "d.onnx", boxes, [1, 13, 90], [0.9, 0.8, 0.7])
    names = {}
    for numbering in ("zero", "one", "coco"):
        model = ForeignDetector(file, OnnxOptions(numbering=numbering))  # type: ignore[arg-type]
        names[numbering] = [COCO_CLASSES[int(n) - 1] for n in model(torch.zeros(1, 3, 32, 32))[0]["labels"]]
    assert names == {"zero": ["bicycle", "bench"], "one": ["person", "parking meter"], "coco": ["person", "stop sign", "toothbrush"]}
    assert len(COCO_CLASSES) == len(COCO_IDS) == 80
    assert ForeignDetector(colours(tmp_path / "c.onnx"), OnnxOptions())._first == COCO_IDS
    with pytest.raises(ProfileError, match="numbers the classes of COCO"):
        detector(file, numbering="coco")


def test_files_that_are_no_detectors_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ProfileError, match="not an ONNX file that onnxruntime can run"):
        detector(tmp_path / "text.onnx")
    file = yolox(tmp_path / "y.onnx", raw())
    with pytest.raises(ProfileError, match=r"not those of the layout `decoded`: `output` \[1, 21, 7\]"):
        detector(file, layout="decoded")
    with pytest.raises(ProfileError, match="not those of the layout `yolox`"):
        detector(colours(tmp_path / "c.onnx"), layout="yolox")


# Average precision through `eval`, on two pictures whose boxes the file knows.

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]
BOXES = [[2, 2, 20, 10], [30, 14, 12, 16]]
"""Left, top, width, height in a picture of 48×32."""


def annotated(root: Path, crowds: list[list[int]] | None = None) -> Path:
    """A data set in which all pictures have the same boxes; a profile of it."""
    images: list[dict[str, Any]] = [{"id": n, "file_name": f"{n}.png", "width": 48, "height": 32} for n in range(3)]
    (root / "images").mkdir(parents=True)
    for one in images:
        Image.new("RGB", (48, 32), (50 * one["id"], 90, 120)).save(root / "images" / one["file_name"])
    for split, part in (("train", images[:1]), ("val", images[1:])):
        rows = [
            {"image_id": one["id"], "category_id": category["id"], "bbox": box}
            for one in part
            for category, box in zip(CATEGORIES, BOXES, strict=True)
        ]
        rows += [{"image_id": one["id"], "category_id": 1, "bbox": box, "iscrowd": 1} for one in part for box in crowds or []]
        (root / f"instances_{split}.json").write_text(json.dumps({"images": part, "annotations": rows, "categories": CATEGORIES}))
    (root / "data.toml").write_text(f'[dataset]\nname = "coco"\nroot = "{root.as_posix()}"\nimage_size = 96\n')
    return root / "data.toml"


def corners(boxes: list[list[int]]) -> list[list[float]]:
    """In pixels of an input of 64: the picture's 48 become 64."""
    return [[x * 4 / 3, y * 4 / 3, (x + w) * 4 / 3, (y + h) * 4 / 3] for x, y, w, h in boxes]


def precision(registry: Registry, data: Path, file: Path, *overrides: str) -> float:
    report = evaluate_model("onnx", data, registry, checkpoint=file, overrides=[f"model.{text}" for text in overrides], device="cpu")
    assert report.figures["count"] == 2
    return float(report.figures["map"])


def test_right_answers_have_the_precision_1_through_eval_and_other_numbers_of_classes_do_not(registry: Registry, tmp_path: Path) -> None:
    data = annotated(tmp_path)
    file = decoded(tmp_path / "d.onnx", corners(BOXES), [1, 13], [0.9, 0.8], (64, 64))
    assert precision(registry, data, file, 'numbering="coco"') == pytest.approx(1.0)
    assert precision(registry, data, file, 'numbering="one"') == pytest.approx(0.5)  # the stop sign is a parking meter


def test_detections_of_small_scores_count_unless_a_floor_leaves_them_out(registry: Registry, tmp_path: Path) -> None:
    data = annotated(tmp_path)
    file = decoded(tmp_path / "d.onnx", corners(BOXES), [0, 11], [0.9, 0.04], (64, 64))
    assert precision(registry, data, file) == pytest.approx(1.0)
    assert precision(registry, data, file, "score_threshold=0.05") == pytest.approx(0.5)


def test_what_is_found_in_a_crowd_is_not_wrong_unless_crowds_are_dropped(registry: Registry, tmp_path: Path) -> None:
    crowd = [[24, 0, 20, 12]]
    file = decoded(tmp_path / "d.onnx", corners([*BOXES, *crowd]), [0, 11, 0], [0.8, 0.8, 0.9], (64, 64))
    assert precision(registry, annotated(tmp_path / "with", crowd), file) == pytest.approx(1.0)
    assert precision(registry, annotated(tmp_path / "without"), file) < 0.8


def test_classes_that_the_file_does_not_know_are_told_and_none_in_common_is_refused(registry: Registry, tmp_path: Path) -> None:
    data = annotated(tmp_path)
    file = decoded(tmp_path / "d.onnx", corners(BOXES), [0, 1], [0.9, 0.8], (64, 64))
    report = evaluate_model("onnx", data, registry, checkpoint=file, overrides=['model.classes=["person", "sign"]'], device="cpu")
    assert any("does not know 1 of 2 classes and never finds them: stop sign" in note for note in report.notes)
    with pytest.raises(ProfileError, match=r"knows none of the classes of the data set \(person, stop sign\): its own are ball"):
        evaluate_model("onnx", data, registry, checkpoint=file, overrides=['model.classes=["ball", "sign"]'], device="cpu")


STUDENT = """[student]
name = "fasterrcnn"
backbone = "mobilenet_v3_small"
width = 8
head_width = 16
anchor_size = 8.0
proposals = 64
anchor_samples = 32
box_samples = 16
[train]
epochs = 1
batch_size = 1
"""


def test_it_cannot_be_trained_and_methods_on_logits_and_maps_are_refused(registry: Registry, tmp_path: Path) -> None:
    data = annotated(tmp_path)
    file = decoded(tmp_path / "d.onnx", corners(BOXES), [0, 11], [0.9, 0.8], (64, 64))
    teacher = f'[teacher]\nname = "onnx"\ncheckpoint = "{file.as_posix()}"\n'
    text = data.read_text(encoding="utf-8")
    for method, message in (("kd", "gives boxes alone, and no logits of proposals"), ("fitnet", "has no stage or module")):
        (tmp_path / "run.toml").write_text(f'{text}{STUDENT}[method]\nname = "{method}"\n{teacher}')
        with pytest.raises(DistillError, match=message):
            dry_run(load(tmp_path / "run.toml", registry=registry), registry, device="cpu")
    (tmp_path / "run.toml").write_text(f'{text}[student]\nname = "onnx"\n[train]\nepochs = 1\n[method]\nname = "none"\n')
    with pytest.raises(ProfileError, match="runs a file of its own and cannot be trained"):
        load(tmp_path / "run.toml", registry=registry)
