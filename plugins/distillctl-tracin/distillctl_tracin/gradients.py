"""Gradients of the label loss for single images, in a form whose dot products are cheap.

A classifier's gradient is an outer product: with p = softmax(W·h + b), that of W is (p − onehot) ⊗ h and that of b is p − onehot, so that

    ⟨∇ℓ(z), ∇ℓ(z′)⟩ = ⟨p − y, p′ − y′⟩ · (⟨h, h′⟩ + 1)

which needs no backward pass (Pruthi et al. 2020, arXiv 2002.08484, section 4.3). Gradients of other layers are computed by `torch.func`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from distillctl import ProfileError, RunError
from distillctl_tracin.sketch import Sketch

Terms = Sequence[tuple[Tensor, ...]]
"""Gradients of B images. The dot product of two is a sum over the terms of products over the factors of a term, each (B, n): of the dot
products of their rows."""
BUDGET = 1 << 28
"""Bytes that the gradients of one block may take."""


class Gradients(Protocol):
    """Gradients of one network's loss."""

    @property
    def rows(self) -> int | None:
        """How many images one block may have; None where the loader decides."""

    @property
    def held(self) -> bool:
        """Whether those of all images fit into memory at once."""

    @property
    def count(self) -> int:
        """How many parameters they are of."""

    def __call__(self, images: Tensor, labels: Tensor) -> Terms:
        """images: normalised, (B, C, H, W). labels: int64, (B,)."""


def dot_products(one: Terms, other: Terms) -> Tensor:
    """Of all pairs: (A, B), float64."""
    return sum(
        math.prod((mine.double() @ theirs.double().T for mine, theirs in zip(*factors, strict=True)), start=torch.ones(()))
        for factors in zip(one, other, strict=True)
    )  # type: ignore[return-value]


class LastLayer:
    """Those of the classifier, in closed form.

    Raises:
        RunError: its last layer is not linear, or what it gives is not what the model returns.
    """

    rows = None
    held = True

    def __init__(self, model: nn.Module, classifier: str) -> None:
        layer = model.get_submodule(classifier) if classifier else None
        if not isinstance(layer, nn.Linear):
            what = f"its classifier `{classifier}` is {type(layer).__name__}" if classifier else "its model declares no classifier"
            raise RunError(f"there is no last linear layer: {what}", where="--layers", hint="`--layers NAME` or `all` computes gradients")
        self._model, self._layer = model, layer
        self.count = sum(p.numel() for p in layer.parameters())

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Terms:
        seen: list[tuple[Tensor, Tensor]] = []
        hook = self._layer.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
        try:
            logits = self._model(images)
        finally:
            hook.remove()
        if len(seen) != 1 or seen[0][0].ndim != 2 or not torch.equal(seen[0][1], logits):
            raise RunError("the model does not return what its last linear layer gives", where="--layers", hint="name the layers")
        inputs = seen[0][0].double()
        if self._layer.bias is not None:
            inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
        errors = logits.double().softmax(1) - F.one_hot(labels, logits.shape[1])  # float64: 1 − p of a sure answer is not 0
        return [(errors, inputs)]


class SampleGradients:
    """Those of parameters by name, by `torch.func`.

    sketch: projects them; None keeps them whole.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], sketch: Sketch | None = None) -> None:
        every = dict(model.named_parameters())
        self._model, self._sketch = model, sketch
        self._chosen = {name: every[name].detach() for name in names}
        self._rest = {name: value.detach() for name, value in (*every.items(), *model.named_buffers()) if name not in self._chosen}
        self.count = sum(value.numel() for value in self._chosen.values())
        self.held = sketch is not None
        self.rows = max(1, min(64, BUDGET // (4 * self.count)))

    def __call__(self, images: Tensor, labels: Tensor) -> Terms:
        def loss(chosen: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
            logits = functional_call(self._model, {**self._rest, **chosen}, (image[None],))
            return F.cross_entropy(logits.float(), label[None])

        try:
            found = vmap(grad(loss), in_dims=(None, 0, 0))(self._chosen, images, labels)
        except RuntimeError as error:
            message = f"gradients of single images of this model cannot be computed by `torch.func`: {str(error).splitlines()[0]}"
            raise RunError(message, where="--layers", hint="`--layers last` needs none") from error
        flat = {name: value.flatten(1) for name, value in found.items()}
        if self._sketch is None:
            return [(value,) for value in flat.values()]
        return [(self._sketch(flat),)]


def chosen_names(model: nn.Module, layers: Sequence[str]) -> list[str]:
    """Names of the parameters at or below these modules; `all` are all.

    Raises:
        ProfileError: there is none of a name.
    """
    every = [name for name, _ in model.named_parameters()]
    if list(layers) == ["all"]:
        return every
    for layer in layers:
        if not any(name == layer or name.startswith(f"{layer}.") for name in every):
            paths = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
            near = get_close_matches(layer, [*paths, *every], 1) or [name for name in paths if "." not in name]
            hint = f"`last`, `all`, or paths of modules, such as {', '.join(f'`{name}`' for name in near)}"
            raise ProfileError(f"the model has no layer `{layer}` with parameters", where="--layers", hint=hint)
    return [name for name in every if any(name == layer or name.startswith(f"{layer}.") for layer in layers)]


def gradients_of(model: nn.Module, classifier: str, layers: Sequence[str], sketch: Sketch | None = None) -> Gradients:
    """Those that `layers` asks for: `last`, `all`, or paths of modules.

    Raises:
        DistillError: the model does not have them.
    """
    if list(layers) == ["last"]:
        return LastLayer(model, classifier)
    return SampleGradients(model, chosen_names(model, layers), sketch)
