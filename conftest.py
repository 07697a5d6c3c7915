"""What all tests share, of the core and of the plugins."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn

    from distillctl.plugin.registry import Registry

# The example of the guide is not a member of the workspace: its tests run here only where it is installed.
# `tests/plugin/test_example_package.py` installs it and runs them.
collect_ignore = [] if find_spec("distillctl_example") else ["plugins/example"]

# Checks of the contracts that plugins' authors always run, and this suite only with the slow tests.
SLOW_CHECKS = frozenset({"test_compiles_with_its_backward", "test_compiles_once_for_all_epochs"})

POSIX = hasattr(signal, "SIGUSR1") and hasattr(os, "mkfifo")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the user's cache clean, and the processes of the tests quick."""
    folder = tempfile.mkdtemp(prefix="distillctl-tests-")
    os.environ["DISTILLCTL_CACHE"] = folder  # nothing that a test converts or unpacks goes into the user's own cache
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.pop("COLUMNS", None)  # tables are as wide as they like, but where a test says otherwise
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are tiny, and several processes share the cores
    if sys.dont_write_bytecode:  # then each process that imports torch compiles it anew, which takes longer than most tests
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(config.rootpath, ".pytest_cache", "bytecode"))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runs", type=int, default=0, help="how often the tests in tests/chaos repeat their accident; 0: a few times")
    parser.addoption("--share", type=int, default=1, help="every N-th slow test of a family, half of the other slow ones")
    parser.addoption("--write", action="store_true", help="write the table of pairs into plugins/README.md")


def pytest_itemcollected(item: pytest.Item) -> None:
    if getattr(item, "originalname", None) in SLOW_CHECKS:
        item.add_marker(pytest.mark.slow)
    if item.get_closest_marker("posix") and not POSIX:
        item.add_marker(pytest.mark.skip(reason="the system has no signals, pipes and limits of POSIX"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of slow tests that repeat one thing for a whole family, takes the N-th part that `--share N` asks for, and of the other slow ones
    half: others each day.
    """
    share, today = config.getoption("--share"), datetime.date.today().toordinal()
    left = [item for item in items if (zlib.crc32(item.nodeid.encode()) + today) % _one_in(item, share)]
    if left:
        config.hook.pytest_deselected(items=left)
        gone = set(left)
        items[:] = [item for item in items if item not in gone]


def _one_in(item: pytest.Item, share: int) -> int:
    return share if _repeats(item) else min(share, 2) if item.get_closest_marker("slow") is not None else 1


def _repeats(item: pytest.Item) -> bool:
    family = hasattr(item, "callspec") or getattr(item, "originalname", None) in SLOW_CHECKS
    return family and item.get_closest_marker("slow") is not None


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """`runs(default)` is what `--runs` says, or the default."""
    return lambda default: request.config.getoption("--runs") or default


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[nn.Module, Registry]]:
    """`deployed(folder, classes, outputs=3, extra={}, **input)` writes a tiny student of pictures of 16 pixels, as a finished run has it.

    It gives the model and the registry that knows it, which is also what `Registry.load` gives from then on.
    """
    from distillctl.plugin.catalog import Plugin
    from distillctl.plugin.registry import Registry
    from distillctl.testing.tiny_models import TINY_CNN, TinyCNN
    from distillctl.testing.tiny_tasks import TINY_BOXES

    registry = Registry.load({"DISTILLCTL_PLUGINS": ""})
    registry.models.add(TINY_CNN, Plugin("test", "distillctl-test", "1"))
    registry.tasks.add(TINY_BOXES, Plugin("test", "distillctl-test", "1"))
    monkeypatch.setattr(Registry, "load", lambda *_, **__: registry)

    def write(
        folder: Path,
        classes: Sequence[str] = ("a", "b", "c"),
        outputs: int = 3,
        extra: Mapping[str, object] | None = None,
        **stated: object,
    ) -> tuple[nn.Module, Registry]:
        import torch

        from distillctl.models import deploy

        torch.manual_seed(3)
        model = TinyCNN(outputs, 4).eval()
        seen = {"channels": 3, "size": 16, "resize": 20, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
        folder.mkdir(parents=True, exist_ok=True)
        deploy.write_student(
            folder, model, spec=TINY_CNN, shown_name="tiny_cnn", options={"width": 4}, outputs=outputs, classes=classes,
            preprocessing={**seen, **stated}, package="distillctl-test", version="1", extra=extra or {},
        )  # fmt: skip
        return model, registry

    return write


@pytest.fixture(scope="module")
def misleads() -> Iterator[str]:
    """A method of this process alone, and the tables that make a student with it best in its second epoch.

    From the third epoch on it teaches the class after the right one.
    """
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from distillctl import Batch, Features, Method, MethodSpec, Progress, hookimpl
    from distillctl.plugin import registry

    class Misleads(Method):
        def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
            wrong = F.cross_entropy(student["logits"], (batch.labels + 1) % student["logits"].shape[1])
            return torch.where(progress.epoch > 2, 50.0, 0.0) * wrong

    spec = MethodSpec(
        name="misleads", kind="logits", summary="for tests", implementation="misleads:Misleads", weight=1.0, needs_teacher=False
    )
    module = SimpleNamespace(__name__="misleads", Misleads=Misleads, register_method=hookimpl(lambda: spec))
    point, found = EntryPoint("misleads", "misleads", registry.GROUP), registry.entry_points  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "misleads", module)
        patch.setattr(registry, "entry_points", lambda *, group: EntryPoints((*found(group=group), point)))
        yield '[[method]]\nname = "{}"\ntask_weight = 0.1\n[[method]]\nname = "misleads"\n'


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
"""A PNG file of one grey pixel."""


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """`make_run(path, …)` writes a run directory.

    top1: of the result. method: with `values` as keys of its table. epochs: finished ones, of which the last is the best.
    classes: their names. info: more of `run.json`. answers: whether what student and teacher answered is kept, and pictures.
    """
    return _make_run


def _make_run(
    path: Path,
    *,
    top1: float = 0.75,
    method: str = "kd",
    seed: int = 0,
    epochs: int = 3,
    finished: bool = True,
    classes: tuple[str, ...] = ("cat", "dog", "owl"),
    answers: bool = True,
    terms: tuple[str, ...] = ("task", "kd"),
    info: Mapping[str, Any] | None = None,
    **values: Any,
) -> Path:
    import numpy as np

    from distillctl.analysis.differing import Pictures, write_pictures
    from distillctl.rundir.answers import Answers, answers_file, write_answers
    from distillctl.rundir.directory import RunDirectory

    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    teacher = "" if method == "none" else '[teacher]\nname = "resnet56"\ncheckpoint = "t.pth"\n'
    resolved = (
        f'seed = {seed}\n[dataset]\nname = "digits"\n[student]\nname = "resnet8"\n{teacher}[method]\nname = "{method}"\n{table}'
        f"[train]\nepochs = {epochs}\n"
    )
    state = {"name": "small", "digest": "", "method": method, "epochs": epochs, "epoch": epochs, "best_epoch": epochs, "seconds": 12.5}
    state |= {"student": "resnet8"} if method == "none" else {"student": "resnet8", "teacher": "resnet56"}
    state |= info or {}
    run = RunDirectory.create(path, profile=b"", resolved=resolved, environment={"device": "cpu"}, state=state)
    lines = []
    for epoch in range(1, epochs + 1):
        share = epoch / epochs
        line = {
            "phase": "main",
            "epoch": epoch,
            "lr": 0.1 * (1 - share),
            "total": 2 / epoch,
            "terms": dict.fromkeys(terms, 1 / epoch),
            "train_top1": top1 * share,
            "val": {"top1": top1 * share, "loss": 1 / epoch},
            "seconds": 2.0,
        }
        lines.append(json.dumps(line | ({} if method == "none" else {"agreement": share})))
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (path / "model.json").write_text(json.dumps({"classes": list(classes)}))
    if finished:
        figures = {"epoch": epochs, "top1": top1, "loss": 0.9, "count": 4}
        result = {"split": "test", "best": figures, "last": figures, "chance": 1 / 3}
        result |= {} if method == "none" else {"teacher": {"top1": 0.9, "loss": 0.4, "count": 4}, "agreement": 0.5}
        costs = {"student": {"parameters": 1000, "macs": 2e6, "ms": 0.5, "device": "cpu", "threads": 1}, "forwards": {"student": 12}}
        run.update(state="finished", result=result, costs=costs)
    if answers and finished:
        label, index = np.array([0, 1, 2, 1]), np.arange(4)
        sure = np.array([[0.9, 0.06, 0.04], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.8, 0.1, 0.1]], np.float32)
        ranks = {"best": [[0, 1, 2], [0, 1, 2], [2, 1, 0], [1, 0, 2]], "teacher": [[0, 1, 2], [1, 0, 2], [2, 0, 1], [1, 2, 0]]}
        for who, order in ranks.items():
            if who == "best" or method != "none":
                first = np.array(order)
                own = (sure * (first == label[:, None])).sum(1)
                write_answers(answers_file(path, "test", who), Answers(index, label, first, sure, own))
        write_pictures(path, Pictures("test", (1, 2), (PIXEL, PIXEL)))
    return path
