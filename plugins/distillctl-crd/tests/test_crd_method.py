from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import distillctl_crd.method
from distillctl import Batch, RunError, Setup
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_crd.method import CRD
from distillctl_crd.plugin import register_method

SPEC = register_method()
CEILING = 130  # 124 by PyTorch 2.15


def build(**options: object) -> tuple[CRD, Setup]:
    setup = make_setup({"pooled": (6,)}, {"pooled": (9,)}, num_classes=5, num_data=40)
    torch.manual_seed(0)
    return CRD(options_of(SPEC, **{"negatives": 12, "feat_dim": 8, **options}), setup), setup


def forward(method: CRD, setup: Setup, seed: int = 0) -> tuple[Tensor, Batch]:
    torch.manual_seed(seed)
    batch = make_batch(setup, 7, seed)
    student, teacher = {"pooled": torch.randn(7, 6, requires_grad=True)}, {"pooled": torch.randn(7, 9)}
    return method.terms(batch, student, teacher, make_progress())[""], batch


def step(method: CRD, setup: Setup, seed: int = 0) -> Batch:
    loss, batch = forward(method, setup, seed)
    loss.backward()
    method.after_step()
    return batch


# -- the banks --------------------------------------------------------------------------------------------------------


def test_only_rows_of_the_batch_change_and_have_unit_length() -> None:
    method, setup = build()
    for seed in range(3):
        before = copy.deepcopy(method.state_dict())
        batch = step(method, setup, seed)
        rest = torch.ones(40, dtype=torch.bool)
        rest[batch.index] = False
        for name in ("student_bank", "teacher_bank"):
            bank = method.state_dict()[name]
            assert torch.equal(bank[rest], before[name][rest])
            assert (bank[batch.index] != before[name][batch.index]).any(1).all()
            torch.testing.assert_close(bank[batch.index].norm(dim=1), torch.ones(7))


def test_each_bank_takes_its_own_side() -> None:
    method, setup = build(momentum=0.0)
    torch.manual_seed(3)
    batch, student, teacher = make_batch(setup, 7, 3), torch.randn(7, 6), torch.randn(7, 9)
    method.terms(batch, {"pooled": student}, {"pooled": teacher}, make_progress())
    with torch.no_grad():  # the embeddings of the forward count, not those after the optimizer's step
        expected = [nn.functional.normalize(m(p), dim=1) for m, p in ((method.embed_student, student), (method.embed_teacher, teacher))]
        method.embed_student.weight.zero_()
        method.embed_teacher.weight.zero_()
    method.after_step()
    torch.testing.assert_close(method.student_bank[batch.index], expected[0])
    torch.testing.assert_close(method.teacher_bank[batch.index], expected[1])


def test_forward_alone_changes_nothing() -> None:
    """Buffers that change between forward and backward would spoil the gradient."""
    method, setup = build()
    before = copy.deepcopy(method.state_dict())
    forward(method, setup)[0].backward()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize("how", ["evaluation mode", "no gradients"])
def test_nothing_is_kept_outside_training(how: str) -> None:
    method, setup = build()
    step(method, setup, 1)
    before = copy.deepcopy(method.state_dict())
    method.train(how != "evaluation mode")
    with torch.set_grad_enabled(how != "no gradients"):
        loss, _ = forward(method, setup, 2)
    method.after_step()
    assert loss.isfinite()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_a_step_is_taken_in_once() -> None:
    method, setup = build()
    step(method, setup)
    before = copy.deepcopy(method.state_dict())
    method.after_step()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_all_parts_of_a_batch_are_taken_in() -> None:
    method, setup = build()
    before = copy.deepcopy(method.state_dict())
    seen = torch.cat([forward(method, setup, seed)[1].index for seed in (0, 1)])
    method.after_step()
    moved = (method.student_bank != before["student_bank"]).any(1)
    assert moved.nonzero().flatten().tolist() == sorted(set(seen.tolist()))


def test_of_several_passes_over_a_batch_the_last_counts() -> None:
    method, setup = build(momentum=0.0)
    batch, passes, teacher = make_batch(setup, 7), torch.randn(2, 7, 6), torch.randn(7, 9)
    for student in passes:
        method.terms(batch, {"pooled": student}, {"pooled": teacher}, make_progress())
    method.after_step()
    expected = nn.functional.normalize(method.embed_student(passes[1]), dim=1)
    torch.testing.assert_close(method.student_bank[batch.index], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_parts_of_a_batch_share_one_compiled_graph() -> None:
    """The compiler makes a graph for each length of a list that it changes."""
    method, setup = build()
    graphs = []
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda batch, student, teacher, progress: method.terms(batch, student, teacher, progress)[""],
        fullgraph=True,
        backend=lambda graph, example: graphs.append(graph) or graph,
    )
    try:
        for seeds in ((0, 1, 2), (3, 4)):
            before, seen = copy.deepcopy(method.state_dict()), []
            for seed in seeds:
                batch, student = make_batch(setup, 7, seed), {"pooled": torch.randn(7, 6, requires_grad=True)}
                compiled(batch, student, {"pooled": torch.randn(7, 9)}, make_progress()).backward()
                seen.append(batch.index)
            method.after_step()
            moved = (method.student_bank != before["student_bank"]).any(1).nonzero().flatten()
            assert moved.tolist() == torch.cat(seen).unique().tolist()
    finally:
        torch._dynamo.reset()
    assert len(graphs) == 1


def test_parts_are_taken_in_in_their_order() -> None:
    """An image that is in two parts has the embedding of the later one; the last part gives Z."""
    method, setup = build(momentum=0.0)
    index, teacher = torch.arange(7), torch.randn(7, 9)
    students = torch.randn(2, 7, 6)
    for student in students:
        batch = make_batch(setup, 7)
        method.terms(Batch(batch.images, setup.labels[:7], index), {"pooled": student}, {"pooled": teacher}, make_progress())
    last_z = method._pending[0].log_z
    method.after_step()
    torch.testing.assert_close(method.student_bank[:7], nn.functional.normalize(method.embed_student(students[1]), dim=1))
    assert torch.equal(method.log_z, last_z)


# -- Z ----------------------------------------------------------------------------------------------------------------


def test_z_is_set_by_the_first_step_and_never_again() -> None:
    method, setup = build()
    assert not method.z_known
    step(method, setup, 0)
    assert method.z_known
    first = method.log_z.clone()
    assert (first != 0).all()
    for seed in (1, 2):
        step(method, setup, seed)
        assert torch.equal(method.log_z, first)


def test_z_that_is_set_is_used() -> None:
    method, setup = build()
    step(method, setup, 0)
    known, _ = forward(method, setup, 1)
    method.log_z += 1.0
    shifted, _ = forward(method, setup, 1)
    method.z_known.fill_(False)
    fresh, _ = forward(method, setup, 1)
    assert len({known.item(), shifted.item(), fresh.item()}) == 3


def test_z_is_computed_until_it_is_known_and_again_where_somebody_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    method, setup = build()
    other, calls = build()[0], []
    function = distillctl_crd.method.log_normaliser
    monkeypatch.setattr(distillctl_crd.method, "log_normaliser", lambda *a: (calls.append(0), function(*a))[1])

    def computes(one: CRD) -> bool:
        calls.clear()
        forward(one, setup, 5)
        one._pending = None
        return bool(calls)

    assert computes(method)
    step(method, setup)
    assert not computes(method)
    unknown = other.state_dict()
    method.load_state_dict(unknown)
    assert computes(method)
    step(method, setup)
    assert method.log_z.abs().min() > 0
    assert not computes(method)
    assert computes(copy.deepcopy(method))  # another buffer, of which nobody knows


# -- state and options ------------------------------------------------------------------------------------------------


def test_state_dict_holds_embeddings_banks_and_z() -> None:
    method, _ = build()
    shapes = {name: tuple(value.shape) for name, value in method.state_dict().items()}
    assert shapes == {
        "student_bank": (40, 8),
        "teacher_bank": (40, 8),
        "log_z": (2,),
        "z_known": (),
        "embed_student.weight": (8, 6),
        "embed_student.bias": (8,),
        "embed_teacher.weight": (8, 9),
        "embed_teacher.bias": (8,),
    }


def test_banks_and_z_resume() -> None:
    """After two steps, a new method with the saved state takes the same third step, from other random beginnings."""
    method, setup = build()
    step(method, setup, 0)
    step(method, setup, 1)
    torch.manual_seed(99)
    other = CRD(method.options, setup)
    other.load_state_dict(method.state_dict())
    for one in (method, other):
        step(one, setup, 2)
    assert all(torch.equal(value, method.state_dict()[name]) for name, value in other.state_dict().items())


def test_pooled_features_of_any_shape_are_flattened() -> None:
    setup = make_setup({"pooled": (6, 1, 1)}, {"pooled": (9,)}, num_classes=5, num_data=40)
    method = CRD(options_of(SPEC, negatives=12, feat_dim=8), setup)
    assert method.embed_student.in_features == 6
    loss = method(make_batch(setup, 3), {"pooled": torch.randn(3, 6, 1, 1)}, {"pooled": torch.randn(3, 9)}, make_progress())
    assert loss.shape == ()


def test_one_class_is_refused() -> None:
    setup = make_setup({"pooled": (6,)}, {"pooled": (9,)}, num_classes=1, num_data=8)
    with pytest.raises(RunError, match="`crd` needs images of at least two classes"):
        CRD(options_of(SPEC), setup)


def test_zero_embeddings_stay_finite() -> None:
    """Dividing by a bare length gives NaN here."""
    method, setup = build()
    for linear in (method.embed_student, method.embed_teacher):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    step(method, setup)
    assert all(value.isfinite().all() for value in method.state_dict().values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_smallest_temperatures_stay_finite() -> None:
    method, setup = build(temperature=1e-3)
    loss, _ = forward(method, setup)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters())


class _Counter(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += not func.is_view
        return func(*args, **(kwargs or {}))


def test_a_step_calls_no_more_than_it_has_to() -> None:
    """On a GPU every call is a launch or several. It is the second step: the first one computes Z."""
    method, setup = build()
    step(method, setup, 0)
    method.zero_grad()
    torch.manual_seed(1)
    batch = make_batch(setup, 7, 1)
    student, teacher = {"pooled": torch.randn(7, 6, requires_grad=True)}, {"pooled": torch.randn(7, 9)}
    progress = make_progress()
    with _Counter() as counter:
        method.terms(batch, student, teacher, progress)[""].backward()
        method.after_step()
    assert counter.calls <= CEILING, counter.calls
