"""What a method costs between two models, counted by hand."""

from __future__ import annotations

import json

import pytest

from distillctl.cli import run
from distillctl.commands.pair_costs import PairCosts, pair_costs
from distillctl.errors import RunError
from distillctl.plugin.registry import Registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def costs(registry: Registry, method: str, teacher: str = "cifar/resnet14") -> PairCosts:
    return pair_costs(registry.methods.get(method), registry.models.get(teacher), registry.models.get("cifar/resnet8"), registry)


def test_a_regressor_of_one_by_one_is_what_it_multiplies(registry: Registry) -> None:
    """FitNet's regressor from 32 to 64 channels has a norm behind, and is used at each of 16 · 16 places."""
    found = costs(registry, "fitnet", "cifar/wrn_16_2")
    assert (found.size, found.classes, found.batch) == (32, 100, 64)
    assert found.method == {"parameters": 32 * 64 + 2 * 64, "macs": 32 * 64 * 16 * 16}
    assert found.student["parameters"] == 83_892
    assert found.teacher is not None
    assert found.teacher["macs"] > found.student["macs"]


def test_a_method_without_modules_trains_nothing(registry: Registry) -> None:
    found = costs(registry, "kd")
    assert (found.method, found.inner) == ({"parameters": 0, "macs": 0}, "")


def test_similarities_cost_a_product_for_every_pair_of_images(registry: Registry) -> None:
    """SP multiplies the flattened last maps, 64 · 8 · 8 numbers on both sides, of each image with those of all 64."""
    found = costs(registry, "sp")
    assert found.method["macs"] == 2 * 64 * (64 * 8 * 8)


def test_a_wrapper_and_a_method_without_a_teacher(registry: Registry) -> None:
    assert costs(registry, "ctkd").inner == "kd"
    alone = costs(registry, "none")
    assert alone.teacher is None


def test_a_pair_that_cannot_be_is_refused(registry: Registry) -> None:
    with pytest.raises(RunError, match="an earlier run of the same model"):
        costs(registry, "tfkd-self")


def test_show_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "sp", "--pair", "cifar/resnet14:cifar/resnet8"]) == 0
    out = capsys.readouterr().out
    assert "images of 32 pixels in batches of 64, 100 classes" in " ".join(out.split())
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["student", "teacher", "method"]
    assert run(["show", "sp", "--pair", "cifar/resnet14:cifar/resnet8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["costs"]["method"]["macs"] == 524_288
    assert run(["show", "sp", "--pair", "cifar/resnet14"]) == 2
    assert "does not name two models" in capsys.readouterr().err
    assert run(["show", "cifar/resnet8", "--pair", "cifar/resnet14:cifar/resnet8"]) != 0
    assert "no method is called" in capsys.readouterr().err
