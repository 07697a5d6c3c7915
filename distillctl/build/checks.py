"""What is refused before anything is trained: what could not work, or would change nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from distillctl.api.data import NO_LABEL
from distillctl.api.method import Head, Method, Phase, Wants
from distillctl.api.returned import described
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Task
from distillctl.distributed.process_group import ProcessGroup
from distillctl.engine.objective import Weighted
from distillctl.errors import PluginError, ProfileError, RunError
from distillctl.profile.schema import MethodChoice, Profile


def head_owner(methods: Sequence[Weighted], spec: ModelSpec) -> Weighted | None:
    """The method that replaces the student's classifier."""
    found = [entry for entry in methods if entry.method.head() is not None]
    if len(found) > 1:
        names = " and ".join(f"`{entry.name}`" for entry in found)
        raise RunError(f"{names} both replace the classifier of `{spec.name}`", hint="use one of them")
    return found[0] if found else None


def check_effects(task_weight: float, methods: Sequence[Weighted], *, labelled: bool = True) -> None:
    """Refuses what would train nothing, or change nothing, since some methods are over when the main part begins.

    labelled: whether there could be a label loss.
    """
    early = [entry for entry in methods if not entry.method.in_main]
    if methods and len(early) == len(methods) and task_weight == 0:
        names = " and ".join(f"`{entry.name}`" for entry in early)
        raise RunError(
            f"{names} only train before the main part, where with `task_weight = 0` nothing is left to train",
            hint="state `task_weight = 1.0`" if labelled else "choose another method beside",
        )
    for entry in early:
        if entry.warmup_epochs > 0:
            raise RunError(
                f"`warmup_epochs` has no effect on `{entry.name}`, which ends before the main part whose epochs it counts",
                hint="leave it out",
            )


def check_quantise(profile: Profile, processes: ProcessGroup) -> None:
    """Refuses what does not go together with rounding to 8 bits."""
    if profile.student.table.freeze:
        raise ProfileError(
            "`train.quantize` learns the range of every layer's input, and `student.freeze` leaves layers as they are",
            where="train",
            hint="leave one of them out",
        )
    if processes.count > 1:  # each would have ranges of its own, of which a checkpoint keeps one
        raise ProfileError("`train.quantize` trains in one process", where="train", hint="leave `--nproc` out")


def check_passes(
    methods: Sequence[Weighted],
    owner: Weighted | None,
    model: nn.Module,
    student: str,
    shape: tuple[int, int, int],
    *,
    draws: bool = False,
) -> None:
    """Refuses methods that compare passes of a student which sees the same in each of them. draws: `Task.draws`, with which it sees a
    batch once.
    """
    wanted = {entry.passes for entry in methods} - {1}
    if not wanted:
        return
    name = next(entry.name for entry in methods if entry.passes > 1)
    if draws:
        raise RunError(f"`{name}` compares passes of the student over the same images, and `{student}` draws what it learns from in each")
    if len(wanted) > 1:
        raise RunError(f"the methods want different numbers of passes: {', '.join(map(str, sorted(wanted)))}")
    # Away from the start, where a classifier of zeros or tiny layer scales would hide what is dropped; in float64, since the sums of
    # a convolution differ in their last digits from one place in the batch to another.
    trial = copy.deepcopy(model).to("cpu", torch.float64).train()
    with torch.no_grad():
        for parameter in trial.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        first, second = trial(torch.randn(4, *shape, dtype=torch.float64).repeat(2, 1, 1, 1)).chunk(2)
    if (first - second).abs().max() <= 1e-9 * first.abs().max():
        replaced = "" if owner is None else f", now that `{owner.name}` has replaced its classifier"
        raise RunError(
            f"`{name}` compares passes of the student over the same images, but `{student}` gives the same logits in all: it drops nothing"
            f"{replaced}",
            hint="let it drop something, for instance by `student.dropout = 0.2`; `distillctl show MODEL` tells what a model can drop",
        )


def check_teacher_norm(methods: Sequence[Weighted], teacher: nn.Module, name: str) -> None:
    """Refuses statistics of the batch (`Wants.teacher_norm`) for a teacher that has no batch normalisation, such as one whose statistics
    and weights are constants.
    """
    wanting = [entry.name for entry in methods if entry.teacher_norm == "batch"]
    if wanting and not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in teacher.modules()):
        raise RunError(
            f"`{wanting[0]}` wants the teacher's batch normalisation to use the statistics of the batch, and `{name}` has none that could: "
            "it normalises otherwise, or keeps its statistics frozen",
            hint='state `teacher_norm = "running"`',
        )


def check_wants(wants: object, name: str) -> None:
    """Refuses what a method returned from `wants` if names of features cannot be read from it."""
    if not isinstance(wants, Wants):
        raise PluginError(f"`wants` of the method `{name}` returned {described(wants)}, where `Wants` is expected")
    for side in ("student", "teacher"):
        names = getattr(wants, side)
        if isinstance(names, str) or not all(isinstance(one, str) for one in names):
            raise PluginError(
                f"`wants` of the method `{name}` has {names!r} for the {side}, where a tuple of names is expected",
                hint="a tuple of one name ends with a comma: `(options.student_stage,)`",
            )


def check_returned(method: Method, name: str) -> None:
    """Refuses what a method returned about itself: its phases, its head, and what is trained of it."""
    phases, head, groups = method.phases(), method.head(), method.parameter_groups()
    if not isinstance(phases, Sequence) or not all(isinstance(one, Phase) for one in phases):
        raise PluginError(f"`phases` of the method `{name}` returned {described(phases)}, where a list of `Phase` is expected")
    if head is not None and not isinstance(head, Head):
        raise PluginError(f"`head` of the method `{name}` returned {described(head)}, where a `Head` or None is expected")
    if not isinstance(groups, list) or not all(isinstance(one, dict) and "params" in one for one in groups):
        raise PluginError(
            f"`parameter_groups` of the method `{name}` returned {described(groups)}, where a list of dicts with `params` is expected"
        )


def check_phase(entry: Weighted, phase: Phase) -> None:
    """Raises where a phase of a plugin could not be trained."""
    modules = dict(entry.method.named_modules())
    missing = [name for name in phase.modules if name not in modules]
    what = f"the phase `{phase.name}` of `{entry.name}`"
    if phase.epochs < 1:
        raise PluginError(f"{what} has {phase.epochs} epochs")
    if missing:
        raise PluginError(f"{what} names `{missing[0]}`, which is no submodule of the method")
    if not phase.student and not any(True for name in phase.modules for _ in modules[name].parameters()):
        raise PluginError(f"{what} trains nothing")


def check_relabels(profile: Profile, task: Task) -> None:
    """Refuses methods that replace targets where that cannot be done, or has no effect."""
    names = [choice.spec.name for choice in profile.methods if choice.table.weight > 0 and choice.spec.relabels]
    if not names:
        return
    data = profile.dataset.spec.name
    if len(names) > 1:
        raise ProfileError(f"{' and '.join(f'`{name}`' for name in names)} all say what is learnt in place of labels", hint="keep one")
    if not task.relabels:
        raise ProfileError(
            f"`{names[0]}` makes targets of a teacher's answers, and the task of `{data}` learns from none",
            where="method",
            hint="choose another method: `distillctl list-methods`",
        )
    if profile.task_weight == 0:
        raise ProfileError(
            f"`{names[0]}` says what the label loss learns from, and with `task_weight = 0` there is none",
            where="method",
            hint="leave `task_weight` out; the method's own `weight` is that of the teacher's answers",
        )


def check_reads(profile: Profile, task: Task) -> None:
    """Refuses methods that read what the task of the data set does not give, and images from which no method learns."""
    if _some_bare(task) and not any(choice.table.weight > 0 and choice.spec.name != "none" for choice in profile.methods):
        raise ProfileError(
            "nothing is learnt from the images without labels: there is no method", where="dataset", hint="leave `unlabelled` out"
        )
    for choice in profile.methods:
        if choice.table.weight > 0:
            _check_reads(choice, task, profile.dataset.spec.name)
            _check_rows(choice, task, profile.dataset.spec.name)
            _check_binary(choice, profile.student.spec)


def _check_rows(choice: MethodChoice, task: Task, data: str) -> None:
    if not task.cuts_rows:
        return
    if choice.table.gather and choice.unit == "rows":
        raise ProfileError(
            f"`gather` compares images of all processes, and `{choice.spec.name}` sees rows that are cut out of those of `{data}`",
            where="method",
            hint="leave it out",
        )
    if choice.spec.gives_head:
        raise ProfileError(
            f"`{choice.spec.name}` replaces the classifier of whole images, and models for `{data}` have none",
            where="method",
            hint="choose another method: `distillctl list-methods`",
        )
    if choice.inner is not None:
        _check_rows(choice.inner, task, data)


def _check_binary(choice: MethodChoice, student: ModelSpec) -> None:
    """Refuses methods that compare classes with each other where the student asks for each by itself."""
    if student.binary and choice.unit == "rows" and not choice.spec.binary:
        raise ProfileError(
            f"`{choice.spec.name}` compares the classes of a softmax, and `{student.name}` has a sigmoid for each class",
            where="method",
            hint="`kd` compares those, too",
        )
    if choice.inner is not None:
        _check_binary(choice.inner, student)


def _check_reads(choice: MethodChoice, task: Task, data: str) -> None:
    some = {"labels"} if _some_bare(task) else set()
    of_images = task.cuts_rows and choice.unit == "images"
    gives: frozenset[str] = frozenset() if of_images else task.gives
    if missing := [what for what in choice.spec.reads if what not in gives - some]:
        raise ProfileError(
            f"`{choice.spec.name}` reads {missing[0]}{' of whole images' if of_images else ''}, and "
            + ("some images have none" if some else f"`{data}` has none"),
            where="method",
            hint="choose another method: `distillctl list-methods`",
        )
    if choice.inner is not None:
        _check_reads(choice.inner, task, data)


def _some_bare(task: Task) -> bool:
    """Whether images that are learnt from have no label, where others may have one."""
    return bool((task.data.train.labels == NO_LABEL).any())


def check_patience(profile: Profile, task: Task) -> None:
    """Refuses to wait for a better figure where none is looked at."""
    if profile.train.patience is not None and task.data.val is None:
        raise ProfileError(
            f"`train.patience` needs a validation split, and `{profile.dataset.spec.name}` has none here",
            where="train",
            hint="give the data set one, for instance by `dataset.val_fraction`",
        )


def check_sampler(profile: Profile, task: Task) -> None:
    """Refuses to balance classes where images have none."""
    images = task.data.train
    if profile.train.sampler is not None and task.data.unlabelled_share:
        raise ProfileError("`train.sampler` balances classes, and some images have none", where="train", hint="leave it out")
    if profile.train.sampler is not None and ("labels" not in task.gives or len(images.labels) != len(images)):
        raise ProfileError(
            f"`train.sampler` balances classes, and the images of `{profile.dataset.spec.name}` have none",
            where="train",
            hint="leave it out",
        )


def check_compiles(profile: Profile, methods: Sequence[Weighted], *, draws: bool) -> None:
    """Refuses `compile = "on"` where something cannot be compiled. draws: `Task.draws`, or views differ in size."""
    if profile.train.compile != "on":
        return
    if profile.optimizer.spec.separate_gradients:
        # A compiled backward gives zeros to what a loss does not reach, and momentum treats zeros unlike nothing.
        raise ProfileError(
            f'`train.compile = "on"`, but `{profile.optimizer.spec.name}` wants two gradients, which a compiled step cannot tell apart',
            hint='use `compile = "auto"`',
        )
    if draws:
        raise ProfileError(
            f'`train.compile = "on"`, but the shapes in a step on `{profile.dataset.spec.name}` depend on its images',
            hint='use `compile = "auto"`',
        )
    if unable := [m.name for m in methods if not m.method.compiles]:
        names = ", ".join(f"`{name}`" for name in unable)
        raise ProfileError(f'`train.compile = "on"`, but {names} cannot be compiled', hint='use `compile = "auto"`')
