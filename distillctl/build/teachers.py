"""Several teachers: what each is called, what is asked of them, and all of them as one network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from distillctl.api.data import NO_LABEL
from distillctl.api.method import OUTPUT, Side
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Task
from distillctl.build.methods import asks_of, numbered, wants_of
from distillctl.build.models import TeacherModel
from distillctl.errors import ProfileError
from distillctl.files import sha256
from distillctl.models.ensemble import Ensemble, mean_logits
from distillctl.profile.schema import Profile


def names_of(models: Iterable[str]) -> list[str]:
    """A name for each of several teachers, by their models: a second `resnet20` is `resnet20-2`. Dots part the names of terms."""
    return numbered(name.replace(".", "_") for name in models)


def one_network(teachers: Sequence[TeacherModel]) -> TeacherModel:
    """The teacher; of several, all of them as one, whose answers are the mean of their probabilities.

    Raises:
        ProfileError: they do not tell the same classes apart, in the same order.
    """
    if len(teachers) == 1:
        return teachers[0]
    names = names_of(one.shown for one in teachers)
    told = [(name, one.classes) for name, one in zip(names, teachers, strict=True) if one.classes]
    for name, classes in told[1:]:
        if classes != told[0][1]:
            raise ProfileError(
                f"the teachers `{told[0][0]}` and `{name}` tell other classes apart, or the same in another order", where="[[teacher]]"
            )
    called = "+".join(names)
    spec = ModelSpec(name=called, summary="several teachers as one", implementation="distillctl.models.ensemble:Ensemble")
    sizes = any(one.one_size for one in teachers)
    return TeacherModel(spec, Ensemble([one.model for one in teachers]), called, None, (), told[0][1] if told else (), one_size=sizes)


def hashes_of(teachers: Sequence[TeacherModel]) -> str | dict[str, str | None] | None:
    """Of the file of the teacher's weights; of several teachers by their names."""
    found = [None if one.source is None else sha256(one.source) for one in teachers]
    return (found or [None])[0] if len(found) < 2 else dict(zip(names_of(one.shown for one in teachers), found, strict=True))


def mean_side(sides: Mapping[str, Side], network: TeacherModel) -> Side:
    """Several teachers as one, as a method on logits sees it when it is built: it has logits alone."""
    first = next(iter(sides.values()))
    shapes = {OUTPUT: first.shapes[OUTPUT]} if OUTPUT in first.shapes else {}
    sample = {OUTPUT: mean_logits([side.sample[OUTPUT] for side in sides.values()], [1 / len(sides)] * len(sides))} if shapes else {}
    return Side(network.shown, network.model, shapes, sample=sample)


def features_of(profile: Profile, number: int, count: int) -> tuple[str, ...]:
    """The features that are wanted of one of so many teachers."""
    choices = [choice for choice in profile.methods if choice.table.weight > 0]
    asking = [choice for choice in choices if any(asks.mean is None and number in asks.teachers for asks in asks_of(choice, count))]
    return tuple(name for choice in asking for name in wants_of(choice).teacher)


def check_several(profile: Profile, task: Task) -> None:
    """Refuses several teachers where they have no mean, or a method cannot ask them so, and shares by labels where there are none.

    Raises:
        ProfileError: says so.
    """
    if len(profile.teachers) < 2:
        return
    for choice in profile.methods:
        asks_of(choice, len(profile.teachers))
    data = profile.dataset.spec.name
    if task.cuts_rows or "logits" not in task.gives:
        raise ProfileError(
            f"there are {len(profile.teachers)} teachers, and their answers to images of `{data}` have no mean",
            where="[[teacher]]",
            hint="keep one",
        )
    bare = "labels" not in task.gives or bool((task.data.train.labels == NO_LABEL).any())
    if bare and any(choice.table.teacher_weights == "confidence" for choice in profile.methods):
        raise ProfileError(
            f'`teacher_weights = "confidence"` asks who is nearer to the label, and some images of `{data}` have none',
            where="method",
            hint="state a number for each teacher, or leave it out",
        )
