"""The part of the contract for methods that looks at the terms: their form, reduction, layout and precision."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from distillctl.testing.cases import MethodCase, assert_finite_gradients
from distillctl.testing.tensors import LAYOUTS


class ValueChecks(MethodCase):
    """Tests of the value; the attributes are explained in `MethodContract`."""

    duplication_factor: ClassVar[float | None] = 1.0
    permutation_invariant: ClassVar[bool] = True
    half_tolerance: ClassVar[float] = 1e-2

    @pytest.mark.parametrize("size", [1, 2, 7, 64])
    def test_terms_are_finite_scalars(self, size: int) -> None:
        """Each term is a finite 0-dim float32 tensor; terms have names if there are several."""
        method, inputs = self.ready(size)
        terms = self.terms(method, inputs)
        assert terms
        for name, term in terms.items():
            assert name.isidentifier() if len(terms) > 1 else name.isidentifier() or not name, f"{name!r} is not a name for a term"
            assert (term.shape, term.dtype) == ((), torch.float32), f"{name}: {term}"
            assert term.isfinite(), f"{name}: {term}"
        for name, value in method.metrics().items():
            assert value.shape == (), name
            assert not value.requires_grad, f"{name} must be detached"

    def test_same_seed_same_value_and_inputs_untouched(self) -> None:
        """Evaluating a method twice gives the same value; nothing writes into features or the batch."""
        method, inputs = self.ready()
        tensors = [*inputs.student.values(), *inputs.teacher.values(), inputs.batch.images, inputs.batch.labels, inputs.batch.index]
        before = [(t._version, t.detach().clone()) for t in tensors]
        first = self.loss(method, inputs)
        assert torch.equal(first, self.loss(method, inputs)), "the same seed gives another value"
        assert all(t._version == version and torch.equal(t, value) for t, (version, value) in zip(tensors, before, strict=True))

    def test_duplicated_batch(self) -> None:
        """Feeding every sample twice multiplies the loss by the documented factor."""
        method, inputs = self.ready()
        once, twice = self.loss(method, inputs), self.loss(method, inputs.select(torch.arange(7).repeat(2)))
        if self.duplication_factor is not None:
            torch.testing.assert_close(twice, once * self.duplication_factor, rtol=1e-4, atol=1e-6)
            return
        assert all(not torch.isclose(twice, once * factor, rtol=1e-5, atol=0) for factor in (1.0, 2.0)), "set duplication_factor"
        text = f"{type(method).__doc__} {inspect.getmodule(type(method)).__doc__}"
        assert re.search(r"\b(random|drawn|draws|relation|pair|negative)", text), "the docstring must say why the batch matters"

    def test_mixed_is_declared(self) -> None:
        """Soft labels of 1 give what labels give; a method that does not learn from `Batch.soft` leaves it alone."""
        method, inputs = self.ready()
        plain = self.loss(method, inputs)
        shares = F.one_hot(inputs.batch.labels, self.num_classes).float()
        sure, torn = (replace(inputs, batch=replace(inputs.batch, soft=s)) for s in (shares, (shares + shares.roll(1, 0)) / 2))
        torch.testing.assert_close(self.loss(method, sure), plain)
        if self.spec.mixed != "soft":
            assert torch.equal(self.loss(method, torn), plain), f'it learns from soft labels, and `mixed` is "{self.spec.mixed}"'

    def test_permuted_batch(self) -> None:
        """The order of the samples does not matter, unless the contract says so; then it does."""
        method, inputs = self.ready()
        order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
        ordered, permuted = self.loss(method, inputs), self.loss(method, inputs.select(order))
        same = torch.isclose(permuted, ordered, rtol=1e-5, atol=1e-6)
        assert same == self.permutation_invariant, f"`permutation_invariant = {self.permutation_invariant}` is not true of the method"

    def test_compares_images_is_declared(self) -> None:
        """The loss of a batch is the mean over its shares on several processes, exactly if the spec does not say `compares_images`.

        The method is in evaluation mode: whether its batch normalisation sees the whole batch is the user's choice.
        """
        method, inputs = self.ready(8)
        method.eval()
        with torch.no_grad():
            whole = self.loss(method, inputs)
            shares = [self.loss(method, inputs.share(start, 4)) for start in (0, 4)]
        declared = self.spec.compares_images or (self.inner_spec is not None and self.inner_spec.compares_images)
        if declared:
            assert not torch.isclose(torch.stack(shares).mean(), whole, rtol=1e-5, atol=0), "nothing for `gather` to do"
            return
        how = "set `compares_images` in the spec, draw by `draw_rows`, or divide sums over images by `batch.share`"
        torch.testing.assert_close(torch.stack(shares).mean(), whole, rtol=1e-4, atol=1e-6, msg=lambda text: f"{text}\n{how}")

    def test_reads_what_it_declares(self) -> None:
        """Without the labels or logits that its spec does not name in `reads`, the loss is the same."""
        setup = self.setup()
        inputs = self.inputs(setup)
        reads = {*self.spec.reads, *(() if self.inner_spec is None else self.inner_spec.reads)}
        expected = self.loss(self.build(setup), inputs)
        if "logits" not in reads:
            student, teacher = ({k: v for k, v in side.items() if k != "logits"} for side in (inputs.student, inputs.teacher))
            inputs = replace(inputs, student=student, teacher=teacher)
        if "labels" not in reads:
            nothing = torch.empty(0, dtype=torch.int64)
            inputs, setup = replace(inputs, batch=replace(inputs.batch, labels=nothing)), replace(setup, labels=nothing)
        torch.testing.assert_close(self.loss(self.build(setup), inputs), expected, rtol=0, atol=0)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_memory_layout_does_not_matter(self, layout: str) -> None:
        """Channels-last, transposed and sliced tensors give the same value."""
        method, inputs = self.ready()
        other = inputs.map(LAYOUTS[layout])
        torch.testing.assert_close(self.loss(method, other), self.loss(method, inputs), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_precision_features(self, dtype: torch.dtype) -> None:
        """Under autocast, with features in half precision, the loss is that of the same features in float32."""
        method, inputs = self.ready()
        inputs = inputs.map(lambda value: value.to(dtype))
        with torch.autocast("cpu", dtype=dtype):
            terms = self.terms(method, inputs)
        assert all(term.dtype == torch.float32 for term in terms.values()), "compute the loss in float32"
        full = self.terms(method, inputs.map(lambda value: value.float()))
        for name, term in terms.items():
            torch.testing.assert_close(term, full[name], rtol=self.half_tolerance, atol=1e-6)

    @pytest.mark.parametrize(
        ("dtype", "scale"), [(torch.float16, 100.0), (torch.bfloat16, 100.0), (torch.bfloat16, 1e4), (torch.float32, 1e4)], ids=str
    )
    def test_large_features(self, dtype: torch.dtype, scale: float) -> None:
        """Features a hundred or ten thousand times larger: finite value and gradients."""
        method, inputs = self.ready(scale=scale)
        inputs = inputs.map(lambda value: value.to(dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16 if dtype == torch.float32 else dtype, enabled=dtype != torch.float32):
            loss = self.loss(method, inputs)
        assert_finite_gradients(method, inputs, loss)
