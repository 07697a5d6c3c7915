"""Which stages have ended when a layer runs, in networks of several kinds."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from distillctl import ModelSpec, RunError
from distillctl.models.depth import Depths, levels
from distillctl.plugin.registry import Registry
from distillctl.testing import TINY_CNN, TINY_VIT
from distillctl.testing.tiny_models import TinyCNN, TinyViT

IMAGE = (3, 8, 8)


def test_a_convolutional_network_from_the_stem_to_the_classifier() -> None:
    model = TinyCNN(4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    depths = Depths(model, TINY_CNN, IMAGE)
    assert levels(TINY_CNN) == ("stem", "stage1", "stage2", "stage3")
    found = depths.of_parameters
    assert list(found) == [name for name, _ in model.named_parameters()]
    assert {name.partition(".")[0]: depth for name, depth in found.items()} == {"stem": 0, "stage1": 1, "stage2": 2, "stage3": 3, "fc": 4}
    assert [name for name in depths.modules_up_to(1) if "." not in name] == ["stem", "stage1"]
    assert all(name.startswith(("stem", "stage1")) for name in depths.modules_up_to(1))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_a_network_holds_itself_is_the_lowest() -> None:
    found = Depths(TinyViT(4), TINY_VIT, IMAGE).of_parameters
    assert (found["token"], found["patch.weight"]) == (0, 0)
    assert {found[name] for name in found if name.startswith("blocks.0")} == {1}
    assert {found[name] for name in found if name.startswith("blocks.1")} == {2}
    assert found["norm.weight"] == found["head.bias"] == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet_v2", {"features.0.0.weight": 0, "features.1.conv.0.0.weight": 1, "features.3.conv.2.weight": 1,
                          "features.4.conv.0.0.weight": 2, "features.18.0.weight": 4, "classifier.1.weight": 5}),
        ("resnet18", {"conv1.weight": 0, "bn1.bias": 0, "layer1.0.conv1.weight": 1, "layer4.1.bn2.weight": 4, "fc.bias": 5}),
    ],
)  # fmt: skip
def test_networks_of_torchvision(name: str, expected: dict[str, int]) -> None:
    spec = Registry.load({"DISTILLCTL_PLUGINS": ""}).models.get(name)
    depths = Depths(getattr(torchvision.models, name)(), spec, (3, 32, 32))
    found = depths.of_parameters
    assert {key: found[key] for key in expected} == expected
    frozen = depths.modules_up_to(1)
    assert "features" not in frozen
    assert {found[f"{module}.{key}"] for module in frozen for key in ("weight", "bias") if f"{module}.{key}" in found} == {0, 1}


class Odd(nn.Module):
    """A stage is what a layer receives; one layer is shared, one is used without being called, and one is of training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.beside = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.shared(self.first(images.flatten(1)[:, :4]))
        x = self.attention(x[:, None], x[:, None], x[:, None], need_weights=False)[0][:, 0]
        result: Tensor = self.last(self.shared(x))
        return result + self.beside(x) if self.training else result


def test_stages_before_a_layer_and_layers_that_nobody_calls() -> None:
    spec = ModelSpec(name="odd", summary="", implementation="", stages={"stage1": "attention:input", "stage2": "last:input"})
    depths = Depths(Odd(), spec, IMAGE)
    found = depths.of_parameters
    assert (found["first.weight"], found["shared.weight"], found["last.weight"], found["beside.weight"]) == (0, 0, 2, 2)
    assert {found[name] for name in found if name.startswith("attention")} == {1}
    assert depths.modules_up_to(0) == ("first",)  # the shared one runs again later


def test_a_stage_that_is_not_reached() -> None:
    spec = ModelSpec(name="odd", summary="", implementation="", stages={"stage1": "beside"})
    with pytest.raises(RunError, match="`beside` of `odd` is not reached"):
        Depths(Odd(), spec, IMAGE)
