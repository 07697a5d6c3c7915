"""The cases, and what came out of them with 1, 2 and 4 processes: one start of `worker.py` for all tests of this folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from PIL import Image

from distillctl.plugin.registry import Registry

HERE = Path(__file__).parent
CLASSES = "abcdef"
COUNTS = (1, 2, 4)

REGISTRY = Registry.load()
COMPARING = ("sp", "rkd", "pkt", "cc", "dist", "pkd", "crd")
PLAIN = {
    "student": "cifar/resnet8",
    "teacher": "cifar/resnet8",
    "optimizer": "sgd",
    "train": "",
    "batch_size": 13,
    "norms": "",
    "by_hand": False,
    "most": 4,
}
SYNC = "sync_batchnorm = true"


def table(name: str, *lines: str, inner: str = "") -> str:
    """One `[[method]]`."""
    text = "\n".join(["[[method]]", f'name = "{name}"', "task_weight = 0.7", *lines])
    return text + (f'\n[method.inner]\nname = "{inner}"' if inner else "") + "\n"


def _of_every_method() -> dict[str, dict[str, Any]]:
    cases = {}
    for spec in REGISTRY.methods:
        options = ["gather = true"] if spec.name in COMPARING else []
        if spec.name == "crd":
            options.append("negatives = 50")
        case = {**PLAIN, "methods": table(spec.name, *options)}
        if not spec.needs_teacher:
            case["teacher"] = ""
        if spec.name == "tfkd-self":
            case["teacher"] = case["student"]
        if spec.name == "rdrop":
            case["student"] = "speckled"
        if spec.name == "ofd":
            case["train"] = SYNC  # its teacher normalises by the batch
        cases[spec.name] = case
    return cases


def _case(*methods: str, **changes: Any) -> dict[str, Any]:
    return {**PLAIN, "methods": "".join(methods), **changes}


CASES: dict[str, dict[str, Any]] = {
    **_of_every_method(),
    **{f"{name}, each process alone": _case(table(name), by_hand=True) for name in COMPARING if name != "crd"},
    "cc with the kernel": _case(table("cc", 'variant = "kernel"', "gather = true"), most=2),
    "crd, each process alone": _case(table("crd", "negatives = 50")),
    "ctkd by instance": _case(table("ctkd", 'form = "instance"')),
    "ctkd around dist, each process alone": _case(table("ctkd", inner="dist"), by_hand=True),
    "ctkd by instance around dist": _case(table("ctkd", 'form = "instance"', "gather = true", inner="dist"), most=2),
    "lskd around dkd": _case(table("lskd", inner="dkd"), most=2),
    "mgd by positions": _case(table("mgd", 'mask = "spatial"'), most=2),
    "rdrop, summed": _case(table("rdrop", 'reduction = "sum"'), student="speckled", teacher=""),
    "byot and rdrop": _case(table("byot"), table("rdrop"), student="speckled", teacher="", most=2),
    "reviewkd with batch statistics": _case(table("reviewkd", 'teacher_norm = "batch"'), train=SYNC),
    "crd and kd": _case(table("crd", "negatives = 50", "gather = true"), table("kd"), most=2),
    "rkd, crd, rdrop and kd": _case(
        table("rkd", "gather = true"),
        table("crd", "negatives = 50"),
        table("rdrop"),
        table("kd"),
        student="speckled",
        teacher="tiny_wide",
        most=2,
    ),
    "simkd and sp": _case(table("simkd"), table("sp", "gather = true"), most=2),
    "two teachers": _case(
        table("kd", "teacher_weights = [0.7, 0.3]"),
        table("sp", "gather = true"),
        table("dkd", 'teacher_weights = "confidence"'),
        teacher="cifar/resnet14 tiny_wide",
        most=2,
    ),
    "kd with dot": _case(table("kd"), optimizer="dot"),
    "sp and kd with dot": _case(table("sp", "gather = true"), table("kd"), optimizer="dot", most=2),
    "ft, fsp, ab and kd with dot": _case(*map(table, ("ft", "fsp", "ab", "kd")), optimizer="dot"),
    "a branch that no loss reaches": _case(table("kd"), student="idle", teacher="tiny_wide"),
    "a branch that no loss reaches, with dot": _case(table("kd"), student="idle", teacher="tiny_wide", optimizer="dot"),
    "kd in two parts": _case(table("kd"), train="accumulate = 2"),
    "mgd and crd in two parts": _case(table("mgd"), table("crd", "negatives = 50"), train="accumulate = 2", batch_size=24),
    "kd in two parts with dot": _case(table("kd"), optimizer="dot", train="accumulate = 2"),
    "clipped": _case(table("kd"), train="clip_grad_norm = 0.01", most=2),
    "a moving average": _case(table("kd"), train="ema = 0.9", most=2),
    "synchronised: kd": _case(table("kd"), norms="batch", train=SYNC),
    "synchronised: wide ResNets": _case(table("at"), norms="batch", train=SYNC, student="cifar/wrn_16_1", teacher="cifar/wrn_16_2", most=2),
    "synchronised: byot": _case(table("byot"), norms="batch", train=SYNC, teacher="", most=2),
    "synchronised: ofd": _case(table("ofd"), norms="batch", train=SYNC),
    "synchronised: ft": _case(table("ft"), norms="batch", train=SYNC, most=2),
    "a transformer": _case(table("kd"), table("rkd", "gather = true"), student="tiny_vit", most=2),
}
"""Name → what stands in the profile; `norms` = batch leaves batch normalisation as it is in training, else it is frozen; `by_hand`:
the gradients of shares are computed in one process too; `most`: with how many processes at most."""

FILES = """
[dataset]
name = "imagefolder"
root = "{root}"
image_size = 16
val_fraction = 0.0
[student]
name = "cifar/resnet8"
[method]
name = "none"
[optimizer]
name = "sgd"
lr = 0.01
[train]
epochs = 1
workers = 0
[evaluate]
batch_size = 32
"""

STUDENT = """
[dataset]
name = "digits"
limit = 100
[student]
name = "tiny_cnn"
[teacher]
name = "tiny_wide"
checkpoint = "{root}/wide.pt"
allow_untrained = true
[[method]]
name = "crd"
negatives = 50
task_weight = 1.0
[[method]]
name = "byot"
[optimizer]
name = "sgd"
lr = 0.02
[schedule]
name = "cosine"
[train]
epochs = 3
batch_size = 32
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case with 2 and 4 processes, or with 2 alone, where `case` and `count` are asked for."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize(
            ("case", "count"), [(name, count) for name, case in CASES.items() for count in (2, 4) if count <= case["most"]]
        )


def _make_files(folder: Path) -> None:
    draw = torch.Generator().manual_seed(5)
    for split, counts in (("train", [2] * 6), ("test", [12] * 5 + [10])):
        for label, count in zip(CLASSES, counts, strict=True):
            place = folder / "images" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 256, (24, 20, 3), generator=draw, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(place / f"{number}.png")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the worker was, after it has done everything; the same for all processes of pytest."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _work(tmp_path_factory.mktemp("processes"))
    folder = tmp_path_factory.getbasetemp().parent / "processes"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        return folder if (folder / "done").exists() else _work(folder)


def _work(folder: Path) -> Path:
    _make_files(folder)
    (folder / "cases.json").write_text(json.dumps(CASES))
    (folder / "files.toml").write_text(FILES.format(root=folder / "images"))
    (folder / "student.toml").write_text(STUDENT.format(root=folder))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "worker.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False, env=environment)
    assert not done.returncode, done.stderr[-4000:]
    (folder / "done").touch()
    return folder


@pytest.fixture(scope="session")
def found(folder: Path) -> dict[int, dict[str, Any]]:
    """By number of processes and name of the case, what `worker.Bench` gives."""
    return {count: torch.load(folder / f"{count}.pt", weights_only=True) for count in COUNTS}
