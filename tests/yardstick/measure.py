"""The yardstick: what small runs of everything leave behind, to the last bit.

    python tests/yardstick/measure.py record [CASE …]     writes recorded.json beside this file
    python tests/yardstick/measure.py compare [CASE …]    runs again and prints every difference
    python tests/yardstick/measure.py list                names the cases, with a word on what each covers

A change of the structure must not change a bit of any run. Bits depend on the machine, the number of threads and torch; where
those differ from the recorded ones, numbers may differ by `TOLERANCE` and everything else must still be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.json"
TOLERANCE = 0.1
"""Relative, and for shares of images absolute: other kernels round otherwise, and two epochs at a large rate amplify that."""
_BITS = {"bits", "file_bits"}
"""Hashes that say nothing on another machine."""
_TIMES = {"seconds", "train_seconds", "evaluation_seconds", "images_per_second", "costs"}
_LATER = {"macro_precision", "macro_recall", "macro_f1", "ece", "precision", "recall", "f1"}
_LATER_IN_RECORDS, _LATER_FILES = {"agreement", "forwards"}, {"predictions", "report.html"}
"""What was not told when all was recorded."""
PROFILE = """
seed = 5
[dataset]
name = "digits"
limit = 200
augment = "crop_flip"
[student]
name = "resnet8"
dropout = 0.1
{teacher}
{methods}
[optimizer]
lr = 0.02
[schedule]
name = "cosine"
[train]
epochs = 2
batch_size = 32
"""
TRAINED = """
seed = 5
[dataset]
name = "digits"
limit = 600
[student]
name = "resnet14"
[method]
name = "none"
[train]
epochs = 4
batch_size = 32
"""
"""A teacher that learnt something: the others have their first weights, whose answers hardly depend on the image."""
TEACHER = '[teacher]\nname = "resnet14"\ncheckpoint = "teacher.pt"\nallow_untrained = true'
_WITHOUT = {"none", "byot", "rdrop", "tfkd"}


@dataclass(frozen=True)
class Case:
    """A run.

    methods: its tables. overrides: `--set`. arguments: of `train`. eval: of `eval`. stop: epoch after which it is killed.
    teacher: its table, where it is another one than `TEACHER`. covers: what `list` says of it.
    """

    methods: str = '[[method]]\nname = "kd"'
    overrides: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    eval: tuple[str, ...] = ()
    stop: int = 0
    teacher: str = ""
    covers: str = ""


def _method(text: str) -> str:
    """`kd+at`, `ctkd(dkd)`, `ft init_epochs=1` as tables."""
    tables = []
    for one in text.split("+"):
        name, *options = one.split()
        options += ["task_weight=1.0"] if "+" in text and not tables else []
        outer, _, inner = name.rstrip(")").partition("(")
        table = [f'[[method]]\nname = "{outer}"', *(option.replace("=", " = ") for option in options)]
        tables.append("\n".join(table) + (f'\n[method.inner]\nname = "{inner}"' if inner else ""))
    return "\n".join(tables)


def _kind(text: str) -> str:
    """What is special about methods that are written so."""
    words = (("+", "several tables add up"), ("(", "a method within a method"), ("init_epochs", "a phase of its own first"))
    return ", ".join(word for sign, word in words if sign in text) or "the method alone"


_PLAIN = (
    "none", "kd", "soft-target", "at", "byot", "cc", "crd negatives=64", "ctkd", "cwd", "dist", "dkd", "fitnet", "kdsvd", "lskd", "mgd",
    "nkd", "nst", "ofa", "ofd", "pefd", "pkd", "pkt", "pseudo", "rdrop", "reviewkd", "rkd", "sdd", "simkd", "sp", "tfkd", "ttm",
    "unit-scale", "vid", "vkd", "wttm",
    "ab init_epochs=1", "fsp init_epochs=1", "ft init_epochs=1",
    "ctkd(dkd)", "lskd(ctkd)", "kd+at", "simkd+sp", "ofd+kd", "rdrop+kd", "ft init_epochs=1+fsp init_epochs=1+ab init_epochs=1+kd",
)  # fmt: skip
_DOT = 'optimizer={name="dot", lr=0.02}'
_FILES = 'dataset={name="imagefolder", root="photos", image_size=24, augment="%s"}'
_RESNET18 = ('student={name="torchvision/resnet18"}', 'teacher={name="torchvision/resnet34", checkpoint="large.pt", allow_untrained=true}')
CASES: Mapping[str, Case] = {
    **{f"method {re.sub(' [a-z_]+=[0-9]+', '', text)}": Case(_method(text), covers=_kind(text)) for text in _PLAIN},
    "method tfkd-self": Case(
        _method("tfkd-self"),
        ('teacher={name="resnet8", checkpoint="same.pt", allow_untrained=true}',),
        covers="a teacher of the student's own architecture",
    ),
    "dot": Case(_method("kd+mgd"), (_DOT,), covers="two gradients from one graph"),
    "dot, phases and two passes": Case(
        _method("ft init_epochs=1+rdrop"), (_DOT,), covers="two gradients behind a phase, and of a student that runs twice"
    ),
    "adamw": Case(overrides=('optimizer={name="adamw", lr=0.002, weight_decay=0.05}',), covers="the other optimizer, with its decay"),
    "moving average": Case(overrides=("train.ema=0.9", "train.ema_ramp=10.0"), covers="the average is what is evaluated and deployed"),
    "moving average behind a phase": Case(
        _method("ab init_epochs=1+kd"), ("train.ema=0.9", "train.epochs=1"), covers="an average that begins after a phase"
    ),
    "in parts": Case(
        _method("rkd+kd"), ("train.accumulate=3",), covers="accumulated steps, and losses that compare the samples of a batch"
    ),
    "smoothed and clipped": Case(
        overrides=("train.label_smoothing=0.1", "train.clip_grad_norm=0.5"), covers="label_smoothing and clip_grad_norm"
    ),
    "steps with warm-up": Case(
        overrides=('schedule={name="step", milestones=[0.5], warmup=0.2}', "train.keep_every=1"),
        covers="the step schedule, a warm-up, and every epoch kept",
    ),
    "bf16": Case(_method("kd+reviewkd"), ('train.precision="bf16"',), covers="autocast, and losses in float32 beside it"),
    "files": Case(
        overrides=(_FILES % "randaugment", "train.workers=2", *_RESNET18),
        eval=("--tta", "ten_crop"),
        covers="JPEG and PNG decoded by two workers, randaugment, torchvision's models, ten crops",
    ),
    "files, cropped": Case(
        _method("at+kd"),
        (_FILES % "random_resized_crop", "train.workers=0", 'train.precision="bf16"', *_RESNET18),
        covers="files decoded in this process, crops of random size, bf16",
    ),
    "mirrored views": Case(
        overrides=('dataset.augment="crop_flip"',), eval=("--tta", "flip", "--split", "val"), covers="eval on val, mirrored too"
    ),
    "last checkpoint": Case(
        _method("none"),
        ("train.epochs=3", "optimizer.lr=0.2"),
        eval=("--checkpoint", "last"),
        covers="eval of the last epoch, which is not the best",
    ),
    "stopped and continued": Case(
        _method("crd negatives=64+ft init_epochs=1"),
        ("train.ema=0.9",),
        stop=2,
        covers="a signal in the middle, then the same command again",
    ),
    "two processes": Case(_method("kd"), ("student.dropout=0.0",), ("--nproc", "2"), covers="gloo, gradients averaged"),
    "two processes, gathered": Case(
        _method("crd negatives=64 gather=true+sp gather=true"),
        ("train.sync_batchnorm=true", "student.dropout=0.0"),
        ("--nproc", "2"),
        covers="features and draws of the whole batch, synchronised batch normalisation",
    ),
    "teacher of a run": Case(teacher='[teacher]\nrun = "trained"', covers="teacher.run: a run directory, whose model and weights are read"),
    "teacher of a profile": Case(
        _method("ofd+kd"),
        teacher='[teacher]\nprofile = "teacher.toml"',
        covers="teacher.profile: trained first; a teacher with a margin to fit",
    ),
}


def fingerprint() -> dict[str, str]:
    """What bits depend on."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    return {"processor": model, "torch": str(torch.__version__), "threads": "1"}


def measure(name: str) -> dict[str, Any]:
    """Runs a case in a folder of its own; what it left."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _prepare(case)
        overrides = [part for override in case.overrides for part in ("--set", override)]
        train = ["train", "profile.toml", *overrides, "--out", "run", "--device", "cpu", "--quiet", *case.arguments]
        if "trained" in case.teacher:
            _call(["train", "teacher.toml", "--out", "trained", "--device", "cpu", "--quiet"])
        if case.stop:
            _call(train, stop=case.stop)
        _call(train)
        checked = _called(["check", "profile.toml", *overrides])
        return {"check": _text_hash(checked), **_left(Path("run")), "eval": _evaluated(case)}


def _prepare(case: Case) -> None:
    names = {table["name"] for table in tomllib.loads(case.methods)["method"]}
    teacher = "" if names <= _WITHOUT else case.teacher or TEACHER
    Path("teacher.toml").write_text(TRAINED, encoding="utf-8")
    Path("profile.toml").write_text(PROFILE.format(methods=case.methods, teacher=teacher), encoding="utf-8")
    from distillctl_cifar.models import resnet8, resnet14

    torch.manual_seed(0)
    torch.save(resnet14(num_classes=10).state_dict(), "teacher.pt")
    torch.save(resnet8(num_classes=10).state_dict(), "same.pt")
    if any("photos" in override for override in case.overrides):
        import torchvision

        torch.save(torchvision.models.resnet34(num_classes=3).state_dict(), "large.pt")
        _photos(Path("photos"))


def _photos(root: Path) -> None:
    """Noise with a colour for each class, as JPEG and PNG."""
    from PIL import Image

    draw = torch.Generator().manual_seed(0)
    for split, count in (("train", 16), ("test", 6)):
        for number, kind in enumerate(("cat", "dog", "owl")):
            folder = root / split / kind
            folder.mkdir(parents=True)
            for image in range(count):
                pixels = torch.randint(0, 120, (32, 40, 3), generator=draw)
                pixels[..., number] += 100
                end = "png" if image % 3 else "jpg"
                Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{image}.{end}")


def _call(arguments: list[str], *, stop: int = 0) -> None:
    """Trains: in this process, unless it takes several, or is stopped in the middle."""
    if not stop and "--nproc" not in arguments:
        _called(arguments)
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "distillctl", *arguments], env=environment, stderr=subprocess.PIPE)
    if stop:
        _stop_after(process, stop)
    _, errors = process.communicate(timeout=300)
    if process.returncode != (143 if stop else 0):
        raise RuntimeError(f"exit code {process.returncode} of {' '.join(arguments)}: {errors.decode()[-2000:]}")


def _stop_after(process: subprocess.Popen[bytes], epochs: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if json.loads(Path("run/run.json").read_text(encoding="utf-8"))["epoch"] >= epochs:
                process.terminate()
                return
        time.sleep(0.005)


def _called(arguments: list[str]) -> str:
    """What a command prints."""
    from distillctl.cli import run

    torch.set_num_threads(1)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    if code:
        raise RuntimeError(f"exit code {code} of {' '.join(arguments)}: {err.getvalue()[-2000:]}")
    return out.getvalue()


def _evaluated(case: Case) -> Any:
    return _plain(json.loads(_called(["eval", "run", "--json", "--device", "cpu", *case.eval])))


def _left(run: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "files": sorted(
            p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and not {p.name, p.parent.name} & _LATER_FILES
        ),
        "student": {**_tensors(load_file(run / "student.safetensors")), "file_bits": _hash((run / "student.safetensors").read_bytes())},
        "model.json": _hash((run / "model.json").read_bytes()),
        "resolved": _text_hash((run / "resolved.toml").read_text(encoding="utf-8")),
        "state": {part: _tensors(_flat(state[part])) for part in ("student", "methods", "optimizer", "ema")},
        "metrics": [_plain({key: value for key, value in record.items() if key not in _LATER_IN_RECORDS}) for record in records],
        "result": _plain(json.loads((run / "run.json").read_text(encoding="utf-8"))["result"]),
    }


def _plain(value: Any) -> Any:
    """Without what depends on the clock or the place, and without what is told of an evaluation and was not when all was recorded."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in (*_TIMES, *_LATER) and key != "run"}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _flat(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors within, by path."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    entries: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        entries = iter(value.items())
    elif isinstance(value, list | tuple):
        entries = iter(enumerate(value))
    return {path: tensor for key, one in entries for path, tensor in _flat(one, f"{name}.{key}").items()}


def _tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """One hash for names, types and shapes, and one for the bits."""
    form, bits = hashlib.sha256(), hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        form.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        bits.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return {"form": form.hexdigest()[:16], "bits": bits.hexdigest()[:16]}


def _text_hash(text: str) -> str:
    return _hash(_normal(text).encode())


def _normal(text: str) -> str:
    """Without the folder of the measurement; columns whose width depends on it are one space wide, and rules are left out."""
    lines = [" ".join(line.replace(str(Path.cwd()), "HERE").split()) for line in text.splitlines()]
    return "\n".join(line for line in lines if set(line) - set("-─━ "))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def differences(before: Any, after: Any, *, exact: bool, place: str = "") -> Iterator[str]:
    """Every difference between two measurements, with its place."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            if key not in before or key not in after:
                yield f"{place}.{key}: {'gone' if key in before else 'new'}"
            elif exact or key not in _BITS:
                yield from differences(before[key], after[key], exact=exact, place=f"{place}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, exact=exact, place=f"{place}[{number}]")
    elif isinstance(before, float) and isinstance(after, float | int) and not exact:
        if abs(before - after) > TOLERANCE * max(1.0, abs(before)):
            yield f"{place}: {before} → {after}"
    elif before != after and (exact or not place.endswith(("correct", "best.epoch", "last.epoch", "].epoch", ".epoch"))):
        yield f"{place}: {before} → {after}"


def compare(names: list[str], say: Callable[[str], None]) -> int:
    """Measures cases again; how many differ."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    exact = recorded["fingerprint"] == fingerprint()
    if not exact:
        say(f"recorded with {recorded['fingerprint']}, here is {fingerprint()}: numbers within {TOLERANCE}")
    wrong = 0
    for name in names:
        found = list(differences(recorded["cases"][name], measure(name), exact=exact))
        wrong += bool(found)
        say(f"{'DIFFERS' if found else 'equal  '} {name}")
        for line in found[:8]:
            say(f"    {line}")
    return wrong


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare", "list"))
    parser.add_argument("cases", nargs="*", metavar="CASE")
    given = parser.parse_args()
    names = given.cases or list(CASES)
    if given.what == "list":
        print("\n".join(f"{name:<32} {case.covers}" for name, case in CASES.items()))
        return 0
    if given.what == "compare":
        return 1 if compare(names, lambda line: print(line, flush=True)) else 0
    old = json.loads(RECORDED.read_text(encoding="utf-8"))["cases"] if RECORDED.is_file() else {}
    for name in names:
        old[name] = measure(name)
        print(name, flush=True)
        cases = {name: old[name] for name in CASES if name in old}
        text = json.dumps({"fingerprint": fingerprint(), "cases": cases}, separators=(",", ":"))
        RECORDED.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
