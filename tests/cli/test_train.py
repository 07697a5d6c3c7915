"""`train`, `eval` and `bench` as a user calls them, on a few digits."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distillctl import load_student
from distillctl.cli import run
from distillctl.engine import checkpoint
from distillctl.engine.memory import peak_memory
from distillctl.models.cost import macs as macs_of

TEACHER = """
[dataset]
name = "digits"
limit = 200
augment = "crop_flip"
[student]
name = "resnet14"
[optimizer]
lr = 0.02
[train]
epochs = 2
"""
STUDENT = """
[dataset]
name = "digits"
limit = 200
[student]
name = "resnet8"
[teacher]
profile = "teacher.toml"
allow_untrained = true
{methods}
[optimizer]
lr = 0.02
[train]
epochs = 3
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, misleads: str) -> tuple[Path, str]:
    """A folder with a finished run, whose second epoch of three is the best, and what its training printed."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "student.toml").write_text(STUDENT.format(methods=misleads.format("kd")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        import contextlib
        import io

        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert run(["train", "student.toml", "--device", "cpu"]) == 0
    return folder, out.getvalue()


@pytest.fixture
def inside(trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained[0])
    return trained[0]


def student_run(folder: Path) -> Path:
    return next((folder / "runs").glob("student-*"))


def test_train_prints_epochs_and_what_came_out(trained: tuple[Path, str]) -> None:
    folder, out = trained
    lines = out.splitlines()
    assert [sum(line.startswith(f"epoch {n}") for line in lines) for n in ("2/2", "3/3")] == [1, 1]
    assert "kd " in next(line for line in lines if line.startswith("epoch 1/3"))
    heads = ["student", "last", "gain", "agreement", "size", "parameters", "MACs", "ms", "time", "file", "run"]
    assert [line.split()[0] for line in lines[-11:]] == heads
    sizes, counts, macs, times = lines[-7:-3]
    assert sizes.split() == ["size", "student", "teacher"]
    assert re.fullmatch(r" {11}parameters   78,042  175,258  2\.2 times as many", counts)
    assert re.fullmatch(r" {11}MACs +[\d.]+ [kM] +[\d.]+ [kM]  \d\.\d times as many", macs)
    assert re.fullmatch(r" {11}ms +[\d.,]+ +[\d.,]+  \d+\.\d times as long, one image on cpu, \d+ threads?", times)
    assert len({line.index(end) + len(end) for line, end in ((sizes, "student"), (counts, "78,042"))}) == 1
    info = json.loads((student_run(folder) / "run.json").read_text())
    costs, result = info["costs"], info["result"]
    assert list(costs) == ["student", "teacher", "methods", "forwards", "images", "peak_memory"]
    sides = {side: costs[side] for side in ("student", "teacher")}
    assert all(set(cost) == {"parameters", "macs", "ms", "device", "threads"} for cost in sides.values())
    assert {side: cost["parameters"] for side, cost in sides.items()} == result["parameters"]
    assert costs["methods"] == {"parameters": 0, "macs": 0}
    assert costs["student"]["macs"] == macs_of(load_student(student_run(folder)).model, (3, 8, 8))
    assert lines[-2].split()[1] == f"{lines[-1].split()[1]}/student.safetensors"
    assert any(line.startswith("teacher    ") for line in lines)
    assert lines[-1].split()[1] == str(student_run(folder).relative_to(folder))


def test_again_says_finished_and_quiet_says_only_the_result(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "student.toml", "--device", "cpu", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "this run is finished" in out
    assert "epoch 1/" not in out


def test_eval_prints_the_same_number(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--json", "--device", "cpu"]) == 0
    report = json.loads(capsys.readouterr().out)
    best = json.loads((student_run(inside) / "run.json").read_text())["result"]["best"]
    assert Path(report["run"]) == student_run(inside).relative_to(inside)
    assert {k: report[k] for k in best} == best
    assert [c["name"] for c in report["classes"]] == [str(d) for d in range(10)]
    assert sum(c["count"] for c in report["classes"]) == report["count"]
    folder = student_run(inside) / "evaluations"
    assert json.loads((folder / "test-best.json").read_text()) == report
    assert len((folder / "test-best-confusion.csv").read_text().splitlines()) == 11
    before = {path: path.read_bytes() for path in student_run(inside).rglob("*") if path.is_file()}
    assert run(["train", "student.toml", "--device", "cpu"]) == 0  # which says that the run is finished
    assert {path: path.read_bytes() for path in student_run(inside).rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("words", "kind"), [(["--tta"], "flip"), (["--tta", "flip"], "flip"), ([], "")])
def test_eval_tta_with_and_without_a_word(inside: Path, capsys: pytest.CaptureFixture[str], words: list[str], kind: str) -> None:
    teacher = next((inside / "runs").glob("teacher-*"))
    assert run(["eval", str(teacher), *words, "--split", "val", "--per-class", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert ("flip" in out) == (kind == "flip")
    assert out.count(" without)") == (4 if kind else 0)
    assert "split   val" in out
    assert len([line for line in out.splitlines() if line.startswith("  ")]) == 10
    if kind:
        assert run(["eval", str(student_run(inside)), *words, "--device", "cpu"]) == 2
        assert "mirrors images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["eval", "--tta", "ten_crop"], 2, "ten"),
        (["eval", "--split", "train"], 2, "unknown split"),
        (["eval", "--checkpoint", "nowhere.pt"], 2, "nowhere.pt"),
        (["eval", "nowhere"], 2, "there is no run directory `nowhere`"),
        (["eval", "runs"], 2, "not a run directory"),
        (["train", "student.toml", "--out", "student.toml/deeper"], 3, "the run directory `student.toml/deeper` cannot be made"),
        (["train", "student.toml", "--device", "cuda:99"], 3, "CUDA"),
        (["train", "student.toml", "--device", "abacus"], 2, "unknown device"),
        (["train", "student.toml", "--set", "train.epochs=0"], 2, "at least 1"),
        (["train", "student.toml", "--set", "train.precision=fp16", "--device", "cpu"], 2, "needs a GPU"),
        (["bench", "student.toml", "--steps", "0"], 2, "steps"),
    ],
)
def test_errors_and_their_codes(inside: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str) -> None:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_dry_run_tells_the_plan(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(p.name for p in (inside / "runs").iterdir())
    assert run(["train", "student.toml", "--dry-run", "--method", "mgd", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    for words in ("student    resnet8", "teacher    resnet14", "last", "64 × 2 × 2", "steps", "time       about", "mgd"):
        assert words in out
    assert ("MiB" in out) == (peak_memory(torch.device("cpu")) is not None)
    assert out.count("logits ") == 1, "student and teacher answer the same question"
    assert "logits     10\n" in out
    assert sorted(p.name for p in (inside / "runs").iterdir()) == before


def test_bench_measures_parts_and_ratio(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "student.toml", "--method", "crd", "--steps", "2", "--warmup", "1", "--json", "--device", "cpu"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert set(result["parts"]) == {"data", "teacher", "student", "loss", "guard", "optimizer"}
    assert all(value > 0 for value in result["parts"].values())
    assert result["mode"] == "eager"
    assert result["ratio"] > 0
    assert result["images_per_second"] == pytest.approx(result["batch_size"] / result["step"])
    assert run(["bench", "student.toml", "--steps", "1", "--warmup", "1", "--device", "cpu"]) == 0
    assert "yardstick" in capsys.readouterr().out


def test_a_full_disk_ends_the_run_with_3(inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "last.pt")

    monkeypatch.setattr(checkpoint, "save", full)
    assert run(["train", "teacher.toml", "--seed", "7", "--device", "cpu"]) == 3
    assert "no space left on device at `last.pt`" in capsys.readouterr().err


def test_windows_trains_in_one_process(inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    assert run(["train", "student.toml", "--nproc", "2", "--device", "cpu"]) == 3
    assert "`--nproc` starts several processes on Linux and macOS only" in capsys.readouterr().err


def test_all_processes_may_run_the_file_that_one_may(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, list[str]]] = []

    @contextmanager
    def started(count: int, arguments: list[str], _say: object) -> Iterator[SimpleNamespace]:
        given.append((count, arguments))
        yield SimpleNamespace(launch=lambda: 0)

    monkeypatch.setattr("distillctl.distributed.launcher.launcher", started)
    (inside / "nets.py").write_text("from distillctl_cifar.models import resnet8\n")
    for more in ([], ["--allow-code"]):
        run(["train", "student.toml", "--nproc", "2", "--set", "student.name=file:nets.py:resnet8", "--device", "cpu", *more])
    ((count, arguments),) = given  # without the option the file is not run, and nothing is started
    assert count == 2
    assert "--allow-code" in arguments
