"""What a profile says reaches the experiment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision

from distillctl.api.method import Progress
from distillctl.api.task import LossOptions
from distillctl.build.data import build_task
from distillctl.build.experiment import _compiled, assemble
from distillctl.build.models import build_teacher
from distillctl.engine.experiment import Experiment
from distillctl.engine.precision import precision_on
from distillctl.engine.step import Step
from distillctl.errors import MachineError, ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

PROFILE = """
seed = 3
[dataset]
name = "digits"
limit = 100
[student]
name = "resnet8"
[teacher]
name = "resnet14"
checkpoint = "teacher.pt"
allow_untrained = true
[method]
name = "kd"
[optimizer]
lr = 0.05
[train]
epochs = 2
batch_size = 20
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> Iterator[Any]:
    from distillctl_cifar.models import resnet14

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    torch.save(resnet14(num_classes=10).state_dict(), "teacher.pt")
    Path("profile.toml").write_text(PROFILE)
    made = []

    def make(*overrides: str) -> Experiment:
        profile = load("profile.toml", registry=registry, overrides=overrides)
        task = build_task(profile, registry)
        teacher = [build_teacher(one, registry, task) for one in profile.by_teacher]
        made.append(assemble(profile, task, teacher, torch.device("cpu")))
        return made[-1]

    yield make
    for experiment in made:
        experiment.close()


def test_label_smoothing_reaches_the_label_loss(build: Any) -> None:
    experiment = build("train.label_smoothing=0.2")
    batch = next(iter(experiment.loader.epoch(0)))
    experiment.objective.eval()
    with torch.no_grad():
        looks = experiment.teacher.look(batch, ["running"])
        task = experiment.objective(batch, looks, Progress(torch.ones(()), torch.zeros(()))).terms["task"]
        logits = experiment.model(batch.images)
    torch.testing.assert_close(task, F.cross_entropy(logits, batch.labels, label_smoothing=0.2))
    assert not torch.isclose(task, F.cross_entropy(logits, batch.labels))


@pytest.mark.parametrize(
    ("option", "expected"),
    [("focal=2.0", {"focal": 2.0}), ("poly=0.5", {"poly": 0.5}), ('class_weights="balanced"', {"class_weights": "balanced"})],
)
def test_what_shapes_the_label_loss_reaches_it(build: Any, option: str, expected: dict[str, Any]) -> None:
    made = build(f"train.{option}")
    assert made.task.loss == LossOptions(**expected)
    batch = next(iter(made.loader.epoch(0)))
    logits = torch.randn(batch.count, made.task.outputs)
    changed = made.task.label_loss({"logits": logits}, batch)[""]
    plain = F.cross_entropy(logits, batch.labels)
    balanced = "class_weights" in expected and len(set(torch.bincount(made.task.data.train.labels).tolist())) == 1
    assert bool(torch.isclose(changed, plain)) == balanced


@pytest.mark.parametrize("method", ["kd", "none"])
def test_a_sampler_changes_what_is_learnt(build: Any, method: str) -> None:
    if method == "none":
        Path("profile.toml").write_text(PROFILE[: PROFILE.index("[teacher]")] + PROFILE[PROFILE.index("[optimizer]") :])
    trained = []
    for sampler in ([], ['train.sampler="balanced"']):
        made = build(*sampler)
        step = Step(made, made.main)
        step(next(iter(made.loader.epoch(0))), 0)
        trained.append(made.model.fc.weight.detach().clone())
    assert not torch.equal(*trained)


def test_auto_is_the_best_precision_of_the_device(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build('train.precision="auto"')
    assert made.settings.precision == "fp32"
    assert '`train.precision = "auto"` is fp32 here' in made.notes
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert precision_on(torch.device("cuda"), "auto") == expected
    assert precision_on(torch.device("cuda"), "fp32") == "fp32"


def test_cycles_reach_the_schedule(build: Any) -> None:
    (main,) = build('schedule={name="cosine", cycles=2.0}').parts
    assert main.schedule(0.5) == pytest.approx(0.05)
    (main,) = build('schedule={name="cosine", cycles=2.0, cycle="wave"}').parts
    assert main.schedule(0.25) == pytest.approx(0.0)


def test_a_student_that_is_the_beginning_of_its_teacher(build: Any) -> None:
    """It starts from the teacher's weights, and has the teacher's first stages and no others."""
    experiment = build("student={name='resnet14', checkpoint='teacher.pt', stages=2}", "method={name='at'}")
    assert list(experiment.student.spec.stages) == ["stem", "stage1:pre", "stage1", "stage2:pre", "stage2"]
    assert any("left out (first `layer3." in note for note in experiment.notes)
    for name, value in experiment.model.state_dict().items():
        same = torch.equal(value, torch.load("teacher.pt").get(name, torch.zeros(0)))
        assert same is not name.startswith("fc."), name


def test_a_student_is_told_what_its_weights_were_made_to_see(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a loader of weights that takes the options of the model gets them."""
    asked = []

    def load_weights(name: str, weights: str, options: Any) -> dict[str, torch.Tensor]:
        asked.append((name, weights, options.stages))
        state: dict[str, torch.Tensor] = torchvision.models.resnet18().state_dict()
        return state

    monkeypatch.setattr("distillctl.builtin.torchvision_models.load_weights", load_weights)
    experiment = build("student={name='torchvision/resnet18', weights='IMAGENET1K_V1', stages=1}")
    assert asked == [("resnet18", "IMAGENET1K_V1", 1)]
    (note,) = [note for note in experiment.notes if "were made with" in note]
    assert note.startswith(
        "the weights `IMAGENET1K_V1` of the student were made with mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225], "
        "and it sees mean [0.3"
    )
    assert not [note for note in build().notes if "were made with" in note]


def test_a_teacher_that_ends_early_has_no_later_stages(build: Any) -> None:
    from distillctl_cifar.builder import build as network
    from distillctl_cifar.model_options import ResNetOptions

    torch.save(network("resnet14", 10, ResNetOptions(stages=2)).state_dict(), "short.pt")
    teacher = build("teacher.checkpoint='short.pt'", "teacher.stages=2", "method={name='at'}").network
    assert "stage2" in teacher.spec.stages
    assert "stage3" not in teacher.spec.stages


def test_a_phase_has_its_own_rate(build: Any) -> None:
    experiment = build('method=[{name="ft", init_epochs=1, init_lr=0.003}, {name="kd", task_weight=1.0}]')
    phase, main = experiment.parts
    assert (phase.schedule(0.0), main.schedule(0.0)) == (0.003, 0.05)
    assert (phase.begin, main.begin, experiment.epochs) == (0, 1, 3)


def test_the_teacher_is_frozen_and_in_evaluation_mode(build: Any) -> None:
    network = build().network
    assert not any(module.training for module in network.model.modules())
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("override", "setting", "value"),
    [
        ("train.ema=0.9", "ema", 0.9),
        ("train.clip_grad_norm=0.5", "clip_grad_norm", 0.5),
        ("train.keep_every=2", "keep_every", 2),
        ("evaluate.every=2", "evaluate_every", 2),
        ('train.precision="bf16"', "precision", "bf16"),
        ('train.save_every="90s"', "save_every", 90.0),
        ("seed=8", "seed", 8),
        ("train.epochs=5", "epochs", 5),
        ("train.deterministic=true", "deterministic", True),
    ],
)
def test_settings_are_those_of_the_profile(build: Any, override: str, setting: str, value: object) -> None:
    assert getattr(build(override).settings, setting) == value


def test_a_teacher_sees_its_own_normalisation_and_size(build: Any) -> None:
    """And the student the data's, in the same step."""
    made = build("teacher.mean=[0.5, 0.5, 0.5]", "teacher.std=[0.25, 0.25, 0.25]", "teacher.image_size=16")
    assert (
        "the teacher sees images normalised by mean [0.5, 0.5, 0.5] and std [0.25, 0.25, 0.25] and at 16 instead of 8 pixels" in made.notes
    )
    seen: list[torch.Tensor] = []
    made.network.model.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    batch = next(iter(made.loader.epoch(0)))
    made.teacher.look(batch, ("running",))
    data = made.splits
    pixels = batch.images * torch.tensor(data.std).reshape(1, 3, 1, 1) + torch.tensor(data.mean).reshape(1, 3, 1, 1)
    expected = F.interpolate((pixels - 0.5) / 0.25, size=(16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ProfileError, match=r"`teacher\.mean` must have 3 numbers, one for each channel, not 2"):
        build("teacher.mean=[0.5, 0.5]")


def test_each_of_several_teachers_sees_its_own_normalisation_and_size(build: Any) -> None:
    table = 'name="resnet14", checkpoint="teacher.pt", allow_untrained=true'
    made = build(f"teacher=[{{{table}}}, {{{table}, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25], image_size=16}}]")
    told = "the teacher sees images normalised by mean [0.5, 0.5, 0.5] and std [0.25, 0.25, 0.25] and at 16 instead of 8 pixels"
    assert f"resnet14-2: {told}" in made.notes
    seen: list[torch.Tensor] = []
    for network in made.networks:
        network.model.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    batch = next(iter(made.loader.epoch(0)))
    looks = made.teacher.look(batch, made.objective.teacher_norms)
    assert [tuple(one.shape[2:]) for one in seen] == [(8, 8), (16, 16)]
    assert torch.equal(seen[0], batch.images)
    data = made.splits
    pixels = batch.images * torch.tensor(data.std).reshape(1, 3, 1, 1) + torch.tensor(data.mean).reshape(1, 3, 1, 1)
    expected = F.interpolate((pixels - 0.5) / 0.25, size=(16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen[1], expected, rtol=1e-4, atol=1e-4)
    mean = (looks["running"]["logits"].softmax(1) + looks["running@1"]["logits"].softmax(1)) / 2
    torch.testing.assert_close(made.network.model(batch.images).softmax(1), mean)  # as evaluations ask them
    with pytest.raises(ProfileError, match=r"`teacher\.1\.mean` must have 3 numbers, one for each channel, not 2"):
        build(f"teacher=[{{{table}}}, {{{table}, mean=[0.5, 0.5]}}]")


def test_several_teachers_are_compiled_each(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def compile_(module: torch.nn.Module, **_: object) -> torch.nn.Module:
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", compile_)
    table = '{name="resnet14", checkpoint="teacher.pt", allow_untrained=true}'
    made = build(f"teacher=[{table}, {table}]")
    made.teacher.compile()
    assert compiled == list(made.networks)


def test_the_weight_of_a_method_and_of_the_labels(build: Any) -> None:
    objective = build("method.weight=0.25", "method.task_weight=0.75", "method.warmup_epochs=2").objective
    (entry,) = objective.weighted
    assert (entry.weight, entry.warmup_epochs, objective.task_weight) == (0.25, 2.0, 0.75)


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of torchvision that are not fetched."""
    from distillctl.builtin import torchvision_models

    def fresh(name: str, weights: str) -> dict[str, torch.Tensor]:
        size = {"image_size": 32} if name.startswith("vit") else {}
        return torchvision.models.get_model(name, num_classes=10, **size).state_dict()

    monkeypatch.setattr(torchvision_models, "load_weights", fresh)


def test_a_teacher_with_pretrained_weights_sees_what_they_were_made_to_see(build: Any, pretrained: None) -> None:
    made = build('teacher={name="torchvision/mobilenet_v3_small", weights="IMAGENET1K_V1", allow_untrained=true}')
    assert made.notes[-2:] == (
        "the teacher sees images normalised by mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225] of IMAGENET1K_V1",
        "IMAGENET1K_V1 was made for 224 pixels and sees 8: `teacher.image_size = 224` resizes for it",
    )
    seen: list[torch.Tensor] = []
    made.network.model.features[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    batch = next(iter(made.loader.epoch(0)))
    made.teacher.look(batch, ("running",))
    data = made.splits
    pixels = batch.images * torch.tensor(data.std).reshape(1, 3, 1, 1) + torch.tensor(data.mean).reshape(1, 3, 1, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(seen[0], (pixels - mean) / std, rtol=1e-4, atol=1e-4)
    keys = 'name="torchvision/mobilenet_v3_small", weights="IMAGENET1K_V1", allow_untrained=true'
    assert build(f"teacher={{{keys}, mean=[0.5, 0.5, 0.5], image_size=16}}").notes[-1] == (
        "the teacher sees images normalised by mean [0.5, 0.5, 0.5] and std [0.229, 0.224, 0.225] and at 16 instead of 8 pixels"
    )


def test_a_transformer_sees_the_size_for_which_it_is_built(build: Any, pretrained: None) -> None:
    """Its weights would bring theirs, which is 224; another one reaches the network too."""
    made = build('teacher={name="torchvision/vit_b_32", weights="IMAGENET1K_V1", image_size=32, allow_untrained=true}')
    assert made.network.model.image_size == 32
    assert made.notes[-1].endswith("of IMAGENET1K_V1 and at 32 instead of 8 pixels")


@pytest.mark.parametrize("beside", [False, True])
def test_modules_of_methods_lie_in_memory_as_the_networks_do(build: Any, monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    """Beside networks with channels last every feature would be copied into another order, forward and backward."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr("distillctl.build.experiment.channels_last", lambda *args: (asked.append(args), (True, beside))[1])
    made = build("method.name=mgd", 'train.precision="bf16"')
    weights = [[p for p in module.parameters() if p.ndim == 4 and min(p.shape[1:3]) > 1] for module in (made.model, made.network.model)]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for some in weights for p in some)
    own = [p for p in made.objective.methods.parameters() if p.ndim == 4]
    assert own
    assert all((p.stride(1) == 1) is beside for p in own)
    assert asked == [(torch.device("cpu"), "bf16", 8)]
    assert next(iter(made.loader.epoch(0))).images.is_contiguous(memory_format=torch.channels_last)


def test_a_long_run_on_a_gpu_is_compiled_where_that_can_work(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build()
    gpu, methods = torch.device("cuda"), list(made.objective.weighted)
    profile = {mode: load("profile.toml", registry=Registry.load(), overrides=[f"train.compile={mode}"]) for mode in ("auto", "on", "off")}
    missing = ""
    monkeypatch.setattr("distillctl.build.experiment.missing_for_compile", lambda device: missing if device.type == "cuda" else "")
    found = {mode: _compiled(profile[mode], gpu, 20_000, methods) for mode in profile}
    assert found == {"auto": (True, []), "on": (True, []), "off": (False, [])}
    assert _compiled(profile["auto"], gpu, 19_999, methods) == (False, [])
    assert _compiled(profile["auto"], gpu, 20_000, methods, draws=True) == (False, [])
    assert _compiled(profile["auto"], torch.device("cpu"), 20_000, methods) == (False, [])
    missing = "Triton is not installed"
    assert _compiled(profile["auto"], gpu, 20_000, methods) == (
        False,
        ["the step is not compiled, which would make this long run faster: Triton is not installed"],
    )
    assert _compiled(profile["auto"], gpu, 19_999, methods) == (False, [])
    assert _compiled(profile["off"], gpu, 20_000, methods) == (False, [])
    assert _compiled(profile["on"], torch.device("cpu"), 1, methods) == (True, [])
    with pytest.raises(MachineError, match="Triton is not installed"):
        _compiled(profile["on"], gpu, 1, methods)
