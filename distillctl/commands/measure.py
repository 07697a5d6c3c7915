"""What models cost on this machine: parameters, multiply-accumulates, bytes, time of a forward, and memory.

On a CPU each model is built and timed in a process of its own, which begins as small as all others: only so is the rise of its resident
memory that of the model, and a model that takes all memory ends nobody else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from distillctl.api.options import Options
from distillctl.api.specs import ModelSpec
from distillctl.build.device import channels_last, pick_device, placed
from distillctl.build.models import build_classifier
from distillctl.commands.subjects import Subject
from distillctl.engine.memory import keep_freed_memory, peak_memory
from distillctl.errors import DataError, DistillError, Problem, ProfileError, RunError
from distillctl.models import deploy
from distillctl.models.cost import Latency, file_bytes, forward_latency, images_of, macs, parameters
from distillctl.models.fake_quantise import restore
from distillctl.models.forward_errors import explained_forward
from distillctl.models.onnx_files import OnnxModel, needs, write_onnx
from distillctl.plugin.registry import Registry, load, load_options
from distillctl.profile.describe import complaints
from distillctl.profile.teacher import has_fixed_size
from distillctl.rundir.directory import RunDirectory
from distillctl.text import one_line

Runtime = Literal["torch", "onnx"]
T = TypeVar("T")

_CHANNELS = 3
_TO_END = 10
"""Seconds that a process has to end by itself when it has told everything, since some packages leave semaphores behind otherwise."""


@dataclass(frozen=True)
class Settings:
    """How it is measured.

    threads: of torch or ONNX Runtime on a CPU; 0 keeps their own choice. batches: sizes, ascending.
    size: side length in pixels; 0 for each model's own. classes: of models by name; 0 for each one's own. options: of models by name.
    seconds: for timing one batch size. most_seconds: a model whose smallest batch takes longer is not timed further. longest: a larger
    batch whose forward would take more seconds, by the time of the one before it, is left out.
    """

    device: str = "cpu"
    threads: int = 0
    runtime: Runtime = "torch"
    batches: tuple[int, ...] = (1, 32)
    size: int = 0
    classes: int = 0
    options: Mapping[str, object] | None = None
    allow_code: bool = False
    seconds: float = 1.0
    most_seconds: float = float("inf")
    longest: float = float("inf")


@dataclass(frozen=True)
class Top1:
    """A top-1 accuracy, 0 to 1. source: whose it is, in words."""

    value: float
    source: str


@dataclass(frozen=True)
class Cost:
    """What one model costs.

    size: side length in pixels. macs: of one image. file: bytes of its weights as safetensors, or of the ONNX file that was timed.
    latencies: by batch size, for a forward of the whole batch. memory: bytes at the peak of all batches, with the weights; None where the
    system does not count them.
    """

    name: str
    run: Path | None
    size: int
    classes: int
    parameters: int
    macs: int
    file: int
    latencies: Mapping[int, Latency]
    memory: int | None
    threads: int
    top1: Top1 | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "run": None if self.run is None else str(self.run),
            "size": self.size,
            "classes": self.classes,
            "parameters": self.parameters,
            "macs": self.macs,
            "bytes": self.file,
            "latency": [
                {
                    "batch": batch,
                    "median_ms": found.median * 1000,
                    "p95_ms": found.p95 * 1000,
                    "images_per_second": batch / found.median,
                    "count": found.count,
                }
                for batch, found in self.latencies.items()
            ],
            "memory_bytes": self.memory,
            "threads": self.threads,
            "top1": None if self.top1 is None else self.top1.value,
            "top1_source": None if self.top1 is None else self.top1.source,
        }


@dataclass(frozen=True)
class Failure:
    """A model that could not be built or measured, and why."""

    name: str
    reason: str
    hint: str = ""


@dataclass(frozen=True)
class Network:
    """A model that can be built. shape: (C, H, W) of its images. file: the run's file of weights. built: how it is built."""

    name: str
    spec: ModelSpec
    shape: tuple[int, int, int]
    classes: int
    build: Callable[[], nn.Module]
    file: Path | None = None


def network(subject: Subject, settings: Settings, registry: Registry) -> Network:
    """The model of a subject at the size and with the classes that are asked for, not built yet.

    Raises:
        DistillError: it cannot be had so.
    """
    return _named(subject.name, settings, registry) if subject.run is None else _of_run(subject.run, settings, registry)


def _named(name: str, settings: Settings, registry: Registry) -> Network:
    spec = registry.models.get(name)
    values = dict(settings.options or {})
    fixed = has_fixed_size(spec)
    if fixed and settings.size:
        values.setdefault("image_size", settings.size)
    options = _options(spec, values)
    size = settings.size or (fixed and getattr(options, "image_size", 0)) or spec.input_size
    classes = settings.classes or spec.classes
    return Network(name, spec, (_CHANNELS, size, size), classes, lambda: build_classifier(spec, options, classes))


def _options(spec: ModelSpec, values: Mapping[str, Any]) -> Options:
    table = load_options(spec)
    try:
        return table.model_validate(dict(values))
    except ValidationError as error:
        told = complaints(
            error.errors(include_url=False),
            table,
            values,
            ("model",),
            subject=f"model `{spec.name}`",
            command=f"`distillctl show {spec.qualified}`",
        )
        raise ProfileError([Problem(message, hint=hint) for message, _, hint in told]) from error


def _of_run(run: Path, settings: Settings, registry: Registry) -> Network:
    info = deploy.read_model_json(run)
    spec = registry.models.get(info["qualified"])
    channels, size = (info["input"].get(name) for name in ("channels", "size"))
    if type(channels) is not int or type(size) is not int:
        raise DataError(f"`{run / deploy.DESCRIPTION}` does not say which images its student takes")
    built_for = info["options"].get("image_size")
    if settings.size and built_for and settings.size != built_for:
        raise ProfileError(f"the student of `{run}` was built for images of {built_for} pixels alone, not of {settings.size}")
    size = settings.size or size
    file = run / deploy.WEIGHTS
    return Network(str(run), spec, (channels, size, size), info["num_classes"], lambda: _student(run, registry), file)


def _student(run: Path, registry: Registry) -> nn.Module:
    model, _ = deploy.read_student(run, registry)
    restore(model)  # simulated rounding to 8 bits costs nothing in what is deployed
    return model


def top1(subject: Subject, settings: Settings, registry: Registry) -> Top1 | None:
    """How good it is known to be: of a run as it was measured, of a model by name as its weights were published; None if it is not known.

    Weights that were published at another size than the one that is measured do not count.

    Raises:
        DistillError: there is no such model.
    """
    if subject.run is not None:
        result = RunDirectory.open(subject.run).info().get("result", {})
        best = result.get("best", {})
        value = best.get("top1") if isinstance(best, dict) else None
        return Top1(float(value), f"measured on {result.get('split')}") if isinstance(value, int | float) else None
    spec = registry.models.get(subject.name)
    if not spec.weights_top1:
        return None
    size = network(subject, settings, registry).shape[-1]
    published: Mapping[str, float] = load(spec.weights_top1, spec.name)(spec.name)
    inputs = spec.weights_input
    fitting = {
        name: published[name] for name in spec.weights if name in published and (name not in inputs or inputs[name].size in (0, size))
    }
    best_weights = max(fitting, key=fitting.__getitem__, default=None)
    return None if best_weights is None else Top1(fitting[best_weights], f"published, ImageNet, {best_weights}")


def check(settings: Settings) -> Settings:
    """The settings with the device that is meant.

    Raises:
        DistillError: there is no such device, or the runtime cannot be had on it.
    """
    if settings.runtime == "onnx":
        if settings.device not in ("auto", "cpu"):
            raise ProfileError(f"`--runtime onnx` measures on a CPU, not on `{settings.device}`", where="--device", hint="use `cpu`")
        needs("onnx", "onnxscript", "onnxruntime")
        return replace(settings, device="cpu")
    return replace(settings, device=str(pick_device(settings.device)))


def measure(subject: Subject, settings: Settings, registry: Registry) -> Cost | Failure:
    """Builds a model with fresh weights, or loads that of a run, and measures it; settings are checked ones.

    Whatever it raises is told as the reason of a failure.
    """
    with _told(subject.name) as failures:
        known = top1(subject, settings, registry) if subject.run is not None else None
        if settings.runtime == "onnx":
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "model.onnx")
                found = in_child(subject.name, _exported, subject, settings, file)
                if isinstance(found, Cost):
                    channels = network(subject, settings, registry).shape[0]
                    found = in_child(subject.name, _timed_onnx, settings, file, channels, found)
        elif torch.device(settings.device).type == "cuda":
            found = _measured(subject, settings, registry)
        else:
            found = in_child(subject.name, _measured, subject, settings, None)
        return replace(found, top1=known) if isinstance(found, Cost) else found
    return failures[0]


def measure_all(
    found: Sequence[Subject], settings: Settings, registry: Registry, told: Callable[[str], None] = lambda _: None
) -> tuple[list[Cost], list[Failure]]:
    """Measures one model after the other; `told` is told which. What cannot be measured does not keep the others from it."""
    costs: list[Cost] = []
    failures: list[Failure] = []
    for number, subject in enumerate(found, 1):
        told(f"measuring {number:,} of {len(found):,}: {subject.name}")
        one = measure(subject, settings, registry)
        if isinstance(one, Failure):
            failures.append(one)
        else:
            costs.append(one)
    return costs, failures


@contextmanager
def _told(name: str) -> Iterator[list[Failure]]:
    """Around what may fail for reasons of the model: notes why it did."""
    failures: list[Failure] = []
    try:
        yield failures
    except DistillError as error:
        problem = error.problems[0]
        failures.append(Failure(name, problem.message, problem.hint))
    except Exception as error:  # noqa: BLE001 - a builder or a forward of somebody else raises what it likes, and the others go on
        failures.append(Failure(name, f"{type(error).__name__}: {one_line(error, 200)}"))


def _measured(subject: Subject, settings: Settings, registry: Registry | None) -> Cost:
    """Builds and measures in this process. registry: None where the process is a new one."""
    registry = registry or _registry(settings)
    device = torch.device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    keep_freed_memory(device)
    _touch_libraries(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = _memory(device)
    plan = network(subject, settings, registry)
    last, _ = channels_last(device, "fp32", plan.shape[-1])
    model = placed(_built(plan), device, last)
    with explained_forward(plan.shape, ("", plan.spec, model)):
        latencies = _latencies(model, plan.shape, settings, device, last)
    memory = _rise(before, peak_memory(device))  # before anything else runs that is not part of a forward
    return replace(_counted(subject, plan, model), latencies=latencies, memory=memory)


def _exported(subject: Subject, settings: Settings, file: Path) -> Cost:
    """Writes the model as ONNX."""
    plan = network(subject, settings, _registry(settings))
    model = _built(plan)
    try:
        write_onnx(model, file, plan.shape)
    except RunError as error:  # its hint is about another command
        raise RunError(error.problems[0].message) from error
    return replace(_counted(subject, plan, model), file=file.stat().st_size)


def _timed_onnx(settings: Settings, file: Path, channels: int, cost: Cost) -> Cost:
    """Times ONNX Runtime on what `_exported` wrote, in another process, since exporting takes memory too."""
    device = torch.device("cpu")
    needs("onnxruntime")  # whose own libraries are not the model's
    before = _memory(device)
    shape = (channels, cost.size, cost.size)
    latencies = _latencies(OnnxModel(file, threads=settings.threads), shape, settings, device)
    threads = settings.threads or torch.get_num_threads()
    return replace(cost, latencies=latencies, memory=_rise(before, peak_memory(device)), threads=threads)


def _latencies(
    model: nn.Module, shape: tuple[int, int, int], settings: Settings, device: torch.device, channels_last: bool = False
) -> dict[int, Latency]:
    """Batch size → time; none of the others where the smallest batch takes too long, or where they would."""
    found: dict[int, Latency] = {}
    for batch in settings.batches:
        if any(one.median / timed * batch > settings.longest for timed, one in found.items()):
            break
        found[batch] = forward_latency(model, images_of(shape, batch, device, channels_last), seconds=settings.seconds)
        if found[batch].median > settings.most_seconds:
            break
    return found


def _rise(before: int | None, peak: int | None) -> int | None:
    return None if before is None or peak is None else peak - before


def _built(plan: Network) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return plan.build().eval()


def _counted(subject: Subject, plan: Network, model: nn.Module) -> Cost:
    """What can be told without a clock."""
    return Cost(
        name=subject.name,
        run=subject.run,
        size=plan.shape[-1],
        classes=plan.classes,
        parameters=parameters(model),
        macs=macs(model, plan.shape),
        file=file_bytes(model) if plan.file is None else plan.file.stat().st_size,
        latencies={},
        memory=None,
        threads=torch.get_num_threads(),
    )


def counted(subject: Subject, settings: Settings, registry: Registry) -> Cost | None:
    """What can be told of a model without computing anything; None where it cannot be built on the `meta` device.

    Raises:
        DistillError: it cannot be had at this size or with these options.
    """
    plan = network(subject, settings, registry)
    if subject.run is not None:
        return _counted(subject, plan, plan.build())
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _counted(subject, plan, _built(plan))
    except DistillError:
        raise
    except Exception:  # noqa: BLE001 - builders and forwards that need numbers raise what they stumble over; measuring says what is wrong
        return None


def _registry(settings: Settings) -> Registry:
    registry = Registry.load()
    if settings.allow_code:
        registry.allow_code()
    return registry


def _touch_libraries(device: torch.device) -> None:
    """Computes a little of everything, so that the pages of torch's own libraries are not counted as the model's."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        maps = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1))
        net = nn.Sequential(maps, nn.Flatten(), nn.Linear(8, 8))
        net.eval().to(device)(torch.zeros(1, 8, 9, 9, device=device))


def _memory(device: torch.device) -> int | None:
    """Bytes now: of a GPU those that are allocated; of a process its peak so far, which in a new one is what it has."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else peak_memory(device)


def in_child(name: str, work: Callable[..., T], *arguments: Any) -> T | Failure:
    """What a function gives in a new process, or why it gave nothing. name: whose failure it would be."""
    # A server that has imported torch once is forked for each model; where there is none, each process imports it anew.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sending, name, work, *arguments), daemon=True)  # type: ignore[attr-defined]
    process.start()
    sending.close()
    try:
        found: T | Failure = receiving.recv()
        process.join(_TO_END)
    except EOFError:
        process.join()
        ended = f"by signal {-process.exitcode}" if process.exitcode < 0 else f"with code {process.exitcode}"
        hint = "did memory run out? `--batch 1` needs less" if process.exitcode == -getattr(signal, "SIGKILL", 9) else ""
        return Failure(name, f"the process that measured it was ended {ended}", hint)
    finally:
        process.kill()
        process.join()
        receiving.close()
    return found


def _child(sending: Connection, name: str, work: Callable[..., Any], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    os.dup2(2, 1)  # what a package prints must not come between JSON
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    with _told(name) as failures:
        sending.send(work(*arguments))
    for failure in failures:
        sending.send(failure)
