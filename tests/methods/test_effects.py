"""Options without effect: bounds of every number, and a sentence where data or models leave an option nothing to do."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from distillctl import Options, RunError
from distillctl.plugin.registry import Registry, load, load_class
from distillctl.profile.describe import branches, is_table
from distillctl.profile.schema import MethodTable
from distillctl.testing import make_setup, options_of

REGISTRY = Registry.load()
MODELS = {
    **{f"method {spec.name}": load(spec.options, spec.name) for spec in REGISTRY.methods if spec.options},
    **{f"optimizer {spec.name}": load(spec.options, spec.name) for spec in REGISTRY.optimizers if spec.options},
    "[method]": MethodTable,
}


def numbers(model: type[Options]) -> dict[str, tuple[float, float]]:
    """Lower and upper bound of every option that is a number with a point."""
    found: dict[str, tuple[float, float]] = {}
    for name, field in model.model_fields.items():
        for annotation, metadata in branches(field.annotation, field.metadata):
            if is_table(annotation):
                found.update({f"{name}.{key}": value for key, value in numbers(annotation).items()})
            if annotation is float:
                bounds = {key: getattr(m, key) for m in metadata for key in ("gt", "ge", "lt", "le") if getattr(m, key, None) is not None}
                low, high = bounds.get("ge", bounds.get("gt", -math.inf)), bounds.get("le", bounds.get("lt", math.inf))
                found[name] = (low, high)
    return found


@pytest.mark.parametrize("of", MODELS)
def test_every_number_has_bounds_that_float32_can_hold(of: str) -> None:
    for name, (low, high) in numbers(MODELS[of]).items():
        assert 0 <= low < high <= 1e9, name
        if "temperature" in name or name in ("t_start", "t_end"):
            assert (low, high) == (1e-3, 1e4), name
        if name == "eps" and of != "method ofa":
            assert low >= 1e-20, name


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("kd", "temperature", 1e-30),
        ("kd", "temperature", {"teacher": 1e-30, "student": 4.0}),
        ("crd", "temperature", 1e30),
        ("vid", "eps", 1e308),
        ("pkt", "eps", 1e-300),
        ("dkd", "beta", 1e308),
        ("dkd", "beta", 1e-300),
        ("rkd", "angle_weight", 1e-30),
        ("at", "power", 1e308),
    ],
)
def test_numbers_beyond_sense_are_refused(method: str, option: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        options_of(REGISTRY.methods.get(method), **{option: value})


def test_weights_are_zero_or_seen() -> None:
    for value in (1e-300, 1e308, -1.0):
        with pytest.raises(ValidationError):
            MethodTable(name="kd", weight=value)
    assert [MethodTable(name="kd", weight=value).weight for value in (0.0, 1e-12, 30000.0)] == [0.0, 1e-12, 30000.0]


def built(name: str, classes: int, shapes: Any = None, epochs: int = 20, **options: Any) -> Any:
    spec = REGISTRY.methods.get(name)
    shapes = {} if shapes is None else shapes
    cls: Any = load_class(spec, object, "method")
    return cls(options_of(spec, **options), make_setup(shapes, shapes, num_classes=classes, epochs=epochs))


MAP = {"final": (3, 4, 4), "pooled": (3,)}
HALVES = [
    ("dkd", "beta", None, {}),
    ("nkd", "gamma", None, {}),
    ("dist", "beta", None, {}),
    ("sdd", "beta", MAP, {"base": "dkd"}),
    ("sdd", "gamma", MAP, {"base": "nkd"}),
]


@pytest.mark.parametrize(("name", "option", "shapes", "options"), HALVES)
def test_halves_without_effect_on_two_classes_are_told(name: str, option: str, shapes: Any, options: dict[str, Any]) -> None:
    (note,) = built(name, 2, shapes, **options).notes
    assert note.startswith(f"`{name}`: with two classes")
    assert f"`{option}`" in note
    assert not built(name, 3, shapes, **options).notes
    assert not built(name, 2, shapes, **options, **{option: 0.0}).notes


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [("dkd", None, {"alpha": 0.0}), ("dist", None, {"gamma": 0.0}), ("sdd", MAP, {"base": "dkd", "alpha": 0.0})],
)
def test_nothing_left_to_learn_on_two_classes_is_refused(name: str, shapes: Any, options: dict[str, Any]) -> None:
    with pytest.raises(RunError, match=f"`{name}` has nothing to learn from"):
        built(name, 2, shapes, **options)
    built(name, 3, shapes, **options)


def test_a_map_of_one_position_has_no_regions() -> None:
    small = {"final": (3, 1, 1), "pooled": (3,)}
    (note,) = built("sdd", 5, small).notes
    assert "`scales` and `complementary_weight` have no effect" in note
    assert not built("sdd", 5, small, scales=[1]).notes
    assert not built("sdd", 5, MAP).notes


def test_more_channels_than_the_deepest_level_has_are_told() -> None:
    shapes = {"stage1": (4, 4, 4), "stage2": (8, 2, 2), "stage1:pre": (4, 4, 4), "stage2:pre": (8, 2, 2), "pooled": (8,)}
    stages = {"teacher_stages": ["stages"]}
    (note,) = built("reviewkd", 5, shapes, **stages, mid_channels=513).notes
    assert "`mid_channels = 513` acts as 8" in note
    assert not built("reviewkd", 5, shapes, **stages).notes
    assert not built("reviewkd", 5, shapes, **stages, mid_channels=8).notes


def test_a_relu_that_cannot_reach_the_teachers_values_is_told() -> None:
    shapes = {"stage2": (4, 4, 4)}  # of made-up features, which are negative here and there
    (note,) = built("fitnet", 5, shapes, activation="relu").notes
    assert "`stage2` of the teacher has negative values" in note
    assert not built("fitnet", 5, shapes).notes
    assert not built("fitnet", 5, shapes, activation="none").notes


def test_a_wrapper_tells_what_its_inner_method_tells_and_its_own_warm_up() -> None:
    ctkd: Any = load_class(REGISTRY.methods.get("ctkd"), object, "method")

    def notes(classes: int, epochs: int) -> Any:
        setup = make_setup({}, {}, num_classes=classes, epochs=epochs)
        return ctkd(options_of(REGISTRY.methods.get("ctkd")), setup, built("dkd", classes)).notes

    assert not notes(5, 10)
    assert [note.split(":")[0] for note in notes(2, 10)] == ["`dkd`"]
    two, ramp = notes(2, 5)
    assert two.startswith("`dkd`")
    assert ramp == "`ctkd`: the reversed gradient grows over `loops` = 10 epochs, and the run has 5: it never passes 50% of its strength"


def test_notes_reach_the_run(bench: Any) -> None:
    experiment = bench.experiment(bench.profile('[method]\nname = "reviewkd"\nmid_channels = 513\n', "cifar/resnet8", "cifar/resnet14"))
    assert any("`mid_channels = 513` acts as" in note for note in experiment.notes)
    experiment.close()
