"""What fits a budget, among models whose costs are known; the clock is one that is handed in."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from distillctl import ModelSpec, hookimpl
from distillctl.commands import budget as module
from distillctl.commands.budget import Budget, fitting
from distillctl.commands.measure import Cost, Failure, Settings, Top1, counted
from distillctl.commands.subjects import Subject
from distillctl.errors import ProfileError
from distillctl.models.cost import Latency
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.testing.tiny_models import TINY_CNN, TINY_MODELS

TOLD = Settings(batches=(4,))
FOUND = [Subject(name) for name in ("tiny_cnn", "tiny_wide", "tiny_vit", "wrong")]
"""With 7,010, 15,262 and 4,330 parameters; `wrong` declares 10 and has 7,010."""
SECONDS = {"tiny_cnn": 0.010, "tiny_wide": 0.020, "tiny_vit": 0.012, "wrong": 0.011}


@pytest.fixture
def registry() -> Registry:
    class Made:
        @hookimpl
        def register_model(self) -> list[ModelSpec]:
            unsized = ModelSpec(name="unsized", summary="-", implementation="distillctl.testing.tiny_models:build_tiny", input_size=8)
            return [*TINY_MODELS, replace(TINY_CNN, name="wrong", parameters=10), unsized]

    registry = Registry.load({"DISTILLCTL_PLUGINS": ""})
    registry.add(Plugin("made", "package-made", "1"), Made)
    assert not registry.broken
    return registry


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Settings]]:
    """What was measured, in order; nothing is."""
    monkeypatch.setattr(module, "_fastest", lambda settings: math.inf)
    return []


def measured_by(timed: list[tuple[str, Settings]]) -> module.Measure:
    def measured(subject: Subject, settings: Settings, registry: Registry) -> Cost | Failure:
        timed.append((subject.name, settings))
        cost = counted(subject, settings, registry)
        assert cost is not None
        return replace(cost, latencies={1: Latency(SECONDS[subject.name], 1, 3)})

    return measured


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["10ms"], Budget(seconds=0.01)),
        (["5M", "2.5 MB"], Budget(parameters=5e6, file=2.5e6)),
        (["300MMACs", "0.2GMACs"], Budget(macs=2e8)),
        (["0.2gmacs", "300mmacs", "80k"], Budget(macs=2e8, parameters=8e4)),
    ],
)
def test_budgets_are_read(texts: list[str], expected: Budget) -> None:
    assert Budget.parse(texts) == expected


@pytest.mark.parametrize("text", ["10", "ms", "10 seconds", "-5M", "0ms", "1e3M", "5M 3"])
def test_what_is_not_a_budget(text: str) -> None:
    with pytest.raises(ProfileError, match="is not a budget") as caught:
        Budget.parse(["10ms", text])
    assert caught.value.problems[0].where == "--budget"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["8k"], ["tiny_cnn", "wrong", "tiny_vit"]),
        (["7.01k"], ["tiny_cnn", "wrong", "tiny_vit"]),
        (["7.0k"], ["tiny_vit"]),
        (["100k", "0.030MB"], ["tiny_vit"]),
        (["0.05MMACs"], []),
        (["0.085MMACs"], ["tiny_vit"]),
        (["10ms"], ["tiny_cnn"]),
        (["12ms"], ["tiny_cnn", "wrong", "tiny_vit"]),
        (["12ms", "7.0k"], ["tiny_vit"]),
        (["1000ms"], ["tiny_wide", "tiny_cnn", "wrong", "tiny_vit"]),
    ],
)
def test_the_right_ones_fit_and_the_largest_comes_first(
    texts: list[str], expected: list[str], registry: Registry, timed: list[tuple[str, Settings]]
) -> None:
    found = fitting(FOUND, TOLD, registry, Budget.parse(texts), measured=measured_by(timed))
    assert [cost.name for cost in found.rows] == expected
    assert (found.candidates, found.failures, found.more) == (4, [], 0)
    assert found.timed == len(timed) >= len(expected)


def test_what_is_too_large_is_neither_built_nor_timed(
    registry: Registry, timed: list[tuple[str, Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is declared; where that is of other classes or options, by what is counted. The rest is timed from the cheapest on."""
    built: list[str] = []

    def noted(subject: Subject, settings: Settings, registry: Registry) -> Cost | None:
        built.append(subject.name)
        return counted(subject, settings, registry)

    monkeypatch.setattr(module, "counted", noted)
    chosen = Budget.parse(["8k", "1000ms"])
    fitting(FOUND, TOLD, registry, chosen, measured=measured_by(timed))
    assert built == ["tiny_cnn", "tiny_vit", "wrong"]
    assert [name for name, _ in timed] == ["tiny_vit", "tiny_cnn", "wrong"]
    assert {(settings.batches, settings.most_seconds) for _, settings in timed} == {((1, 4), 1.0)}
    for settings in (replace(TOLD, classes=2), replace(TOLD, options={"width": 8})):
        built.clear()
        fitting(FOUND, settings, registry, chosen, measured=measured_by(timed))
        assert built == ["tiny_cnn", "tiny_wide", "tiny_vit", "wrong"]
    built.clear()
    fitting(FOUND, replace(TOLD, classes=20), registry, Budget.parse(["0.050MB"]), measured=measured_by(timed))
    assert built == ["tiny_cnn", "tiny_vit", "wrong"], "15,262 parameters of 4 bytes are more"


def test_fewer_classes_may_fit_where_the_declared_ones_do_not(registry: Registry, timed: list[tuple[str, Settings]]) -> None:
    found = fitting(FOUND[:1], replace(TOLD, classes=2), registry, Budget.parse(["7.0k"]), measured=measured_by(timed))
    assert [(cost.name, cost.parameters) for cost in found.rows] == [("tiny_cnn", 7010 - 8 * 33)]


def test_no_machine_is_that_fast(registry: Registry, timed: list[tuple[str, Settings]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What would have to run four times as fast as a product of matrices is not timed; on a GPU the rate is not asked for."""
    costs = [counted(subject, TOLD, registry) for subject in FOUND[:3]]
    cnn, wide, vit = (cost.macs for cost in costs if cost is not None)
    assert vit < cnn < wide
    monkeypatch.setattr(module, "_fastest", lambda settings: cnn / 4)
    fitting(FOUND[:3], TOLD, registry, Budget(seconds=1), measured=measured_by(timed))
    assert [name for name, _ in timed] == ["tiny_vit", "tiny_cnn"]
    timed.clear()
    fitting(FOUND[:3], replace(TOLD, device="cuda"), registry, Budget(seconds=1), measured=measured_by(timed))
    assert len(timed) == 3
    timed.clear()
    fitting(FOUND[:3], TOLD, registry, Budget(macs=1e9), measured=measured_by(timed))
    assert len(timed) == 3


def test_a_limit(registry: Registry, timed: list[tuple[str, Settings]]) -> None:
    """Where no time decides, only what is shown is timed."""
    found = fitting(FOUND, TOLD, registry, Budget.parse(["8k"]), limit=1, measured=measured_by(timed))
    assert ([cost.name for cost in found.rows], found.more, len(timed)) == (["tiny_cnn"], 2, 1)
    timed.clear()
    found = fitting(FOUND, TOLD, registry, Budget.parse(["12ms"]), limit=1, measured=measured_by(timed))
    assert ([cost.name for cost in found.rows], found.more, len(timed)) == (["tiny_cnn"], 2, 4)


def test_top1(registry: Registry, timed: list[tuple[str, Settings]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worse is left out, and so is what is not known, which is counted; without a threshold it is only shown."""
    known = {"tiny_cnn": Top1(0.7, "published"), "tiny_wide": Top1(0.69, "published")}
    monkeypatch.setattr(module, "top1", lambda subject, settings, registry: known.get(subject.name))
    found = fitting(FOUND, TOLD, registry, Budget(seconds=1), min_top1=0.7, measured=measured_by(timed))
    assert [(cost.name, cost.top1) for cost in found.rows] == [("tiny_cnn", known["tiny_cnn"])]
    assert found.unknown == 2
    found = fitting(FOUND, TOLD, registry, Budget(seconds=1), measured=measured_by(timed))
    assert [cost.top1 for cost in found.rows] == [known["tiny_wide"], known["tiny_cnn"], None, None]
    assert found.unknown == 0


def test_failures_and_models_that_must_be_built_to_be_known(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be counted on the `meta` device is measured last, and held against the whole budget then."""
    order: list[str] = []

    def measured(subject: Subject, settings: Settings, registry: Registry) -> Cost | Failure:
        order.append(subject.name)
        if subject.name == "tiny_wide":
            return Failure("tiny_wide", "it burnt down")
        cost = counted(subject, settings, registry)
        assert cost is not None
        return replace(cost, latencies={1: Latency(0.1, 0.1, 3)})

    monkeypatch.setattr(module, "counted", lambda s, t, r: None if s.name == "tiny_cnn" else counted(s, t, r))
    bad = Settings(options={"width": 8})
    found = fitting([*FOUND[:3], Subject("unsized")], bad, registry, Budget(parameters=7000, seconds=1), measured=measured)
    assert order == ["tiny_vit", "tiny_cnn"]
    assert [cost.name for cost in found.rows] == ["tiny_vit"]
    assert [failure.name for failure in found.failures] == ["unsized"], "it has no option `width`"
    found = fitting(FOUND[:3], TOLD, registry, Budget(seconds=1), measured=measured)
    assert [failure.reason for failure in found.failures] == ["it burnt down"]


def test_the_rate_is_positive() -> None:
    assert 0 < module._product(0, size=16, count=2) < math.inf
