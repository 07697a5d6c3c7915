from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.method import Batch
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Outputs, Seen, Task
from distillctl.errors import DistillError, ProfileError, RunError
from distillctl.models.features import Tap, Tapped, evaluating, expand, noise, resolve, stage_names
from distillctl.plugin.registry import load
from distillctl.testing import TINY_CNN, TINY_VIT


class InPlace(nn.Module):
    """Overwrites what its layers returned, as residual networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.tail = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        y = self.tail(x)
        y += x
        y.mul_(2.0)
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


SPEC = ModelSpec(
    name="inplace",
    summary="writes in place",
    implementation="nowhere:build",
    stages={"stem": "conv", "stage1": "bn", "stage2": "tail", "stage1:pre": "act:input"},
    classifier="fc",
)


def build(seed: int = 0) -> InPlace:
    torch.manual_seed(seed)
    return InPlace()


def test_captured_tensors_are_not_overwritten() -> None:
    """The taps that the model writes to later are found by the dry forward and cloned; the others are not."""
    model = build()
    tapped = Tapped(model, SPEC, ["stage1", "stage2", "pooled"])
    tapped.probe((3, 5, 5))
    images = torch.randn(2, 3, 5, 5)
    model.eval()
    features = tapped(images)
    x = model.bn(model.conv(images))
    torch.testing.assert_close(features["stage1"], x)
    assert (features["stage1"] < 0).any()
    torch.testing.assert_close(features["stage2"], model.tail(x.relu()))
    torch.testing.assert_close(features["logits"], build_logits(model, images))
    assert tapped._cloned == {"stage2"}
    # The sample that methods are given was taken before the overwriting, too.
    sample = tapped.side(tapped.probe((3, 5, 5)), "inplace").sample
    torch.testing.assert_close(sample, tapped(noise((3, 5, 5))))


class Asked(Task):
    """Its models are run in a way of their own, and methods see what it makes of that."""

    def sample(self, model: nn.Module, images: Tensor) -> Any:
        assert not model.training
        return {"rows": model(images.repeat(2, 1, 1, 1)[:3])}

    def check_output(self, output: object, model: str) -> None:
        assert model == "inplace"
        assert isinstance(output, dict)

    def seen(self, outputs: Outputs, batch: Batch) -> Mapping[str, Seen]:
        assert batch.targets is None
        rows = {"logits": outputs["logits"]["rows"]}
        return {"rows": Seen(batch, rows), "images": Seen(batch, {"stage1": outputs["stage1"]})}


def test_a_task_says_how_a_model_is_sampled_and_what_methods_see() -> None:
    tapped, task = Tapped(build(), SPEC, ["stage1", "stage2"]), object.__new__(Asked)
    assert tapped.probe((3, 5, 5), task) == {"logits": (2,), "stage1": (4, 5, 5)}
    assert len(tapped.side({}, "inplace").sample["logits"]) == 3


def test_a_model_may_take_more_than_images_and_give_anything() -> None:
    class Doubles(nn.Module):
        def forward(self, images: Tensor, by: int, *, plus: int) -> dict[str, Tensor]:
            return {"answer": images * by + plus}

    spec = ModelSpec(name="doubles", summary="doubles", implementation="nowhere:build")
    torch.testing.assert_close(Tapped(Doubles(), spec, [])(torch.ones(2), 2, plus=1), {"logits": {"answer": torch.full((2,), 3.0)}})


def test_stages_that_stand_aside_are_named_one_by_one() -> None:
    spec = replace(SPEC, aside=("stage2",))
    assert stage_names(spec) == ("stage1",)
    assert (resolve("last", spec, build()).path, resolve("stage2", spec, build()).path) == ("bn", "tail")


def build_logits(model: InPlace, images: Tensor) -> Tensor:
    x = model.bn(model.conv(images)).relu()
    return model.fc((2 * (model.tail(x) + x)).mean((2, 3)))  # type: ignore[no-any-return]


def test_gradients_flow_through_taps() -> None:
    tapped = Tapped(build(), SPEC, ["stage2"])
    tapped.probe((3, 5, 5))
    tapped(torch.randn(2, 3, 5, 5))["stage2"].square().sum().backward()
    assert tapped.model.conv.weight.grad is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("frozen", [True, False])
def test_probe_changes_neither_statistics_nor_modes(frozen: bool) -> None:
    model = build().train()
    model.bn.train(not frozen)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    shapes = Tapped(model, SPEC, ["stages", "stem", "stage1:pre"]).probe((3, 6, 4))
    assert shapes == {"stage1": (4, 6, 4), "stage2": (4, 6, 4), "stem": (4, 6, 4), "stage1:pre": (4, 6, 4), "logits": (2,)}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert model.bn.training is not frozen


def test_the_bare_model_stays_usable_and_keeps_its_keys() -> None:
    model = build()
    keys = list(model.state_dict())
    tapped = Tapped(model, SPEC, ["last"])
    tapped.probe((3, 4, 4))
    images = torch.randn(2, 3, 4, 4)
    for _ in range(2):
        model(images)
    tapped(images)
    model(images)
    tapped(images)
    assert list(model.state_dict()) == keys
    tapped.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_names_stand_for_stages_paths_and_inputs() -> None:
    model = build()
    assert stage_names(SPEC) == ("stage1", "stage2")
    assert expand(["stages", "pooled", "stage1"], SPEC) == ("stage1", "stage2", "pooled")
    assert resolve("last", SPEC, model) == Tap("tail")
    assert resolve("pooled", SPEC, model) == Tap("fc", ("input",))
    assert resolve("stage1:pre", SPEC, model) == Tap("act", ("input",))
    assert resolve("tail:input", SPEC, model) == Tap("tail", ("input",))


@pytest.mark.parametrize(
    ("name", "words"),
    [("stage9", "did you mean `stage"), ("tial", "`tail`"), ("conv:outptu", "unknown suffix"), ("", "no stage or module")],
)
def test_unknown_names_are_told_with_what_there_is(name: str, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        resolve(name, SPEC, build())


def test_models_without_declarations_say_so() -> None:
    bare = ModelSpec(name="bare", summary="declares nothing", implementation="nowhere:build")
    for name in ("last", "pooled"):
        with pytest.raises(ProfileError, match="declares no"):
            resolve(name, bare, build())


def test_tokens_become_maps() -> None:
    model = load(TINY_VIT.implementation, "tiny")(TINY_VIT.name, 5, load(TINY_VIT.options, "tiny")())
    shapes = Tapped(model, TINY_VIT, ["stages"]).probe((3, 8, 8))
    maps = [shapes[name] for name in stage_names(TINY_VIT)]
    assert all(len(s) == 3 and s[1] == s[2] for s in maps)
    tokens = torch.arange(2 * 5 * 3.0).reshape(2, 5, 3)
    folded = Tap("x", ("tokens",)).arrange(tokens)
    assert folded.shape == (2, 3, 2, 2)
    assert torch.equal(folded[0, :, 1, 0], tokens[0, 3])
    with pytest.raises(RunError, match="no square"):
        Tap("x", ("tokens",)).arrange(torch.zeros(1, 7, 3))
    assert Tap("x", ("nhwc",)).arrange(torch.zeros(1, 4, 5, 3)).shape == (1, 3, 4, 5)


def test_a_suffix_says_how_many_tokens_are_no_part_of_the_map() -> None:
    """A class token and four registers, as DINOv2 has them, stand before four patches."""
    tokens = torch.arange(2 * 9 * 3.0).reshape(2, 9, 3)
    folded = Tap.parse("blocks.11:tokens5").arrange(tokens)
    assert folded.shape == (2, 3, 2, 2)
    assert torch.equal(folded[1, :, 0, 1], tokens[1, 6])
    assert Tap.parse("x:tokens").arrange(tokens).shape == (2, 3, 3, 3), "without a number it is a square of nine"
    for count in (8, 3):
        with pytest.raises(RunError, match=f"gives {count} tokens, which are no square with 5 others"):
            Tap.parse("x:tokens5").arrange(torch.zeros(1, count, 3))
    with pytest.raises(ProfileError, match="unknown suffix"):
        Tap.parse("x:tokensfive")


class Odd(nn.Module):
    """Runs one layer twice, never runs another, and returns a pair from a third."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 1)
        self.never = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(3, 2)
        self.lstm = nn.LSTM(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.twice(self.twice(x)).mean((2, 3))
        self.lstm(pooled[:, None])
        return self.fc(pooled)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("path", "words"), [("twice", "more than once"), ("never", "not reached"), ("lstm", "not a tensor")])
def test_modules_that_give_no_single_tensor(path: str, words: str) -> None:
    with pytest.raises(DistillError, match=words):
        Tapped(Odd(), SPEC, [path]).probe((3, 4, 4))


def test_wrong_image_shape_is_told_with_the_models_name() -> None:
    with pytest.raises(RunError, match="`inplace` cannot take images of shape"):
        Tapped(build(), SPEC, ["last"]).probe((1, 4, 4))


def test_evaluating_restores_modes_after_an_error() -> None:
    model = build().train()
    model.act.eval()
    with pytest.raises(ValueError, match="inside"), evaluating(model):
        raise ValueError("inside")
    assert model.training
    assert not model.act.training


def test_hooks_survive_full_graph_compilation() -> None:
    torch._dynamo.reset()
    model = load(TINY_CNN.implementation, "tiny")(TINY_CNN.name, 5, load(TINY_CNN.options, "tiny")(width=2))
    tapped = Tapped(model, TINY_CNN, ["stages", "pooled"])
    tapped.probe((3, 8, 8))
    model.eval()
    images = torch.randn(2, 3, 8, 8)
    expected = tapped(images)
    compiled = torch.compile(tapped, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        found = compiled(images)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)
