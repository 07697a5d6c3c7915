"""A batch that is computed in parts takes the step of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from distillctl.api.method import Batch, Features, Method, Progress
from distillctl.api.options import Options
from distillctl.data import Share, train_loader
from distillctl.engine.experiment import Experiment
from distillctl.engine.step import Step

Make = Callable[..., Experiment]


def accumulating(made: Experiment, parts: int) -> Experiment:
    made.loader = train_loader(made.splits, batch_size=16, seed=0, device=made.device, workers=0, share=Share(parts=parts))
    return made


def one_step(made: Experiment) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    step = Step(made)
    for module in made.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    step(next(iter(made.loader.epoch(0))), 0)
    reading = step.learner.meter.read()
    return dict(made.model.named_parameters()), {**reading.terms, "total": reading.total, "images": reading.images}


@pytest.mark.parametrize("parts", [2, 3, 8, 100])
def test_weights_and_terms_are_those_of_the_whole_batch(experiment: Make, parts: int) -> None:
    whole, whole_terms = one_step(experiment())
    cut, cut_terms = one_step(accumulating(experiment(), parts))
    for name, value in whole.items():
        assert torch.allclose(value, cut[name], rtol=1e-5, atol=1e-7), name
    assert cut_terms == pytest.approx(whole_terms, rel=1e-5)


def test_the_student_sees_one_part_at_a_time(experiment: Make) -> None:
    made = accumulating(experiment(), 3)
    sizes: list[int] = []
    made.model.register_forward_hook(lambda _m, args, _o: sizes.append(len(args[0])))
    Step(made)(next(iter(made.loader.epoch(0))), 0)
    assert sizes == [6, 5, 5]


def test_buffers_of_methods_move_once_a_step(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = accumulating(experiment(), 2)
    calls: list[Any] = []
    monkeypatch.setattr(made.objective, "after_step", lambda: calls.append(1))
    Step(made)(next(iter(made.loader.epoch(0))), 0)
    assert calls == [1]


@pytest.mark.parametrize(
    ("count", "share", "sizes"),
    [
        (16, Share(), [16]),
        (16, Share(parts=4), [4, 4, 4, 4]),
        (7, Share(parts=4), [3, 2, 2]),
        (3, Share(parts=4), [3]),
        (1, Share(parts=2), [1]),
        (13, Share(0, 2), [7]),
        (13, Share(1, 2), [6]),
        (13, Share(1, 2, 2), [3, 3]),
    ],
)
def test_shares(count: int, share: Share, sizes: list[int]) -> None:
    pieces = share.pieces(count)
    assert [piece.end - piece.start for piece in pieces] == sizes
    assert len(share.rows(list(range(count)))) == sum(sizes)


@pytest.mark.parametrize("count", [4, 5, 13, 64])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_shares_of_all_processes_are_the_batch(count: int, processes: int, parts: int) -> None:
    everybody = [Share(rank, processes, parts).pieces(count) for rank in range(processes)]
    for together in zip(*everybody, strict=True):  # one part of the batch, over the processes
        assert all(a.end == b.start for a, b in pairwise(together))
        assert [piece.before for piece in together] == [piece.start - together[0].start for piece in together]
        assert {piece.total for piece in together} == {together[-1].end - together[0].start}
    assert sorted(row for rank in range(processes) for row in Share(rank, processes, parts).rows(list(range(count)))) == list(range(count))


class SumOverImages(Method):
    """A term that is a sum over images, as some papers have it."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> torch.Tensor:
        return student["logits"].square().sum() / batch.share


def test_a_sum_over_images_is_that_of_the_whole_batch(experiment: Make, no_options: Options) -> None:
    chosen = [("sum", SumOverImages, no_options, 0.01)]
    whole, whole_terms = one_step(experiment(methods=chosen))
    cut, cut_terms = one_step(accumulating(experiment(methods=chosen), 4))
    assert cut_terms == pytest.approx(whole_terms, rel=1e-5)
    for name, value in whole.items():
        assert torch.allclose(value, cut[name], rtol=1e-5, atol=1e-7), name
