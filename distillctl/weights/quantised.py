"""Knows quantised weights: numbers of few bits that stand for others only together with scales, tables or zero points beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from distillctl.errors import DataError
from distillctl.text import one_line

HINT = "name the weights from before they were quantised, or save them dequantised, as floating point numbers"

_PROGRAMS = (
    *("torchao", "bitsandbytes", "hqq", "quanto", "optimum.quanto", "auto_gptq", "gptqmodel", "awq", "compressed_tensors", "modelopt"),
    *("torch.ao.nn.quantized", "torch.ao.nn.intrinsic", "torch.ao.quantization", "torch.nn.quantized", "torch.nn.intrinsic.quantized"),
)
"""Packages whose objects stand for quantised tensors and layers."""

_MARKS = {
    **dict.fromkeys(("qweight", "qzeros", "g_idx"), "GPTQ or AWQ"),
    **dict.fromkeys(("SCB", "absmax", "quant_map", "weight_format"), "bitsandbytes"),
    **dict.fromkeys(("weight_packed", "weight_shape"), "compressed-tensors"),
    **dict.fromkeys(("scale", "scales", "zero_point", "zeros", "zp", "scale_inv", "weight_scale", "weight_scales", "weight_scale_inv"), ""),
    **dict.fromkeys(("weight_zero_point", "weight_zeros", "weight_zp", "weight_scale_2", "scale_weight", "scb"), ""),
}
"""Last part of the name of what stands beside weights, and the program that calls it so."""

_PACKED = ("qweight", "weight_packed")
_BYTES = {torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}


def refuse_quantised(state: Mapping[object, object], path: Path) -> None:
    """Raises if what a file holds as weights is quantised.

    Raises:
        DataError: it is; the message names a tensor, and the program where its names tell it.
    """
    names = {name for name in state if isinstance(name, str)}
    for name in state:
        if not isinstance(name, str):
            continue
        value, last = state[name], name.rpartition(".")[2]
        if last.startswith("_packed_params") and not isinstance(value, Tensor):
            raise _quantised(path, "torch.ao.quantization", f"{_shown(name)} is packed")
        if not isinstance(value, Tensor):
            continue
        if value.is_quantized:
            raise _quantised(path, "torch.ao.quantization", f"{_shown(name)} is {_type(value)}")
        stored = last in _PACKED or (last not in _MARKS and "weight" in last and value.dtype in _BYTES)  # others may be masks and counts
        if stored and (beside := _beside(name, names)):
            raise _quantised(
                path, _MARKS[beside.rpartition(".")[2]] or _MARKS.get(last, ""), f"{_shown(name)} is {_type(value)} beside {_shown(beside)}"
            )


def refuse_object(path: Path, name: str) -> None:
    """Raises if a class that a file names belongs to a program that quantises.

    Raises:
        DataError: it does.
    """
    program = next((one for one in _PROGRAMS if name.startswith(f"{one}.")), "")
    if program:
        raise _quantised(path, program, f"it holds objects {_shown(name)}")


def _beside(name: str, names: set[str]) -> str:
    """What stands beside a tensor and is there for quantised ones alone: in the same module, or under the tensor's own name."""
    module = name.rpartition(".")[0]
    candidates = (f"{front}{mark}" for mark in _MARKS for front in (f"{module}." if module else "", f"{name}.", f"{name}_"))
    return next((one for one in candidates if one in names and one != name), "")


def _quantised(path: Path, program: str, why: str) -> DataError:
    return DataError(f"`{path}` is quantised{f' ({program})' if program else ''}: {why}", hint=HINT)


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _shown(name: str) -> str:
    return f"`{one_line(name, 60)}`"
