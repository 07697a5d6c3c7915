"""Runs jobs with 1, 2 and 4 processes: `python worker.py FOLDER`. They are started by forking this one, which has imported torch.

FOLDER/cases.json has the experiments; what the first process finds goes to FOLDER/COUNT.pt.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from models import MODELS  # type: ignore[import-not-found]  # beside this program
from torch import Tensor, nn

from distillctl import ArrayImages, DatasetSpec, Splits, View, hookimpl
from distillctl.api.method import Batch
from distillctl.api.tracker import Tracker
from distillctl.build.data import build_splits, evaluation_loader
from distillctl.build.experiment import assemble
from distillctl.build.models import TeacherModel, build_model
from distillctl.commands.train import train
from distillctl.data import EvalLoader, Share
from distillctl.distributed.process_group import join
from distillctl.engine.evaluate import evaluate
from distillctl.engine.experiment import Experiment, Part
from distillctl.engine.step import Step
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.plugin.registry import load as load_object
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile
from distillctl.testing import TINY_MODELS, make_task, options_of

COUNTS = (1, 2, 4)
SHARED = ("torch._dynamo", "torch.nn.parallel", "torchvision.models", "sklearn.datasets", "PIL.Image", "distillctl_cifar.builder")
"""What takes long to import, and every process would import for itself."""
CPU = torch.device("cpu")
CLASSES = 6
Found = dict[str, Any]

NOISE = DatasetSpec(name="noise", summary="made up", implementation="worker:noise")
PROFILE = """
[dataset]
name = "noise"
[student]
name = "{student}"
{teacher}
{methods}
[optimizer]
name = "{optimizer}"
lr = 0.0001
[train]
epochs = 2
batch_size = {batch_size}
workers = 0
{train}
[evaluate]
batch_size = 32
"""


def noise(options: object = None, seed: int = 0) -> Splits:
    """24 images whose brightness tells the class, of 12 pixels: batches of 13 and 11."""
    draw = torch.Generator().manual_seed(0)

    def images(count: int) -> ArrayImages:
        labels = torch.arange(count) % CLASSES
        pixels = torch.randint(0, 100, (count, 12, 12, 3), generator=draw) + labels[:, None, None, None] * 25
        return ArrayImages(pixels.to(torch.uint8), labels)

    view = View(12, "crop_flip", padding=2)
    return Splits(images(24), None, images(70), tuple("abcdef"), (0.5,) * 3, (0.25,) * 3, view, "noise")


def registry() -> Registry:
    """All plugins, the tiny models, and those of these tests."""
    found = Registry.load()
    models = [*TINY_MODELS, *MODELS]
    module = SimpleNamespace(register_model=hookimpl(lambda: models), register_dataset=hookimpl(lambda: NOISE), __name__="tiny")
    found.add(Plugin("tiny", "tiny", "0"), lambda: module)
    return found


class Recording(Step):
    """Keeps the gradients of every step before it is taken."""

    first: dict[str, Tensor | None]
    second: dict[str, Tensor | None]

    def __init__(self, experiment: Experiment, part: Part) -> None:
        super().__init__(experiment, part)
        learner, apply = self.learner, self.learner.apply_gradients

        def keep() -> None:
            named = {id(p): name for name, p in learner.objective.named_parameters()}
            self.first = {named[id(p)]: None if p.grad is None else p.grad.clone() for p in learner.parameters}
            pair = [] if learner.pair is None else learner.pair.second
            self.second = {named[id(p)]: None if g is None else g.clone() for p, g in zip(learner.parameters, pair, strict=False)}
            apply()

        learner.apply_gradients = keep  # type: ignore[method-assign]


class Bench:
    """Builds the experiments of the cases, for this one of the processes."""

    def __init__(self, registry: Registry, folder: Path, cases: dict[str, Found]) -> None:
        self.registry = registry
        self.folder = folder
        self.cases = cases
        self.processes = join(CPU)

    def profile(self, case: Found) -> Profile:
        """The profile of a case."""
        path = self.folder / f"profile-{os.getpid()}.toml"
        teacher, weights = "", self.folder / "teacher.pt"
        for name in case["teacher"].split():
            teacher += f'[[teacher]]\nname = "{name}"\ncheckpoint = "{weights}"\nallow_untrained = true\n'
        path.write_text(PROFILE.format(**{**case, "teacher": teacher}))
        return load(path, registry=self.registry)

    def experiment(self, case: Found) -> Experiment:
        """An experiment in float64."""
        experiment = assemble(self.profile(case), make_task(noise()), self._teachers(case["teacher"]), CPU, self.processes)
        experiment.objective.double()
        for network in experiment.networks:
            network.double()
        return experiment

    def _teachers(self, names: str) -> list[TeacherModel]:
        found = []
        for name in names.split():
            spec = self.registry.models.get(name)
            torch.manual_seed(1)
            found.append(TeacherModel(spec, build_model(make_task(CLASSES), spec, options_of(spec)), spec.name, None))
        return found

    def gradients(self, case: Found) -> Found:
        """Of the first step of every part.

        And after the three first steps of the main part: how far all weights have moved, and what each process has in buffers.
        """
        experiment = self.experiment(case)
        found: Found = {}
        start = {name: p.detach().clone() for name, p in experiment.objective.named_parameters()}
        for part in experiment.parts:
            step = Recording(experiment, part)
            if not case["norms"]:
                _freeze(experiment.objective)
            if self.processes.count == 1 and case["by_hand"]:
                found["by_hand"] = {count: _by_hand(step, count) for count in COUNTS}
            for number, batch in enumerate(_wide(batch) for epoch in range(3) for batch in experiment.loader.epoch(epoch)):
                step(batch, number)
                if not number:
                    found[part.name] = (step.first, step.second)
                if number == (2 if part is experiment.main else 0):
                    break
            del step
        found["moves"] = {name: p.detach() - start[name] for name, p in experiment.objective.named_parameters()}
        found["sums"] = self.processes.all_gather({name: float(move.sum()) for name, move in found["moves"].items()})
        found["buffers"] = self.processes.all_gather({name: b.clone() for name, b in experiment.objective.own_buffers()})
        found["metrics"] = self.processes.all_gather({name: float(value) for name, value in experiment.objective.metrics()})
        experiment.close()
        return found

    def evaluations(self) -> Found:
        """Metrics and guesses on images in memory and in files. Batches of 32: three, the last of six images, for up to four processes."""
        of_files = load(self.folder / "files.toml", registry=self.registry)
        of_noise = self.profile({**next(iter(self.cases.values())), "teacher": "", "methods": '[method]\nname = "none"'})
        torch.manual_seed(3)
        spec = self.registry.models.get("cifar/resnet8")
        found: Found = {}
        for name, profile, splits in (("memory", of_noise, noise()), ("files", of_files, build_splits(of_files))):
            task = make_task(splits)
            for tta in ("", "flip", *(("ten_crop",) if name == "files" else ())):
                assert splits.test is not None
                torch.manual_seed(3)
                model = build_model(make_task(CLASSES), spec, options_of(spec))
                _balance(model, evaluation_loader(profile, task, splits.test, CPU))
                loader = evaluation_loader(profile, task, splits.test, CPU, tta=tta, processes=self.processes)
                result = evaluate(task, model, loader, self.processes)
                loader.close()
                everybody = self.processes.all_gather((result.figures, *vars(result.answers).values()))
                found[f"{name} {tta}".strip()] = everybody
        return found


def _freeze(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._NormBase):
            norm.eval()


@torch.no_grad()
def _balance(model: nn.Module, batches: EvalLoader) -> None:
    """Moves the biases of a model that knows nothing, so that it does not guess one class alone."""
    model.eval()
    logits = torch.cat([model(batch.images) for batch in batches])
    model.get_parameter("fc.bias").sub_(logits.mean(0))


def _wide(batch: Batch) -> Batch:
    return Batch(batch.images.double(), batch.labels, batch.index, batch.start, batch.total, batch.whole)


def _by_hand(step: Recording, count: int) -> dict[str, Tensor | None]:
    """The mean, weighted by images, of the gradients that `count` shares of the first batch have each on its own."""
    batch = _wide(next(iter(step.experiment.loader.epoch(0))))
    step.begin(0)
    for rank in range(count):
        (piece,) = Share(rank, count).pieces(len(batch.labels))
        rows = slice(piece.start, piece.end)
        piece_ = Batch(batch.images[rows], batch.labels[rows], batch.index[rows], whole=len(batch.labels))
        step.learner.learn(0, piece_, step.look(piece_), step.progress, last=True)
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in step.learner.objective.named_parameters()}
    step.learner.optimizer.zero_grad(set_to_none=True)
    return grads


def work(found: Registry, folder: Path, cases: dict[str, Found]) -> None:
    """All jobs of one process."""
    bench = Bench(found, folder, cases)
    result = {name: bench.gradients(case) for name, case in cases.items() if bench.processes.count <= case["most"]}
    result["evaluations"] = bench.evaluations()
    for attempt in ("first", "second"):
        count = bench.processes.count
        train(load(folder / "student.toml", registry=found), found, Tracker(), out=folder / f"run-{count}-{attempt}", device="cpu")
    if bench.processes.first:
        torch.save(result, folder / f"{bench.processes.count}.pt")
    if bench.processes.count > 1:
        torch.distributed.destroy_process_group()


def together(count: int, job: Callable[[], None]) -> None:
    """Forks `count` processes that do the job; ends this one if one of them fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            if count > 1:
                where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank}
                os.environ.update({name: str(value) for name, value in where.items()})
            try:
                job()
            except BaseException:  # noqa: BLE001 - a forked process must end here, whatever happened
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    ends = [os.waitpid(child, 0)[1] for child in children]
    if any(ends):
        sys.exit(f"{count} processes failed")


def main() -> None:
    """Everything, once with each number of processes."""
    folder = Path(sys.argv[1])
    cases = json.loads((folder / "cases.json").read_text())
    (folder / "teacher.pt").touch()
    for name in SHARED:
        import_module(name)
    found = registry()
    spec = found.models.get("tiny_wide")
    torch.save(build_model(make_task(10), spec, options_of(spec)).state_dict(), folder / "wide.pt")
    for case in cases.values():  # which loads the plugins that they need
        for choice in Bench(found, folder, cases).profile(case).methods:
            load_object(choice.spec.implementation, choice.spec.name)
    for count in COUNTS:
        together(count, lambda: work(found, folder, cases))


if __name__ == "__main__":
    main()
