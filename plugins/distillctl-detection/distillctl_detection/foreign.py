"""A detector from an ONNX file, which answers for the views of a run: it teaches by its boxes alone.

YOLOX: Ge et al. 2021, arXiv 2107.08430. DETR's family: Carion et al. 2020, arXiv 2005.12872.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_convert  # type: ignore[import-untyped]

from distillctl import PluginError, ProfileError, RunError
from distillctl_detection.onnx_options import OnnxOptions

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant", "stop sign",
    "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
    "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 classes of COCO in the order of their ids."""
COCO_IDS = tuple(number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
_STRIDES = (8, 16, 32)
_SIZES = "orig_target_sizes"
_LAYOUT_HINT = '`layout = "yolox"` or `"decoded"` says what they are'

Found = dict[str, Tensor]
"""Detections of an image: `boxes` (M, 4), `labels` and `scores`."""


class Layout(NamedTuple):
    """What a file's inputs and outputs are.

    kind: as in the options. outputs: positions of boxes, labels and scores; of `yolox` the only one. sizes: whether an input takes the size
    of the picture. batched: whether outputs have a dimension for the batch.
    """

    kind: str
    outputs: tuple[int, ...]
    sizes: bool = False
    batched: bool = True


class ForeignDetector(nn.Module):
    """Runs an ONNX file on one image after the other, on the CPU.

    numbers: int64, by the file's number of a class its label, 0 where it is none of the data set's.

    file: a detector. options: how it is fed and read.

    Raises:
        PluginError: onnxruntime is not installed.
        ProfileError: the file cannot be run, or its outputs are not those of a known layout.
    """

    numbers: Tensor

    def __init__(self, file: Path, options: OnnxOptions) -> None:
        super().__init__()
        self.session = _session(file)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        shape = inputs[0].shape
        if len(shape) not in (3, 4) or shape[-3] != 3:
            raise ProfileError(f"`{file}` has an input of shape {shape}, where images (1, 3, H, W) are expected")
        if odd := [one.name for one in inputs[1:] if one.name != _SIZES]:
            raise ProfileError(f"`{file}` has the input `{odd[0]}` beside the images", hint=f"`{_SIZES}` is known, and no other")
        self.input: str = inputs[0].name
        self._rank = len(shape)
        self.side = tuple(length if isinstance(length, int) else None for length in shape[-2:])
        self.layout = _layout(file, options, outputs, sizes=len(inputs) > 1)
        yolox = self.layout.kind == "yolox"
        self.options = options
        self.flipped = (options.channels or ("bgr" if yolox else "rgb")) == "bgr"
        self.white = float(options.white or (255 if yolox else 1))
        self.stretched = (options.fit or ("stretch" if self.layout.sizes else "pad")) == "stretch"
        self.nms = options.nms or (0.65 if yolox else None)
        self.classes = COCO_CLASSES if options.classes is None else tuple(options.classes)
        numbering = options.numbering or ("zero" if self.layout.batched else "coco" if self.classes == COCO_CLASSES else "one")
        if numbering == "coco" and self.classes != COCO_CLASSES:
            raise ProfileError('`numbering = "coco"` numbers the classes of COCO, and `classes` names others', hint="leave one of them out")
        self._first = {"zero": tuple(range(len(self.classes))), "one": tuple(range(1, 1 + len(self.classes))), "coco": COCO_IDS}[numbering]
        self.adopt(self.classes)

    def adopt(self, classes: Sequence[str]) -> list[str]:
        """Labels are those of these classes from now on, 1 for the first, and nothing else is found; gives the classes that it does not
        know.
        """
        number = {name: label for label, name in enumerate(classes, 1)}
        table = torch.zeros(max(self._first) + 1, dtype=torch.int64)
        for own, name in zip(self._first, self.classes, strict=True):
            table[own] = number.get(name, 0)
        self.register_buffer("numbers", table, persistent=False)
        return [name for name in classes if name not in self.classes]

    @torch.no_grad()
    def forward(self, images: Tensor, within: Sequence[Tensor] | None = None) -> list[Found]:
        """Images in [0, 1], (B, 3, H, W) → of each `boxes` in pixels of it, `labels` from 1, and `scores`, the best first.

        within: of each image the part (left, top, right, bottom in pixels) that is a picture; the rest of it is not looked at.
        """
        parts: Sequence[Tensor | None] = [None] * len(images) if within is None else within
        return [self._one(image, part) for image, part in zip(images, parts, strict=True)]

    def _one(self, image: Tensor, part: Tensor | None) -> Found:
        left, top, right, bottom = [0, 0, *image.shape[:0:-1]] if part is None else part.round().int().tolist()
        if right <= left or bottom <= top:
            return _kept(image.new_empty(0, 4), image.new_empty(0), self.numbers.new_empty(0), self.options.detections)
        picture, scale = self._fitted(image[:, top:bottom, left:right].float())
        boxes, scores, labels = self._run(picture)
        boxes, scores, labels = boxes.to(image.device), scores.to(image.device), labels.to(image.device)
        known = self.numbers[labels.clamp(0, len(self.numbers) - 1)]
        sure = (scores > self.options.score_threshold) & (known > 0) & (labels >= 0) & (labels < len(self.numbers))
        boxes, scores, known = boxes[sure] / scale.to(boxes), scores[sure], known[sure]
        limits = boxes.new_tensor([right - left, bottom - top] * 2)
        boxes = boxes.clamp(min=0).minimum(limits) + boxes.new_tensor([left, top] * 2)
        there = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, scores, known = boxes[there], scores[there], known[there]
        if self.nms is not None:
            kept = batched_nms(boxes, scores, known, self.nms)
            boxes, scores, known = boxes[kept], scores[kept], known[kept]
        return _kept(boxes, scores, known, self.options.detections)

    def _fitted(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The file's input (3, H, W), and by what a point of the picture is multiplied in x and y (twice)."""
        height, width = picture.shape[1:]
        step = _STRIDES[-1] if self.layout.kind == "yolox" else 1
        rows, columns = (-(-length // step) * step if own is None else own for length, own in zip((height, width), self.side, strict=True))
        if self.stretched:
            sides = [rows, columns]
        else:
            factor = min(rows / height, columns / width) if None not in self.side else 1.0
            sides = [max(1, min(rows, round(height * factor))), max(1, min(columns, round(width * factor)))]
        if sides != [height, width]:
            picture = F.interpolate(picture[None], size=sides, mode="bilinear", antialias=True, align_corners=False)[0]
        canvas = picture.new_full((3, rows, columns), self.options.grey / 255)
        canvas[:, : sides[0], : sides[1]] = picture
        canvas = canvas * self.white
        return canvas.flip(0) if self.flipped else canvas, torch.tensor([sides[1] / width, sides[0] / height] * 2)

    def _run(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes in pixels of the input, scores, and labels as the file numbers them."""
        rows, columns = picture.shape[1:]
        fed: dict[str, Any] = {self.input: (picture if self._rank == 3 else picture[None]).cpu().contiguous().numpy()}
        if self.layout.sizes:
            fed[_SIZES] = torch.tensor([[columns, rows]]).numpy()
        try:
            given = self.session.run(None, fed)
        except Exception as error:  # onnxruntime has a dozen kinds
            raise RunError(f"the ONNX file does not run on an image of {columns}×{rows} pixels: {_first_line(error)}") from error
        tensors = [torch.from_numpy(given[at].copy()) for at in self.layout.outputs]
        if self.layout.kind == "yolox":
            return decode_yolox(tensors[0][0], rows, columns)
        boxes, labels, scores = (one[0] if self.layout.batched else one for one in tensors)
        return boxes.float(), scores.float(), labels.long()


def decode_yolox(raw: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """YOLOX's raw output for an input of so many rows and columns: (A, 5 + K) → boxes (A, 4), scores, and classes from 0.

    Cell (x, y) of stride s gives the centre (x + d_x, y + d_y)·s and the size exp(d)·s. As published, a cell finds one object, of its most
    likely class, with objectness × class as score.
    """
    grids = [torch.cartesian_prod(torch.arange(rows // stride), torch.arange(columns // stride)).flip(1) for stride in _STRIDES]
    cells = torch.cat(grids).to(raw)
    if len(cells) != len(raw):
        raise RunError(
            f"the ONNX file gives {len(raw)} cells for {columns}×{rows} pixels, where strides 8, 16 and 32 have {len(cells)}",
            hint=_LAYOUT_HINT,
        )
    strides = torch.cat([raw.new_full((len(grid), 1), stride) for grid, stride in zip(grids, _STRIDES, strict=True)])
    boxes = box_convert(torch.cat([cells + raw[:, :2], raw[:, 2:4].exp()], 1) * strides, "cxcywh", "xyxy")
    best, classes = raw[:, 5:].max(1)
    return boxes, raw[:, 4] * best, classes


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _kept(boxes: Tensor, scores: Tensor, labels: Tensor, most: int) -> Found:
    order = scores.argsort(descending=True, stable=True)[:most]
    return {"boxes": boxes[order], "labels": labels[order], "scores": scores[order]}


def _session(file: Path) -> Any:
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise PluginError("an ONNX file is run by onnxruntime", hint="`pip install distillctl-detection[onnx]`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ProfileError(f"`{file}` is not an ONNX file that onnxruntime can run: {_first_line(error)}") from error


def _layout(file: Path, options: OnnxOptions, outputs: Sequence[Any], *, sizes: bool) -> Layout:
    """What the outputs are: by their kinds and shapes, and not by their names."""
    shown = ", ".join(f"`{one.name}` {one.shape}" for one in outputs)
    whole = [at for at, one in enumerate(outputs) if "int" in one.type]
    if options.layout != "decoded" and len(outputs) == 1 and len(outputs[0].shape) == 3:
        return Layout("yolox", (0,))
    if options.layout != "yolox" and len(outputs) == 3 and len(whole) == 1:
        floats = sorted((at for at in range(3) if at not in whole), key=lambda at: -len(outputs[at].shape))
        boxes, scores = floats
        rank = len(outputs[boxes].shape)
        if rank in (2, 3) and len(outputs[scores].shape) == rank - 1:
            return Layout("decoded", (boxes, whole[0], scores), sizes, batched=rank == 3)
    meant = "a known layout" if options.layout is None else f"the layout `{options.layout}`"
    raise ProfileError(f"the outputs of `{file}` are not those of {meant}: {shown}", hint="`distillctl show onnx` says what is known")


def build(_name: str, _num_classes: int, options: OnnxOptions, file: Path) -> ForeignDetector:
    """The detector in a file; it knows as many classes as it knows."""
    return ForeignDetector(file, options)


__all__ = ["COCO_CLASSES", "COCO_IDS", "ForeignDetector", "build", "decode_yolox"]
