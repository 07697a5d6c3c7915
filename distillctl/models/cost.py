"""What a network costs: parameters, multiply-accumulates of an image, bytes of its file, and the time of a forward.

Nothing here changes a network: modes come back, and no generator of random numbers is used.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distillctl.models.features import evaluating

_METADATA = {"__metadata__": {"format": "pt"}}
_TYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
"""Of the safetensors format; a longer name than the format has for others costs a byte or two of the header."""
_WARM_UP = 0.2


def parameters(model: nn.Module) -> int:
    """How many parameters there are, trained or not; shared ones count once."""
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates of one image of shape (C, H, W), counted by torch in a real forward: half its floating-point operations.

    What is counted are convolutions, matrix products and attention. Normalisation, activations, pooling and resizing are not, as in
    most published figures. The model may lie on any device, `meta` too, where nothing is computed.
    """
    images = torch.zeros(1, *shape, device=_device(model))
    with evaluating(model):
        return macs_of(lambda: model(images), model.parameters())


def macs_of(call: Callable[[], object], parameters: Iterable[nn.Parameter] = ()) -> int:
    """Multiply-accumulates of whatever a call computes, without gradients; see `macs`. parameters: those that it uses."""
    fast = torch.backends.mha.get_fastpath_enabled()
    # The fused kernels of attention are not counted by every version of torch, and the parts that they consist of are.
    torch.backends.mha.set_fastpath_enabled(False)
    trained = [value for value in parameters if value.requires_grad]
    try:
        for value in trained:  # torch's counter asks what is handed to a module and wants a gradient for how it came about
            value.requires_grad_(False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
    finally:
        for value in trained:
            value.requires_grad_(True)
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


def file_bytes(model: nn.Module) -> int:
    """Bytes of a safetensors file of its state dict. The model may lie on the `meta` device."""
    header: dict[str, object] = dict(_METADATA)
    end = 0
    # In the order of the library, since the header's length depends on it: wide types first, then by name.
    for name, value in sorted(model.state_dict().items(), key=lambda item: (-item[1].element_size(), item[0])):
        begin, end = end, end + value.numel() * value.element_size()
        header[name] = {"dtype": _TYPES.get(value.dtype, str(value.dtype)), "shape": list(value.shape), "data_offsets": [begin, end]}
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + math.ceil(length / 8) * 8 + end


def images_of(shape: Sequence[int], batch: int, device: torch.device, channels_last: bool = False) -> Tensor:
    """Normalised images (batch, C, H, W), always the same random ones, that no generator in use has to give."""
    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


@dataclass(frozen=True)
class Latency:
    """Seconds of a call: median and 95th percentile of `count` calls."""

    median: float
    p95: float
    count: int


def latency(
    call: Callable[[], object],
    device: torch.device,
    *,
    seconds: float = 1.0,
    fewest: int = 3,
    most: int = 2000,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Times a call again and again for about `seconds`, of which the first fifth is warm-up.

    A slow call is made once for that, and `fewest` times more; a quick one at most `most` times, and a fifth as often before. On a GPU each
    call is waited for.
    """

    def once() -> float:
        started = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - started

    begin, warm = clock(), 0
    while warm == 0 or (clock() - begin < seconds * _WARM_UP and warm < most * _WARM_UP):  # the first call allocates and chooses kernels
        once()
        warm += 1
    times: list[float] = []
    while len(times) < fewest or (clock() - begin < seconds and len(times) < most):
        times.append(once())
    times.sort()
    return Latency(statistics.median(times), times[math.ceil(0.95 * len(times)) - 1], len(times))


def forward_latency(model: nn.Module, images: Tensor, *, seconds: float = 1.0, fewest: int = 3, most: int = 2000) -> Latency:
    """The time of a forward in evaluation mode, without gradients; see `latency`."""
    with evaluating(model), torch.inference_mode():
        return latency(lambda: model(images), images.device, seconds=seconds, fewest=fewest, most=most)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
