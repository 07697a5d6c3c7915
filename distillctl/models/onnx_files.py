"""Networks as ONNX files: written by torch's exporter, run and quantised by onnxruntime. Both are the extra `distillctl[onnx]`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from distillctl.errors import MachineError, RunError
from distillctl.text import one_line

INPUT, OUTPUT = "images", "logits"
_OPSET = 18
_INSTALL = "pip install 'distillctl[onnx]'"


def needs(*modules: str) -> None:
    """Looks whether packages are there, before anything is computed.

    Raises:
        MachineError: one of them is not installed, or cannot be loaded.
    """
    for name in modules:
        try:
            with quiet():
                import_module(name)
        except ImportError as error:
            raise MachineError(f"ONNX files need `{name}`: {one_line(error, 120)}", hint=_INSTALL) from error


def write_onnx(
    model: nn.Module, path: Path, shape: tuple[int, int, int], *, pixels: bool = False, told: Mapping[str, str] | None = None
) -> None:
    """Writes a network as an ONNX file with one input `images`, (batch, *shape), and one output `logits`. The batch has any size.

    model: on the CPU, in evaluation mode; gives one tensor.
    shape: channels, height, width.
    pixels: the input is uint8; otherwise float32.
    told: metadata of the file.

    Raises:
        MachineError: a package is missing, or the file cannot be written.
        RunError: torch cannot export this network.
    """
    needs("onnx", "onnxscript")
    example = torch.zeros(2, *shape, dtype=torch.uint8 if pixels else torch.float32)
    try:
        with quiet():
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
        assert program is not None
        program.model.metadata_props.update(told or {})
        with quiet():
            program.save(str(path), external_data=False)
    except OSError as error:
        raise MachineError(f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}") from error
    except Exception as error:  # the exporter raises whatever its passes raise
        raise RunError(f"torch cannot write this network as ONNX: {_cause(error)}", hint="`--format torch-export` may do it") from error


def write_onnx_of_one_image(
    model: nn.Module, path: Path, shape: tuple[int, int, int], outputs: Sequence[str], *, pixels: bool = False, told: Mapping[str, str]
) -> None:
    """Writes a network of one image, (1, *shape), whose outputs have any number of rows, such as boxes.

    It goes through torch's older exporter, which follows one forward: `torch.export` refuses numbers of boxes that depend on the image.

    model, shape, pixels, told: as in `write_onnx`. outputs: names of what the model gives, tensors (N, …).

    Raises:
        MachineError: a package is missing, or the file cannot be written.
        RunError: torch cannot export this network.
    """
    needs("onnx")
    example = torch.randint(256, (1, *shape), generator=torch.Generator().manual_seed(0))
    try:
        with quiet():
            torch.onnx.export(
                model.eval(),
                (example.to(torch.uint8) if pixels else example / 255,),
                str(path),
                dynamo=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_axes={name: {0: "n"} for name in outputs},
            )
        add_metadata(path, told)
    except OSError as error:
        raise MachineError(f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}") from error
    except Exception as error:  # the exporter raises whatever its passes raise
        raise RunError(f"torch cannot write this network as ONNX: {_cause(error)}") from error


class OnnxModel(nn.Module):
    """An ONNX file that answers as a module does, computed by onnxruntime on the CPU: a tensor in, one or several out.

    threads: 0 takes those of torch.

    Raises:
        MachineError: onnxruntime is missing.
        RunError: it cannot load the file, or (in a forward) compute it.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        super().__init__()
        needs("onnxruntime")
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors alone
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise RunError(f"onnxruntime cannot load `{path}`: {one_line(error, 200)}") from error

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself."""
        found: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found

    def forward(self, images: Tensor) -> Any:
        try:
            answers = self._session.run(None, {INPUT: images.cpu().numpy()})
        except Exception as error:
            raise RunError(f"onnxruntime cannot compute the network: {one_line(error, 200)}") from error
        found = tuple(torch.from_numpy(answer).to(images.device) for answer in answers)
        return found[0] if len(found) == 1 else found


def quantise(path: Path, target: Path, batches: Iterable[Tensor]) -> None:
    """Static quantisation to 8 bits by onnxruntime: weights by output channel, activations by tensor, with ranges seen in `batches`.

    batches: inputs of the network as in `path`, (B, C, H, W).

    Raises:
        MachineError: onnxruntime is missing, or the file cannot be written.
        RunError: onnxruntime cannot quantise this network.
    """
    needs("onnx", "onnxruntime")
    with quiet():
        tools = import_module("onnxruntime.quantization")
        prepare = import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    with TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        try:
            with quiet():
                prepare(str(path), str(prepared), skip_symbolic_shape=True)
                tools.quantize_static(
                    str(prepared),
                    str(target),
                    _reader(tools.CalibrationDataReader, batches),
                    quant_format=tools.QuantFormat.QDQ,
                    activation_type=tools.QuantType.QInt8,
                    weight_type=tools.QuantType.QInt8,
                    per_channel=True,
                    calibrate_method=tools.CalibrationMethod.MinMax,
                    extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
                )
        except OSError as error:
            raise MachineError(f"`{target}` cannot be written: {(error.strerror or str(error)).lower()}") from error
        except Exception as error:
            raise RunError(f"onnxruntime cannot quantise this network: {_cause(error)}") from error


def add_metadata(path: Path, told: Mapping[str, str]) -> None:
    """Puts metadata into an ONNX file; the quantiser leaves those of its source out."""
    needs("onnx")
    onnx = import_module("onnx")
    network = onnx.load(str(path))
    onnx.helper.set_model_props(network, dict(told))
    onnx.save(network, str(path))


def _reader(base: type, batches: Iterable[Tensor]) -> Any:
    """The batches as onnxruntime asks for them."""

    class Reader(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[Tensor] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._left, None)
            return None if batch is None else {INPUT: batch.cpu().numpy()}

    return Reader()


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what exporter and quantiser print, log and warn of themselves; what goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _cause(error: BaseException) -> str:
    """The first sentence of what began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(str(error).strip().split("\n")[0] or type(error).__name__, 200)
