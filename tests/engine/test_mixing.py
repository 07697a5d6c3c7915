"""Mixup, CutMix and random erasing, against plain loops over what was drawn."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from distillctl.api.method import Batch, Features, Method, Progress
from distillctl.engine.experiment import Experiment
from distillctl.engine.mixing import Mixing
from distillctl.engine.step import Step
from distillctl.errors import ProfileError

Make = Callable[..., Experiment]
ROWS = list(range(6))


def batch_of(count: int = 6, size: int = 12, classes: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(count, 3, size, size, generator=generator), torch.arange(count) % classes, torch.arange(count) + 100)


def seeds(mixing: Mixing, wanted: Callable[[Batch], bool]) -> Batch:
    """The first mixed batch of which something holds."""
    return next(mixed for seed in range(200) if wanted(mixed := mixing(batch_of(), seed, ROWS)))


@pytest.mark.parametrize("dominant", [True, False])
def test_mixup_blends_each_image_with_the_one_before_it(dominant: bool) -> None:
    before = batch_of()
    mixed = seeds(Mixing(mixup=1.0, classes=3), lambda m: bool((m.index == before.index).all()) is dominant)
    assert mixed.soft is not None
    share = float((mixed.images[0] - before.images[5]).flatten()[0] / (before.images[0] - before.images[5]).flatten()[0])
    assert (share >= 0.5) is dominant
    for row in range(6):
        other = (row - 1) % 6
        torch.testing.assert_close(mixed.images[row], share * before.images[row] + (1 - share) * before.images[other], rtol=1e-4, atol=1e-5)
        expected = [0.0, 0.0, 0.0]
        expected[row % 3] += share
        expected[other % 3] += 1 - share
        assert mixed.soft[row].tolist() == pytest.approx(expected, abs=1e-5)
        winner = row if dominant else other
        assert (int(mixed.labels[row]), int(mixed.index[row])) == (winner % 3, 100 + winner)


def test_cutmix_puts_a_rectangle_of_the_one_before_and_counts_its_pixels() -> None:
    before = batch_of()
    mixed = seeds(Mixing(cutmix=1.0, classes=3), lambda m: 0.2 < float(m.soft[0, 0]) < 0.8)
    taken = (mixed.images == before.images.roll(1, 0)).all(1)
    assert bool(((mixed.images == before.images).all(1) | taken).all())
    assert bool((taken == taken[0]).all())
    rows, columns = taken[0].any(1), taken[0].any(0)
    assert torch.equal(taken[0], rows[:, None] & columns[None, :])  # a rectangle
    left = 1 - float(taken[0].float().mean())
    assert mixed.soft is not None
    for row in range(6):
        expected = [0.0, 0.0, 0.0]
        expected[row % 3] += left
        expected[(row - 1) % 3] += 1 - left
        assert mixed.soft[row].tolist() == pytest.approx(expected, abs=1e-6)


def test_two_images_of_one_class_stay_of_it() -> None:
    before = replace(batch_of(), labels=torch.ones(6, dtype=torch.int64))
    mixed = Mixing(mixup=1.0, classes=3)(before, 3, ROWS)
    assert mixed.soft is not None
    torch.testing.assert_close(mixed.soft, torch.tensor([[0.0, 1.0, 0.0]]).expand(6, 3))
    assert torch.equal(mixed.labels, before.labels)


def test_a_seed_decides_and_no_generator_of_torch_is_used() -> None:
    mixing, state = Mixing(mixup=0.4, cutmix=1.0, erase=0.5, classes=3), torch.get_rng_state()
    one, same, other = (mixing(batch_of(), seed, ROWS).images for seed in (4, 4, 5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_both_take_turns_and_the_share_of_batches_stays_as_it_is() -> None:
    before = batch_of()

    def kind(mixed: Batch) -> str:
        if mixed.soft is None:
            return "none"
        cut = (mixed.images == before.images) | (mixed.images == before.images.roll(1, 0))
        return "cutmix" if bool(cut.all()) else "mixup"

    found = [kind(Mixing(mixup=1.0, cutmix=1.0, share=0.5, classes=3)(before, seed, ROWS)) for seed in range(400)]
    assert 160 < found.count("none") < 240
    assert 70 < found.count("mixup") < 130
    assert 70 < found.count("cutmix") < 130


def test_erasing_puts_the_mean_into_rectangles_of_some_images() -> None:
    size, seen, areas = 24, 0, []
    before = batch_of(50, size)
    for seed in range(8):
        mixed = Mixing(erase=0.4, classes=3)(before, seed, list(range(50)))
        assert mixed.soft is None
        gone = (mixed.images == 0).all(1)
        assert torch.equal(
            mixed.images[~gone.unsqueeze(1).expand_as(mixed.images)], before.images[~gone.unsqueeze(1).expand_as(mixed.images)]
        )
        for image in gone:
            if bool(image.any()):
                assert torch.equal(image, image.any(1)[:, None] & image.any(0)[None, :])
                seen, areas = seen + 1, [*areas, float(image.float().mean())]
    assert 120 < seen < 200  # of 400
    assert min(areas) < 0.06
    assert 0.3 < max(areas) < 0.45


def test_an_image_loses_the_same_rectangle_whichever_process_has_it() -> None:
    before, mixing = batch_of(), Mixing(erase=0.9, classes=3)
    whole = mixing(before, 8, ROWS).images
    half = Batch(before.images[3:], before.labels[3:], before.index[3:])
    assert torch.equal(mixing(half, 8, [3, 4, 5]).images, whole[3:])


def test_images_without_labels_are_mixed_as_well() -> None:
    before = replace(batch_of(), labels=torch.empty(0, dtype=torch.int64))
    mixed = Mixing(mixup=1.0)(before, 1, ROWS)
    assert mixed.soft is None
    assert not len(mixed.labels)
    assert not torch.equal(mixed.images, before.images)


class Looks(Method):
    """Keeps what it is shown."""

    seen: list[Batch]

    def __init__(self, options: Any, setup: Any) -> None:
        super().__init__(options, setup)
        self.seen = []

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> torch.Tensor:
        self.seen.append(batch)
        return (student["logits"] - teacher["logits"]).square().mean()


def test_a_step_mixes_for_teacher_student_and_methods_alike(experiment: Make) -> None:
    made = experiment(methods=[("looks", Looks, None, 1.0)], mixup=1.0, accumulate=2)
    batch = next(iter(made.loader.epoch(0)))
    asked: list[torch.Tensor] = []
    look = made.teacher.look
    made.teacher.look = lambda piece, norms: asked.append(piece.images) or look(piece, norms)
    step = Step(made)
    step(batch, 0)
    method = step.learner.objective.active[0].method
    assert len(method.seen) == 2
    images = torch.cat([piece.images for piece in method.seen])
    assert not torch.equal(images, batch.images)
    assert torch.equal(images, torch.cat(asked))
    assert all(piece.soft is not None and piece.soft.shape == (8, 4) for piece in method.seen)
    first = torch.cat([piece.images for piece in method.seen])
    method.seen.clear()
    Step(made)(batch, 0)
    assert torch.equal(torch.cat([piece.images for piece in method.seen]), first)
    method.seen.clear()
    Step(made)(batch, 1)
    assert not torch.equal(torch.cat([piece.images for piece in method.seen]), first)


def test_the_label_loss_learns_from_the_soft_labels(experiment: Make) -> None:
    made = experiment(label_smoothing=0.1)
    logits = torch.randn(6, 4, dtype=torch.float64).float()
    soft = torch.rand(6, 4).softmax(1)
    batch = replace(batch_of(classes=4), soft=soft)
    loss = made.task.label_loss({"logits": logits}, batch)[""]
    smoothed = soft * 0.9 + 0.1 / 4
    torch.testing.assert_close(loss, -(smoothed * F.log_softmax(logits, 1)).sum(1).mean())


def test_a_task_whose_targets_are_not_classes_is_refused(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillctl.builtin.classification_task import Classification

    monkeypatch.setattr(Classification, "mixes", False)
    with pytest.raises(ProfileError, match=r"`train.cutmix` does not work on this data set, whose targets are not classes"):
        experiment(cutmix=1.0)


def test_draws_are_pythons() -> None:
    """λ is the third number of Python's generator: whoever changes the order changes every run with mixed images."""
    draw = random.Random(9)
    draw.random()
    draw.randrange(1)
    share = draw.betavariate(0.5, 0.5)
    before = batch_of()
    mixed = Mixing(mixup=0.5, classes=3)(before, 9, ROWS)
    torch.testing.assert_close(mixed.images, before.images * share + before.images.roll(1, 0) * (1 - share))
