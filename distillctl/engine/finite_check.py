"""Stops a run in the step in which a number is not finite, and names it: the input, a teacher's logits, a term, a gradient, the average.

Every suspect is reduced to one number on the device, and all of them are read at once. On a CPU that costs a pass over the
gradients. A GPU would wait for each reading, so there the reading of a step is looked at in the next one, before its update, and
before anything is evaluated or saved: what is on the disk never has such a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillctl.api.method import Batch
from distillctl.api.task import output
from distillctl.engine.objective import Looks, Losses
from distillctl.errors import RunError

_INPUT, _TEACHER, _GRADIENT = "the input", "the teacher's logits", "the gradient of `{}`"


class FiniteCheck:
    """Watches one part of a run.

    parameters: those that are trained, by name.
    watch_gradients: False where a gradient scaler leaves out such steps by itself.
    teacher: its name and file, for the message.
    clipped, precision: what the profile says, so that no hint recommends what is there.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, Tensor]],
        device: torch.device,
        *,
        watch_gradients: bool,
        teacher: str = "",
        clipped: bool = False,
        precision: str = "fp32",
    ) -> None:
        self._teacher = f"the teacher's logits ({teacher})" if teacher else _TEACHER
        half = precision != "fp32"
        ways = ["lower `optimizer.lr`", "lower the method's `weight`", *([] if clipped else ["set `train.clip_grad_norm`"])]
        self._hints = _Hints(
            or_list([*ways, *(['use `train.precision = "fp32"`'] if half else [])]),
            "are the teacher's weights whole, and were they trained?"
            + (' half precision may be too small for them: `train.precision = "fp32"`' if half else ""),
        )
        self._parameters = parameters
        self._later = device.type == "cuda"
        self._watch_gradients = watch_gradients
        self._pending: list[_Look] = []

    def losses(self, step: int, batch: Batch, teacher: Looks, losses: Losses) -> None:
        """Looks at what went into a step (counted from 0) and what came out, before the backward pass.

        Raises:
            RunError: something was not finite.
        """
        names, values = [_INPUT], [_sum(batch.images)]
        for norm, features in teacher.items():
            names.append(self._teacher if norm == "running" else f"{self._teacher} ({norm} statistics)")
            values.append(_sum(output(features)))
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
        named = [(name, p.grad) for name, p in self._parameters if p.grad is not None]
        named += [(name, grad) for (name, _), grad in zip(self._parameters, extra, strict=False) if grad is not None]
        if named and self._later:  # when it is read, the gradients are gone
            norms = torch._foreach_norm([grad.detach() for _, grad in named], float("inf"))
            self._look(step, batch, [_GRADIENT.format(name) for name, _ in named], [n.float() for n in norms])
        elif named and not _together([grad for _, grad in named]).isfinite():
            self._look(step, batch, [_GRADIENT.format(name) for name, _ in named], [_sum(grad) for _, grad in named])

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
        pending, self._pending = self._pending, []
        if pending:
            values = torch.cat([look.values for look in pending]).tolist()
            for look in pending:
                mine, values = values[: len(look.names)], values[len(look.names) :]
                look.judge(mine)

    def _look(self, step: int, batch: Batch, names: list[str], values: list[Tensor]) -> None:
        look = _Look(step, batch, names, torch.stack(values), self._hints)
        if not self._later:
            look.judge(look.values.tolist())
            return
        if self._pending and self._pending[0].step != step:
            self.flush()
        self._pending.append(look)


@dataclass(frozen=True)
class _Hints:
    """What to do about numbers of training, and about those of the teacher."""

    training: str
    teacher: str


@dataclass(frozen=True)
class _Look:
    """Numbers of one step that stand for what the names say."""

    step: int
    batch: Batch
    names: list[str]
    values: Tensor
    hints: _Hints

    def judge(self, values: list[float]) -> None:
        wrong = [name for name, value in zip(self.names, values, strict=True) if not math.isfinite(value)]
        if not wrong:
            return
        what, hint = wrong[0], self.hints.training
        if what == _INPUT:
            rows = self.batch.images.flatten(1).isfinite().all(1).logical_not()
            what += f" (image {int(self.batch.index[rows][0])} of the training split)" if rows.any() else ""
            hint = "are `mean` and `std` of the data set right?"
        elif what.startswith(_TEACHER):
            hint = self.hints.teacher
        elif what.startswith("the gradient") and len(wrong) > 1:
            what += f" and of {len(wrong) - 1} others"
        elif len(terms := [name for name in wrong if name.startswith("the term")]) > 1:
            what = " and ".join(terms)
        raise RunError(f"the numbers are not finite: {what} at step {self.step + 1}", hint=hint)


def or_list(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


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
