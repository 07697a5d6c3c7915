"""`ModelContract`: what every model that a plugin declares must keep.

    class TestMine(ModelContract):
        specs = (MY_SPEC, MY_OTHER_SPEC)
        sizes = (32, 64)

The class is collected by pytest; every check runs for every spec. Needs pytest, which is not a dependency of distillctl.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.options import Options
from distillctl.api.specs import ModelSpec
from distillctl.models.features import Tap, Tapped, evaluating
from distillctl.plugin.registry import load

CLASSES = 7


class ModelContract:
    """Checks of a declared model; subclass it and set `specs`.

    specs: the models.
    options: values of their options, by name; those of the options class where it is empty.
    sizes: side lengths in pixels that must work; empty means the spec's own `input_size`.
    batch: images in a forward, at least 2.
    """

    specs: ClassVar[Sequence[ModelSpec]] = ()
    options: ClassVar[Mapping[str, Any]] = {}
    sizes: ClassVar[Sequence[int]] = ()
    batch: ClassVar[int] = 2

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs every check for every spec."""
        if "spec" in metafunc.fixturenames:
            metafunc.parametrize("spec", self.specs, ids=[s.name for s in self.specs])

    @pytest.fixture(autouse=True)
    def _seeded(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield

    def build(self, spec: ModelSpec) -> nn.Module:
        """A new model of the spec with 7 classes, in training mode."""
        table = load(spec.options, spec.name) if spec.options else Options
        model = load(spec.implementation, spec.name)(spec.name, CLASSES, table(**self.options))
        assert isinstance(model, nn.Module), f"the builder gives {type(model).__name__}, not a module"
        return model.train()

    def images(self, spec: ModelSpec, size: int = 0) -> Tensor:
        """Random images."""
        size = size or spec.input_size
        return torch.randn(self.batch, 3, size, size)

    def all_names(self, spec: ModelSpec) -> list[str]:
        """Every feature that can be asked for by name."""
        return [*spec.stages, *(["pooled"] if spec.classifier else [])]

    def test_logits_have_one_column_a_class(self, spec: ModelSpec) -> None:
        """And are finite float32, at every size, in both modes."""
        model = self.build(spec)
        for size in self.sizes or (spec.input_size,):
            logits = model(self.images(spec, size))
            assert logits.shape == (self.batch, CLASSES)
            assert logits.dtype == torch.float32
            assert logits.isfinite().all()
            with evaluating(model), torch.no_grad():
                assert model(self.images(spec, size)).shape == (self.batch, CLASSES)

    def test_every_stage_is_reached_once(self, spec: ModelSpec) -> None:
        """At every size; a stage in front of its ReLU has the shape of the stage, and all keep the batch dimension."""
        model = self.build(spec)
        modules = dict(model.named_modules())
        for name, path in spec.stages.items():
            assert Tap.parse(path).path in modules, f"`{name}` lies at `{path}`, which does not exist"
        tapped = Tapped(model, spec, self.all_names(spec))
        for size in self.sizes or (spec.input_size,):
            shapes = tapped.probe((3, size, size))
            assert set(shapes) == {*self.all_names(spec), "logits"}
            for name in spec.stages:
                if name.endswith(":pre"):
                    assert shapes[name] == shapes[name.removesuffix(":pre")], name
        for name, value in tapped(self.images(spec)).items():  # Tapped raises where a module runs twice
            assert len(value) == self.batch, name
            assert value.requires_grad, f"`{name}` is cut off from the graph"

    def test_taps_change_no_logits(self, spec: ModelSpec) -> None:
        """And what is captured is not overwritten later in the forward."""
        model = self.build(spec)
        images = self.images(spec)
        with evaluating(model), torch.no_grad():
            expected = model(images)
            tapped = Tapped(model, spec, self.all_names(spec))
            tapped.probe((3, spec.input_size, spec.input_size))
            torch.testing.assert_close(tapped(images)["logits"], expected, rtol=0, atol=0)
            tapped.close()
            torch.testing.assert_close(model(images), expected, rtol=0, atol=0)

    def test_as_many_parameters_as_the_spec_says(self, spec: ModelSpec) -> None:
        """Trained ones, with the defaults of the options and the classes that the spec names; if it says it at all."""
        if spec.parameters:
            table = load(spec.options, spec.name) if spec.options else Options
            with torch.device("meta"):  # shapes without numbers
                model = load(spec.implementation, spec.name)(spec.name, spec.classes, table())
            counted = sum(p.numel() for p in model.parameters() if p.requires_grad)
            assert counted == spec.parameters, f"with {spec.classes} classes it has {counted:,}"

    def test_classifier_is_the_last_layer(self, spec: ModelSpec) -> None:
        """A Linear layer of one output a class; `pooled` is what it receives and the logits are what it gives."""
        if not spec.classifier:
            assert "pooled" not in spec.stages
            return
        model = self.build(spec)
        classifier = model.get_submodule(spec.classifier)
        assert isinstance(classifier, nn.Linear)
        assert classifier.out_features == CLASSES
        tapped = Tapped(model, spec, ["pooled"])
        assert tapped.probe((3, spec.input_size, spec.input_size))["pooled"] == (classifier.in_features,)
        with evaluating(model), torch.no_grad():
            features = tapped(self.images(spec))
            torch.testing.assert_close(classifier(features["pooled"]), features["logits"], rtol=0, atol=0)

    def test_declared_final_map_averages_to_pooled(self, spec: ModelSpec) -> None:
        """Where a model says which map its classifier's input is the average of, that is so."""
        if "final" not in spec.stages:
            return
        tapped = Tapped(self.build(spec), spec, ["final", "pooled"])
        features = tapped(self.images(spec))
        torch.testing.assert_close(features["final"].mean((2, 3)), features["pooled"], rtol=1e-4, atol=1e-5)

    def test_backward_reaches_every_parameter(self, spec: ModelSpec) -> None:
        """A parameter that the logits do not depend on is never trained, and stops DistributedDataParallel."""
        model = self.build(spec)
        model(self.images(spec)).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    def test_probe_changes_nothing(self, spec: ModelSpec) -> None:
        """Measuring shapes leaves parameters, statistics and modes as they were."""
        model = self.build(spec)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        Tapped(model, spec, self.all_names(spec)).probe((3, spec.input_size, spec.input_size))
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert [module.training for module in model.modules()] == modes

    def test_statistics_move_once_a_forward(self, spec: ModelSpec) -> None:
        """Every BN counts one batch for one training forward, with all taps on."""
        model = self.build(spec)
        Tapped(model, spec, self.all_names(spec))(self.images(spec))
        for name, value in model.named_buffers():
            if name.endswith("num_batches_tracked"):
                assert value.item() == 1, name

    def test_state_dict_goes_round(self, spec: ModelSpec) -> None:
        """Another model that loads the weights gives the same logits."""
        first, second = self.build(spec), self.build(spec)
        second.load_state_dict(first.state_dict())
        images = self.images(spec)
        with evaluating(first), evaluating(second), torch.no_grad():
            torch.testing.assert_close(second(images), first(images), rtol=0, atol=0)
