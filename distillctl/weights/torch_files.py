"""Reads the weights in files that `torch.save` wrote.

Torch reads with `weights_only=True`: a closed list of classes, of which none runs code. What stands beside the weights in common files
(an `argparse.Namespace`, numpy scalars, configurations) is replaced by something that does nothing. Any other object is refused.
Before torch opens a file, what the file claims is held against what it has (`claims`).
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillctl.errors import DataError
from distillctl.weights.claims import check_claims
from distillctl.weights.contents import Found, Side, is_plain, not_plain, shown, weights_in
from distillctl.weights.opening import open_file
from distillctl.weights.quantised import refuse_object


class _Placeholder:
    """Stands for an object that is not built: takes whatever the pickle hands to it and keeps nothing."""

    def __new__(cls, *_: object) -> _Placeholder:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _method_of_placeholder(owner: object, *_: object) -> _Placeholder:
    """Stands for a method that an object has noted; of anything else nothing is looked up."""
    if owner is not _Placeholder and type(owner) is not _Placeholder:
        raise pickle.UnpicklingError("GLOBAL getattr")
    return _Placeholder()


_PLACEHOLDERS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "torch.torch_version.TorchVersion",
    *(f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "slice", "str", "tuple")),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *("decimal.Decimal", "fractions.Fraction", "typing.Any", "uuid.SafeUUID", "uuid.UUID"),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.random.bit_generator.{name}" for name in ("SeedSequence", "__pyx_unpickle_SeedSequence")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("bit_generator", "generator", "randomstate")),
    *(f"numpy.random.{name}" for name in ("_mt19937.MT19937", "_pcg64.PCG64", "_philox.Philox", "_sfc64.SFC64")),
    *("torchvision.transforms.functional.InterpolationMode", "PIL.Image.Resampling"),
    "mmengine.logging.history_buffer.HistoryBuffer",
    *(f"omegaconf.{name}" for name in ("base.ContainerMetadata", "base.Metadata", "dictconfig.DictConfig", "listconfig.ListConfig")),
    *(f"omegaconf.nodes.{name}Node" for name in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String")),
    *(f"deepspeed.runtime.fp16.loss_scaler.{name}" for name in ("DynamicLossScaler", "LossScaler")),
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
    # Keys of the callbacks' states in files of Lightning before 1.4.
    *(f"pytorch_lightning.callbacks.{name}" for name in ("early_stopping.EarlyStopping", "model_checkpoint.ModelCheckpoint")),
    *(f"pytorch_lightning.callbacks.{name}" for name in ("lr_monitor.LearningRateMonitor", "swa.StochasticWeightAveraging", "timer.Timer")),
)
"""What stands beside the weights in files of common programs."""

_MAPPINGS = (
    *(f"{package}.utilities.data.AttributeDict" for package in ("lightning_fabric", "lightning.fabric")),
    *(f"{package}.utilities.parsing.AttributeDict" for package in ("pytorch_lightning", "lightning.pytorch")),
    "easydict.EasyDict",
    "yacs.config.CfgNode",
    *("addict.addict.Dict", "mmcv.utils.config.ConfigDict", "mmengine.config.config.ConfigDict"),
)
"""Mappings with attributes, in which programs keep hyper-parameters; read as plain ones."""

_DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
}
"""Numeric types that weights have."""


def read(path: Path, key: str = "", side: Side = "student") -> Found:
    """The weights in a torch file by name, dense, each in memory of its own. Those of a large file stay on the disk until they are used.

    key, side: which, where there are several; see `contents.weights_in`.

    Raises:
        DataError: not a file of weights, damaged, changing, or holding objects that are not read.
    """
    with open_file(path) as file:  # its errors are the clear ones
        before = _identity(os.fstat(file.fileno()))
    try:
        checked = check_claims(path)
        found = _load(path, checked.mapped, key, side)
        found = found._replace(tensors=_dense(found.tensors, path))
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise DataError(f"`{path}` is damaged or not a file of weights ({type(error).__name__})") from error
    if not checked.whole:
        raise DataError(f"`{path}` is damaged or not a file of weights")
    if not path.exists() or _identity(path.stat()) != before:
        raise DataError(f"`{path}` changed while it was read", hint="is it still being written?")
    return found


def _identity(state: os.stat_result) -> tuple[int, int, int, int]:
    """Size, times and place of a file: what differs if somebody writes to it. The time of change, unlike the other, cannot be set back."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _load(path: Path, mapped: bool, key: str, side: Side) -> Found:
    allowed: list[Any] = [(_Placeholder, name) for name in _PLACEHOLDERS]
    allowed += [(OrderedDict, name) for name in _MAPPINGS]
    # Called with something else than their content, which the pickle puts in afterwards.
    allowed += [(lambda *_: [], "collections.deque"), (lambda *_: {}, "collections.defaultdict")]
    allowed += [(_method_of_placeholder, "builtins.getattr")]
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
        warnings.simplefilter("ignore")  # old files make torch speak of its own storage classes
        return weights_in(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), path, key, side)


def _dense(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors without strides and shared memory; tied ones become copies."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in weights.items():
        if type(value) not in (Tensor, nn.Parameter) or not is_plain(value) or value.dtype not in _DTYPES:
            raise not_plain(f"in `{path}` are not all plain numbers", shown(name), value)
        value = value.detach().resolve_conj().resolve_neg()
        place = value.untyped_storage().data_ptr()
        result[name] = value.clone(memory_format=torch.contiguous_format) if place in seen else value.contiguous()
        seen.add(place)
    return result


def _refusal(path: Path, reason: str) -> DataError:
    if f"Unsupported operand {pickle.FRAME[0]}" in reason:
        return DataError(
            f"`{path}` is pickled with protocol 4 or later, which is not read",
            hint="save the weights without `pickle_protocol`, or as safetensors",
        )
    found = re.search(r"GLOBAL (\S+)", reason) or re.search(r"unrecognized function <\S+ (\S+?)>", reason)
    if found is None:
        return DataError(f"`{path}` is damaged or not a file of weights")
    refuse_object(path, found[1])
    return DataError(
        f"`{path}` holds a pickled object {shown(found[1])}, which is not read, since building it can run code",
        hint='in the program that wrote it, save the weights alone: torch.save(model.state_dict(), "weights.pth")',
    )
