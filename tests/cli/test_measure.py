"""`measure` on the command line: the table, the files for others, and what has no effect. Nothing is timed here."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from distillctl.cli import run
from distillctl.cli.measure import print_costs
from distillctl.commands import budget, measure
from distillctl.commands.measure import Cost, Failure, Settings, Top1
from distillctl.commands.subjects import Subject
from distillctl.models.cost import Latency
from distillctl.plugin.registry import Registry
from distillctl.text import milliseconds

TIMES = {1: Latency(0.0025, 0.003, 9), 32: Latency(0.064, 0.07, 9)}
TIMED = ["ms", "×1", "p95", "×1", "ms", "×32", "p95", "×32"]


@pytest.fixture(autouse=True)
def instant(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Every forward takes as long, and `vgg8` cannot be measured; the settings that arrived."""
    seen: list[Settings] = []

    def measured(subject: Subject, settings: Settings, registry: Registry) -> Cost | Failure:
        seen.append(settings)
        if subject.name == "vgg8":
            return Failure("vgg8", "it burnt down", "put it out")
        cost = measure.counted(subject, settings, registry)
        assert cost is not None
        times = {batch: TIMES.get(batch, Latency(1, 1, 1)) for batch in settings.batches}
        return measure.replace(cost, latencies=times, memory=9_000_000, threads=2)

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(budget, "measure", measured)
    monkeypatch.setattr(budget, "_fastest", lambda settings: float("inf"))
    return seen


def test_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "resnet8", "wrn_16_*", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split() == ["model", "params", "MACs", "MB", *TIMED, "images/s", "memory"]
    assert lines[1].split() == ["resnet8", "83.9", "k", "12.5", "M", "0.34", "2.50", "3.00", "64.0", "70.0", "500", "9"]
    assert [line.split()[0] for line in lines[1:4]] == ["resnet8", "wrn_16_1", "wrn_16_2"]
    assert lines[4].startswith("torch on cpu, 2 threads; images of 32 pixels; ms: median")
    assert len({line.rindex("9") for line in lines[1:4]}) == 1, "numbers stand below each other"


def test_narrow_terminals_see_less(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["measure", "resnet8", "torchvision/mobilenet_v3_small", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "p95" not in lines[0]
    assert "pixels" in lines[0]
    assert "ms ×32" in lines[0]


def test_what_fails_is_named_and_the_rest_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "vgg8", "resnet8", "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert "\nresnet8 " in f"\n{out.splitlines()[1]} "
    assert out.splitlines()[-1] == "not measured: vgg8: it burnt down (put it out)"
    assert run(["measure", "vgg8", "--device", "cpu", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failures"] == [{"name": "vgg8", "reason": "it burnt down", "hint": "put it out"}]
    assert told["models"] == []


def test_json_and_csv(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "costs.csv"
    assert run(["measure", "resnet8", "resnet14", "--batch", "32", "--batch", "1", "--device", "cpu", "--json", "--csv", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["device"], told["runtime"]) == ("cpu", "torch")
    first = told["models"][0]
    assert (first["name"], first["parameters"], first["bytes"], first["memory_bytes"]) == ("resnet8", 83_892, 343_104, 9_000_000)
    assert [(one["batch"], one["median_ms"], one["images_per_second"]) for one in first["latency"]] == [(1, 2.5, 400), (32, 64, 500)]
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert [row["name"] for row in rows] == ["resnet8", "resnet14"]
    assert (rows[0]["macs"], rows[0]["median_ms_batch1"], rows[0]["images_per_second_batch32"]) == (str(first["macs"]), "2.5", "500.0")


def test_options_arrive(instant: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--image-size", "64", "--num-classes", "7", "--threads", "3", "--batch", "4", "--set", "model.stages=2", "--device", "cpu"]
    assert run(["measure", "resnet8", *words]) == 0
    (settings,) = instant
    assert settings == Settings("cpu", 3, "torch", (4,), 64, 7, {"stages": 2})
    assert "images of 64 pixels" in capsys.readouterr().out


def test_a_budget(instant: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--budget", "5ms", "--budget", "1M", "--from", "wrn_*", "--limit", "2", "--device", "cpu"]
    assert run(["measure", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["models"]] == ["wrn_16_2", "wrn_40_1"]
    sizes = [one["macs"] for one in told["models"]]
    assert sizes == sorted(sizes, reverse=True)
    assert all(one["parameters"] <= 1e6 for one in told["models"])
    assert told["candidates"] > told["timed"] >= told["more"] + 2
    assert run(["measure", *words]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith(
        f"{told['more'] + 2} of {told['candidates']} models fit, {told['more']} more than shown; {told['timed']} were timed"
    )
    assert run(["measure", "--budget", "1ms", "resnet8", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines() == ["0 of 1 model fit; 1 were timed, and the others left out before"]


def test_models_without_a_known_top1_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--budget", "4M", "--from", "torchvision/mobilenet_v*", "--from", "resnet8", "--min-top1", "0.7", "--device", "cpu"]
    assert run(["measure", *words]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:2]] == ["mobilenet_v2"]
    assert "72.15%  published, ImageNet, IMAGENET1K_V2" in out
    assert "top-1: published on ImageNet" in " ".join(out.split())
    assert "1 model has no known top-1 and cannot be held against --min-top1 0.7: left out" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing is named that could be measured"),
        (["resnet8", "--limit", "2"], "`--limit` has no effect without `--budget`"),
        (["resnet8", "--from", "x"], "`--from` has no effect without `--budget`"),
        (["resnet8", "--min-top1", "0.5"], "`--min-top1` has no effect without `--budget`"),
        (["resnet8", "--runtime", "tensorrt"], "unknown runtime `tensorrt`"),
        (["resnet8", "--set", "stages=2"], "`stages` is not an option of a model"),
        (["resnet8", "--csv", "nowhere/costs.csv"], "there is no folder `nowhere`"),
        (["resnet8", "--budget", "5 apples"], "`5 apples` is not a budget"),
        (["resnet9"], "no model is called `resnet9`"),
    ],
)
def test_what_is_mistyped(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", *words, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


def test_sources_and_empty_cells(capsys: pytest.CaptureFixture[str]) -> None:
    costs = [
        Cost("a", Path("runs/a"), 8, 3, 999_499, 2, 3, {1: Latency(0.1, 0.2, 3)}, None, 1, Top1(0.5, "measured on test")),
        Cost("b", None, 16, 3, 999_500, 2_000_000_000, 30_000_000, TIMES, None, 1),
    ]
    print_costs(costs, Settings(batches=(1, 32)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "pixels", "params", "MACs", "MB", *TIMED, "images/s", "top-1", "of"]
    assert lines[1].split() == ["a", "8", "999", "k", "2", "0.00", "100", "200", "50.00%", "measured", "on", "test"]
    assert lines[2].split() == ["b", "16", "1.00", "M", "2.00", "G", "30.0", "2.50", "3.00", "64.0", "70.0", "500"]
    assert lines[3].endswith("top-1: measured on test")


def test_batches_that_nobody_asked_for_take_ten_seconds_at_most(instant: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "resnet8", "--device", "cpu"]) == 0
    assert "would take" not in capsys.readouterr().out
    assert run(["measure", "resnet8", "--batch", "1", "--batch", "32", "--device", "cpu"]) == 0
    assert [settings.longest for settings in instant] == [10, math.inf]


def test_batches_that_were_left_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = measure.measure
    monkeypatch.setattr(measure, "measure", lambda *asked: measure.replace(real(*asked), latencies={1: Latency(2.0, 2.0, 3)}))
    assert run(["measure", "resnet8", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-2] == "0.5", "images a second"
    assert lines[-1] == "resnet8: ×32 would take more than 10 s; `--batch N` times it all the same"


@pytest.mark.parametrize(("seconds", "shown"), [(0.00012345, "0.12"), (0.00999, "9.99"), (0.01, "10.0"), (0.09996, "100"), (1.5, "1,500")])
def test_milliseconds_have_three_digits(seconds: float, shown: str) -> None:
    assert milliseconds(seconds) == shown


def test_a_typo_is_told_without_torch() -> None:
    code = "import sys\nfrom distillctl.cli import run\nprint(run(['measure', 'resnet9']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "2 False\n"
    assert "no model is called `resnet9`" in done.stderr
