from pathlib import Path

import pytest
from pydantic import ValidationError

from distillctl import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing import options_of
from distillctl_ttm.plugin import TTM, WTTM

PROFILE = """
[dataset]
name = "cifar100"
root = "images"
[student]
name = "cifar/vgg8"
[teacher]
name = "cifar/vgg13"
checkpoint = "vgg13.pth"
{method}
[optimizer]
name = "sgd"
lr = 0.05
[train]
epochs = 240
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("vgg13.pth").touch()


def read(method):
    Path("profile.toml").write_text(PROFILE.format(method=method))
    return load(Path("profile.toml"), registry=Registry.load({"DISTILLCTL_PLUGINS": "cifar,ctkd,lskd,ttm"}))


def test_defaults():
    assert [(spec.weight, spec.task_weight, spec.warmup_epochs) for spec in (TTM, WTTM)] == [(45.0, 1.0, 0.0), (4.0, 1.0, 0.0)]
    assert [options_of(spec).gamma for spec in (TTM, WTTM)] == [0.1, 0.2]


@pytest.mark.parametrize("spec", [TTM, WTTM])
@pytest.mark.parametrize("gamma", [0.0, -0.5, 1e4])
def test_wrong_powers_are_refused(spec, gamma):
    with pytest.raises(ValidationError, match="gamma"):
        options_of(spec, gamma=gamma)


@pytest.mark.parametrize(("name", "weight", "gamma"), [("ttm", 45.0, 0.1), ("wttm", 4.0, 0.2)])
def test_published_pair(name, weight, gamma):
    profile = read(f'[method]\nname = "{name}"')
    (method,) = profile.methods
    assert (method.table.weight, method.table.task_weight, method.options.gamma) == (weight, 1.0, gamma)
    assert "the authors' command" in profile.origins["method.gamma"]


@pytest.mark.parametrize("name", ["ttm", "wttm"])
def test_nobody_steers_a_temperature(name):
    with pytest.raises(ProfileError, match=f"`ctkd` cannot wrap `{name}`, which has no temperature"):
        read(f'[method]\nname = "ctkd"\n[method.inner]\nname = "{name}"')
    read(f'[method]\nname = "lskd"\n[method.inner]\nname = "{name}"')
