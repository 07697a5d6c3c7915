"""`TaskContract`: what every task must keep.

class TestRegression(TaskContract):
task = Regression
def splits(self, folder): ...            # a small data set of the task
def model(self, outputs): ...            # a small model for its views
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from distillctl.api.data import Images, Splits
from distillctl.api.method import Batch
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Evaluation, Meter, Task
from distillctl.data import Share, eval_loader, train_loader
from distillctl.errors import RunError
from distillctl.models.features import Tapped, evaluating

_CPU = torch.device("cpu")


class TaskContract:
    """Inherit from it, name it `Test…`, set `task`, and override `splits` and `model`.

    task: the class.
    bounds: between which the figure that chooses the best epoch lies; None where it has none.
    """

    task: ClassVar[type[Task]]
    bounds: ClassVar[tuple[float | None, float | None]] = (None, 1.0)

    def splits(self, folder: Path) -> Splits:
        """A small data set with a test split of at least eight images."""
        raise NotImplementedError

    def model(self, outputs: int) -> nn.Module:
        """A small model with parameters for the views of the data set."""
        raise NotImplementedError

    @pytest.fixture
    def built(self, tmp_path: Path) -> Task:
        """The task with its data."""
        return self.task(self.splits(tmp_path))

    def batch(self, task: Task, size: int = 8) -> Batch:
        """A training batch."""
        return next(iter(train_loader(task.data, batch_size=size, seed=0, device=_CPU, workers=0).epoch(0)))

    def student(self, task: Task) -> Tapped:
        """The model as the engine sees it."""
        torch.manual_seed(0)
        return Tapped(self.model(task.outputs), ModelSpec(name="tried", summary="tried", implementation="nowhere:tried"), [])

    def evaluation(self, task: Task, model: nn.Module, processes: int = 1, *, details: bool = False, teacher: bool = False) -> Evaluation:
        """Of the test split, cut among processes. details: by `Task.details`. teacher: beside a teacher, which is the model itself."""

        def new() -> Meter:
            return task.details(teacher=teacher) if details else task.meter()

        states = []
        for rank in range(processes):
            meter = new()
            loader = eval_loader(task.data, _images(task), batch_size=3, device=_CPU, workers=0, share=Share(rank, processes))
            with torch.no_grad(), evaluating(model):
                for batch in loader:
                    answer = task.predict(model, batch)
                    meter.add((answer, answer) if teacher else answer, batch)
            states.append(meter.state())
        meter = new()
        meter.merge(states)
        return meter.result()

    def test_the_label_loss_trains(self, built: Task) -> None:
        """Its terms are finite 0-dim float32 tensors with gradients, and a small step against them makes them smaller."""
        student, batch = self.student(built), self.batch(built)
        optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
        sums = []
        for _ in range(3):
            terms = built.label_loss(built.forward(student, batch), batch)
            assert terms
            for name, term in terms.items():
                assert isinstance(name, str)
                assert (term.shape, term.dtype) == ((), torch.float32), name
                assert term.isfinite(), name
            total = torch.stack(list(terms.values())).sum()
            sums.append(float(total.detach()))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        assert sums[-1] < sums[0]

    def test_the_label_loss_is_a_mean_over_images(self, built: Task) -> None:
        """Twice the same images give the same loss; otherwise parts of a batch and several processes would weight images differently."""
        student, batch = self.student(built).eval(), self.batch(built)
        targets = batch.targets
        if targets is not None:
            targets = torch.cat([targets, targets]) if isinstance(targets, torch.Tensor) else [*targets, *targets]
        images, labels, index = (torch.cat([part, part]) for part in (batch.images, batch.labels, batch.index))
        twice = Batch(images, labels, index, targets=targets)
        once = built.label_loss(built.forward(student, batch), batch)
        again = built.label_loss(built.forward(student, twice), twice)
        for name, term in once.items():
            torch.testing.assert_close(again[name], term, rtol=1e-4, atol=1e-6)

    def test_figures_of_training_are_sums(self, built: Task) -> None:
        """0-dim and without gradients."""
        student, batch = self.student(built), self.batch(built)
        for name, value in built.figures(built.forward(student, batch), batch).items():
            assert value.shape == (), name
            assert not value.requires_grad, name

    @pytest.mark.parametrize("processes", [2, 3])
    def test_several_processes_evaluate_as_one(self, built: Task, processes: int) -> None:
        """The figures are equal to the last bit, whatever the number of processes."""
        model = self.student(built).model
        assert self.evaluation(built, model, processes).figures == self.evaluation(built, model).figures

    @pytest.mark.parametrize("teacher", [False, True])
    def test_details_add_to_the_figures(self, built: Task, teacher: bool) -> None:
        """Those of training stay to the last bit; what is added is named, and equal for any number of processes, too."""
        if teacher and not built.teacher_names:
            pytest.skip("the task has no figures against a teacher")
        model = self.student(built).model
        plain, found = self.evaluation(built, model), self.evaluation(built, model, details=True, teacher=teacher)
        assert {name: found.figures[name] for name in plain.figures} == plain.figures
        assert found.figures.keys() - plain.figures.keys() == {*built.detail_names, *(built.teacher_names if teacher else ())}
        for processes in (2, 3):
            assert self.evaluation(built, model, processes, details=True, teacher=teacher).figures == found.figures
        lines = built.breakdown(found)
        assert [{name: line[name] for name in before} for before, line in zip(built.breakdown(plain), lines, strict=True)] == (
            built.breakdown(plain)
        )
        for line in lines:
            assert line.keys() - {"correct"} == {"name", "count", *built.class_figures}
            assert all(line[name] is None or 0 <= line[name] <= 1 for name in built.class_figures)
        assert json.loads(json.dumps([found.figures, lines])) == [found.figures, lines]
        confusion = built.confusion(found)
        if confusion is not None:
            assert [(line["correct"], line["count"]) for line in lines] == list(
                zip(confusion.diagonal().tolist(), confusion.sum(1).tolist(), strict=True)
            )
        assert built.confusion(plain) is None
        assert all(built.show(name, value) for name, value in found.figures.items())

    def test_the_same_answers_average_to_themselves(self, built: Task) -> None:
        """Where the task averages over sizes."""
        if "multi_scale" not in built.views:
            pytest.skip("the task averages over no sizes")
        batch = next(iter(eval_loader(built.data, _images(built), batch_size=8, device=_CPU, workers=0)))
        with torch.no_grad():
            answer = built.predict(self.student(built).model.eval(), batch)
        figures = []
        for one in (answer, built.average([answer, answer])):
            meter = built.meter()
            meter.add(one, batch)
            meter.merge([meter.state()])
            figures.append(meter.result().figures)
        assert figures[0] == figures[1]

    def test_figures_are_named_and_counted(self, built: Task) -> None:
        """Those of `names` and `count`, as plain numbers that JSON can hold; `metric` comes first."""
        evaluation = self.evaluation(built, self.student(built).model)
        assert next(iter(built.names)) == built.metric
        assert set(evaluation.figures) == {*built.names, "count"}
        assert evaluation.figures["count"] == len(_images(built))
        assert json.loads(json.dumps(evaluation.figures)) == evaluation.figures
        assert all(built.show(name, value) for name, value in evaluation.figures.items())

    def test_the_metric_lies_within_its_bounds(self, built: Task) -> None:
        """Also for an untrained model; guessing does not reach the upper bound."""
        value, (low, high) = self.evaluation(built, self.student(built).model).figures[built.metric], self.bounds
        assert (low is None or value >= low) and (high is None or value <= high)  # noqa: PT018 - one statement on one interval
        assert high is None or built.floor(_images(built)) < high

    def test_an_empty_evaluation_is_refused(self, built: Task) -> None:
        """In words."""
        meter = built.meter()
        meter.merge([meter.state()])
        with pytest.raises(RunError, match="no image"):
            meter.result()

    def test_a_model_agrees_with_itself(self, built: Task) -> None:
        """Where agreement means something."""
        evaluation: Any = self.evaluation(built, self.student(built).model)
        assert built.agreement(evaluation, evaluation) in (None, 1.0)


def _images(task: Task) -> Images:
    assert task.data.test is not None
    return task.data.test
