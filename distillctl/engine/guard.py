"""Stops a run in the step in which a number is not finite, and names it: the input, a teacher's logits, a term, a gradient, the average.

Every suspect is reduced to one number on the device, and all of them are read at once. On a CPU that costs a pass over the
gradients. A GPU would wait for each reading, so there the reading of a step is looked at in the next one, before its update, and
before anything is evaluated or saved: what is on the disk never has such a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from distillctl.api.method import Batch
from distillctl.engine.objective import Losses, TeacherFeatures
from distillctl.errors import RunError

_LOWER = 'lower `optimizer.lr` or the method\'s `weight`, set `train.clip_grad_norm`, or use `train.precision = "fp32"`'


class Guard:
    """Watches one part of a run.

    parameters: those that are trained, by name.
    watch_gradients: False where a gradient scaler leaves out such steps by itself.
    """

    def __init__(self, parameters: Sequence[tuple[str, Tensor]], device: torch.device, *, watch_gradients: bool) -> None:
        self._parameters = parameters
        self._later = device.type == "cuda"
        self._watch_gradients = watch_gradients
        self._pending: tuple[int, Batch, tuple[str, ...], Tensor] | None = None

    def losses(self, step: int, batch: Batch, teacher: TeacherFeatures, losses: Losses) -> None:
        """Looks at what went into a step (counted from 0) and what came out, before the backward pass.

        Raises:
            RunError: something was not finite.
        """
        names, values = ["the input"], [_sum(batch.images)]
        for norm, features in teacher.items():
            names.append("the teacher's logits" if norm == "running" else f"the teacher's logits ({norm} statistics)")
            values.append(_sum(features["logits"]))
        for name, value in losses.terms.items():
            names.append(f"the term `{name}`")
            values.append(value.detach().float())
        names.append("the sum of all terms")
        values.append((losses.task + losses.distillation).detach())
        self._look(step, batch, names, values)

    def gradients(self, step: int, batch: Batch, extra: Iterable[Tensor | None] = ()) -> None:
        """Looks at the gradients before the update. extra: second gradients, in the order of the parameters.

        Raises:
            RunError: one is not finite.
        """
        if not self._watch_gradients:
            return
        found = [p.grad for _, p in self._parameters if p.grad is not None] + [g for g in extra if g is not None]
        if found:
            self._look(step, batch, ["a gradient"], [_together(found)])

    def average(self, step: int, batch: Batch, model: nn.Module) -> None:
        """Looks at the moving average after an update.

        Raises:
            RunError: it is not finite.
        """
        tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
        self._look(step, batch, ["the moving average of the weights"], [_together(tensors)])

    def flush(self) -> None:
        """Looks at what is still to be read.

        Raises:
            RunError: something was not finite.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            step, batch, names, values = pending
            self._judge(step, batch, names, values.tolist())

    def _look(self, step: int, batch: Batch, names: list[str], values: list[Tensor]) -> None:
        stacked = torch.stack(values)
        if not self._later:
            self._judge(step, batch, names, stacked.tolist())
            return
        before = self._pending
        if before is not None and before[0] != step:
            self.flush()
            before = None
        if before is None:
            self._pending = (step, batch, tuple(names), stacked)
        else:
            self._pending = (step, batch, (*before[2], *names), torch.cat([before[3], stacked]))

    def _judge(self, step: int, batch: Batch, names: Sequence[str], values: Sequence[float]) -> None:
        wrong = [name for name, value in zip(names, values, strict=True) if value - value != 0]
        if not wrong:
            return
        first, detail, hint = wrong[0], "", _LOWER
        if first == "the input":
            rows = batch.images.flatten(1).isfinite().all(1).logical_not()
            detail = f" (image {int(batch.index[rows][0])} of the training split)" if rows.any() else ""
            hint = "are `mean` and `std` of the data set right?"
        elif first.startswith("the teacher"):
            hint = 'are the teacher\'s weights whole? half precision may be too small for them: `train.precision = "fp32"`'
        elif first == "a gradient":
            guilty = [name for name, p in self._parameters if p.grad is not None and not p.grad.isfinite().all()]
            first = f"the gradient of `{guilty[0]}`" if guilty else "the gradient of the methods' terms"
            detail = f" and of {len(guilty) - 1} others" if len(guilty) > 1 else ""
        elif len(named := [name for name in wrong if name.startswith("the term")]) > 1:
            first = " and ".join(named)
        raise RunError(f"the numbers are not finite: {first}{detail} at step {step + 1}", hint=hint)


def _sum(tensor: Tensor) -> Tensor:
    """One number that is not finite if one of the tensor's is not."""
    return tensor.detach().float().sum()


def _together(tensors: list[Tensor]) -> Tensor:
    """The same for many tensors. A GPU wants few launches; on a CPU sums take a tenth of the time that norms do."""
    detached = [t.detach() for t in tensors]
    if detached[0].device.type == "cuda":
        norms: Sequence[Tensor] = torch._foreach_norm(detached, float("inf"))
        return torch.stack([n.float() for n in norms]).sum()
    return torch.stack([t.sum(dtype=torch.float32) for t in detached]).sum()
