"""A small made-up registry and a profile that is right, from which the tests make profiles that are wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from distillctl import DatasetSpec, MethodSpec, ModelSpec, OptimizerSpec, Options, PathOption, Preset, WeightsInput, hookimpl
from distillctl.builtin import methods, optimizers, trackers
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile


class ToyOptions(Options):
    root: PathOption
    """Folder of the images."""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share for validation."""
    augment: Literal["none", "crop_flip"] = "none"
    """How images are cut."""
    sizes: list[int] = [32]
    """Side lengths."""


class BigOptions(Options):
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of features that is dropped."""
    depth: int | None = None
    """Number of blocks; by the model's name if not given."""


class FixedOptions(Options):
    image_size: Annotated[int, Field(ge=16, multiple_of=16)] = 32
    """Side length in pixels of the images."""


class DkOptions(Options):
    temperature: Annotated[float, Field(gt=0)] = 4.0
    """Divides the logits."""
    beta: Annotated[float, Field(gt=0)] = 8.0
    """Weight of the other classes."""
    low: int = 0
    """Lower end."""
    high: int = 1
    """Upper end."""

    @model_validator(mode="after")
    def _ordered(self) -> DkOptions:
        if self.low > self.high:
            raise ValueError("`low` must not be above `high`")
        return self


class WrapOptions(Options):
    loops: Annotated[int, Field(ge=1)] = 10
    """Epochs of the curriculum."""


class AroundOptions(Options):
    temperature: float | None = None
    """Takes the place of the inner method's."""


@hookimpl
def register_method() -> list[MethodSpec]:
    common: dict[str, Any] = {"summary": "for tests", "implementation": "nowhere:Nothing", "kind": "logits"}
    dk = MethodSpec(
        name="dk",
        options="distillctl_test_options:DkOptions",
        takes_temperature=True,
        warmup_epochs=20.0,
        presets=(
            Preset(dataset="toys", values={"beta": 6.0}, source="table 1"),
            Preset(dataset="toys", teacher="big", student="sm*", values={"beta": 2.0, "weight": 0.5}, source="table 2"),
            Preset(when={"high": 5}, values={"weight": 7.0, "warmup_epochs": 3.0}, source="table 3"),
        ),
        **common,
    )
    return [
        dk,
        MethodSpec(
            name="wrap",
            options="distillctl_test_options:WrapOptions",
            inner="kd",
            weight=0.9,
            task_weight=0.1,
            presets=(
                Preset(inner="dk", values={"weight": 4.0}, source="table 4"),
                Preset(inner="dk", student="seeing", values={"inner.beta": 1.5, "inner.low": -1}, source="table 6"),
            ),
            **common,
        ),
        MethodSpec(
            name="around",
            options="distillctl_test_options:AroundOptions",
            inner="wrap",
            inner_kinds=("logits",),
            takes_temperature=True,
            **common,
        ),
        MethodSpec(name="feat", **{**common, "kind": "features"}),
        MethodSpec(name="remembers", mixed="refused", **{**common, "kind": "features"}),
        MethodSpec(name="alone", needs_teacher=False, **common),
        MethodSpec(name="odd", options="distillctl_test_options:NoOptions", **common),
        MethodSpec(name="lost", options="distillctl_test_missing:Options", **common),
        MethodSpec(
            name="lost_preset",
            options="distillctl_test_missing:Options",
            presets=(Preset(when={"high": 5}, values={"weight": 7.0}, source="table 5"),),
            **common,
        ),
    ]


@hookimpl
def register_model() -> list[ModelSpec]:
    common: dict[str, Any] = {"summary": "for tests", "implementation": "nowhere:nothing"}
    return [
        ModelSpec(name="small", **common),
        ModelSpec(name="big", options="distillctl_test_options:BigOptions", weights=("V1", "V2"), weights_loader="nowhere:load", **common),
        ModelSpec(
            name="seeing",
            weights=("V1", "V2"),
            weights_input={"V2": WeightsInput(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=64)},
            **common,
        ),
        ModelSpec(
            name="fixed",
            options="distillctl_test_options:FixedOptions",
            weights=("V1",),
            weights_input={"V1": WeightsInput(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=64)},
            **common,
        ),
        ModelSpec(name="vgg13", namespace="one", **common),
        ModelSpec(name="vgg13", namespace="two", **common),
    ]


@hookimpl
def register_dataset() -> DatasetSpec:
    return DatasetSpec(
        name="toy", family="toys", summary="for tests", implementation="nowhere:nothing", options="distillctl_test_options:ToyOptions"
    )


@hookimpl
def register_optimizer() -> OptimizerSpec:
    return OptimizerSpec(name="plain", summary="for tests", implementation="nowhere:nothing")


def _break() -> ModuleType:
    raise ImportError("no module named triton")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """kd, none, sgd and adamw as they are, and made-up plugins for all else."""
    options = ModuleType("distillctl_test_options")
    options.__dict__.update(
        ToyOptions=ToyOptions,
        BigOptions=BigOptions,
        FixedOptions=FixedOptions,
        DkOptions=DkOptions,
        WrapOptions=WrapOptions,
        AroundOptions=AroundOptions,
        NoOptions=dict,
    )
    monkeypatch.setitem(sys.modules, "distillctl_test_options", options)
    made = SimpleNamespace(
        register_method=register_method,
        register_model=register_model,
        register_dataset=register_dataset,
        register_optimizer=register_optimizer,
    )
    registry = Registry()
    registry.add(Plugin("methods", "distillctl", "0"), lambda: methods)
    registry.add(Plugin("optimizers", "distillctl", "0"), lambda: optimizers)
    registry.add(Plugin("trackers", "distillctl", "0"), lambda: trackers)
    registry.add(Plugin("made", "distillctl-made", "1"), lambda: made)
    registry.add(Plugin("crd", "distillctl-crd", "1"), _break)
    assert [p.name for p in registry.broken] == ["crd"]
    return registry


SECTIONS = {
    "": "seed = 1",
    "dataset": 'name = "toy"\nroot = "images"',
    "student": 'name = "small"',
    "teacher": 'name = "big"\ncheckpoint = "teacher.pth"',
    "method": 'name = "kd"',
    "train": "epochs = 2",
}


def profile_text(**changes: str | None) -> str:
    """The right profile with other text in some tables; None leaves a table out; `top` is what stands above all tables."""
    sections = {**SECTIONS, **{("" if k == "top" else k): v for k, v in changes.items()}}
    parts = []
    for name, body in sections.items():
        if body is not None:
            parts.append(body if not name or body.startswith("[") else f"[{name}]\n{body}")
    return "\n\n".join(parts) + "\n"


@pytest.fixture
def text() -> Callable[..., str]:
    return profile_text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: empty but for a file of weights, a run directory and the profile of a teacher."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher.pth").write_bytes(b"weights")
    (tmp_path / "runs" / "done").mkdir(parents=True)
    (tmp_path / "runs" / "done" / "model.json").write_text('{"model": "big"}')
    (tmp_path / "runs" / "begun").mkdir()
    (tmp_path / "runs" / "begun" / "run.json").write_text("{}")
    (tmp_path / "runs" / "foreign").mkdir()
    (tmp_path / "runs" / "foreign" / "model.json").write_text('{"model": "resnet20", "qualified": "cifar/resnet20"}')
    (tmp_path / "teacher.toml").write_text(profile_text(student='name = "big"', teacher=None, method=None))
    return tmp_path


@pytest.fixture
def read(folder: Path, registry: Registry) -> Callable[..., Profile]:
    """Writes a profile and reads it."""

    def read(content: str | bytes | None = None, name: str = "profile.toml", **arguments: Any) -> Profile:
        path = Path(name)
        if content is not None or not path.exists():
            content = profile_text() if content is None else content
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load(path, registry=registry, **arguments)

    return read
