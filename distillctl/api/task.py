"""What the targets of a data set are: how they are learnt, what methods see of a forward, and how answers are judged.

A run has one task, which its data set names. Classification is one among others. Everything that only a classifier has (labels, logits,
top-1, what guessing reaches, whether two models agree) is asked of the task; the engine knows none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from distillctl.api.data import Images, Splits
from distillctl.api.method import OUTPUT, Batch, Features
from distillctl.api.options import Options
from distillctl.api.relabel import Guesses, Relabels
from distillctl.errors import DataError, ProfileError, RunError

Outputs = Mapping[str, Any]
"""What a model computed for a batch: every captured feature, a tensor, and what it returned, under `"logits"`: for a classifier a tensor,
for others what their task makes of it."""


class Seen(NamedTuple):
    """What a method works on: a batch, and the features that belong to its rows."""

    batch: Batch
    features: Features


class Answer(NamedTuple):
    """One thing that a deployed model says to a picture.

    label: the class, from 0. score: from 0 to 1. box: left, top, right and bottom in pixels of the upright picture; None means the whole.
    """

    label: int
    score: float
    box: tuple[float, float, float, float] | None = None


class Meter(Protocol):
    """Gathers the answers of an evaluation."""

    def add(self, predictions: Any, batch: Batch) -> None:
        """Takes in what `Task.predict` gave for a batch.

        Where the task compares, it is a pair: what the model gave and what the teacher gave; None for the teacher of `Splits.labelled`.
        """

    def state(self) -> Any:
        """All that was added, as plain data and tensors on the CPU, for other processes."""

    def merge(self, states: Sequence[Any]) -> None:
        """Replaces what was added by the states of all processes, by rank. Each went through every N-th batch."""

    def result(self) -> Evaluation:
        """The figures of all that was added. Called once, after `merge`.

        Raises:
            RunError: nothing was added, or an answer is not finite.
        """


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gives.

    figures: by name, as they are recorded: those of `Task.names`, and `count`, the number of images.
    answers: what the task keeps to compare two models and to break the figures down; only the task looks into it.
    """

    figures: Mapping[str, float]
    answers: Any = None


@dataclass(frozen=True)
class LossOptions:
    """What `[train]` says of the label loss of classes, beside smoothing; None is not stated.

    focal, poly: γ of the focal loss and ε of the poly loss.
    class_weights: `balanced`, or one for each class.
    """

    focal: float | None = None
    poly: float | None = None
    class_weights: str | Sequence[float] | None = None


PLAIN_LOSS = LossOptions()


class Task:
    """The base of tasks.

    A subclass states `metric` and overrides `outputs`, `label_loss`, `predict`, `meter` and `floor`; the rest has defaults.
    One object serves all of a run and holds no state of it.
    """

    metric: ClassVar[str]
    """The figure that chooses the best epoch; higher is better."""
    names: ClassVar[Mapping[str, str]] = {}
    """Figures in the order in which they are shown, with the words for them. The first is `metric`, which every evaluation has."""
    detail_names: ClassVar[Mapping[str, str]] = {}
    """Figures that `details` gives beside those of `names`, with the words for them."""
    teacher_names: ClassVar[Mapping[str, str]] = {}
    """Figures that `details(teacher=True)` gives beside those, with the words for them; empty where there are none."""
    class_figures: ClassVar[Mapping[str, str]] = {}
    """Figures from 0 to 1 in the lines of `breakdown`, with the words for them."""
    counts: ClassVar[str] = "images"
    """What the `count` of a class in `breakdown` counts."""
    gives: ClassVar[frozenset[str]] = frozenset()
    """What methods can read beside features: `labels` (a class for each row), `logits` (a score for each class). A method that reads more
    (`MethodSpec.reads`) is refused."""
    cuts_rows: ClassVar[bool] = False
    """Whether the rows of methods (`MethodSpec.unit`) are something that the task cuts out of images. `gives` is then what rows have;
    images have features alone, and no process compares its rows with those of others."""
    draws: ClassVar[bool] = False
    """Whether `forward` draws random numbers for each image, from `Batch.seeds`, or has shapes that depend on data. The student then sees
    a batch once, in a step that is neither compiled nor captured. What it draws may not depend on other images of the batch: pieces of a
    batch and several processes would disagree."""
    views: ClassVar[tuple[str, ...]] = ()
    """Kinds of test-time augmentation whose answers can be averaged: `flip`, `five_crop`, `ten_crop` by `predict`, and `multi_scale` by
    `average`."""
    refused_views: ClassVar[Mapping[str, str]] = {}
    """Why a kind that is not among `views` cannot be averaged."""
    smooths: ClassVar[bool] = False
    """Whether `label_loss` knows label smoothing and `LossOptions`."""
    mixes: ClassVar[bool] = False
    """Whether images can be mixed: `label_loss` learns from `Batch.soft` where there is one."""
    relabels: ClassVar[bool] = False
    """Whether a teacher's answers can take the place of targets: `guesses` and `relabelled` are there."""
    compares: ClassVar[bool] = False
    """Whether its figures compare the model with the teacher. Evaluations then ask both, hand pairs to the meter, and go through
    `Splits.labelled` with the model alone; so does one before training."""
    answers: ClassVar[Literal["", "classes", "boxes"]] = ""
    """What `respond` says to a picture: a score for each class, or any number of boxes; empty where it says nothing."""
    reads: ClassVar[tuple[str, ...]] = ()
    """With `compares`: features that `predict` reads. The model then gives `Outputs` with those of them that it has."""

    def __init__(self, data: Splits, *, label_smoothing: float = 0.0, loss: LossOptions = PLAIN_LOSS) -> None:
        stated = {"label_smoothing": label_smoothing or None, **vars(loss)}
        if not self.smooths and (name := next((name for name, value in stated.items() if value is not None), "")):
            raise ProfileError(
                f"`train.{name}` has no effect on this data set, whose targets are not classes", where="train", hint="leave it out"
            )
        self.data = data
        self.label_smoothing = label_smoothing
        self.loss = loss

    # The network.

    @property
    def outputs(self) -> int:
        """How many numbers the model's last layer gives: what its builder is given as `num_classes`."""
        raise NotImplementedError

    @classmethod
    def build(cls, builder: Callable[[str, int, Options], nn.Module], name: str, outputs: int, options: Options) -> nn.Module:
        """A model with fresh weights, from the builder that its plugin names. A deployed student is built so too, without data."""
        return builder(name, outputs, options)

    def sample(self, model: nn.Module, images: Tensor) -> Any:
        """A real forward of the bare model over two images of noise, in evaluation mode: what the model returned, in the form in which
        `seen` finds it under `"logits"`. Shapes of all features are measured in it, so that it has to reach every module that methods may
        name.
        """
        return model(images)

    def check_output(self, output: object, model: str) -> None:
        """Looks at what `sample` gave for a model of this name.

        Raises:
            RunError: this task cannot work with it.
        """
        if not isinstance(output, Tensor) or output.ndim != 2:
            raise RunError(f"`{model}` does not return a tensor of shape (B, {self.outputs})")

    def check_teacher(self, outputs: int, classes: Sequence[str], place: str) -> tuple[str, ...]:
        """Looks at what the deployed model in `place` says of itself before it teaches; notes for the user.

        Raises:
            ProfileError: it answers other questions than those of this data set.
        """
        if outputs != self.outputs:
            hint = f"`dataset.num_classes = {outputs}`, or leave it out" if self.compares else ""
            raise ProfileError(f"the teacher in `{place}` gives {outputs} numbers, and the data set asks for {self.outputs}", hint=hint)
        return ()

    def adopt(self, model: nn.Module) -> tuple[str, ...]:
        """Makes a network that was made elsewhere, with outputs of its own (`ModelSpec.own_file`), answer the questions of this data set;
        notes for the user.

        Raises:
            ProfileError: it cannot answer them.
        """
        return ()

    # Training.

    def forward(self, student: nn.Module, batch: Batch) -> Outputs:
        """The student's forward in training. `student` takes what its model takes, images first, and gives `Outputs`. A model that learns
        from targets in its own forward is given those of the batch here.
        """
        outputs: Outputs = student(batch.images)
        return outputs

    def label_loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The loss against the targets, as 0-dim tensors by name; a single one is called `""`. Empty where there are no targets.

        Called with autocast off; outputs arrive in the run's precision. With several passes over the batch, `outputs` has them
        one after the other, and so have the batch's targets.
        """
        raise NotImplementedError

    def figures(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Figures of training by name, as 0-dim sums over the images, without waiting for the device. Recorded as `train_NAME`."""
        return {}

    def look(self, teacher: nn.Module, batch: Batch) -> Outputs:
        """The teacher's share of a batch that does not depend on any student. Called without gradients, once a batch. `teacher` takes what
        its model takes, and gives `Outputs`.
        """
        outputs: Outputs = teacher(batch.images)
        return outputs

    def answer(self, teacher: nn.Module | None, look: Outputs, outputs: Outputs) -> Outputs:
        """What the teacher says to what one student computed. Called without gradients, once for every student where a method needs it:
        any method, or with `cuts_rows` one on rows; what methods on images see of the teacher is then that of `look`.

        teacher: the tapped network (`teacher.model` is the bare one).
        """
        return look

    def guesses(self, teacher: nn.Module | None, look: Outputs, batch: Batch) -> Guesses:
        """What the teacher takes the targets of a batch for, by what it saw. Called without gradients and with autocast off, once for every
        student where a method relabels. teacher: as for `answer`.
        """
        raise NotImplementedError

    def relabelled(self, batch: Batch, guesses: Guesses, relabels: Relabels) -> Batch:
        """The batch with guesses in place of targets. `forward` and `label_loss` are given it; methods see the batch as it was."""
        raise NotImplementedError

    def seen(self, outputs: Outputs, batch: Batch) -> Mapping[str, Seen]:
        """What methods see of a forward, for both units: `images` and `rows`. `outputs` are the student's in training, a teacher's
        `look` or `answer`, or those of a `sample`, whose batch has no targets.
        """
        one = Seen(batch, outputs)
        return {"images": one, "rows": one}

    # Evaluation.

    def predict(self, model: nn.Module, batch: Batch) -> Any:
        """Answers of a model in evaluation mode. Images of shape (B, V, C, H, W) are V views of each image."""
        raise NotImplementedError

    def meter(self) -> Meter:
        """A new, empty meter."""
        raise NotImplementedError

    def details(self, *, teacher: bool = False) -> Meter:
        """A new, empty meter for an evaluation after training, which nothing of a run depends on: the figures of `meter` to the last bit,
        and those of `detail_names`.

        teacher: and those of `teacher_names`. It is then handed pairs, what the model gave and what the teacher gave.
        """
        return self.meter()

    def kept(self, predictions: Any, batch: Batch) -> Mapping[str, Tensor]:
        """What a run keeps of the answers to a batch, with a row for each image: `label` (B,), `classes` (B, k) with the likeliest first,
        their `probabilities` (B, k), and `own` (B,), that of the label. Empty where answers are not classes.

        predictions: what `predict` gave; where the meter is handed pairs, the pair.
        """
        return {}

    def average(self, answers: Sequence[Any]) -> Any:
        """One answer of several that `predict` gave for the same images, each in another size: the mean of the logits.

        Asked only of tasks that have `multi_scale` in `views`.
        """
        raise NotImplementedError

    def floor(self, images: Images) -> float:
        """What guessing hardly exceeds in `metric` on these images. A teacher that is no better is refused."""
        raise NotImplementedError

    def chance(self, images: Images) -> float:
        """What guessing reaches in `metric` on these images, to which the gain of a student is told; `floor` unless overridden."""
        return self.floor(images)

    def doubt(self, evaluation: Evaluation, images: Images) -> tuple[str, str]:
        """Why nothing should be learnt from a teacher that was evaluated on these images, and what to do; empty where it may be.

        The first is what follows its name in a sentence: "was trained otherwise: …".
        A teacher of which there is a doubt is refused.
        """
        return "", ""

    def agreement(self, one: Evaluation, other: Evaluation) -> float | None:
        """The share of images to which two models give the same answer; None where that means nothing."""
        return None

    # The deployed student, without data.

    @classmethod
    def respond(cls, model: nn.Module, batch: Batch, *, outputs: int, top: int | None = None) -> list[list[Answer] | None]:
        """What a deployed model in evaluation mode says to B pictures, the likeliest first; None where its answer is not finite.

        By default the softmax, in float64, of logits (B, outputs).

        Args:
            model: the bare model.
            batch: `targets` has for each picture `scale` and `offset` (float32, (2,), in x and y): a point of the picture times `scale`,
                plus `offset`, is one of the view; and where inputs differ in size (`View.long_side`) `view`, int64, (2,), height and width
                of what is not padding. There is one picture then.
            outputs: how many numbers its last layer gives.
            top: the most answers to each picture; None for all.

        Raises:
            DataError: the model gives something else.
        """
        logits = model(batch.images)
        if not isinstance(logits, Tensor) or logits.shape != (batch.count, outputs):
            raise DataError(f"the student does not give the {outputs} numbers of which its `model.json` tells")
        return [_likeliest(row, top) for row in logits.float().cpu()]

    @classmethod
    def exported(cls, model: nn.Module) -> nn.Module:
        """The network as other programs find it in a file: a module of images (B, C, S, S) that gives logits (B, outputs). Where `answers`
        are boxes it takes one image, (1, C, S, S), and gives `boxes` (N, 4) in pixels of the view, `labels` (N,) from 0 and `scores` (N,).
        """
        return model

    # For people.

    @classmethod
    def show(cls, figure: str, value: float) -> str:
        """A figure as text."""
        return f"{value:.4f}"

    def breakdown(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """The figures class by class: `name`, `count`, and those of `class_figures`, perhaps only of an evaluation by `details`; None where
        one means nothing. Where answers to images are right or wrong, `correct` counts the right ones. Empty where there are no classes.
        """
        return []

    def confusion(self, evaluation: Evaluation) -> Tensor | None:
        """Of an evaluation by `details`: how many images of class i were taken for class j; int64, (C, C), on the CPU. None where that
        means nothing.
        """
        return None


def _likeliest(logits: Tensor, top: int | None) -> list[Answer] | None:
    if not bool(logits.isfinite().all()):
        return None
    order = logits.sort(descending=True, stable=True).indices[:top]  # among equals the first class, as in evaluations
    shares = logits.double().softmax(0)[order]
    return [Answer(label, share) for label, share in zip(order.tolist(), shares.tolist(), strict=True)]


def output(outputs: Outputs) -> Any:
    """What the model itself returned."""
    return outputs[OUTPUT]


__all__ = ["Answer", "Evaluation", "LossOptions", "Meter", "Outputs", "Seen", "Task", "output"]
