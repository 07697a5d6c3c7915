"""A file of quantised weights is told as such, whatever program wrote it; whole numbers that are none are left alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from distillctl.errors import DataError
from distillctl.weights.state_dict import find_weights

FLOATS = {"conv.weight": torch.ones(2, 3, 1, 1), "fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
FLOAT8 = torch.ones(2, 2).to(torch.float8_e4m3fn)


def numbers(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.ones(*shape, dtype=dtype)


QUANTISED: dict[str, tuple[dict[str, Tensor], str]] = {
    "int8 and a scale": (
        {"fc.weight": numbers(2, 2, dtype=torch.int8), "fc.weight_scale": torch.ones(())},
        "`fc.weight` is int8 beside `fc.weight_scale`",
    ),
    "float8 and a scale": ({"fc.weight": FLOAT8, "fc.weight_scale_inv": torch.ones(1)}, "`fc.weight` is float8_e4m3fn beside"),
    "a scale under the tensor's name": (
        {"fc.weight": numbers(2, 2, dtype=torch.uint8), "fc.weight.scale": torch.ones(1)},
        "beside `fc.weight.scale`",
    ),
    "bitsandbytes, 8 bits": ({"fc.weight": numbers(2, 2, dtype=torch.int8), "fc.SCB": torch.ones(2)}, r"\(bitsandbytes\)"),
    "bitsandbytes, 4 bits": ({"fc.weight": numbers(2, 1, dtype=torch.uint8), "fc.weight.absmax": torch.ones(1)}, r"\(bitsandbytes\)"),
    "GPTQ": ({"fc.qweight": numbers(1, 2), "fc.qzeros": numbers(1, 1), "fc.scales": torch.ones(1, 2)}, r"\(GPTQ or AWQ\)"),
    "compressed-tensors": ({"fc.weight_packed": numbers(2, 1), "fc.weight_scale": torch.ones(2, 1)}, "beside `fc.weight_scale`"),
}


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_numbers_beside_their_scales(tmp_path: Path, kind: str, ending: str) -> None:
    """One layer is enough: dropped as a tensor too many, its scale would leave other weights than those of the network."""
    tensors, words = QUANTISED[kind]
    state = {name: value for name, value in FLOATS.items() if name not in tensors and f"{name[:-6]}qweight" not in tensors} | tensors
    path = tmp_path / f"file.{ending}"
    if ending == "pt":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    with pytest.raises(DataError, match=r"is quantised.*" + words) as caught:
        find_weights(path)
    assert "before they were quantised" in caught.value.problems[0].hint


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, on quantised tensors
def test_quantised_tensors_and_packed_layers_of_torch(tmp_path: Path) -> None:
    quantised: Any = {**FLOATS, "fc.weight": torch.quantize_per_tensor(FLOATS["fc.weight"], 0.1, 0, torch.qint8)}
    packed: Any = {"conv.weight": FLOATS["conv.weight"], "fc._packed_params._packed_params": (quantised["fc.weight"], None)}
    for state, words in ((quantised, "`fc.weight` is qint8"), (packed, "`fc._packed_params._packed_params` is packed")):
        torch.save(state, tmp_path / "file.pt")
        with pytest.raises(DataError, match=r"is quantised \(torch\.ao\.quantization\): " + words):
            find_weights(tmp_path / "file.pt")


def test_objects_of_programs_that_quantise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torchao.dtypes")
    made = type("Packed", (), {"__module__": "torchao.dtypes"})
    module.Packed = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.dtypes", module)
    torch.save({"fc.weight": made()}, tmp_path / "file.pt")
    with pytest.raises(DataError, match=r"is quantised \(torchao\): it holds objects `torchao\.dtypes\.Packed`"):
        find_weights(tmp_path / "file.pt")


@pytest.mark.parametrize("kind", ["F4", "F8_E8M0"])
def test_types_of_safetensors_that_share_a_byte_or_a_scale(tmp_path: Path, kind: str) -> None:
    header = json.dumps({"fc.weight": {"dtype": kind, "shape": [8], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "file.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(DataError, match=f"is of the type `{kind}`, which is not read: the file is quantised") as caught:
        find_weights(path)
    assert "before they were quantised" in caught.value.problems[0].hint


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.gguf", b"GGUF" + bytes(600), "is a GGUF file, mostly of quantised weights"),
        ("model.onnx", b"\x08\x08" + bytes(600), "is an ONNX file, which has a graph and not a state dict"),
        ("model.tflite", b"\x1c\0\0\0TFL3" + bytes(600), "is a TensorFlow Lite file"),
    ],
)
def test_files_of_other_programs(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        find_weights(tmp_path / name)


@pytest.mark.parametrize(
    "beside",
    [
        {"fc.weight_fake_quant.scale": torch.ones(1), "fc.weight_fake_quant.zero_point": numbers(1)},  # floats that learn to be quantised
        {"norm.scale": torch.ones(2), "norm.mask": numbers(2, dtype=torch.uint8), "norm.index": numbers(2)},
        {"steps": numbers(1), "scale": torch.ones(1)},
    ],
)
def test_other_whole_numbers_are_no_sign(tmp_path: Path, beside: dict[str, Tensor]) -> None:
    torch.save(FLOATS | beside, tmp_path / "file.pt")
    state, _ = find_weights(tmp_path / "file.pt")
    assert state.keys() == (FLOATS | beside).keys()
    torch.save({**FLOATS, "fc.weight": nn.Parameter(FLOAT8, requires_grad=False)}, tmp_path / "file.pt")
    assert find_weights(tmp_path / "file.pt")[0]["fc.weight"].dtype == torch.float32, "a mere cast has no scale"
