"""The deployed student: `student.safetensors` with `model.json`.

The weights carry the names of the model's own state dict, so that they load with the model's package alone:

    model = torchvision.models.mobilenet_v2(num_classes=200)
    model.load_state_dict(safetensors.torch.load_file("student.safetensors"))

`model.json` says what the network is (name, package, options, stages), which classes it knows, in the order of its logits, and
how an image becomes its input. A method may have replaced the classifier: then it also says of which layers the head is made, and
`read_student` puts them together (`distillctl.models.heads`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from torch import Tensor, nn

from distillctl.api.specs import DatasetSpec, ModelSpec
from distillctl.errors import DataError, MachineError, PluginError, Problem
from distillctl.files import json_bytes, read_json, write_atomically
from distillctl.models import heads
from distillctl.models.fake_quantise import plain_state, quantise
from distillctl.plugin.catalog import PREFIX
from distillctl.plugin.registry import Registry, load, load_options
from distillctl.rundir import digests
from distillctl.weights import read_file
from distillctl.weights.state_dict import load_into

FORMAT = 1
WEIGHTS, DESCRIPTION = "student.safetensors", "model.json"
TASK = "classification"
"""The task of a student whose `model.json` names none: it is built as its model's package says."""

_KEYS: Mapping[str, type] = {
    "model": str,
    "qualified": str,
    "package": str,
    "version": str,
    "implementation": str,
    "options": dict,
    "num_classes": int,
    "classes": list,
    "input": dict,
}
"""What every `model.json` has beside `format`, and of which type."""


def write_student(
    folder: Path,
    model: nn.Module,
    *,
    spec: ModelSpec,
    shown_name: str,
    options: Mapping[str, object],
    outputs: int,
    classes: Sequence[str],
    preprocessing: Mapping[str, object],
    package: str,
    version: str,
    extra: Mapping[str, object],
) -> None:
    """Writes the two files into `folder`, each atomically, the weights first.

    model: the bare model, not wrapped or compiled; on any device, in any memory format.
    shown_name: the model's name as the user writes it.
    options: the model's options as JSON data.
    outputs: how many numbers its last layer gives.
    classes: names in the order of the logits; empty where the task has no classes.
    preprocessing: `channels`, `size`, `resize` (pixels), `mean` and `std` (one number a channel, for images scaled to [0, 1]);
            `white`, `background`, `max_megapixels` and `canvas` where they are stated (see `distillctl.View`); `joint` where only the
            data set can cut a view; `boxes` where parts of pictures were cut out before.
    package, version: what must be installed to build the model.
    extra: further keys of `model.json`; none of those that it always has.

    Raises:
        MachineError: the files cannot be written.
        PluginError: the model keeps something that is no tensor in its state.
    """
    description: dict[str, object] = {
        "format": FORMAT,
        "model": shown_name,
        "qualified": spec.qualified,
        "package": package,
        "version": version,
        "implementation": spec.implementation,
        "options": {name: value for name, value in options.items() if name != spec.weights_file},  # it starts from no file any more
        "num_classes": outputs,
        "classes": list(classes),
        "input": {key: list(value) if isinstance(value, tuple) else value for key, value in preprocessing.items()},
        "stages": dict(spec.stages),
        "classifier": spec.classifier,
    }
    if clash := sorted(description.keys() & extra.keys()):
        raise ValueError(f"`extra` may not replace {', '.join(clash)}")
    try:
        # Through bytes, since the library's own `save_file` makes files that nobody else may read.
        content = safetensors.torch.save(tensors_of(model, spec.name), metadata={"format": "pt"})
        text = json_bytes({**description, **extra})
        for path, data in ((folder / WEIGHTS, content), (folder / DESCRIPTION, text)):
            with digests.replacing(path, hashlib.sha256(data).hexdigest()):
                write_atomically(path, partial(_write, data))
    except OSError as error:
        raise MachineError(f"the student cannot be written to `{folder}`: {error}") from error


def damage(folder: Path) -> str:
    """What is wrong with the files of a deployed student, as a sentence; empty if they are as they were written."""
    for name in (WEIGHTS, DESCRIPTION):
        try:
            found = digests.problem(folder / name) or ("" if (folder / name).is_file() else "is gone")
        except DataError as error:
            return error.problems[0].message
        if found:
            return f"`{folder / name}` {found}"
    return ""


def read_model_json(folder: Path | str) -> dict[str, Any]:
    """`model.json` of a run directory, checked.

    Raises:
        DataError: there is none, it is damaged, or of a newer format.
    """
    path = Path(folder, DESCRIPTION)
    try:
        if path.is_file():
            digests.check(path)
        info = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"`{folder}` holds no deployed student: there is no `{DESCRIPTION}`", hint="a run writes it when it is finished"
        ) from None
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"`{path}` is no JSON file: {error}") from error
    if not isinstance(info, dict) or not isinstance(info.get("format"), int):
        raise DataError(f"`{path}` does not describe a deployed student")
    if info["format"] > FORMAT:
        raise DataError(f"`{path}` was written by a newer version of distillctl", hint="update distillctl")
    for key, kind in _KEYS.items():
        if not isinstance(info.get(key), kind):
            raise DataError(f"`{path}` has no `{key}`" if key not in info else f"`{key}` in `{path}` is of the wrong type")
    if info["classes"] and len(info["classes"]) != info["num_classes"]:
        raise DataError(f"`{path}` names {len(info['classes'])} classes but says that there are {info['num_classes']}")
    return info


def check_own_file(registry: Registry, spec: ModelSpec | DatasetSpec, version: object, folder: Path | str) -> None:
    """Compares the file of a model or data set of one's own with what is written of it in a run directory; others have no file.

    version: that of the file when the run was made.

    Raises:
        DataError: it is another one.
    """
    plugin = registry.datasets.plugin(spec) if isinstance(spec, DatasetSpec) else registry.models.plugin(spec)
    if spec.name.startswith(PREFIX) and plugin.version != version:
        raise DataError(
            f"`{plugin.name}` is not the file that `{folder}` was made with: its hash begins with {plugin.version}, not with {version}",
            hint="put the old one in its place",
        )


def read_student(folder: Path | str, registry: Registry) -> tuple[nn.Module, dict[str, Any]]:
    """The deployed student of a run directory on the CPU, in evaluation mode, and its `model.json`.

    Raises:
        DataError: a file is missing or damaged, or the two do not belong together.
        PluginError: the model's package is not installed.
    """
    info = read_model_json(folder)
    try:
        spec = registry.models.get(info["qualified"])
    except PluginError as error:
        hint = f"it was made with `{info['package']}` {info['version']}: pip install {info['package']}"
        hint = error.problems[0].hint if info["qualified"].startswith(PREFIX) else hint
        raise PluginError([Problem(problem.message, problem.where, hint) for problem in error.problems]) from error
    check_own_file(registry, spec, info["version"], folder)
    options_class = load_options(spec)
    try:
        options = options_class.model_validate_json(json.dumps(info["options"]))
    except ValidationError as error:
        raise DataError(
            f"the options of `{info['model']}` in `{Path(folder, DESCRIPTION)}` are not valid: {error.errors()[0]['msg']}",
            hint=f"it was made with `{info['package']}` {info['version']}",
        ) from error
    builder = load(spec.implementation, spec.name)
    if "task" in info:
        task = registry.tasks.get(info["task"])
        builder = partial(load(task.implementation, task.name).build, builder)
    model = builder(spec.name, info["num_classes"], options)
    if not isinstance(model, nn.Module):
        raise PluginError(f"the builder of the model `{spec.name}` returned {type(model).__name__}, not a module")
    if info.get("head") is not None:
        heads.rebuild(model, spec, info["head"])
    weights = read_file(digests.check(Path(folder, WEIGHTS)))
    assert isinstance(weights, dict)  # what safetensors files hold
    load_into(model, weights, what=f"student `{info['model']}`", classifier=spec.classifier)
    if (quantised := info.get("quantize")) is not None:
        quantise(model, _ranges(quantised, folder))
    return model.eval(), info


def _ranges(told: object, folder: Path | str) -> Mapping[str, Sequence[float]]:
    """The ranges of a student that was trained for 8 bits."""
    found = told.get("ranges") if isinstance(told, dict) and told.get("kind") == "int8" else None
    pairs = list(found.values()) if isinstance(found, dict) else [None]
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(value, int | float) for value in pair) for pair in pairs):
        raise DataError(f"`quantize` in `{Path(folder, DESCRIPTION)}` is not as a run writes it")
    assert isinstance(found, dict)
    return found


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def tensors_of(model: nn.Module, name: str) -> dict[str, Tensor]:
    """The state dict as separate, dense tensors: the format has no room for shared memory (tied weights) or strides."""
    state = plain_state(model)
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise PluginError(f"the model `{name}` keeps {type(value).__name__} `{key}` in its state, which cannot be deployed")
    return {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
