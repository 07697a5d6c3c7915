"""What models cost, without a look at the clock: the figures that are exact, what is refused, and that one failure ends nothing else."""

from __future__ import annotations

import operator
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from distillctl import ModelFamily, ModelSpec, hookimpl
from distillctl.api.options import Options
from distillctl.commands import measure as module
from distillctl.commands.measure import (
    Cost,
    Failure,
    Settings,
    Top1,
    check,
    counted,
    in_child,
    measure,
    measure_all,
    top1,
)
from distillctl.commands.subjects import Subject, subjects
from distillctl.errors import DistillError, MachineError, ProfileError
from distillctl.models import deploy, onnx_files
from distillctl.models.cost import Latency
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.rundir.directory import RunDirectory
from distillctl.testing.tiny_models import TINY_CNN, TINY_MODELS, TINY_WIDE, TinyOptions

QUICK = Settings(batches=(1, 3), seconds=0)


class FixedOptions(Options):
    """Of a network for one size."""

    image_size: int = 12


class Fixed(nn.Module):
    def __init__(self, num_classes: int, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * size * size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(images.flatten(1))
        return logits


def build_fixed(name: str, num_classes: int, options: FixedOptions) -> nn.Module:
    if options.image_size == 13:
        raise ValueError("thirteen pixels bring bad luck")
    return Fixed(num_classes, options.image_size)


def build_broken(name: str, num_classes: int, options: Options) -> nn.Module:
    return {}[name]


def published(name: str) -> dict[str, float]:
    return {"small": 0.5, "large": 0.75, "other": 0.625, "not offered": 0.875}


def family_member(name: str) -> ModelSpec | None:
    return replace(TINY_CNN, name=name, namespace="zoo") if name in ("ape", "bear") else None


def family_names() -> dict[str, str]:
    return {"ape": "an ape", "bear": "a bear"}


HERE = "tests_commands_measure"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Tiny models, one for a single size, one that cannot be built, and a family; no other process is started."""
    import sys

    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])

    class Made:
        @hookimpl
        def register_model(self) -> list[ModelSpec | ModelFamily]:
            fixed = ModelSpec(
                name="fixed", summary="-", implementation=f"{HERE}:build_fixed", options=f"{HERE}:FixedOptions", input_size=12
            )
            broken = ModelSpec(name="broken", summary="-", implementation=f"{HERE}:build_broken", input_size=8)
            return [*TINY_MODELS, fixed, broken]

    class Zoo:
        @hookimpl
        def register_model(self) -> ModelFamily:
            return ModelFamily(name="zoo", summary="-", implementation=f"{HERE}:family_member", names=f"{HERE}:family_names")

    registry = Registry.load({"DISTILLCTL_PLUGINS": ""})
    registry.add(Plugin("made", "package-made", "1"), Made)
    registry.add(Plugin("zoo", "package-zoo", "1"), Zoo)
    assert not registry.broken
    monkeypatch.setattr(module, "_registry", lambda settings: registry)
    monkeypatch.setattr(module, "in_child", lambda name, work, *arguments: work(*arguments))
    return registry


@pytest.fixture
def run(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a finished run of `tiny_wide` on images of one channel … of three, 10 pixels, 4 classes."""
    monkeypatch.chdir(tmp_path)
    path = Path("runs", "one-12345678")
    directory = RunDirectory.create(
        path, profile=b"", resolved="", environment={}, state={"name": "one", "digest": "0", "epochs": 1, "epoch": 1}
    )
    model = module.build_classifier(TINY_WIDE, TinyOptions(width=4), 4)
    deploy.write_student(
        path,
        model,
        spec=TINY_WIDE,
        shown_name="tiny_wide",
        options={"width": 4},
        outputs=4,
        classes=["a", "b", "c", "d"],
        preprocessing={"channels": 3, "size": 10, "resize": 10, "mean": [0.5] * 3, "std": [0.5] * 3},
        package="package-made",
        version="1",
        extra={},
    )
    directory.update(state="finished", result={"split": "test", "best": {"epoch": 1, "top1": 0.875}})
    return path


def names(found: list[Subject]) -> list[str]:
    return [subject.name for subject in found]


def test_names_patterns_and_runs(registry: Registry, run: Path) -> None:
    assert names(subjects(["tiny_cnn", "zoo/ape", "tiny_cnn"], registry)) == ["tiny_cnn", "zoo/ape"]
    assert names(subjects(["TINY_*"], registry)) == ["tiny_cnn", "tiny_vit", "tiny_wide"]
    assert names(subjects(["zoo/*e*"], registry)) == ["zoo/ape", "zoo/bear"]
    assert names(subjects(["torchvision/resnet1?"], registry)) == ["resnet18"], "by the qualified name, shown by the shortest"
    assert subjects([str(run)], registry) == [Subject(str(run), run)]
    assert subjects(["runs/*"], registry) == [Subject(str(run), run)]


@pytest.mark.parametrize(
    ("argument", "message", "hint"),
    [
        ("tiny_cn", "no model is called `tiny_cn`", "did you mean `tiny_cnn`"),
        ("nothing*", "no model and no run is called like `nothing*`", "list-models"),
        ("runs/one-12345679", "there is no run directory `runs/one-12345679`", "did you mean `runs/one-12345678`?"),
        ("one-12345678", "there is no run directory `one-12345678`", "did you mean `runs/one-12345678`?"),
        ("runs", "`runs` is not a run directory: it has no `run.json`", ""),
    ],
)
def test_what_means_nothing_is_told_at_once(argument: str, message: str, hint: str, registry: Registry, run: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        subjects(["tiny_cnn", argument, "zoo/cat"], registry)
    first, second = caught.value.problems
    assert first.message == message
    assert hint in first.hint
    assert second.message == "no model is called `zoo/cat`"


def test_exact_figures(registry: Registry) -> None:
    """By its own size and classes; other ones change what they should."""
    found = measure(Subject("tiny_cnn"), QUICK, registry)
    assert isinstance(found, Cost)
    assert (found.size, found.classes, found.parameters, found.threads) == (8, 10, 7010, torch.get_num_threads())
    state = module.build_classifier(TINY_CNN, TinyOptions(), 10).state_dict()
    assert found.file == len(safetensors.torch.save(state, metadata={"format": "pt"}))
    assert list(found.latencies) == [1, 3]
    assert {latency.count for latency in found.latencies.values()} == {3}
    assert found.memory is None or found.memory >= 0
    other = measure(Subject("tiny_cnn"), replace(QUICK, size=16, classes=7), registry)
    assert isinstance(other, Cost)
    assert (other.size, other.classes, other.parameters) == (16, 7, 7010 - 3 * 33)
    assert other.macs - 32 * 7 == 4 * (found.macs - 32 * 10)
    wide = measure(Subject("tiny_cnn"), replace(QUICK, options={"width": 16}), registry)
    assert isinstance(wide, Cost)
    assert wide.parameters > 3 * found.parameters


def test_as_json() -> None:
    cost = Cost("a", None, 8, 10, 1, 2, 3, {4: Latency(0.5, 0.75, 9)}, None, 1, Top1(0.5, "measured on test"))
    told = cost.as_dict()
    assert told["latency"] == [{"batch": 4, "median_ms": 500, "p95_ms": 750, "images_per_second": 8, "count": 9}]
    assert (told["bytes"], told["memory_bytes"], told["top1"], told["top1_source"], told["run"]) == (3, None, 0.5, "measured on test", None)


def test_threads_are_those_that_are_asked_for(registry: Registry) -> None:
    before = torch.get_num_threads()
    try:
        found = measure(Subject("tiny_cnn"), replace(QUICK, threads=before + 1), registry)
    finally:
        torch.set_num_threads(before)
    assert isinstance(found, Cost)
    assert found.threads == before + 1


def test_a_model_for_one_size_is_built_for_another(registry: Registry) -> None:
    """Or refused in a sentence; where a size is set as an option, it is that of the images."""
    sizes = {"own": QUICK, "other": replace(QUICK, size=16), "set": replace(QUICK, options={"image_size": 20})}
    costs = {name: measure(Subject("fixed"), settings, registry) for name, settings in sizes.items()}
    assert {name: (cost.size, cost.macs) for name, cost in costs.items() if isinstance(cost, Cost)} == {
        "own": (12, 3 * 12 * 12 * 1000),
        "other": (16, 3 * 16 * 16 * 1000),
        "set": (20, 3 * 20 * 20 * 1000),
    }
    refused = measure(Subject("fixed"), replace(QUICK, size=13), registry)
    assert refused == Failure(
        "fixed", "the model `fixed` cannot be built: thirteen pixels bring bad luck", "`distillctl show fixed` lists its options"
    )
    assert isinstance(measure(Subject("fixed"), replace(QUICK, size=16, options={"image_size": 20}), registry), Failure)


def test_one_failure_ends_nothing_else(registry: Registry) -> None:
    told: list[str] = []
    found = subjects(["tiny_cnn", "broken", "tiny_vit"], registry)
    costs, failures = measure_all(found, replace(QUICK, size=7), registry, told.append)
    assert [cost.name for cost in costs] == ["tiny_cnn", "tiny_vit"]
    assert failures == [Failure("broken", "KeyError: 'broken'")]
    assert told == ["measuring 1 of 3: tiny_cnn", "measuring 2 of 3: broken", "measuring 3 of 3: tiny_vit"]


def test_images_that_it_cannot_take(registry: Registry) -> None:
    found = measure(Subject("tiny_vit"), replace(QUICK, size=1), registry)
    assert isinstance(found, Failure)
    assert found.reason.startswith("`tiny_vit` cannot take images of shape (3, 1, 1): ")


def test_an_option_that_it_does_not_have(registry: Registry) -> None:
    found = measure(Subject("tiny_cnn"), replace(QUICK, options={"widht": 3}), registry)
    assert isinstance(found, Failure)
    assert "widht" in found.reason
    assert "did you mean `width`?" in found.hint


def test_slow_models_are_not_timed_further(registry: Registry) -> None:
    found = measure(Subject("tiny_cnn"), replace(QUICK, most_seconds=0), registry)
    assert isinstance(found, Cost)
    assert list(found.latencies) == [1]


def test_a_larger_batch_that_would_take_too_long_is_left_out(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time of the one before it: of 2, 6 and 8 images with a second each, in at most 6 s."""
    monkeypatch.setattr(module, "forward_latency", lambda _, images, **__: Latency(float(len(images)), 0, 3))
    assert list(module._latencies(torch.nn.Identity(), (3, 4, 4), Settings(batches=(2, 6, 8), longest=6), torch.device("cpu"))) == [2, 6]
    assert list(module._latencies(torch.nn.Identity(), (3, 4, 4), Settings(batches=(2, 6, 8)), torch.device("cpu"))) == [2, 6, 8]


def test_the_generator_is_not_drawn_from(registry: Registry) -> None:
    before = torch.get_rng_state()
    measure(Subject("tiny_cnn"), QUICK, registry)
    counted(Subject("tiny_cnn"), QUICK, registry)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run(registry: Registry, run: Path) -> None:
    """Its own student at its own size; the file is the one that lies there, and top-1 what was measured."""
    found = measure(Subject(str(run), run), QUICK, registry)
    assert isinstance(found, Cost)
    assert (found.run, found.size, found.classes) == (run, 10, 4)
    assert found.parameters == sum(p.numel() for p in module.build_classifier(TINY_WIDE, TinyOptions(width=4), 4).parameters())
    assert found.file == (run / "student.safetensors").stat().st_size
    assert found.top1 == Top1(0.875, "measured on test")
    other = measure(Subject(str(run), run), replace(QUICK, size=20, classes=9), registry)
    assert isinstance(other, Cost)
    assert (other.size, other.classes, other.macs > 3 * found.macs) == (20, 4, True)
    same = counted(Subject(str(run), run), QUICK, registry)
    assert same is not None
    assert (same.parameters, same.macs, same.file) == (found.parameters, found.macs, found.file)


def test_a_run_that_is_not_finished(registry: Registry, run: Path) -> None:
    (run / "model.json").unlink()
    found = measure(Subject(str(run), run), QUICK, registry)
    assert isinstance(found, Failure)
    assert "holds no deployed student" in found.reason


def test_counting_computes_nothing_and_says_the_same(registry: Registry) -> None:
    for name in ("tiny_cnn", "tiny_vit", "fixed"):
        real, meta = measure(Subject(name), QUICK, registry), counted(Subject(name), QUICK, registry)
        assert isinstance(real, Cost)
        assert meta is not None
        assert replace(real, latencies={}, memory=None) == meta
    assert counted(Subject("broken"), QUICK, registry) is None
    with pytest.raises(DistillError, match="thirteen"):
        counted(Subject("fixed"), replace(QUICK, size=13), registry)


def test_published_top1(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of the weights that were made for the size that is measured."""
    from distillctl import WeightsInput

    seen = {"small": WeightsInput(mean=(0.5,) * 3, std=(0.5,) * 3, size=8), "large": WeightsInput(mean=(0.5,) * 3, std=(0.5,) * 3, size=16)}
    spec = replace(TINY_CNN, name="known", weights=("small", "large", "other"), weights_input=seen, weights_top1=f"{HERE}:published")
    monkeypatch.setattr(registry.models, "get", lambda name: spec)
    assert top1(Subject("known"), QUICK, registry) == Top1(0.625, "published, ImageNet, other")
    assert top1(Subject("known"), replace(QUICK, size=16), registry) == Top1(0.75, "published, ImageNet, large")
    spec = replace(spec, weights_top1="")
    assert top1(Subject("known"), QUICK, registry) is None


def test_torchvision_tells_what_it_publishes() -> None:
    registry = Registry.load({"DISTILLCTL_PLUGINS": ""})
    assert top1(Subject("torchvision/resnet50"), QUICK, registry) == Top1(0.80858, "published, ImageNet, IMAGENET1K_V2")
    assert top1(Subject("torchvision/vit_h_14"), QUICK, registry) == Top1(0.85708, "published, ImageNet, IMAGENET1K_SWAG_LINEAR_V1")
    large = replace(QUICK, size=518)
    assert top1(Subject("torchvision/vit_h_14"), large, registry) == Top1(0.88552, "published, ImageNet, IMAGENET1K_SWAG_E2E_V1")


def test_what_onnx_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(Settings(device="auto", runtime="onnx")).device == "cpu"
    with pytest.raises(ProfileError, match="measures on a CPU"):
        check(Settings(device="cuda", runtime="onnx"))

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(onnx_files, "import_module", missing)
    with pytest.raises(MachineError) as caught:
        check(Settings(runtime="onnx"))
    assert caught.value.problems[0].hint == "pip install 'distillctl[onnx]'"


@pytest.mark.slow
def test_onnx(registry: Registry) -> None:
    found = measure(Subject("tiny_cnn"), replace(QUICK, runtime="onnx", threads=1), registry)
    assert isinstance(found, Cost)
    assert (found.parameters, found.macs, found.threads) == (7010, found.macs, 1)
    assert list(found.latencies) == [1, 3]
    assert found.file > 4 * 6000


@pytest.mark.slow
class TestProcesses:
    """Each model has a process of its own."""

    def test_a_process_that_ends_is_told_of(self, capfd: pytest.CaptureFixture[str]) -> None:
        """And what a package prints there does not come between JSON."""
        hint = "did memory run out? `--batch 1` needs less"
        killed = in_child("large", signal.raise_signal, signal.SIGKILL)
        assert killed == Failure("large", "the process that measured it was ended by signal 9", hint)
        assert in_child("odd", os._exit, 7) == Failure("odd", "the process that measured it was ended with code 7")
        assert in_child("small", operator.add, 40, 2) == 42
        assert in_child("wrong", operator.truediv, 40, 0) == Failure("wrong", "ZeroDivisionError: division by zero")
        in_child("loud", print, "not for stdout")
        assert "not for stdout" not in capfd.readouterr().out

    def test_memory_is_the_models_own(self) -> None:
        """Of a network with 16 MB of weights, more with more images, and no more after another was measured."""
        registry = Registry.load()
        settings = check(Settings(device="cpu", batches=(1,), seconds=0, threads=1))
        large = replace(settings, batches=(1, 64))
        found = [measure(Subject("vgg8"), chosen, registry) for chosen in (settings, large, settings)]
        memory = [cost.memory for cost in found if isinstance(cost, Cost)]
        assert len(memory) == 3, found
        first, more, again = (value or 0 for value in memory)
        assert first > 15e6
        assert more > first + 64 * 32 * 32 * 64 * 4
        assert abs(again - first) < 8e6
        assert pickle.loads(pickle.dumps(found)) == found
