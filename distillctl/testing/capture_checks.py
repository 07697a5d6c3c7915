"""The part of the contract for methods that asks whether a step may be captured as one CUDA graph, as far as a CPU can tell.

A replay runs the kernels of the captured step again, with the numbers that Python gave them then. So nothing in a step may read a value of
the device, make a tensor of Python's data, or run other operations, shapes or numbers than the step before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from distillctl.api.method import Batch, Progress
from distillctl.testing.cases import MethodCase, with_head
from distillctl.testing.tensors import make_progress

_WAITS = (  # names of operations that read a value of the device, or begin so
    "_local_scalar_dense",
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_svd",
    "_unique",
    "bincount",
    "equal",
    "is_nonzero",
    "linalg_eig",
    "linalg_lstsq",
    "masked_select",
    "nonzero",
    "unique_",
)


class CaptureChecks(MethodCase):
    """Tests of what `capturable` in the spec says; a wrapper's inner method has to say it too."""

    @property
    def _capturable(self) -> bool:
        return self.spec.capturable and (self.inner_spec is None or self.inner_spec.capturable)

    def test_a_captured_step_can_be_replayed(self) -> None:
        """Every step after the first runs the same operations, on the same shapes, with the same numbers; none reads a value."""
        if not self._capturable:
            return
        with self._made_up("cpu") as step:
            _, second, *others = [step(backward=True) for _ in range(4)]
        for later in others:
            for before, now in zip(second, later, strict=False):
                assert before == now, f"`capturable`: the step changes from {before} to {now}"
            assert len(second) == len(later), f"`capturable`: the step changes from {len(second)} operations to {len(later)}"

    def test_a_captured_step_stays_on_the_device(self) -> None:
        """Nothing goes from the CPU to the device or back, for a GPU that need not be there; forward and `after_step`."""
        if not self._capturable:
            return
        with self._made_up("cuda") as step:  # whose backward would look for the GPU
            step(backward=False)

    @contextmanager
    def _made_up(self, device: str) -> Iterator[Callable[..., list[str]]]:
        """A step of the method on tensors of a device that have shapes and no numbers; calling it gives what it calls."""
        setup = self.setup()
        method, inputs, progress = self.build(setup), self.inputs(setup), make_progress(self.epoch)
        sides = [side.model for side in (setup.student, setup.teacher) if side is not None]
        with FakeTensorMode():

            def move(value: Tensor) -> Tensor:
                return torch.empty(value.shape, dtype=value.dtype, device=device)

            for module in [inner for outer in (method, *sides) for inner in outer.modules()]:
                module._buffers.update({name: move(value) for name, value in module._buffers.items() if value is not None})
                for name, value in module._parameters.items():
                    if value is not None:
                        module._parameters[name] = nn.Parameter(move(value), value.requires_grad)
            batch = Batch(move(inputs.batch.images), move(inputs.batch.labels), move(inputs.batch.index))
            there = Progress(move(progress.epoch), move(progress.fraction))
            student = {name: move(value).requires_grad_() for name, value in inputs.student.items()}
            teacher = {name: move(value) for name, value in inputs.teacher.items()}

            def step(*, backward: bool) -> list[str]:
                for value in (*student.values(), *method.parameters()):
                    value.grad = None
                given, trace = with_head(method, student), _Trace()
                with trace:
                    terms = method.terms(batch, given, teacher, there, phase=self.phase)
                    if backward:
                        torch.autograd.backward(torch.stack(list(terms.values())).sum())
                    with torch.no_grad():
                        method.after_step()
                return trace.calls

            yield step


class _Trace(TorchDispatchMode):
    """Notes every operation with shapes, types and numbers, and refuses those that a capture cannot take.

    Raises:
        AssertionError: there is one.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if problem := _problem(name, args, kwargs):
            raise AssertionError(f"`capturable`: `{name}` {problem}")
        self.calls.append(f"{func} {tree_map(_described, (args, kwargs))}")
        return func(*args, **kwargs)


def _problem(name: str, args: Any, kwargs: Any) -> str:
    """Why a capture cannot take a call, or a replay would be wrong; empty if it can."""
    leaves = tree_leaves((args, kwargs))
    devices = {value.device.type for value in leaves if isinstance(value, Tensor)}
    if name == "_to_copy" and kwargs.get("device") is not None:
        devices.add(torch.device(kwargs["device"]).type)
    if any(name.startswith(waits) for waits in _WAITS):
        return "waits for the device, or gives a tensor whose shape depends on data"
    if name == "lift_fresh":
        return "makes a tensor of Python's data, which is copied to the device"
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return "waits for the device without `output_size`"
    if name == "index" and any(value.dtype in (torch.bool, torch.uint8) for value in args[1] if value is not None):
        return "by a mask gives a tensor whose shape depends on data"
    if any(isinstance(value, torch.Generator) for value in leaves):
        return "draws from a generator that the engine does not seed"
    return f"has tensors on {' and '.join(sorted(devices))}" if len(devices) > 1 else ""


def _described(value: Any) -> Any:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, Tensor) else value
