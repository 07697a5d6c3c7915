"""What the tests on a GPU share. Without one they are skipped; `DISTILLCTL_GPU_TESTS=cpu` runs on the CPU what makes sense there.

Figures that a test measures are printed, kept as properties of the JUnit report, and appended to the file that
`DISTILLCTL_GPU_FIGURES` names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl import ArrayImages, DatasetSpec, Splits, View, hookimpl
from distillctl.build.experiment import assemble
from distillctl.build.models import TeacherModel, build_model
from distillctl.cli.description import description
from distillctl.engine.experiment import Experiment, Part
from distillctl.engine.step import Step
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile
from distillctl.testing import make_task, options_of

HERE = Path(__file__).parent
ON_CPU = os.environ.get("DISTILLCTL_GPU_TESTS") == "cpu"
CPU = torch.device("cpu")

# cuBLAS reads it when it starts, which some other test may have made it do.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
torch.set_num_threads(1)  # as the root's conftest says, which is read later than this one if pytest is given this folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in this folder."""
    there = ON_CPU or torch.cuda.is_available()
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        item.add_marker(pytest.mark.filterwarnings("default"))  # of drivers and libraries that no other machine has
        if not there:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        elif ON_CPU and item.get_closest_marker("cuda_alone"):
            item.add_marker(pytest.mark.skip(reason="has no meaning on a CPU"))


IMAGES, BATCH, CLASSES = 20, 8, 6  # the last batch of an epoch is short


def noise() -> Splits:
    """Images of 32 pixels whose brightness tells the class."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(IMAGES) % CLASSES

    def images() -> ArrayImages:
        pixels = torch.randint(0, 100, (IMAGES, 32, 32, 3), generator=draw) + labels[:, None, None, None] * 25
        return ArrayImages(pixels.to(torch.uint8), labels)

    return Splits(images(), None, images(), tuple("abcdef"), (0.5,) * 3, (0.25,) * 3, View(32, "crop_flip", padding=2), "noise")


NOISE = DatasetSpec(name="noise", summary="made up", implementation="nowhere:noise")  # never loaded: `Bench` has its own
PROFILE = """
[dataset]
name = "noise"
[student]
name = "{student}"
dropout = {dropout}
{teacher}
{methods}
[optimizer]
name = "{optimizer}"
lr = 0.02
[train]
epochs = {epochs}
batch_size = {batch}
{train}
"""


class Bench:
    """Experiments on made-up images, each with the same weights whenever it is built."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.registry = Registry.load()
        module = SimpleNamespace(register_dataset=hookimpl(lambda: NOISE), __name__="made_up")
        self.registry.add(Plugin("made_up", "made_up", "0"), lambda: module)
        self.splits = noise()

    def table(self, method: str) -> str:
        """What `show NAME` prints to paste: a table that trains, with what wrappers wrap."""
        return str(description(self.registry.methods, self.registry.methods.get(method))["example"])

    def profile(
        self,
        *methods: str,
        student: str = "cifar/resnet8",
        teacher: str = "cifar/resnet14",
        optimizer: str = "sgd",
        dropout: float = 0.0,
        epochs: int = 4,
        batch: int = BATCH,
        **train: Any,
    ) -> Profile:
        """A checked profile; of a single method the table is its example. `train` are more keys of `[train]`."""
        needs = any(self.registry.methods.get(name).needs_teacher for name in methods)
        teacher = student if "tfkd-self" in methods else teacher  # which learns from an earlier run of the same model
        weights = self.folder / "teacher.pt"
        weights.touch()  # a file must be named; `experiment` builds the teacher itself
        table = f'[teacher]\nname = "{teacher}"\ncheckpoint = "{weights}"\nallow_untrained = true' if needs else ""
        tables = self.table(methods[0]) if len(methods) == 1 else "".join(f'[[method]]\nname = "{name}"\n' for name in methods)
        lines = "\n".join(f"{key} = {_toml(value)}" for key, value in {"cuda_graph": "off", "compile": "off", **train}.items())
        path = self.folder / "profile.toml"
        path.write_text(
            PROFILE.format(
                student=student,
                dropout=dropout,
                teacher=table,
                methods=tables,
                optimizer=optimizer,
                epochs=epochs,
                batch=batch,
                train=lines,
            )
        )
        return load(path, registry=self.registry)

    def experiment(self, profile: Profile, device: torch.device | None = None) -> Experiment:
        """Everything built, by default on the device that is tested."""
        teacher = None
        if profile.teacher is not None:
            spec = profile.teacher.spec
            assert spec is not None
            torch.manual_seed(1)
            teacher = TeacherModel(spec, build_model(make_task(self.splits), spec, options_of(spec)), spec.name, None)
        torch.manual_seed(2)
        return assemble(profile, make_task(self.splits), teacher, self.device if device is None else device)

    @contextmanager
    def made(self, *methods: str, device: torch.device | None = None, **options: Any) -> Iterator[Experiment]:
        """The same in one line, closed at the end."""
        experiment = self.experiment(self.profile(*methods, **options), device)
        try:
            yield experiment
        finally:
            experiment.close()

    def steps(self, experiment: Experiment, part: Part | None = None, epochs: Sequence[int] = (0,), step: Step | None = None) -> Step:
        """Trains epochs of a part, by default the first one of the main part; what they left."""
        step = Step(experiment, part) if step is None else step
        for epoch in epochs:
            for number, batch in enumerate(experiment.loader.epoch(epoch)):
                step(batch, epoch * experiment.loader.steps + number)
        step.check()
        return step


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def weights(experiment: Experiment) -> dict[str, Tensor]:
    """Copies of all that is trained, without the statistics of batch normalisation, which a step changes before it is refused."""
    return {name: p.detach().clone() for name, p in experiment.objective.named_parameters()}


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The one that is tested."""
    return CPU if ON_CPU else torch.device("cuda")


@pytest.fixture
def bench(tmp_path: Path, device: torch.device) -> Bench:
    """Makes profiles and experiments."""
    return Bench(tmp_path, device)


@pytest.fixture
def weights_of() -> Callable[[Experiment], dict[str, Tensor]]:
    """See `weights`."""
    return weights


@pytest.fixture
def tell(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Says a figure: `tell("kd, ms a step", 1.25)`."""

    def say(name: str, value: object) -> None:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        record_property(name, text)
        line = f"{request.node.name}: {name}: {text}"
        print(line)
        if path := os.environ.get("DISTILLCTL_GPU_FIGURES"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    return say


@pytest.fixture
def ieee(device: torch.device) -> Iterator[None]:
    """Convolutions in float32 as everybody else computes them, instead of TF32."""
    if device.type == "cpu":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # products are in float32 anyhow
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def fenced() -> Iterator[Callable[[], Any]]:
    """`with fenced():` nothing may wait for the GPU."""

    @contextmanager
    def within() -> Iterator[None]:
        if ON_CPU:
            yield
            return
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    yield within
    if not ON_CPU:
        torch.cuda.set_sync_debug_mode("default")
