"""All that a step sends to a GPU, recorded once and sent again as one CUDA graph.

A step of a small network is hundreds of kernels of a few microseconds, and Python takes longer to send them than the GPU to run them.
What changes from step to step lies in tensors that stay where they are: the batch, the progress, the learning rates, weights and states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distillctl.api.method import Batch
from distillctl.engine.finite_check import Noted
from distillctl.engine.learner import Learner
from distillctl.errors import DistillError, RunError

_BEFORE = 3
"""Steps that are taken as usual before a batch of their shape is captured: libraries are set up, buffers made, code compiled."""
_MOST = 4
"""Shapes of batches that are captured; whatever comes beyond is computed as usual."""


class StepGraph:
    """Takes steps for `compute`: the first ones as usual, later ones as a graph of what the device did in them.

    compute: sends a step for a batch, and changes nothing of Python's but what it would change again in the same way.
    learners: what `compute` trains.
    stated: whether it is an error if a step cannot be captured, and not only slower.

    told: why nothing is captured, for the user; empty if there is nothing to tell.
    """

    def __init__(self, compute: Callable[[Batch, int], None], learners: Sequence[Learner], *, stated: bool) -> None:
        self._compute, self._learners, self._stated = compute, learners, stated
        self._seen: dict[object, int] = {}
        self._captured: dict[object, _Captured] = {}
        self._able = True
        self.told = ""
        self._pool: object = None
        for learner in learners:
            learner.rates_on_device()

    @property
    def captured(self) -> int:
        """For how many shapes of batches there is a graph."""
        return len(self._captured)

    def __call__(self, batch: Batch, step: int) -> None:
        """Computes a step.

        Raises:
            RunError: it cannot be captured, and the profile says that it must be.
        """
        shape = _shape(batch)
        captured = self._captured.get(shape)
        if captured is None and shape is not None and self._able and len(self._captured) < _MOST:
            self._seen[shape] = self._seen.get(shape, 0) + 1
            if self._seen[shape] > _BEFORE:
                captured = self._try(batch, step)
        if captured is None:
            self._compute(batch, step)
        else:
            captured.replay(batch, self._learners)

    def _try(self, batch: Batch, step: int) -> _Captured | None:
        images = [learner.meter.images for learner in self._learners]
        try:
            captured = self._capture(batch, step)
        except DistillError:
            raise
        except Exception as error:
            _forget_capture()
            for learner in self._learners:
                learner.forget_gradients()
            self._able = False
            what = f"a step cannot be captured as a CUDA graph: {_reason(error)}"
            if self._stated:
                raise RunError(what, hint='`train.cuda_graph = "off"` sends every kernel by itself') from error
            self.told = f"{what}; every kernel is sent by itself, which is slower for small networks"
            captured = None
        for learner, count in zip(self._learners, images, strict=True):
            learner.meter.images = count
        if captured is not None:
            self._captured[_shape(batch)] = captured
        return captured

    def _capture(self, batch: Batch, step: int) -> _Captured:
        held = _copied(batch)
        graph = torch.cuda.CUDAGraph()
        # Other threads may pin memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # type: ignore[arg-type]
            self._compute(held, step)
        self._pool = graph.pool()
        return _Captured(graph.replay, held, [learner.finite_check.noted for learner in self._learners])


@dataclass(frozen=True)
class _Captured:
    """A graph, the batch that it reads, and where it writes what is looked at afterwards."""

    send: Callable[[], None]
    batch: Batch
    noted: list[Noted]

    def replay(self, batch: Batch, learners: Sequence[Learner]) -> None:
        for mine, theirs in zip(_tensors(self.batch), _tensors(batch), strict=True):
            mine.copy_(theirs, non_blocking=True)
        self.send()
        for learner, noted in zip(learners, self.noted, strict=True):
            learner.meter.images += batch.count
            learner.finite_check.noted = list(noted)  # what follows the update is added to it


def _tensors(batch: Batch) -> list[Tensor]:
    return [t for t in (batch.images, batch.labels, batch.index, batch.targets, batch.soft) if t is not None]


def _shape(batch: Batch) -> object:
    """What has to be equal for a graph to be of use; None where something is not a tensor."""
    if not (batch.targets is None or isinstance(batch.targets, Tensor)):
        return None
    kinds = tuple((tuple(t.shape), t.stride(), t.dtype) for t in _tensors(batch))
    return kinds, batch.targets is None, batch.soft is None, batch.start, batch.total, batch.whole


def _copied(batch: Batch) -> Batch:
    """The same batch in memory of its own."""
    own = {name: getattr(batch, name).clone() for name in ("images", "labels", "index")}
    more = {name: getattr(batch, name).clone() for name in ("targets", "soft") if getattr(batch, name) is not None}
    return replace(batch, **own, **more)


def _forget_capture() -> None:
    """After a capture that failed, a generator that was part of it still counts as captured; a copy of it does not."""
    for generator in torch.cuda.default_generators:
        generator.graphsafe_set_state(generator.clone_state())


def _reason(error: BaseException) -> str:
    """The first line of what went wrong; ending a capture that failed raises once more, and says nothing of why."""
    first = error
    while first.__context__ is not None:
        first = first.__context__
    return str(first).strip().partition("\n")[0] or type(first).__name__


__all__ = ["StepGraph"]
