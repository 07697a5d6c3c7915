"""What can be asked of an export, known before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from distillctl.errors import ProfileError

Format = Literal["onnx", "torch-export", "safetensors"]
ENDINGS: Mapping[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}


def check_request(format: str, *, int8: bool, pixels: bool) -> Format:  # noqa: A002 - as the option is called
    """The format, if it can be what is asked of it.

    Raises:
        ProfileError: there is no such format, or it has no such form.
    """
    kind = next((name for name in get_args(Format) if name == format), None)
    if kind is None:
        raise ProfileError(f"unknown format `{format}`", where="--format", hint=f"allowed: {', '.join(ENDINGS)}")
    if int8 and kind != "onnx":
        raise ProfileError(f"`{kind}` has no int8 form: onnxruntime quantises", where="--int8", hint="`--format onnx --int8`")
    if not pixels and kind == "safetensors":
        raise ProfileError("a file of weights has no input", where="--float-input", hint="leave it out")
    found: Format = kind
    return found
