"""Stops a run in the step in which a number is not finite, and names it: the input, a teacher's logits, a term, a gradient, the average.

Every suspect is reduced to one number on the device, and all of them are read at once. On a CPU that costs a pass over the
gradients. A GPU would wait for each reading, so there a number on the device tells the optimizer to leave the update out, in this step and
in all that follow, and the reading is looked at after the next step has been sent, and before anything is evaluated or saved: neither
the weights nor the disk ever have such a number. Which gradient it was is found by going through the step again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from distillctl.api.method import Batch
from distillctl.api.task import output
from distillctl.engine.objective import Looks, Losses, teacher_of
from distillctl.errors import RunError

_INPUT, _TEACHER, _GRADIENT = "the input", "the teacher's logits", "the gradient of `{}`"
_UPDATE = "a gradient"

Noted = list[tuple[list[str], Tensor]]
"""Names of suspects and one number for each."""


def read_later(device: torch.device) -> bool:
    """Whether reading a number would make everybody wait for the device."""
    return device.type == "cuda"


class FiniteCheck:
    """Watches one part of a run.

    parameters: those that are trained, by name.
    watch_gradients: False where a gradient scaler leaves out such steps by itself.
    teachers: name and file of each, for the message.
    clipped, precision: what the profile says, so that no hint recommends what is there.
    find: on a GPU, goes through a step again and says whose gradients are not finite; empty if it cannot tell.

    noted: what a GPU has computed of the step so far. bad: on a GPU, a 0-dim float32 that is 1 from the first such number on, as fused
    optimizers take it (`found_inf`); otherwise None.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, Tensor]],
        device: torch.device,
        *,
        watch_gradients: bool,
        teachers: Sequence[str] = (),
        clipped: bool = False,
        precision: str = "fp32",
        find: Callable[[int, Batch], list[str]] = lambda *_: [],
    ) -> None:
        self._teachers = [f"{_TEACHER} ({teacher})" for teacher in teachers] or [_TEACHER]
        half = precision != "fp32"
        ways = ["lower `optimizer.lr`", "lower the method's `weight`", *([] if clipped else ["set `train.clip_grad_norm`"])]
        self._hints = _Hints(
            or_list([*ways, *(['use `train.precision = "fp32"`'] if half else [])]),
            "are the teacher's weights whole, and were they trained?"
            + (' half precision may be too small for them: `train.precision = "fp32"`' if half else ""),
        )
        self._parameters = parameters
        self._later = read_later(device)
        self._watch_gradients = watch_gradients
        self._find = find
        self.noted: Noted = []
        self.bad = torch.zeros((), device=device) if self._later and watch_gradients else None
        self._unscaled = torch.ones((), device=device)
        self._pending: _Look | None = None

    def begin(self) -> None:
        """Forgets what was noted of the step before."""
        self.noted = []

    def losses(self, step: int, batch: Batch, teacher: Looks, losses: Losses) -> None:
        """Looks at what went into a step (counted from 0) and what came out, before the backward pass.

        Raises:
            RunError: something was not finite.
        """
        names, values = [_INPUT], [_sum(batch.images)]
        for key, features in teacher.items():
            number, norm = teacher_of(key)
            names.append(self._teachers[number] if norm == "running" else f"{self._teachers[number]} ({norm} statistics)")
            values.append(_sum_of_all(output(features)))
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
        named = self._named(extra)
        if self.bad is not None:
            self._flag([grad for _, grad in named])
        elif named and not _together([grad for _, grad in named]).isfinite():
            self._look(step, batch, [_GRADIENT.format(name) for name, _ in named], [_sum(grad) for _, grad in named])

    def not_finite(self, extra: Iterable[Tensor | None] = ()) -> list[str]:
        """Names of the parameters whose gradients are not finite now."""
        return [name for name, grad in self._named(extra) if not _sum(grad).isfinite()]

    def _named(self, extra: Iterable[Tensor | None]) -> list[tuple[str, Tensor]]:
        """All gradients, the first and the second ones."""
        named = [(name, p.grad) for name, p in self._parameters if p.grad is not None]
        return named + [(name, grad) for (name, _), grad in zip(self._parameters, extra, strict=False) if grad is not None]

    def _flag(self, grads: Sequence[Tensor]) -> None:
        """Raises the flag if a gradient or a number noted before is not finite. One kernel for each kind of tensor, and nothing changes."""
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in (*(values for _, values in self.noted), *grads):
            kinds.setdefault(tensor.dtype, []).append(tensor.detach())
        assert self.bad is not None
        for tensors in kinds.values():
            torch._amp_foreach_non_finite_check_and_unscale_(tensors, self.bad, self._unscaled)
        self.noted.append(([_UPDATE], torch.where(self.bad > 0, math.inf, 0.0)[None]))

    def average(self, step: int, batch: Batch, tensors: list[Tensor]) -> None:
        """Looks at the moving average after an update.

        Raises:
            RunError: it is not finite.
        """
        self._look(step, batch, ["the moving average of the weights"], [_together(tensors)])

    def wait(self, step: int, batch: Batch) -> None:
        """Before an update that nothing on the device can leave out: looks at the step's numbers at once.

        Raises:
            RunError: something was not finite.
        """
        if self.bad is not None:
            look = self._all(step, batch)
            look.judge(look.values.tolist(), self._find)

    def end(self, step: int, batch: Batch) -> None:
        """After all of a step has been sent: looks at the one before, and has this one's numbers brought here, which nobody waits for.

        Raises:
            RunError: something was not finite.
        """
        if not self._later:
            return
        self.flush()
        self._pending = self._all(step, batch)

    def _all(self, step: int, batch: Batch) -> _Look:
        names = [name for names, _ in self.noted for name in names]
        return _Look(step, batch, names, _Coming(torch.cat([values for _, values in self.noted])), self._hints)

    def flush(self) -> None:
        """Looks at what is still to be read.

        Raises:
            RunError: something was not finite.
        """
        look, self._pending = self._pending, None
        if look is not None:
            look.judge(look.values.tolist(), self._find)

    def _look(self, step: int, batch: Batch, names: list[str], values: list[Tensor]) -> None:
        together = torch.stack(values)
        if self._later:
            self.noted.append((names, together))
        else:
            _Look(step, batch, names, together, self._hints).judge(together.tolist(), self._find)


class _Coming:
    """Numbers on their way from the device; only their own copy is waited for, not what was sent after it."""

    def __init__(self, values: Tensor) -> None:
        self._here = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)
        self._here.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event() if values.is_cuda else None
        if self._event is not None:
            self._event.record()

    def tolist(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        return list(self._here.tolist())


@dataclass(frozen=True)
class _Hints:
    """What to do about numbers of training, and about those of the teacher."""

    training: str
    teacher: str


@dataclass(frozen=True)
class _Look:
    """Numbers of one step that stand for what the names say, in the order in which one leads to the next."""

    step: int
    batch: Batch
    names: list[str]
    values: Tensor | _Coming
    hints: _Hints

    def judge(self, values: list[float], find: Callable[[int, Batch], list[str]]) -> None:
        wrong = [name for name, value in zip(self.names, values, strict=True) if not math.isfinite(value)]
        if not wrong:
            return
        if wrong[0] == _UPDATE:
            wrong = [_GRADIENT.format(name) for name in find(self.step, self.batch)] or wrong
        what, hint = wrong[0], self.hints.training
        if what == _INPUT:
            rows = self.batch.images.flatten(1).isfinite().all(1).logical_not()
            what += f" (image {int(self.batch.index[rows][0])} of the training split)" if rows.any() else ""
            hint = "are `mean` and `std` of the data set right?"
        elif what.startswith(_TEACHER):
            hint = self.hints.teacher
        elif what.startswith("the gradient of") and len(wrong) > 1:
            what += f" and of {len(wrong) - 1} others"
        elif len(terms := [name for name in wrong if name.startswith("the term")]) > 1:
            what = " and ".join(terms)
        raise RunError(f"the numbers are not finite: {what} at step {self.step + 1}", hint=hint)


def or_list(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _sum_of_all(value: object) -> Tensor:
    """That of a tensor, or of all floating tensors in what is not one."""
    if isinstance(value, Tensor):
        return _sum(value)
    return torch.stack([_sum(leaf) for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]).sum()


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
