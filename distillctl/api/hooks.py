"""The seven hooks. A plugin package implements those it needs and names its module as an entry point:

    [project.entry-points.distillctl]
    mgd = "distillctl_mgd"

Each hook takes nothing and returns one spec or a list of them. A module that also says `DISTILLCTL_API = 1` is refused with one sentence
by a distillctl whose interface has changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from distillctl.api.specs import CommandSpec, DatasetSpec, MethodSpec, ModelFamily, ModelSpec, OptimizerSpec, TaskSpec, TrackerSpec

PROJECT = "distillctl"
API_VERSION = 1
"""Of the hooks, the specs and what they name; it changes when plugins have to."""
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_method() -> MethodSpec | Sequence[MethodSpec]:  # type: ignore[empty-body]
    """Distillation methods."""


@hookspec
def register_model() -> ModelSpec | ModelFamily | Sequence[ModelSpec | ModelFamily]:  # type: ignore[empty-body]
    """Image classifiers, one by one or as families of them."""


@hookspec
def register_dataset() -> DatasetSpec | Sequence[DatasetSpec]:  # type: ignore[empty-body]
    """Data sets."""


@hookspec
def register_optimizer() -> OptimizerSpec | Sequence[OptimizerSpec]:  # type: ignore[empty-body]
    """Optimizers."""


@hookspec
def register_task() -> TaskSpec | Sequence[TaskSpec]:  # type: ignore[empty-body]
    """What data sets can ask of a student: classification, detection, …"""


@hookspec
def register_tracker() -> TrackerSpec | Sequence[TrackerSpec]:  # type: ignore[empty-body]
    """What is told of a run: displays, files, services."""


@hookspec
def register_command() -> CommandSpec | Sequence[CommandSpec]:  # type: ignore[empty-body]
    """Commands of the command line."""
