"""A run's student as a file for other programs, which is written only if it answers as the student does."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from distillctl import __version__
from distillctl.api.task import Task
from distillctl.build.student import Student, load_student
from distillctl.commands.export_boxes import OUTPUTS, SHARE, differences
from distillctl.commands.export_request import ENDINGS, Format, check_request
from distillctl.commands.predict import task_of
from distillctl.commands.run_images import RunImages
from distillctl.errors import DataError, DistillError, MachineError, ProfileError, RunError
from distillctl.files import sha256, write_atomically, write_json
from distillctl.models import deploy, onnx_files
from distillctl.models.fake_quantise import restore
from distillctl.models.pixel_input import PixelInput
from distillctl.plugin.registry import Registry
from distillctl.text import one_line
from distillctl.weights import read_file
from distillctl.weights.state_dict import load_into

TOLERANCE = 1e-4
"""By how much a logit of an exported network may differ; 10⁻⁵ of the largest one, where that is more."""
_NOISE = 32  # pictures of it
_BOXES = "boxes (n, 4) in pixels of the view: left, top, right, bottom; labels (n) from 0; scores (n)"


@dataclass(frozen=True)
class Parity:
    """How alike a file and its student answer.

    source: the split whose images were shown, or `noise`.
    difference: the largest of a logit, or of a score of boxes. largest: logit (score) of the student, without its sign.
    same: images with the same best guess, or with the same boxes.
    edges: of a detector, the largest difference of an edge of the boxes that are the same, in pixels of the view.
    """

    source: str
    images: int
    difference: float
    largest: float
    same: int
    edges: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what was found of it.

    size: in bytes.
    input, output: type and shape, in words.
    split, before, after: where int8 was asked for, figures of the student and of the file on the whole split.
    task: knows how they are shown.
    notes: what the user should know.
    """

    run: Path
    path: Path
    format: Format
    int8: bool
    size: int
    input: str
    output: str
    parity: Parity
    split: str = ""
    before: Mapping[str, float] | None = None
    after: Mapping[str, float] | None = None
    task: type[Task] | None = None
    notes: tuple[str, ...] = ()

    @property
    def loss(self) -> float | None:
        """By how much the figure that chooses the best epoch fell."""
        if self.before is None or self.after is None or self.task is None:
            return None
        return self.before[self.task.metric] - self.after[self.task.metric]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        figures = {"split": self.split, "before": self.before, "after": self.after, "loss": self.loss}
        return {
            "run": str(self.run),
            "file": str(self.path),
            "format": self.format,
            "int8": self.int8,
            "bytes": self.size,
            "input": self.input,
            "output": self.output,
            "parity": self.parity.as_dict(),
            **(figures if self.after is not None else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }


def export(
    run: str | Path,
    registry: Registry | None = None,
    *,
    format: str = "onnx",  # noqa: A002
    int8: bool = False,
    pixels: bool = True,
    out: str | Path | None = None,
    images: int = 500,
    calibration: int = 500,
    overrides: Sequence[str] = (),
    allow_code: bool = False,
) -> Exported:
    """Writes the student of a run as a file for other programs, and what it needs beside it as `FILE.json`.

    The file is compared with the student on images of the run's test split (else of its validation split) as evaluations show them;
    where the data are not there, on noise. It takes its place only if no logit differs by more than `TOLERANCE`, or a detector finds the
    same boxes (`export_boxes`). A detector becomes an ONNX file that takes one image, or a file of weights.

    Args:
        run: the run directory.
        registry: the installed plugins, where they were loaded already.
        format: `onnx`; `torch-export`, a program of `torch.export` (.pt2); `safetensors`, weights with their description in one file.
        int8: weights and activations of 8 bits (onnxruntime's static quantisation) with ranges seen on training images. Its logits may
            differ by any amount; what that costs is measured on the whole split.
        pixels: the network takes uint8 pixels that are cut to size and normalises them itself; otherwise normalised float32.
        out: the file, or a folder that is there; None for `export/` in the run directory.
        images: on how many images the answers are compared.
        calibration: on how many training images the ranges are seen.
        overrides: `KEY=VALUE` of the table `dataset`, such as `dataset.root=FOLDER`.
        allow_code: run the file of a model or data set of one's own.

    Raises:
        ProfileError: the options do not go together. DataError: the run is not there or not finished, or int8 finds no images.
        RunError: the network cannot be exported, or the file answers otherwise.
        MachineError: a package is missing, or the file cannot be written.
    """
    kind = check_request(format, int8=int8, pixels=pixels)
    if kind == "onnx":
        onnx_files.needs("onnx", "onnxscript", "onnxruntime")
    registry = Registry.load() if registry is None else registry
    student = load_student(run, allow_code=allow_code, registry=registry)
    restore(student.model)  # one that was trained for int8 is rounded by what reads the file
    task = task_of(student, registry)
    if boxes := task.answers == "boxes":
        _check_boxes(kind, int8=int8)
    if student.transform.unequal:
        raise ProfileError(
            "pictures come to this student in sizes of their own, and a file takes images of one size",
            hint='one trained with `resize = "square"` can be exported; `student.safetensors` has the weights of this one',
        )
    target = _target(student.path, out, kind, int8=int8)
    reference = task.exported(PixelInput(student.model, student.transform.mean, student.transform.std))
    if not boxes:
        _check_output(student, reference)
    data, notes = _data(student, registry, overrides, needed=int8)
    if int8 and student.info.get("head") is not None:
        notes.append("a method gave this student its head: `student.checkpoint` loads all but that, and the method trains a new one")

    before = after = None
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = folder / target.name
        _write(kind, reference if pixels else task.exported(student.model), made, student, pixels=pixels, boxes=boxes)
        answering = _open(kind, made, student, task, pixels=pixels)
        parity = (_compare_boxes if boxes else _compare)(reference, answering, _shown(student, data, images))
        _check_parity(parity, student)
        if int8:
            assert data is not None
            trained = data.trained(calibration)
            inputs = trained if pixels else (student.transform.normalise(batch) for batch in trained)
            onnx_files.quantise(made, folder / "int8.onnx", inputs)
            made = folder / "int8.onnx"
            onnx_files.add_metadata(made, _told(student, pixels))
            answering = _open(kind, made, student, task, pixels=pixels)
            parity = _compare(reference, answering, _shown(student, data, images))
            before, after = data.figures(reference), data.figures(answering)
        exported = Exported(
            run=student.path,
            path=target,
            format=kind,
            int8=int8,
            size=made.stat().st_size,
            input=_input(student, kind, pixels, boxes),
            output=_BOXES if boxes else f"float32 (batch, {student.info['num_classes']})",
            parity=parity,
            split="" if data is None else data.split,
            before=before,
            after=after,
            task=None if data is None else type(data.task),
            notes=tuple(notes),
        )
        _put(made, exported, student, pixels)
    return exported


def _target(run: Path, out: str | Path | None, kind: Format, *, int8: bool) -> Path:
    """Where the file will be; its folder is there afterwards.

    Raises:
        ProfileError: the file has another ending, or would lie in a folder that is not there. MachineError: no folder can be made.
    """
    name = f"student{'-int8' if int8 else ''}{ENDINGS[kind]}"
    if out is None:
        folder = run / "export"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise MachineError(f"`{folder}` cannot be made: {_why(error)}", hint="`--out` names another place") from error
        return folder / name
    path = Path(out)
    if path.is_dir():
        return path / name
    if path.suffix != ENDINGS[kind]:
        raise ProfileError(f"`{path}` does not end in `{ENDINGS[kind]}`", where="--out", hint="a file of that ending, or a folder")
    if not path.parent.is_dir():
        raise ProfileError(f"there is no folder `{path.parent}`", where="--out")
    return path


def _check_boxes(kind: Format, *, int8: bool) -> None:
    """Raises a ProfileError if a detector has no such form."""
    if int8:
        raise ProfileError(
            "a detector has no int8 form: the edges of its boxes would be rounded with everything else, to a 256th of their range",
            where="--int8",
            hint="leave it out",
        )
    if kind == "torch-export":
        raise ProfileError(
            "torch.export refuses a detector, since the number of its boxes depends on the image", where="--format", hint="`--format onnx`"
        )


def _check_output(student: Student, reference: nn.Module) -> None:
    with torch.inference_mode():
        answers = reference(torch.zeros(2, *student.transform.shape))
    if not isinstance(answers, Tensor) or answers.ndim != 2:
        raise RunError(f"`{student.info['model']}` does not give one tensor (batch, outputs), and only such networks can be exported")


def _data(student: Student, registry: Registry, overrides: Sequence[str], *, needed: bool) -> tuple[RunImages | None, list[str]]:
    """The images of the run, or None with a note where they are not there.

    Raises:
        DataError: they are not there, and needed.
    """
    try:
        return RunImages.of(student.path, registry, overrides), []
    except ProfileError:
        raise
    except DistillError as error:
        first = error.problems[0].message
        if needed:
            hint = "`--set dataset.root=FOLDER` says where they are now"
            raise DataError(f"int8 needs training images for the ranges of its activations: {first}", hint=hint) from error
        return None, [f"compared on noise, since the images of the run are not here: {first}"]


def _shown(student: Student, data: RunImages | None, count: int) -> tuple[str, Iterator[Tensor]]:
    """Batches of pixels on which answers are compared, and what they are."""
    if data is not None:
        return data.split, data.shown(count)
    drawn = torch.randint(256, (_NOISE, *student.transform.shape), generator=torch.Generator().manual_seed(0))
    return "noise", iter([drawn.to(torch.uint8)])


@torch.inference_mode()
def _compare(reference: nn.Module, other: nn.Module, shown: tuple[str, Iterator[Tensor]]) -> Parity:
    source, batches = shown
    images = same = 0
    difference = largest = 0.0
    for batch in batches:
        # One size after another, so that a file that takes only that of its example is found.
        wanted, found = reference(batch), torch.cat([other(batch[:1]), other(batch[1:])]) if len(batch) > 1 else other(batch)
        difference = max(difference, float((wanted - found).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
        same += int((wanted.argmax(1) == found.argmax(1)).sum())
        images += len(batch)
    return Parity(source, images, difference, largest, same)


@torch.inference_mode()
def _compare_boxes(reference: nn.Module, other: nn.Module, shown: tuple[str, Iterator[Tensor]]) -> Parity:
    source, batches = shown
    images = same = 0
    scores = edges = largest = 0.0
    for image in (image for batch in batches for image in batch.split(1)):
        wanted = reference(image)
        found = differences(wanted, other(image))
        images += 1
        if found is not None:
            same += 1
            scores, edges = max(scores, found[0]), max(edges, found[1])
            largest = max([largest, *wanted[2].tolist()])
    return Parity(source, images, scores, largest, same, edges)


def _check_parity(parity: Parity, student: Student) -> None:
    """Raises a RunError if the file answers otherwise; NaN is not alike."""
    if parity.edges is not None:
        if parity.same < SHARE * parity.images:
            other = parity.images - parity.same
            raise RunError(
                f"the exported network finds other boxes than `{student.path}` on {other} of {parity.images} images; no file is written"
            )
        return
    bound = max(TOLERANCE, parity.largest * TOLERANCE / 10)
    if not parity.difference <= bound:
        raise RunError(
            f"the exported network answers otherwise than `{student.path}`: a logit differs by {parity.difference:.2g}, "
            f"and {bound:.2g} is allowed; no file is written"
        )


def _input(student: Student, kind: Format, pixels: bool, boxes: bool) -> str:
    if kind == "safetensors":
        return f"the model's own: normalised float32 (batch, {', '.join(map(str, student.transform.shape))})"
    return (
        f"{'uint8 pixels' if pixels else 'normalised float32'} ({1 if boxes else 'batch'}, {', '.join(map(str, student.transform.shape))})"
    )


def _told(student: Student, pixels: bool) -> dict[str, str]:
    """What a file says of itself: the classes and what has to be done with an image, as JSON."""
    info = student.info
    steps = {**info["input"], "normalised": "inside" if pixels else "by the caller"}
    return {
        "model": info["model"],
        "classes": json.dumps(info["classes"], ensure_ascii=False),
        "preprocessing": json.dumps(steps),
        "written_by": f"distillctl {__version__}",
    }


def _put(made: Path, exported: Exported, student: Student, pixels: bool) -> None:
    """Brings a file and its description to their places.

    Raises:
        MachineError: they cannot be written.
    """
    description = {**exported.as_dict(), "sha256": sha256(made), "torch": torch.__version__, **_told(student, pixels)}
    description |= {name: json.loads(description[name]) for name in ("classes", "preprocessing")}
    try:
        write_atomically(exported.path, partial(shutil.copyfile, made))
        write_json(exported.path.with_name(exported.path.name + ".json"), description)
    except OSError as error:
        raise MachineError(f"`{exported.path}` cannot be written: {_why(error)}") from error


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# The formats: how a network becomes a file, and how a file becomes a network.


def _write(kind: Format, network: nn.Module, path: Path, student: Student, *, pixels: bool, boxes: bool) -> None:
    told = _told(student, pixels)
    match kind:
        case "onnx" if boxes:
            onnx_files.write_onnx_of_one_image(network, path, student.transform.shape, OUTPUTS, pixels=pixels, told=told)
        case "onnx":
            onnx_files.write_onnx(network, path, student.transform.shape, pixels=pixels, told=told)
        case "torch-export":
            _write_program(network, path, torch.zeros(2, *student.transform.shape, dtype=torch.uint8 if pixels else torch.float32), told)
        case "safetensors":
            tensors = deploy.tensors_of(student.model, student.info["model"])
            path.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt", **_told(student, pixels=False)}))


def _write_program(network: nn.Module, path: Path, example: Tensor, told: dict[str, str]) -> None:
    try:
        with onnx_files.quiet():
            program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
            torch.export.save(program, path, extra_files=told)
    except OSError as error:
        raise MachineError(f"`{path}` cannot be written: {_why(error)}") from error
    except Exception as error:  # torch raises whatever its passes raise
        raise RunError(f"torch cannot export this network: {one_line(error, 200)}", hint="`--format onnx` may do it") from error


def _open(kind: Format, path: Path, student: Student, task: type[Task], *, pixels: bool) -> nn.Module:
    """A file as a network that takes pixels."""
    transform = student.transform
    match kind:
        case "onnx":
            network: nn.Module = onnx_files.OnnxModel(path)
        case "torch-export":
            with onnx_files.quiet():
                network = torch.export.load(path).module()
        case "safetensors":
            return task.exported(PixelInput(_filled(student.model, path), transform.mean, transform.std))
    return network if pixels else PixelInput(network, transform.mean, transform.std)


def _filled(model: nn.Module, path: Path) -> nn.Module:
    """A copy of a network with the weights of a file."""
    other = copy.deepcopy(model)
    weights = read_file(path)
    assert isinstance(weights, dict)
    load_into(other, weights, what=f"the network in `{path}`")
    return other
