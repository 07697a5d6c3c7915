from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.data import FileImages, Splits, View
from distillctl.api.method import Batch
from distillctl.api.specs import ModelSpec
from distillctl.builtin.unlabelled_meter import UnlabelledMeter, nearest_neighbours
from distillctl.builtin.unlabelled_task import Answer, Unlabelled
from distillctl.engine.evaluate import Comparison, evaluate
from distillctl.errors import ProfileError, RunError

NO_LABELS = torch.empty(0, dtype=torch.int64)


def task(outputs: int = 5) -> Unlabelled:
    return Unlabelled(Splits(FileImages([]), None, None, (), (0.5,) * 3, (0.5,) * 3, View(4), outputs=outputs))


class Net(nn.Module):
    """Pooled features and logits by two layers, of images (B, 3, 2, 2)."""

    def __init__(self, width: int, seed: int, outputs: int = 5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.fc = nn.Linear(12, width), nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        return self.fc(self.pooled(images))

    def pooled(self, images: Tensor) -> Tensor:
        return self.body(images.flatten(1)).tanh()


SPEC = ModelSpec(name="net", summary="", implementation="nowhere:net", classifier="fc")


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def batches(pixels: Tensor, size: int = 7) -> list[Batch]:
    return [Batch(part, NO_LABELS, torch.arange(len(part))) for part in pixels.split(size)]


def labelled(count: int = 60, size: int = 8) -> list[Batch]:
    labels = torch.arange(count) % 3
    pixels = images(count, 1) + labels.float()[:, None, None, None]
    asked = (torch.arange(count) % 4 == 0).long()
    parts = (t.split(size) for t in (pixels, labels, asked))
    return [Batch(p, y, torch.arange(len(p)), targets=a) for p, y, a in zip(*parts, strict=True)]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def softmax(row: list[float]) -> list[float]:
    total = sum(map(math.exp, row))
    return [math.exp(value) / total for value in row]


def test_figures_against_plain_loops() -> None:
    student, teacher = Net(6, 0).train(), Net(6, 1).train()
    pixels = images(20, 0)
    found = evaluate(task(), student, batches(pixels), comparison=Comparison(SPEC, teacher, SPEC))
    assert student.training
    assert teacher.training
    student.eval(), teacher.eval()
    agree, kl, cos, features = 0, 0.0, 0.0, 0.0
    for row in pixels:
        mine, theirs = (net(row[None])[0].double().tolist() for net in (student, teacher))
        agree += max(range(5), key=mine.__getitem__) == max(range(5), key=theirs.__getitem__)
        kl += sum(p * math.log(p / q) for p, q in zip(softmax(theirs), softmax(mine), strict=True))
        cos += cosine(mine, theirs)
        features += cosine(*(net.pooled(row[None])[0].double().tolist() for net in (student, teacher)))
    assert found.figures == {
        "agreement": agree / 20,
        "kl": pytest.approx(kl / 20, rel=1e-5),
        "cosine": pytest.approx(cos / 20, rel=1e-5),
        "feature_cosine": pytest.approx(features / 20, rel=1e-5),
        "count": 20,
    }
    assert 0 < agree < 20
    assert next(iter(found.figures)) == Unlabelled.metric


def test_features_of_other_dimensions_are_not_compared() -> None:
    found = evaluate(task(), Net(6, 0), batches(images(9, 0)), comparison=Comparison(SPEC, Net(4, 1), SPEC))
    assert "feature_cosine" not in found.figures
    assert "knn" not in found.figures


def test_neighbours_against_plain_loops() -> None:
    torch.manual_seed(0)
    asked, known = (nn.functional.normalize(torch.randn(n, 4), dim=1) for n in (40, 70))
    labels = torch.randint(0, 4, (70,))
    expected = []
    for row in asked.double().tolist():
        near = sorted(
            ((sum(a * b for a, b in zip(row, other, strict=True)), y) for other, y in zip(known.tolist(), labels.tolist(), strict=True))
        )[-20:]
        votes = [sum(math.exp(s / 0.07) for s, y in near if y == c) for c in range(4)]
        expected.append(votes.index(max(votes)))
    assert nearest_neighbours(asked, known, labels).tolist() == expected
    few = nearest_neighbours(asked, known[:3], labels[:3])
    assert set(few.tolist()) <= set(labels[:3].tolist())


def test_accuracy_of_neighbours_is_of_held_out_labelled_images() -> None:
    student, seen = Net(6, 0), labelled()
    found = evaluate(task(), student, batches(images(5, 0)), comparison=Comparison(SPEC, Net(6, 1), SPEC, seen))
    pixels, labels, asked = (torch.cat(parts) for parts in zip(*((b.images, b.labels, b.targets) for b in seen), strict=True))
    vectors = nn.functional.normalize(student.pooled(pixels), dim=1)
    guess = nearest_neighbours(vectors[asked == 1], vectors[asked == 0], labels[asked == 0])
    assert found.figures["knn"] == pytest.approx(float((guess == labels[asked == 1]).double().mean()))
    assert 1 / 3 < found.figures["knn"] <= 1
    assert found.figures["count"] == 5, "labelled images are not counted"


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_evaluate_as_one(processes: int) -> None:
    built, student, teacher = task(), Net(6, 0).eval(), Net(6, 1).eval()
    pairs = [((built.predict(student, b), built.predict(teacher, b)), b) for b in batches(images(33, 0))]

    def with_features(batch: Batch) -> Answer:
        return Answer(student(batch.images), student.pooled(batch.images))

    beside: list[Any] = [((with_features(b), None), b) for b in labelled()]
    with torch.no_grad():
        results = []
        for count in (1, processes):
            states = []
            for rank in range(count):
                meter = built.meter()
                for pair in (*pairs[rank::count], *beside[rank::count]):
                    meter.add(*pair)
                states.append(meter.state())
            whole = built.meter()
            whole.merge(states)
            results.append(whole.result())
    one, other = results
    assert one.figures == other.figures
    assert torch.equal(one.answers.predictions, other.answers.predictions)


def test_views_are_averaged() -> None:
    net, built = Net(6, 0).eval(), task()
    views = images(6, 0).unflatten(0, (3, 2))
    found = built.predict(net, Batch(views, NO_LABELS, torch.arange(3)))
    assert torch.allclose(found.logits, net(views.flatten(0, 1)).unflatten(0, (3, 2)).mean(1))


def test_what_is_not_finite_is_named() -> None:
    fine, broken = torch.zeros(2, 3), torch.full((2, 3), math.nan)
    batch = batches(images(2, 0))[0]
    for mine, theirs, words in ((fine, broken, "of the teacher are not finite"), (broken, fine, "of an evaluation are not finite")):
        meter = UnlabelledMeter()
        meter.add((Answer(mine, None), Answer(theirs, None)), batch)
        with pytest.raises(RunError, match=words):
            meter.result()
    with pytest.raises(RunError, match="no image"):
        UnlabelledMeter().result()
    with pytest.raises(RunError, match="no classifier"):
        UnlabelledMeter().add((Answer(fine, None), None), batch)


def test_a_teacher_that_always_says_the_same_is_doubted() -> None:
    teacher = Net(6, 1)
    with torch.no_grad():
        teacher.fc.weight.zero_()
    pixels, built = images(20, 0), task()
    for count, doubted in ((20, True), (19, False)):
        found = evaluate(built, teacher, batches(pixels[:count]), comparison=Comparison(SPEC, teacher, SPEC))
        assert found.figures["agreement"] == 1
        assert bool(built.doubt(found, FileImages([]) if not count else pixels[:count])[0]) == doubted  # type: ignore[arg-type]
    assert not built.doubt(evaluate(built, Net(6, 0), batches(pixels), comparison=Comparison(SPEC, Net(6, 0), SPEC)), pixels)[0]  # type: ignore[arg-type]


def test_another_number_of_outputs_names_the_line() -> None:
    with pytest.raises(ProfileError, match="gives 7 numbers, and the data set asks for 5") as caught:
        task().check_teacher(7, (), "runs/t")
    assert "`dataset.num_classes = 7`" in caught.value.problems[0].hint
