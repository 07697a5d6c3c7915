"""`dot`: what it declares, its options, how it is built, and its README."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from distillctl import Options
from distillctl.plugin.registry import Registry, load
from distillctl.testing import options_of, options_table
from distillctl_dot.build import build
from distillctl_dot.optimizer import DOT
from distillctl_dot.plugin import SPEC

README = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")


def test_is_registered_and_wants_both_gradients():
    assert Registry.load().optimizers.get("dot") is SPEC
    assert SPEC.separate_gradients


def test_plugin_module_and_options_are_light():
    code = (
        "import sys, distillctl_dot.plugin as p\n"
        "print([m for m in ('torch', 'pydantic') if m in sys.modules])\n"
        "import distillctl_dot.options\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split("\n")[:2] == ["[]", "False"], done.stdout + done.stderr


def test_options_are_described_and_strict():
    model = type(options_of(SPEC))
    assert issubclass(model, Options)
    assert all(field.description for field in model.model_fields.values())
    for wrong in ({"nesterov": True}, {"lr": 0.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"delta": -0.1}, {"decay": "none"}):
        with pytest.raises(ValidationError, match=rf"for \w+\n{[*wrong][-1]}\b"):
            options_of(SPEC, **wrong)


def test_defaults_are_the_papers_and_otherwise_those_of_sgd():
    options, sgd = options_of(SPEC), options_of(Registry.load().optimizers.get("sgd"))
    assert (options.momentum, options.delta) == (0.9, 0.075)
    assert all(getattr(options, name) == getattr(sgd, name) for name in ("lr", "momentum", "weight_decay", "decay"))


@pytest.mark.parametrize(("momentum", "delta"), [(0.9, 0.1), (0.9, 0.2), (0.05, 0.06), (0.0, 0.01), (0.5, 0.5)])
def test_momenta_outside_of_their_range_are_refused(momentum, delta):
    with pytest.raises(ValidationError, match=f"momentum {momentum:g} and delta {delta:g} do not go together"):
        options_of(SPEC, momentum=momentum, delta=delta)


@pytest.mark.parametrize(("momentum", "delta"), [(0.9, 0.09), (0.0, 0.0), (0.1, 0.1), (0.9, 0.0)])
def test_momenta_within_their_range_are_taken(momentum, delta):
    assert options_of(SPEC, momentum=momentum, delta=delta).delta == delta


def test_a_profile_says_what_is_wrong(tmp_path):
    from distillctl.errors import ProfileError
    from distillctl.profile.reading import load as read

    (tmp_path / "p.toml").write_text('[dataset]\nname = "digits"\n[student]\nname = "resnet8"\n[optimizer]\nname = "dot"\ndelta = 0.1\n')
    with pytest.raises(ProfileError) as caught:
        read(tmp_path / "p.toml", registry=Registry.load())
    assert any(
        "optimizer `dot` is not valid: momentum 0.9 and delta 0.1 do not go together" in problem.message
        for problem in caught.value.problems
    )


def groups():
    kernel, bias, other = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (2,), (3,)))
    return [{"params": [kernel, bias]}, {"params": [other], "lr_scale": 10.0, "weight_decay": 0.5}], (kernel, bias, other)


def test_build_keeps_the_settings_of_the_groups():
    given, (kernel, bias, other) = groups()
    optimizer = load(SPEC.implementation, SPEC.name)(given, options_of(SPEC, lr=0.3, momentum=0.8, delta=0.1, weight_decay=0.01))
    assert isinstance(optimizer, DOT)
    first, second = optimizer.param_groups
    assert [id(p) for p in first["params"]] == [id(kernel), id(bias)]
    assert (first["lr"], first["momentum"], first["delta"], first["weight_decay"]) == (0.3, 0.8, 0.1, 0.01)
    assert (second["lr_scale"], second["weight_decay"], second["momentum"]) == (10.0, 0.5, 0.8)
    assert [id(p) for p in second["params"]] == [id(other)]


def test_decay_of_weights_alone():
    given, (kernel, bias, other) = groups()
    optimizer = build(given, options_of(SPEC, decay="weights", weight_decay=0.01))
    assert [([id(p) for p in g["params"]], g["weight_decay"], g.get("lr_scale")) for g in optimizer.param_groups] == [
        ([id(kernel)], 0.01, None),
        ([id(bias)], 0.0, None),
        ([id(other)], 0.0, 10.0),
    ]


def test_readme_has_the_options_and_valid_examples():
    assert options_table(SPEC) in README
    tables = [tomllib.loads(block.partition("```")[0])["optimizer"] for block in README.split("```toml\n")[1:]]
    assert tables
    for table in tables:
        assert table.pop("name") == "dot"
        options_of(SPEC, **table)
