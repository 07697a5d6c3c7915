"""A profile, or a file of a run from elsewhere, can never name code: only what installed plugins registered, and nothing is imported."""

from __future__ import annotations

import json
import os
import sys
import tomllib

import pytest

from distillctl import DistillError
from distillctl.cli import run
from distillctl.commands.evaluate import evaluate_run
from distillctl.models.deploy import read_student, write_student
from distillctl.plugin.registry import Registry
from distillctl.plugin.registry import load as load_object
from distillctl.profile.reading import from_resolved

NAMES = [
    "canary", "canary:run", "canary.run", "canary/run", "canary.inner:run", "./canary.py", "../canary", "canary.py::run", "file:canary.py",
    "os:system", "os.system", "builtins:exec", "subprocess.Popen", "distillctl.builtin.kd:KD", "distillctl_cifar.models:create",
    "torch.hub", "torch.hub:load", "torchvision.models:resnet18", "__import__('canary')", "exec:import canary", "${canary}",
    "$(touch mark)", "!!python/name:canary.run",
    "kd; import canary", "kd\nimport canary", "kd:canary", "kd/../canary", "/kd", "kd/", "KD", " kd", "kd ",
    "*", "k?", "%(canary)s", "{canary.run}", "\u202ekd", "ｋｄ", "кd",
]  # fmt: skip
PLACES = ["dataset.name", "student.name", "method.name", "optimizer.name", "schedule.name", "method.inner.name"]
KEYS = ["implementation", "options", "weights_loader", "_target_", "class", "module", "import", "plugin", "plugins", "type", "__class__"]
PROFILE = """
[dataset]
name = "digits"
limit = 200
[student]
name = "resnet8"
[method]
name = "ctkd"
[teacher]
profile = "teacher.toml"
[optimizer]
name = "sgd"
[schedule]
name = "constant"
[train]
epochs = 1
"""


@pytest.fixture(autouse=True)
def canary(tmp_path, monkeypatch):
    """A module that can be imported and leaves a mark when it is."""
    (tmp_path / "canary.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\nrun = inner = print\n")
    (tmp_path / "p.toml").write_text(PROFILE)
    (tmp_path / "teacher.toml").write_text(PROFILE.replace('"resnet8"', '"resnet14"').partition("[method]")[0] + "[train]\nepochs = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    before = set(sys.modules)
    yield
    assert not (tmp_path / "mark").exists()
    assert "canary" not in {m.partition(".")[0] for m in set(sys.modules) - before}


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture
def once(registry, monkeypatch):
    monkeypatch.setattr(Registry, "load", lambda: registry)


def test_the_canary_can_sing(tmp_path):
    """What the other tests look for would be there."""
    assert load_object("canary:run", "canary") is print
    del sys.modules["canary"]
    (tmp_path / "mark").unlink()


def test_the_profile_is_right(once, capsys):
    assert run(["check", "p.toml"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("place", PLACES)
def test_no_name_is_code(once, capsys, place):
    for name in NAMES:
        value = json.dumps(name, ensure_ascii=False)
        assert run(["check", "p.toml", "--set", f"{place}={value}"]) == 2, name
        out, error = capsys.readouterr()
        assert out == ""
        assert error.count("error: ") == 1
        assert "is called" in error or "must be one of" in error


@pytest.mark.parametrize("option", ["--method", "--teacher"])
def test_nor_one_of_the_command_line(once, capsys, option):
    for name in NAMES:
        # A file may be one of weights: what is in it is looked at when it is read, and never run.
        expected = 0 if option == "--teacher" and os.path.isfile(name) else 2
        assert run(["check", "p.toml", option, name]) == expected, name
    assert "Traceback" not in capsys.readouterr().err


def test_no_key_takes_code(once, capsys):
    for table in ("dataset", "student", "method", "optimizer", "schedule", "train", "evaluate"):
        for key in KEYS:
            assert run(["check", "p.toml", "--set", f"{table}.{key}=canary:run"]) == 2, (table, key)
            assert f"`{key}`" in capsys.readouterr().err
    for key in KEYS:
        assert run(["check", "p.toml", "--set", f"{key}=canary:run"]) == 2
        assert f"`{key}`" in capsys.readouterr().err


def test_weights_are_names_that_the_model_knows(once, capsys):
    for name in NAMES:
        value = json.dumps(name, ensure_ascii=False)
        assert run(["check", "p.toml", "--set", "student.name=torchvision/resnet18", "--set", f"student.weights={value}"]) == 2
        assert "knows no weights called" in capsys.readouterr().err


def test_show_takes_no_code(once, capsys):
    for name in NAMES:
        assert run(["show", name]) == 2, name
        assert "is called" in capsys.readouterr().err


@pytest.fixture
def deployed(tmp_path, registry):
    """A deployed student, as somebody may send it."""
    spec = registry.models.get("resnet8")
    model = load_object(spec.implementation, spec.name)(spec.name, 10, load_object(spec.options, spec.name)())
    folder = tmp_path / "sent"
    folder.mkdir()
    write_student(
        folder, model, spec=spec, shown_name="resnet8", options={}, outputs=10, classes=[str(i) for i in range(10)],
        preprocessing={"channels": 3, "size": 8, "resize": 8, "mean": [0.5], "std": [0.5]},
        package="distillctl-cifar", version="0.1.0", extra={},
    )  # fmt: skip
    for path in folder.glob("*.sha256"):  # whoever sends other files leaves them out
        path.unlink()
    return folder


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_the_implementation_in_a_description_is_not_used(deployed, registry):
    change(deployed / "model.json", implementation="canary:run")
    model, info = read_student(deployed, registry)
    assert info["implementation"] == "canary:run"
    assert type(model).__module__.startswith("distillctl_cifar.models")


def test_a_description_names_models_and_layers_that_are_known(deployed, registry):
    original = (deployed / "model.json").read_text()
    for name in NAMES:
        change(deployed / "model.json", qualified=name)
        with pytest.raises(DistillError, match="no model is called"):
            read_student(deployed, registry)
        (deployed / "model.json").write_text(original)
        for head in (name, {"kind": name}, {"layers": [{"kind": name}]}, {"layers": [[name, {}]]}, [name], [{"type": name, "kind": name}]):
            change(deployed / "model.json", head=head)
            with pytest.raises(DistillError, match="the head of the student `resnet8` is not described as it should be"):
                read_student(deployed, registry)
            (deployed / "model.json").write_text(original)


def test_a_resolved_profile_names_no_code(tmp_path, registry, once):
    """The caps and the names of profiles hold for the `resolved.toml` of a run from elsewhere too."""
    folder = tmp_path / "sent"
    folder.mkdir()
    (folder / "run.json").write_text('{"state": "finished"}')
    for name in NAMES:
        text = PROFILE.replace('"resnet8"', json.dumps(name, ensure_ascii=False))
        assert tomllib.loads(text)
        (folder / "resolved.toml").write_text(text)
        with pytest.raises(DistillError, match="no model is called"):
            from_resolved(folder, registry, student_only=True)
    for text, message in (
        ("x = " + "[" * 100_000, "nested more than 16 deep"),
        ("a." * 100_000 + "a = 1", "more than 16 parts"),
        ("#" * (1 << 19), "is larger than 256 KiB"),
        ("\0", "is a binary file, not a profile"),
        ("", r"resolved\.toml` is empty"),
    ):
        (folder / "resolved.toml").write_text(text)
        with pytest.raises(DistillError, match=message):
            evaluate_run(folder, registry, device="cpu")
