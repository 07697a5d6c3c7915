"""Profile + Registry → Experiment: the only place where names become objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from distillctl.api.data import ArrayImages, Images, Splits
from distillctl.api.method import Method, Setup, Side, Wants, Wrapper
from distillctl.api.optimizer import SeparateGradients
from distillctl.api.options import Options
from distillctl.api.specs import ModelSpec
from distillctl.build.checks import check_effects, check_passes, check_phase, head_owner
from distillctl.data import EvalLoader, Share, eval_loader, limit_training, train_loader
from distillctl.data.hashing import METHODS, STUDENT, mix
from distillctl.distributed import heartbeat
from distillctl.distributed.process_group import ALONE, Processes, announced
from distillctl.engine.batch_norm import synchronise
from distillctl.engine.experiment import AUTOCAST, MAIN, Experiment, Part, Settings
from distillctl.engine.objective import Objective, Weighted
from distillctl.engine.schedule import schedule
from distillctl.errors import MachineError, PluginError, ProfileError
from distillctl.models import deploy, heads
from distillctl.models.features import HEAD, Tapped
from distillctl.plugin.registry import Registry, load
from distillctl.profile.schema import MethodChoice, OptimizerChoice, Profile, seconds
from distillctl.weights import state_dict

# Steps below which compiling costs more than it gains on a GPU.
_COMPILE_REPAYS = 20_000
_GIVES_HEAD = "the spec says `gives_head=True` if the class overrides `head`, and only then"


@dataclass(frozen=True)
class TeacherModel:
    """A teacher with its weights.

    source: the file that the weights come from; None for weights by name.
    notes: what had to be changed to load them.
    """

    spec: ModelSpec
    model: nn.Module
    shown: str
    source: Path | None
    notes: tuple[str, ...] = ()


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ProfileError: another word.
        MachineError: this machine has no such device.
    """
    _, count, local = announced()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and count > 1:
        name = f"cuda:{_own_gpu(local)}"
    elif count > 1 and name.startswith("cuda:"):
        raise ProfileError(f"{count} processes cannot share `{name}`", where="--device", hint="`--device cuda` gives each its own")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or (kind == "cpu" and number):
        raise ProfileError(f"unknown device `{name}`", where="--device", hint="allowed: auto, cpu, cuda, cuda:N")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise MachineError("this machine has no CUDA device that torch can use", where="--device", hint="use `--device cpu`")
        if number and int(number) >= torch.cuda.device_count():
            raise MachineError(f"there is no `{name}`: this machine has {torch.cuda.device_count()} CUDA devices", where="--device")
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # what says only "cuda" means this one too
    return device


def _own_gpu(local: int) -> int:
    """The GPU of the process with this number on its machine; where each sees only its own, that is the first."""
    there = torch.cuda.device_count()
    return 0 if there == 1 and not heartbeat.supervised() else local


def check_precision(profile: Profile, device: torch.device) -> None:
    """Before anything is built, and before a teacher is trained.

    Raises:
        ProfileError: the device cannot train in the profile's precision.
    """
    if profile.train.precision == "fp16" and device.type != "cuda":
        raise ProfileError('`train.precision = "fp16"` needs a GPU', hint="use `bf16` or `fp32` on a CPU")


def build_splits(profile: Profile) -> Splits:
    """The data of a profile, cut to `dataset.limit`."""
    choice = profile.dataset
    splits: Splits = load(choice.spec.implementation, choice.spec.name)(choice.options, profile.seed)
    return limit_training(splits, choice.table.limit, profile.seed) if choice.table.limit else splits


def build_model(spec: ModelSpec, num_classes: int, options: Options) -> nn.Module:
    """A model with fresh weights, drawn from torch's global generator."""
    model = load(spec.implementation, spec.name)(spec.name, num_classes, options)
    if not isinstance(model, nn.Module):
        raise PluginError(f"the builder of the model `{spec.name}` returned {type(model).__name__}, not a module")
    return model


def build_student(profile: Profile, num_classes: int, *, initial: bool = True) -> tuple[nn.Module, list[str]]:
    """The student with its initial weights, and notes on what was left out of a pretrained file."""
    choice = profile.student
    torch.manual_seed(mix(profile.seed, STUDENT))
    model = build_model(choice.spec, num_classes, choice.options)
    notes: list[str] = []
    state = None
    if initial and choice.table.weights:
        state = load(choice.spec.weights_loader, choice.spec.name)(choice.spec.name, choice.table.weights)
    elif initial and choice.table.checkpoint is not None:
        state = state_dict.read_state_dict(choice.table.checkpoint)
    if state is not None:
        notes = state_dict.load_into(
            model, state, what=f"student `{choice.spec.name}`", classifier=choice.spec.classifier, allow_new_classifier=True
        )
    return model, notes


def build_deployed(profile: Profile, num_classes: int, head: Mapping[str, Any] | None) -> nn.Module:
    """The student with fresh weights, as it is evaluated and deployed: with the head that a method gave it, if one did."""
    model, _ = build_student(profile, num_classes, initial=False)
    if head is not None:
        heads.rebuild(model, profile.student.spec, head)
    return model


def build_teacher(profile: Profile, registry: Registry, classes: Sequence[str], run: Path | None = None) -> TeacherModel:
    """The teacher with its weights.

    Args:
        profile: has a [teacher].
        registry: where a deployed model's name is found.
        classes: those of the data, in the order of their labels.
        run: the run directory that stands for `teacher.profile`.

    Raises:
        DistillError: its weights do not fit it, or it knows other classes, or the same in another order.
    """
    choice = profile.teacher
    assert choice is not None
    folder = run or choice.table.run
    if folder is not None:
        model, info = deploy.load_student(folder, registry)
        found = registry.models.get(info["qualified"])
        if info["num_classes"] != len(classes):
            raise ProfileError(f"the teacher in `{folder}` knows {info['num_classes']} classes, the data set has {len(classes)}")
        if list(classes) != info["classes"] and sorted(classes) == sorted(info["classes"]):
            raise ProfileError(f"the teacher in `{folder}` knows the same classes as the data set, but in another order")
        return TeacherModel(found, model, info["model"], folder / "student.safetensors")
    spec, options = choice.spec, choice.options
    assert spec is not None
    assert options is not None
    model = build_model(spec, len(classes), options)
    if choice.table.checkpoint is not None:
        state = state_dict.read_state_dict(choice.table.checkpoint)
    else:
        state = load(spec.weights_loader, spec.name)(spec.name, choice.table.weights)
    notes = state_dict.load_into(model, state, what=f"teacher `{spec.name}`", classifier=spec.classifier)
    return TeacherModel(spec, model, spec.name, choice.table.checkpoint, tuple(notes))


def tta_kind(profile: Profile, images: Images, tta: str) -> Literal["", "flip", "ten_crop"]:
    """The test-time augmentation that is meant: `auto` is what the profile says, and that may leave it to the kind of data.

    Raises:
        ProfileError: an unknown word.
    """
    kind = profile.evaluate.tta if tta == "auto" else tta
    if kind == "auto":
        return "flip" if isinstance(images, ArrayImages) else "ten_crop"
    if kind == "":
        return ""
    if kind == "flip":
        return "flip"
    if kind == "ten_crop":
        return "ten_crop"
    raise ProfileError(f"unknown test-time augmentation `{kind}`", where="--tta", hint="allowed: flip, ten_crop")


def evaluation_loader(
    profile: Profile, splits: Splits, images: Images, device: torch.device, *, tta: str = "", processes: Processes = ALONE
) -> EvalLoader:
    """Batches of one split for an evaluation by these processes; `tta` is empty, `auto`, `flip` or `ten_crop`."""
    kind = tta_kind(profile, images, tta)
    return eval_loader(
        splits,
        images,
        batch_size=max(1, profile.evaluate.batch_size // {"flip": 2, "ten_crop": 10}.get(kind, 1)),
        device=device,
        workers=profile.train.workers,
        tta=kind,
        tta_resize=profile.evaluate.tta_resize,
        share=Share(processes.rank, processes.count),
    )


def assemble(
    profile: Profile, splits: Splits, teacher: TeacherModel | None, device: torch.device, processes: Processes = ALONE
) -> Experiment:
    """Builds everything for a run on one device, for this one of the processes that train together.

    Raises:
        DistillError: something does not fit; the message says what.
    """
    train = profile.train
    channels_last = train.precision in AUTOCAST
    wanted = [_wants(choice) for choice in profile.methods if choice.table.weight > 0]
    wants = Wants(tuple(name for one in wanted for name in one.student), tuple(name for one in wanted for name in one.teacher))
    shape = (splits.channels, splits.view.size, splits.view.size)
    model, notes = build_student(profile, splits.num_classes)
    model = _placed(model, device, channels_last)
    student = Tapped(model, profile.student.spec, [name for name in wants.student if not name.startswith(HEAD)])
    tapped = None
    if teacher is not None:
        frozen = _placed(teacher.model, device, channels_last).eval().requires_grad_(False)
        tapped = Tapped(frozen, teacher.spec, wants.teacher)
    setup = Setup(
        student=student.side(student.probe(shape), profile.student.spec.name),
        teacher=tapped.side(tapped.probe(shape), teacher.shown) if tapped is not None and teacher is not None else None,
        num_classes=splits.num_classes,
        labels=splits.train.labels,
        epochs=train.epochs,
    )
    # A head first: what the classifier received, and what the head's layers give, are captured at new places then, and all other
    # methods are built for the student as it is.
    owner = head_owner(_methods(profile, setup, _gives_head), profile.student.spec)
    head = None
    if owner is not None or any(name.startswith(HEAD) for name in wants.student):
        student.close()
        head = None if owner is None else _install_head(owner, model, profile.student.spec, device)
        student = Tapped(model, profile.student.spec, wants.student)
        setup = replace(setup, student=student.side(student.probe(shape), profile.student.spec.name))
    methods = _methods(profile, setup, built=owner)
    check_effects(profile.task_weight, methods)
    check_passes(methods, owner, model, profile.student.spec.name, shape)
    objective = Objective(student, methods, task_weight=profile.task_weight, label_smoothing=train.label_smoothing).to(device)
    if train.sync_batchnorm and processes.count > 1:
        for module in (objective, *(() if tapped is None else (tapped,))):
            synchronise(module)
    choice = profile.optimizer
    build_optimizer = partial(_build_optimizer, choice)
    loader = train_loader(
        splits,
        batch_size=train.batch_size,
        seed=profile.seed,
        device=device,
        workers=train.workers,
        channels_last=channels_last,
        share=Share(processes.rank, processes.count, train.accumulate),
    )
    parts = _parts(profile, methods)
    return Experiment(
        student=student,
        teacher=tapped,
        objective=objective,
        splits=splits,
        loader=loader,
        evaluation=lambda images: evaluation_loader(profile, splits, images, device, processes=processes),
        build_optimizer=build_optimizer,
        parts=parts,
        settings=Settings(
            seed=profile.seed,
            epochs=train.epochs,
            precision=train.precision,
            compiled=_compiled(profile, device, train.epochs * loader.steps, methods),
            clip_grad_norm=train.clip_grad_norm,
            ema=train.ema,
            ema_ramp=train.ema_ramp,
            keep_every=train.keep_every,
            evaluate_every=profile.evaluate.every,
            save_every=seconds(train.save_every),
            deterministic=train.deterministic,
        ),
        device=device,
        digest=profile.digest,
        head=head,
        notes=(*notes, *(teacher.notes if teacher is not None else ())),
        processes=processes,
    )


def _wants(choice: MethodChoice) -> Wants:
    """What a method and the methods that it wraps want."""
    wants = _method_class(choice).wants(choice.options)
    if choice.inner is None:
        return wants
    inner = _wants(choice.inner)
    return Wants(
        (*wants.student, *inner.student),
        (*wants.teacher, *inner.teacher),
        max(wants.passes, inner.passes),
        "batch" if "batch" in (wants.teacher_norm, inner.teacher_norm) else "running",
    )


def _methods(
    profile: Profile, setup: Setup, wanted: Callable[[MethodChoice], bool] = lambda _: True, built: Weighted | None = None
) -> list[Weighted]:
    """The wanted methods, each under a name of its own; `built` is one that is there already."""
    result: list[Weighted] = []
    seen: Counter[str] = Counter()
    for number, choice in enumerate(profile.methods):
        if choice.table.weight == 0:
            continue
        # Their own draws, so that a method does not change the student's initial weights.
        torch.manual_seed(mix(profile.seed, METHODS, number))
        seen[choice.spec.name] += 1
        count = seen[choice.spec.name]
        name = choice.spec.name if count == 1 else f"{choice.spec.name}-{count}"
        if built is not None and name == built.name:
            result.append(built)
            continue
        if not wanted(choice):
            continue
        wants = _wants(choice)
        result.append(
            Weighted(
                name,
                _build_method(choice, setup),
                choice.table.weight,
                choice.table.warmup_epochs,
                needs_teacher=_needs_teacher(choice),
                passes=wants.passes,
                teacher_norm=wants.teacher_norm,
                gather=choice.table.gather,
            )
        )
    return result


def _needs_teacher(choice: MethodChoice) -> bool:
    return choice.spec.needs_teacher or (choice.inner is not None and _needs_teacher(choice.inner))


def _build_method(choice: MethodChoice, setup: Setup) -> Method:
    cls = _method_class(choice)
    if choice.inner is None:
        return cls(choice.options, setup)
    return cls(choice.options, setup, _build_method(choice.inner, setup))  # type: ignore[call-arg]


def _gives_head(choice: MethodChoice) -> bool:
    """Whether a method, or one that it wraps, may replace the classifier."""
    return choice.spec.gives_head or (choice.inner is not None and _gives_head(choice.inner))


def _install_head(owner: Weighted, model: nn.Module, spec: ModelSpec, device: torch.device) -> Mapping[str, Any]:
    head = owner.method.head()
    assert head is not None
    head.layers.to(device)
    return heads.install(model, spec, head)


def _parts(profile: Profile, methods: list[Weighted]) -> tuple[Part, ...]:
    """The phases of the methods, in the order of the profile, and the main part."""
    rate, table = _base_rate(profile.optimizer.options), profile.schedule
    parts: list[Part] = []
    begin = 0
    for entry in methods:
        for phase in entry.method.phases():
            check_phase(entry, phase)
            if any(part.name == f"{entry.name}.{phase.name}" for part in parts):
                raise PluginError(f"`{entry.name}` has two phases called `{phase.name}`")
            constant = schedule("constant", rate if phase.lr is None else phase.lr)
            parts.append(Part(f"{entry.name}.{phase.name}", begin, phase.epochs, constant, entry.name, phase))
            begin += phase.epochs
    whole = schedule(
        table.name,
        rate,
        milestones=table.milestones,
        gamma=table.gamma,
        min_lr=table.min_lr,
        warmup=table.warmup,
        warmup_lr=table.warmup_lr,
    )
    return (*parts, Part(MAIN, begin, profile.train.epochs, whole))


def _build_optimizer(choice: OptimizerChoice, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    optimizer = load(choice.spec.implementation, choice.spec.name)(groups, choice.options)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise PluginError(f"the builder of the optimizer `{choice.spec.name}` returned {type(optimizer).__name__}, not an optimizer")
    if isinstance(optimizer, SeparateGradients) != choice.spec.separate_gradients:
        raise PluginError(f"the optimizer `{choice.spec.name}` and its declaration disagree on `separate_gradients`")
    return optimizer


def _method_class(choice: MethodChoice) -> type[Method]:
    cls: Any = load(choice.spec.implementation, choice.spec.name)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise PluginError(f"the implementation of the method `{choice.spec.name}` is no subclass of `distillctl.Method`")
    if (cls.head not in (Method.head, Wrapper.head)) != choice.spec.gives_head:
        raise PluginError(f"the method `{choice.spec.name}` and its declaration disagree on `gives_head`", hint=_GIVES_HEAD)
    return cls


def _placed(model: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    placed = model.to(device)
    return placed.to(memory_format=torch.channels_last) if channels_last else placed


def _base_rate(options: Options) -> float:
    rate = getattr(options, "lr", None)
    if not isinstance(rate, float):
        raise PluginError(f"the optimizer's options {type(options).__name__} have no field `lr`")
    return rate


def _compiled(profile: Profile, device: torch.device, steps: int, methods: list[Weighted]) -> bool:
    """Whether to compile. A pure function of the profile and the device, so that a resumed run does the same."""
    separate = profile.optimizer.spec.separate_gradients
    able = all(m.method.compiles for m in methods) and not separate
    if profile.train.compile == "on" and separate:
        # A compiled backward gives zeros to what a loss does not reach, and momentum treats zeros unlike nothing.
        raise ProfileError(
            f'`train.compile = "on"`, but `{profile.optimizer.spec.name}` wants two gradients, which a compiled step cannot tell apart',
            hint='use `compile = "auto"`',
        )
    if profile.train.compile == "on" and not able:
        names = ", ".join(f"`{m.name}`" for m in methods if not m.method.compiles)
        raise ProfileError(f'`train.compile = "on"`, but {names} cannot be compiled', hint='use `compile = "auto"`')
    if profile.train.compile == "auto":
        return able and device.type == "cuda" and steps >= _COMPILE_REPAYS
    return profile.train.compile == "on"


def sides(experiment: Experiment) -> list[tuple[str, Side]]:
    """Student and teacher with the shapes of their taps, for display."""
    shape = (experiment.splits.channels, experiment.splits.view.size, experiment.splits.view.size)
    result = [("student", experiment.student.side(experiment.student.probe(shape), experiment.student.spec.name))]
    if experiment.teacher is not None:
        result.append(("teacher", experiment.teacher.side(experiment.teacher.probe(shape), experiment.teacher.spec.name)))
    return result
