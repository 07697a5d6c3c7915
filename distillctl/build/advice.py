"""What a checked profile says that will hardly be meant: not wrong, but without its effect. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from distillctl.profile.schema import MethodChoice, Profile
from distillctl.text import counted

_MUCH = 0.05
"""Share of the initial weights in an average that no longer stands for the student."""


def advice(profile: Profile, processes: int | None = None) -> tuple[str, ...]:
    """One sentence for each.

    processes: how many train together; None where that is not known yet, as in `check`.
    """
    return (
        *_warm_ups(profile),
        *_idle_every(profile),
        *_lone_images(profile, processes or 1),
        *_lone_process(profile, processes),
        *_dot(profile),
        *_smoothing(profile),
        *_balanced_twice(profile),
    )


def average_advice(profile: Profile, steps: int) -> tuple[str, ...]:
    """The same of the moving average. steps: in an epoch."""
    train = profile.train
    left, updates = float(train.ema > 0), steps * train.epochs
    if train.ema > 0 and updates < train.ema_ramp:
        reached = train.ema * (1 - math.exp(-updates / train.ema_ramp))
        return (
            f"the decay of the moving average rises over {train.ema_ramp:g} steps (`train.ema_ramp`), and the run has {updates}: "
            f"it never passes {reached:.2g} of {train.ema:g}",
        )
    for n in range(1, updates + 1):
        if left < _MUCH:
            return ()
        left *= train.ema * (1 - math.exp(-n / train.ema_ramp)) if train.ema_ramp > 0 else train.ema
    if left < _MUCH:
        return ()
    share = f"{left:.0%} of the moving average are still the initial weights"
    return (f"after the run's {updates} steps {share}: lower `train.ema`, {train.ema:g}, or state an `ema_ramp`",)


def _active(profile: Profile) -> list[MethodChoice]:
    """Methods that have terms."""
    return [choice for choice in profile.methods if choice.table.weight > 0 and choice.spec.name != "none"]


def _warm_ups(profile: Profile) -> Iterator[str]:
    epochs = profile.train.epochs
    for number, choice in enumerate(profile.methods):
        length, name = choice.table.warmup_epochs, choice.spec.name
        if choice not in _active(profile):
            continue
        if length > epochs:
            yield (
                f"the weight of `{name}` grows over {length:g} epochs (`warmup_epochs`), and the run has {epochs}: "
                f"it never passes {epochs / length:.0%} of {choice.table.weight:g}"
            )
        elif 0 < length <= 1 and _stated(profile, f"method.{number}.warmup_epochs", "method.warmup_epochs"):
            yield f"`warmup_epochs = {length:g}` of `{name}` has no effect: its first epoch has the whole weight already"


def _stated(profile: Profile, *keys: str) -> bool:
    """Whether the profile or the command line says so, and not a preset."""
    return any(profile.origins.get(key, "").startswith(("profile", "command line")) for key in keys)


def _idle_every(profile: Profile) -> Iterator[str]:
    epochs = profile.train.epochs
    if profile.evaluate.every > epochs:
        yield f"`evaluate.every = {profile.evaluate.every}` is more than the run's {epochs} epochs: only the last is evaluated"
    patience = profile.train.patience
    if patience is not None and patience >= epochs:
        yield f"`train.patience = {patience}` has no effect: the run has {counted(epochs, 'epoch')}"
    if profile.train.keep_every > epochs:
        yield f"`train.keep_every = {profile.train.keep_every}` is more than the run's {epochs} epochs: no checkpoint is kept"


def _lone_images(profile: Profile, processes: int) -> Iterator[str]:
    """Methods that compare images with each other, where a process sees one; a batch is cut into no smaller parts than two for each."""
    train = profile.train
    parts = max(1, min(train.accumulate, train.batch_size // (2 * processes)))
    if parts < train.accumulate:
        yield f"`train.accumulate = {train.accumulate}` acts as {parts}: every part of a batch of {train.batch_size} has two images or more"
    for choice in _active(profile):
        seen = train.batch_size / parts / (1 if choice.table.gather else processes)
        if seen < 2 and _compares(choice):
            yield (
                f"`{choice.spec.name}` compares the images of a batch with each other and sees one at a time, so that nothing is compared: "
                "raise `train.batch_size`"
            )


def _compares(choice: MethodChoice) -> bool:
    own = choice.spec.compares_images and not choice.spec.remembers_images
    return own or (choice.inner is not None and _compares(choice.inner))


def _lone_process(profile: Profile, processes: int | None) -> Iterator[str]:
    if processes == 1:
        if profile.train.sync_batchnorm:
            yield "`train.sync_batchnorm` has no effect with one process: `--nproc N` starts N"
        for choice in _active(profile):
            if choice.table.gather:
                yield f"`gather` of `{choice.spec.name}` has no effect with one process: `--nproc N` starts N"


def _dot(profile: Profile) -> Iterator[str]:
    optimizer = profile.optimizer.spec
    if optimizer.separate_gradients and not (_active(profile) and profile.task_weight > 0):
        missing = "a label loss" if _active(profile) else "a method"
        yield f"`{optimizer.name}` keeps the gradients of methods and label loss apart, and this run is without {missing}"


def _balanced_twice(profile: Profile) -> Iterator[str]:
    if profile.train.sampler == "balanced" and profile.train.class_weights is not None:
        yield "`train.class_weights` counts rare classes more beside `train.sampler`, which draws each class equally often already"


def _smoothing(profile: Profile) -> Iterator[str]:
    for name in ("label_smoothing", "focal", "poly", "class_weights"):
        if getattr(profile.train, name) and profile.task_weight == 0:
            yield f"`train.{name}` has no effect with `task_weight = 0`: there is no label loss"
