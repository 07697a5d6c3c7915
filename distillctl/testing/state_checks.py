"""The part of the contract for methods that looks at parameters, at resuming, and at compilation."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.method import Batch, Progress
from distillctl.testing.cases import MethodCase, assert_finite_gradients, with_head
from distillctl.testing.tensors import make_progress

_GROUP_KEYS = frozenset({"params", "lr_scale", "weight_decay", "decay"})
# What compiling warns of; the last on Python 3.13.0 alone.
_COMPILER = ("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore:Guards may run slower:RuntimeWarning")


class StateChecks(MethodCase):
    """Tests of what a method keeps from step to step."""

    def test_parameter_groups(self) -> None:
        """Every parameter of the method is in its groups exactly once, and none of student and teacher is."""
        setup = self.setup()
        method = self.build(setup)
        groups = method.parameter_groups()
        assert all(set(group) <= _GROUP_KEYS and group["params"] for group in groups), groups
        grouped = [id(p) for group in groups for p in group["params"]]
        own = {id(p) for p in method.parameters() if p.requires_grad}
        assert len(grouped) == len(set(grouped))
        assert set(grouped) == own, "each trained parameter belongs into `parameter_groups`"
        foreign = [p for side in (setup.student, setup.teacher) if side is not None for p in side.model.parameters()]
        assert not own & {id(p) for p in foreign}, "keep `Side.model` out of the method's submodules"

    def test_training_changes_every_parameter(self) -> None:
        """A few steps move all of the method's parameters, and leave student and teacher alone."""
        setup = self.setup()
        method = self.build(setup)
        sides = [side.model for side in (setup.student, setup.teacher) if side is not None]
        start, others = copy.deepcopy(method.state_dict()), copy.deepcopy([model.state_dict() for model in sides])
        self.steps(method, setup, range(3))
        unmoved = [name for name, p in method.named_parameters() if p.requires_grad and torch.equal(p, start[name])]
        assert not unmoved, f"the steps did not move {unmoved}"
        assert all(_equal(model.state_dict(), other) for model, other in zip(sides, others, strict=True))

    def test_state_dict_resumes_exactly(self) -> None:
        """Three steps, saved and loaded into a new method, and two more steps: the same as five steps."""
        setup = self.setup()
        method, other = self.build(setup), self.build(setup, seed=1)
        self.steps(method, setup, range(3))
        file = io.BytesIO()
        torch.save(method.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert _equal(method.state_dict(), other.state_dict())
        inputs = self.inputs(setup, seed=9)
        assert torch.equal(self.loss(method, inputs), self.loss(other, inputs)), "the loss depends on what the state dict does not hold"
        for one in (method, other):
            self.steps(one, setup, range(3, 5))
        assert _equal(method.state_dict(), other.state_dict())
        assert torch.equal(self.loss(method, inputs), self.loss(other, inputs))

    @pytest.mark.filterwarnings(*_COMPILER)
    def test_compiles_once_for_all_epochs(self) -> None:
        """The terms compile into one graph without breaks that holds for every epoch and gives the same values."""
        self._compare_with_compiled("eager")

    @pytest.mark.filterwarnings(*_COMPILER)
    def test_compiles_with_its_backward(self) -> None:
        """The same where the compiler sees the backward too, and no writing into tensors."""
        self._compare_with_compiled("aot_eager")

    def _compare_with_compiled(self, backend: str) -> None:
        method, inputs = self.ready()
        if not method.compiles:
            assert "compile" in (type(method).__doc__ or ""), "the docstring must say why the method does not compile"
            return
        graphs: list[nn.Module] = []
        run_graph: Callable[..., Any] = torch._dynamo.lookup_backend(backend)

        def counting(graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
            graphs.append(graph)
            return run_graph(graph, example)

        def total(batch: Batch, student: dict[str, Tensor], teacher: dict[str, Tensor], epoch: Tensor, fraction: Tensor) -> Tensor:
            progress = Progress(epoch, fraction)
            terms = method.terms(batch, with_head(method, student), teacher, progress, phase=self.phase)
            return torch.stack(list(terms.values())).sum()

        torch._dynamo.reset()
        compiled = torch.compile(total, fullgraph=True, backend=counting)
        try:
            for epoch in (1.0, 2.0, 5.0):
                progress = make_progress(epoch)
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    loss = compiled(inputs.batch, inputs.student, inputs.teacher, progress.epoch, progress.fraction)
                assert_finite_gradients(method, inputs, loss)
                torch.testing.assert_close(loss, self.loss(method, inputs, epoch), rtol=1e-4, atol=1e-6)
                with torch.no_grad():
                    method.after_step()
        finally:
            torch._dynamo.reset()
        assert len(graphs) == 1, f"{len(graphs)} graphs: a Python value that changes is part of the graph"


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
