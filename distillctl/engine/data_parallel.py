"""How the gradients of several processes become one: DistributedDataParallel around everything that is trained.

It is told to look for parameters that a loss does not reach. That is needed where a method or a phase leaves some out, and it keeps
DistributedDataParallel from dealing the gradients out anew after the first step: sums are then formed in the same order after a
resume, for any number of processes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distillctl.api.method import Batch, Progress
from distillctl.distributed.process_group import ProcessGroup
from distillctl.engine.gradient_pair import GradientPair
from distillctl.engine.objective import Looks, Losses, Objective

_DROPPING = ("dropout", "drop_prob", "drop_rate", "attention_dropout")


class _Trained(nn.Module):
    """The objective with outputs of which only the two sums lead back: the rest is for the record."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        # No loss reaches it: a search for such parameters that finds none makes torch write a warning for every process.
        self.unreached = nn.Parameter(torch.zeros((), device=next(objective.parameters()).device))

    def forward(self, batch: Batch, teacher: Looks, progress: Progress) -> Losses:
        losses: Losses = self.objective(batch, teacher, progress)
        terms = {name: term.detach() for name, term in losses.terms.items()}
        return losses._replace(terms=terms)


class DataParallel:
    """The forward of the objective, after whose backward every process has the same gradients.

    pair: for two gradients from one graph, of which DistributedDataParallel would see one.
    """

    def __init__(self, objective: Objective, processes: ProcessGroup, *, compiled: bool, pair: GradientPair | None) -> None:
        self._processes = processes
        self._pair = pair
        self._parallel: DistributedDataParallel | None = None
        module: nn.Module = objective
        if processes.count > 1:
            processes.broadcast_tensors([*objective.parameters(), *objective.buffers()])
            if pair is None:
                self._parallel = module = _parallel(objective, processes)
        self.forward: Callable[..., Any] = torch.compile(module, dynamic=False) if compiled else module

    def held_back(self) -> AbstractContextManager[None]:
        """Within it, gradients add up in each process alone."""
        return nullcontext() if self._parallel is None else self._parallel.no_sync()

    def finish(self) -> None:
        """After the last backward of a step."""
        if self._pair is not None:
            self._pair.average(self._processes)


def _parallel(objective: Objective, processes: ProcessGroup) -> DistributedDataParallel:
    # For 1×1 convolutions, where two layouts are the same; said once, from within a backward pass.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides", category=UserWarning)
    with warnings.catch_warnings():
        # torch 2.15 has another name for `broadcast_buffers`, which torch 2.10 does not know.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        return DistributedDataParallel(
            _Trained(objective),
            process_group=processes.data,
            broadcast_buffers=False,  # what may differ is never read in training, and memory banks are large
            find_unused_parameters=True,
            init_sync=False,
        )


def draws_by_itself(module: nn.Module) -> bool:
    """Whether some layer draws random numbers in training, as dropout does."""
    layers = list(module.modules())
    values = [getattr(layer, name, 0.0) for layer in layers for name in _DROPPING]
    values += [getattr(layer, "p", 0.0) for layer in layers if re.search("drop|stochastic", type(layer).__name__, re.IGNORECASE)]
    return any(isinstance(value, float) and value > 0 for value in values)
