"""A step that was captured gives the weights of one that was not: every method that says it can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from distillctl import ArrayImages, DatasetSpec, Splits, View, hookimpl
from distillctl.build.experiment import assemble
from distillctl.build.models import TeacherModel, build_model
from distillctl.engine.experiment import Experiment
from distillctl.engine.step import Step
from distillctl.errors import RunError
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing import make_task, options_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

REGISTRY = Registry.load()
CAPTURABLE = sorted(spec.name for spec in REGISTRY.methods if spec.capturable)
PROFILE = """
seed = 1
[dataset]
name = "noise"
[student]
name = "{student}"
{teacher}
[[method]]
name = "{method}"
{extra}
[optimizer]
lr = 0.02
[schedule]
name = "cosine"
[train]
epochs = 3
batch_size = 32
compile = "off"
{train}
"""
TEACHER = """[teacher]
name = "{name}"
checkpoint = "{file}"
allow_untrained = true
"""


def noise(count: int = 176, classes: int = 100) -> Splits:
    """Images whose brightness tells the class; five whole batches of 32 and a half one."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 100, (count, 32, 32, 3), generator=draw) + labels[:, None, None, None]
    images = ArrayImages(pixels.to(torch.uint8), labels)
    names = tuple(f"c{k:02d}" for k in range(classes))
    return Splits(images, None, images, names, (0.5,) * 3, (0.25,) * 3, View(32, "crop_flip", padding=4), "noise")


@pytest.fixture(scope="module")
def registry() -> Registry:
    data = DatasetSpec(name="noise", summary="made up", implementation="nowhere:noise")
    REGISTRY.add(Plugin("tiny", "tiny", "0"), lambda: SimpleNamespace(register_dataset=hookimpl(lambda: data), __name__="tiny"))
    return REGISTRY


Make = Callable[..., Experiment]


@pytest.fixture
def make(registry: Registry, tmp_path: Path) -> Iterator[Make]:
    built: list[Experiment] = []

    def one(method: str, graph: str, *, train: str = "", extra: str = "", compiled: bool = False) -> Experiment:
        spec = registry.methods.get(method)
        student, teacher = "cifar/vgg8", "cifar/vgg13"
        file = tmp_path / "teacher.pt"
        file.touch()
        needs = spec.needs_teacher
        text = PROFILE.format(
            student=student, method=method, extra=extra, train=train, teacher=TEACHER.format(name=teacher, file=file) if needs else ""
        )
        (tmp_path / "p.toml").write_text(text)
        profile = load(tmp_path / "p.toml", registry=registry)
        task = make_task(noise())
        model = None
        if needs:
            torch.manual_seed(1)
            found = registry.models.get(teacher)
            model = TeacherModel(found, build_model(task, found, options_of(found)), teacher, None)
        experiment = assemble(profile, task, model, torch.device("cuda"))
        experiment.settings = replace(experiment.settings, cuda_graph=graph, compiled=compiled)  # type: ignore[arg-type]
        built.append(experiment)
        return experiment

    yield one
    for experiment in built:
        experiment.close()


def trained(experiment: Experiment, epochs: int = 3) -> tuple[Step, dict[str, Tensor], list[float]]:
    """The step, the weights it left, and the totals of the epochs."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    step, totals = Step(experiment), []
    for epoch in range(epochs):
        for number, batch in enumerate(experiment.loader.epoch(epoch)):
            step(batch, epoch * experiment.loader.steps + number)
        step.check()
        totals.append(step.learner.meter.read().total)
        step.learner.meter.restart()
    state = {**experiment.model.state_dict(), **experiment.objective.methods.state_dict()}
    return step, {name: value.clone() for name, value in state.items()}, totals


def close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    """No tensor is further away than this, in relation to its norm."""
    far = {}
    for name, value in one.items():
        if value.is_floating_point() and value.numel():
            difference = float((value - other[name]).norm() / (value.norm() + 1e-3))
            if not difference <= tolerance:
                far[name] = difference
    assert not far, f"{len(far)} of {len(one)}: {dict(list(far.items())[:4])}"


@pytest.mark.parametrize("method", CAPTURABLE)
def test_a_captured_run_is_the_run_that_was_not(make: Make, method: str, ieee: None) -> None:
    _, plain, before = trained(make(method, "off"))
    step, graphed, after = trained(make(method, "on"))
    assert step.graph is not None
    assert step.graph.captured >= 1
    assert after == pytest.approx(before, rel=2e-3)
    close(plain, graphed, 2e-2)


@pytest.mark.parametrize("train", ['precision = "bf16"', "ema = 0.9", "accumulate = 2", "clip_grad_norm = 0.5", "mixup = 1.0"])
def test_with_what_a_profile_may_say(make: Make, train: str) -> None:
    _, plain, before = trained(make("kd", "off", train=train))
    step, graphed, after = trained(make("kd", "on", train=train))
    assert step.graph is not None
    assert step.graph.captured >= 1
    assert after == pytest.approx(before, rel=1e-2)
    close(plain, graphed, 5e-2)


def test_draws_of_a_replay_are_those_of_its_own_step(make: Make) -> None:
    """Dropout and whatever methods draw: a graph that drew the same each time would be off at once."""
    if "rdrop" not in CAPTURABLE:
        pytest.skip("rdrop is not captured")
    _, _, before = trained(make("rdrop", "off"))
    _, _, after = trained(make("rdrop", "on"))
    assert after == pytest.approx(before, rel=2e-3)


def test_a_compiled_step_is_captured_too(make: Make) -> None:
    _, _, before = trained(make("kd", "off", train='precision = "bf16"'))
    step, _, after = trained(make("kd", "on", train='precision = "bf16"', compiled=True))
    assert step.graph is not None
    assert step.graph.captured >= 1
    assert after == pytest.approx(before, rel=2e-2)


def test_a_step_that_cannot_be_captured_is_taken_as_usual(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make("kd", "auto")
    original = experiment.task.label_loss
    monkeypatch.setattr(experiment.task, "label_loss", lambda *a: {k: v + 0 * float(v.detach()) for k, v in original(*a).items()})
    step, weights, totals = trained(experiment)
    assert step.graph is not None
    assert step.graph.captured == 0
    assert "cannot be captured" in step.graph.told
    print(step.graph.told)
    _, plain, before = trained(make("kd", "off"))
    assert totals == pytest.approx(before, rel=2e-3)
    close(plain, weights, 2e-2)
    torch.rand(3, device="cuda")  # the generator is not part of a capture any more


def test_what_is_not_finite_stops_a_captured_run_and_changes_no_weight(make: Make) -> None:
    experiment = make("kd", "on")
    step, weights, _ = trained(experiment, 2)
    steps = experiment.loader.steps
    batches = list(experiment.loader.epoch(2))
    step(replace(batches[0], images=batches[0].images * float("nan")), 2 * steps)
    with pytest.raises(RunError, match=f"the input .* at step {2 * steps + 1}"):
        step(batches[1], 2 * steps + 1)
    now = experiment.model.state_dict()
    assert all(torch.equal(now[name], weights[name]) for name, _ in experiment.model.named_parameters())


@pytest.mark.parametrize("graph", ["off", "on"])
def test_nobody_waits_for_the_device(make: Make, graph: str) -> None:
    experiment = make("kd", graph)
    step, _, _ = trained(experiment, 2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number, batch in enumerate(experiment.loader.epoch(2)):
            step(batch, 2 * experiment.loader.steps + number)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("method", [m for m in ("kd", "crd", "reviewkd") if m in CAPTURABLE])
def test_times(make: Make, method: str) -> None:
    """Printed, not judged."""
    for train, graph in (("", "off"), ("", "on"), ('precision = "bf16"', "off"), ('precision = "bf16"', "on")):
        experiment = make(method, graph, train=train)
        step, _, _ = trained(experiment, 3)
        batch = next(experiment.loader.epoch(0))
        torch.cuda.synchronize()
        started = time.perf_counter()
        for number in range(100):
            step(batch, number % experiment.loader.steps)
        torch.cuda.synchronize()
        print(f"TIME {method} vgg13 vgg8 batch 32 {train or 'fp32'} graph {graph}: {(time.perf_counter() - started) * 10:.3f} ms a step")
