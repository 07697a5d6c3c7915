"""`check`: the resolved profile with the origin of each value, or all problems and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from distillctl.cli import run
from distillctl.cli.check import resolved_lines
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing.trees import write_tree

GOOD = """\
seed = 3
[dataset]
name = "imagefolder"
root = "pictures"
[student]
name = "torchvision/resnet18"
[teacher]
name = "torchvision/resnet50"
weights = "IMAGENET1K_V2"
[method]
name = "kd"
temperature = {teacher = 2, student = 3}
[train]
epochs = 4
"""


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.toml").write_text(GOOD)
    write_tree(tmp_path / "pictures", {"train/cat": 3, "train/dog": 2, "val/cat": 1})
    return tmp_path / "good.toml"


def test_values_with_origins(profile, capsys):
    assert run(["check", "good.toml", "--set", "train.batch_size=8", "--seed", "5"]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for line in (
        "seed = 5 # command line",
        "[dataset]",
        'root = "pictures" # profile:4',
        "[method]",
        "weight = 0.9 # default",
        "temperature = { teacher = 2.0, student = 3.0 } # profile:12",
        "batch_size = 8 # command line",
        "epochs = 4 # profile:14",
        "lr = 0.05 # default",
        "mean = [0.485, 0.456, 0.406] # IMAGENET1K_V2",
        "data: 2 classes (`cat`, `dog`); images: train 5, val 1",
        "ok: good.toml has no problems",
    ):
        assert line in lines


def test_data_that_are_not_there_are_a_problem(profile, capsys):
    profile.with_name("pictures").rename(profile.with_name("elsewhere"))
    assert run(["check", "good.toml"]) == 2
    out, error = capsys.readouterr()
    assert "there is no folder `pictures`" in error
    assert "has no problems" not in out


def test_folders_that_are_splits_are_a_problem(profile, capsys):
    profile.with_name("pictures").joinpath("train").rename(profile.with_name("pictures") / "training_set")
    assert run(["check", "good.toml"]) == 1
    assert "look like splits" in capsys.readouterr().err


def test_every_value_is_shown_once(profile):
    checked = load(profile, registry=Registry.load())
    lines = resolved_lines(checked)
    assert len(lines) == len(checked.origins)
    assert {origin for *_, origin in lines} == {"default", "IMAGENET1K_V2", *(f"profile:{n}" for n in (1, 3, 4, 6, 8, 9, 11, 12, 14))}


def test_several_methods(profile, capsys):
    profile.write_text(GOOD.replace("[method]", "[[method]]") + '[[method]]\nname = "kd"\nweight = 2\n')
    assert run(["check", "good.toml"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines.index("[[method]] # 0") < lines.index("[[method]] # 1") < lines.index("weight = 2.0 # profile:17")


def test_another_method(profile, capsys):
    assert run(["check", "good.toml", "--method", "none"]) == 0
    out = capsys.readouterr().out
    assert "[teacher]" not in out
    assert "temperature" not in out


def test_all_problems_on_stderr(profile, capsys):
    assert run(["check", "good.toml", "--set", "train.epochs=ten", "--set", "train.ema=7", "--teacher", "nowhere.pth"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("error: ") == 3
    assert 'error: `train.epochs` must be an integer, not the string "ten"\n  --> --set train.epochs=ten\n\n' in error
    assert "error: there is no file" in error
    assert "\n  --> --teacher nowhere.pth" in error


MALFORMED = {
    "not-there": None,
    "empty": b"",
    "binary": bytes(range(256)),
    "byte-order-mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "dotted-key": b"a." * 50_000 + b"a = 1",
    "brackets": b"a = " + b"[" * 10_000,
    "many": GOOD.replace("epochs = 4", 'epochs = "four"\nnope = 1').encode(),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_profiles_in_a_process(profile, name):
    if (content := MALFORMED[name]) is not None:
        profile.with_name(f"{name}.toml").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "distillctl", "check", f"{name}.toml"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=profile.parent,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("error: ") == (2 if name == "many" else 1)
    assert "Traceback" not in done.stderr


def test_what_a_run_sees_as_a_teacher_is_said(profile, capsys):
    told = {"qualified": "torchvision/resnet50", "input": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}}
    (profile.parent / "runs/done").mkdir(parents=True)
    (profile.parent / "runs/done/model.json").write_text(json.dumps(told))
    assert run(["check", "good.toml", "--teacher", "runs/done"]) == 0
    line = "teacher: sees mean [0.5, 0.4, 0.3] and std [0.2, 0.2, 0.1] of its run (`done/model.json`) where none is stated"
    assert line in capsys.readouterr().out.splitlines()
    for broken in ("[]", "{}", '{"qualified": "torchvision/resnet50", "input": [1]}'):
        (profile.parent / "runs/done/model.json").write_text(broken)
        run(["check", "good.toml", "--teacher", "runs/done"])
        assert "of its run" not in capsys.readouterr().out
