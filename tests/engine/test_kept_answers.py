"""Answers are kept beside the figures, in the order of the split, however many processes there are."""

from __future__ import annotations

import torch
from torch import Tensor

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.api.method import Batch
from distillctl.api.task import Task
from distillctl.builtin.classification_task import Classification
from distillctl.engine.kept_answers import KeepingMeter, answers_of, keeping


def task(classes: int = 7) -> Classification:
    images = ArrayImages(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    return Classification(Splits(images, None, None, tuple(f"c{k}" for k in range(classes)), (0.5,) * 3, (0.5,) * 3, View(1)))


def batches() -> list[tuple[Tensor, Batch]]:
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(20, 7, generator=draw) * 30, torch.randint(0, 7, (20,), generator=draw)
    rows = [torch.arange(0, 8), torch.arange(8, 16), torch.arange(16, 20)]
    return [(logits[r], Batch(torch.zeros(len(r), 3, 1, 1), labels[r], r)) for r in rows]


def test_of_one_process_and_of_two_the_same() -> None:
    alone, *pair = (keeping(task()) for _ in range(3))
    for number, (logits, batch) in enumerate(batches()):
        alone.add(logits, batch)
        pair[number % 2].add(logits, batch)
    pair[0].merge([meter.state() for meter in pair])
    alone.merge([alone.state()])
    assert alone.result().figures == pair[0].result().figures
    one, two = alone.kept(), pair[0].kept()
    assert one.keys() == two.keys() == {"index", "label", "classes", "probabilities", "own"}
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["index"].tolist() == list(range(20))


def test_they_are_what_the_figures_count() -> None:
    meter = keeping(task())
    for logits, batch in batches():
        meter.add(logits, batch)
    meter.merge([meter.state()])
    figures, found = meter.result().figures, answers_of(meter.kept())
    assert found.right.mean() == figures["top1"]
    assert (found.classes == found.label[:, None]).any(1).mean() == figures["top5"]
    for (logits, batch), begin in zip(batches(), (0, 8, 16), strict=True):
        for row, (line, label) in enumerate(zip(logits.double().softmax(1).tolist(), batch.labels.tolist(), strict=True)):
            order = sorted(range(7), key=lambda c: -line[c])[:5]
            assert found.classes[begin + row].tolist() == order
            assert torch.allclose(torch.tensor(found.probabilities[begin + row]).double(), torch.tensor([line[c] for c in order]).double())
            assert abs(found.own[begin + row] - line[label]) < 1e-6


def test_certain_answers_are_those_that_are_counted_though_their_probabilities_are_equal() -> None:
    """float32 rounds both shares to 1 and 0: the order is that of the logits."""
    logits = torch.tensor([[0.0, 200.0, 400.0], [0.0, 200.0, 100.0]])
    found = task(3).kept(logits, Batch(torch.zeros(2, 3, 1, 1), torch.tensor([2, 1]), torch.arange(2)))
    assert found["classes"].tolist() == [[2, 1, 0], [1, 2, 0]]


def test_of_a_pair_the_first_is_meant_and_a_task_that_keeps_nothing_leaves_nothing() -> None:
    (logits, batch), *_ = batches()
    pair = task().kept((logits, -logits), batch)
    assert torch.equal(pair["classes"], task().kept(logits, batch)["classes"])
    meter = KeepingMeter(task().meter(), lambda predictions, batch: Task.kept(task(), predictions, batch))
    meter.add(logits, batch)
    meter.merge([meter.state()])
    assert meter.kept() == {}
