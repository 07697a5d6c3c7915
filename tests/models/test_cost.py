"""What is told of a network's cost, against plain loops over its layers and published figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import pytest
import safetensors.torch
import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.models.cost import Latency, file_bytes, forward_latency, images_of, latency, macs, parameters
from distillctl.models.features import Tapped
from distillctl.models.teacher_input import adapt_input
from distillctl.testing.tiny_models import TINY_CNN, TinyCNN, TinyViT


class Odd(nn.Module):
    """Groups, dilation, strides, padding, rectangular kernels, a shared layer, and a Linear layer on more than two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False),
            nn.Conv2d(8, 12, (1, 5), stride=(2, 1), groups=4),
            nn.Dropout(0.5),
        )
        self.twice = nn.Linear(12, 12)
        self.head = nn.Linear(12, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.body(images).flatten(2).transpose(1, 2)  # (B, N, 12)
        logits: Tensor = self.head(self.twice(self.twice(x)).mean(1))
        return logits


def by_loops(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiplications of every output of every Conv2d and Linear, one output position after the other."""
    total = 0

    def count(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            for _row, _column, _channel in product(range(output.shape[2]), range(output.shape[3]), range(output.shape[1])):
                total += module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        elif isinstance(module, nn.Linear):
            for _position in range(output.numel() // module.out_features):
                total += module.in_features * module.out_features

    handles = [module.register_forward_hook(count) for module in model.modules()]
    model.eval()(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize("model", [Odd(), TinyCNN(7), torchvision.models.shufflenet_v2_x0_5(num_classes=3)], ids=["odd", "tiny", "shuffle"])
@pytest.mark.parametrize("size", [32, 47])
def test_parameters_and_macs_are_those_of_the_layers(model: nn.Module, size: int) -> None:
    assert macs(model, (3, size, size)) == by_loops(model, (3, size, size))
    counted = 0
    for value in model.parameters():
        counted += math.prod(value.shape)
    assert parameters(model) == counted


def test_attention_is_counted_besides_its_layers() -> None:
    """Two blocks of width 16 on 16 patches and a token: scores and weighted sum of 17 × 17 × 16 multiplications each."""
    model = TinyViT(5)
    assert macs(model, (3, 8, 8)) == by_loops(model, (3, 8, 8)) + 2 * 2 * 17 * 17 * 16


@pytest.mark.parametrize(
    ("name", "giga", "millions"),
    [
        ("resnet18", 1.814, 11.690),
        ("mobilenet_v2", 0.301, 3.505),
        ("vit_b_16", 17.564, 86.568),
        ("swin_t", 4.491, 28.288),
    ],
)
def test_published_figures(name: str, giga: float, millions: float) -> None:
    """As torchvision publishes them; its layers of attention take a fused kernel otherwise."""
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    assert macs(model, (3, 224, 224)) / 1e9 == pytest.approx(giga, abs=6e-4)
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=6e-4)
    assert torch.backends.mha.get_fastpath_enabled()


def everything(model: nn.Module) -> Iterator[object]:
    yield from (value.clone() for value in model.state_dict().values())
    yield from (module.training for module in model.modules())
    yield from (value.requires_grad for value in model.parameters())
    yield from (len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    yield torch.get_rng_state()


def same(one: object, other: object) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else one == other


def test_nothing_of_the_model_is_changed() -> None:
    """Statistics, modes, hooks and the generator stay; a model in training mode neither drops nor normalises by the batch."""
    model = Odd().train()
    model.body[4].eval()
    before = list(everything(model))
    macs(model, (3, 16, 16))
    forward_latency(model, images_of((3, 16, 16), 1, torch.device("cpu")), seconds=0.01)
    parameters(model)
    file_bytes(model)
    assert all(same(*pair) for pair in zip(before, everything(model), strict=True))


class Attends(nn.Module):
    """A layer of attention by torch, which takes a fused kernel in evaluation mode on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(2).transpose(1, 2).repeat(1, 1, 4)[..., :8]  # (B, N, 8)
        found: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return found


def test_fused_attention_is_counted() -> None:
    """Four projections of 16 tokens of width 8, their scores, and the weighted sum."""
    assert macs(Attends(), (3, 4, 4)) == 4 * 16 * 8 * 8 + 2 * 16 * 16 * 8


class Pools(nn.Module):
    """Hands a view of a parameter to a layer, as attention pooling does."""

    def __init__(self) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(1, 1, 4))
        self.query = nn.Linear(4, 6)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.query(self.latent.expand(len(images), -1, -1))
        return found


def test_a_layer_that_is_handed_a_parameter() -> None:
    model = Pools()
    model.query.bias.requires_grad_(False)
    before = list(everything(model))
    assert macs(model, (3, 4, 4)) == 24
    assert all(same(*pair) for pair in zip(before, everything(model), strict=True))


def test_a_model_that_raises_is_left_as_it_was() -> None:
    model = TinyCNN(3).train()
    with pytest.raises(RuntimeError):
        macs(model, (4, 8, 8))
    assert model.training
    assert all(value.requires_grad for value in model.parameters())
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_is_done_for_a_teacher_counts() -> None:
    """A tapped network whose images are resized first costs what it does at that size."""
    model = TinyCNN(10)
    small, large = macs(model, (3, 8, 8)), macs(model, (3, 16, 16))
    tapped = Tapped(model, TINY_CNN, ["stage1"])
    assert macs(tapped.model, (3, 8, 8)) == small < large
    none = ArrayImages(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    adapt_input(model, Splits(none, None, None, ("a", "b"), (0.5,) * 3, (0.5,) * 3, View(8), "made up"), None, None, 16)
    assert macs(model, (3, 8, 8)) == large


@pytest.mark.parametrize("model", [Odd(), torchvision.models.mobilenet_v2(num_classes=3)], ids=["odd", "mobilenet"])
def test_bytes_of_the_file(model: nn.Module) -> None:
    written = safetensors.torch.save({k: v.clone() for k, v in model.state_dict().items()}, metadata={"format": "pt"})
    assert file_bytes(model) == len(written)
    assert file_bytes(model.to("meta")) == len(written)


def test_median_and_95th_percentile() -> None:
    """Of 20 calls the 95th percentile is the slowest but one; warm-up and what lies between calls do not count."""
    durations = iter([50.0] * 2 + [float(n) for n in range(20, 0, -1)])
    now, calls = 0.0, 0

    def call() -> None:
        nonlocal now, calls
        calls += 1
        now += next(durations)

    found = latency(call, torch.device("cpu"), seconds=100 + sum(range(20, 0, -1)), clock=lambda: now)
    assert found == Latency(10.5, 19.0, 20)
    assert calls == 22


def test_a_slow_call_is_timed_three_times() -> None:
    now = 0.0

    def call() -> None:
        nonlocal now
        now += 7

    assert latency(call, torch.device("cpu"), seconds=1, clock=lambda: now) == Latency(7, 7, 3)


def test_a_quick_call_is_timed_often_but_not_for_ever() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    assert latency(call, torch.device("cpu"), seconds=1, most=10, clock=lambda: 0.0) == Latency(0, 0, 10)
    assert calls == 12
    assert latency(call, torch.device("cpu"), seconds=0, fewest=1, clock=lambda: 0.0).count == 1


def test_images_are_the_same_and_lie_as_they_are_wanted() -> None:
    torch.manual_seed(3)
    first = images_of((3, 4, 4), 2, torch.device("cpu"))
    torch.manual_seed(4)
    second = images_of((3, 4, 4), 2, torch.device("cpu"), channels_last=True)
    assert torch.equal(first, second)
    assert first.std() > 0.5
    assert first.is_contiguous()
    assert second.is_contiguous(memory_format=torch.channels_last)


def test_a_forward_is_timed_without_gradients_and_in_evaluation_mode() -> None:
    seen: list[tuple[bool, bool]] = []

    class Watched(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append((self.training, torch.is_inference_mode_enabled()))
            return images

    forward_latency(Watched().train(), torch.zeros(1), seconds=0)
    assert set(seen) == {(False, True)}
    assert len(seen) == 4
