"""`sdd`: the four cases of the weights, the base methods on the whole map, and losses that are not finite."""

import pytest
import torch

from distillctl import Batch, kd_loss
from distillctl.testing import make_progress, make_setup, options_of
from distillctl_dkd.method import DKD
from distillctl_dkd.plugin import SPEC as DKD_SPEC
from distillctl_nkd.method import NKD
from distillctl_nkd.plugin import SPEC as NKD_SPEC
from distillctl_sdd.losses import is_complementary, kd_rows, sdd_loss, sdd_parts
from distillctl_sdd.method import SDD
from distillctl_sdd.plugin import SPEC

RIGHT, WRONG = [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]


def counting(student, teacher, labels, temperature):
    """A loss of 1 for each row, so that the sum of the weights is seen."""
    return torch.ones(len(student)) + 0 * student.sum()


@pytest.mark.parametrize(
    ("whole", "region", "weight"),
    [(RIGHT, RIGHT, 1.0), (WRONG, WRONG, 1.0), (RIGHT, WRONG, 2.0), (WRONG, RIGHT, 2.0)],
    ids=["right-right", "wrong-wrong", "right-wrong", "wrong-right"],
)
def test_weights_of_the_four_cases(whole, region, weight):
    teacher = torch.tensor([[whole, region]])
    labels = torch.tensor([0])
    assert is_complementary(teacher, labels).tolist() == [[False, weight == 2]]
    assert 2 * sdd_loss(torch.zeros(1, 2, 3), teacher, labels, 4.0, counting).item() == 1 + weight
    consistent, complementary = sdd_parts(torch.zeros(1, 2, 3), teacher, labels, 4.0, counting)
    assert (2 * consistent.item(), 2 * complementary.item()) == ((1.0, 1.0) if weight == 2 else (2.0, 0.0))


def test_the_student_does_not_decide_on_the_weights():
    teacher, labels = torch.tensor([[RIGHT, WRONG]]), torch.tensor([0])
    values = {sdd_loss(torch.tensor([student]), teacher, labels, 4.0, counting).item() for student in ([RIGHT, RIGHT], [WRONG, RIGHT])}
    assert values == {1.5}


def test_the_whole_map_always_counts_once():
    teacher = torch.randn(50, 1, 3, generator=torch.Generator().manual_seed(0))
    assert not is_complementary(teacher, torch.zeros(50, dtype=torch.int64)).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("teacher_row", [RIGHT, WRONG])
def test_d34_what_is_not_finite_is_not_replaced(value, teacher_row):
    student = torch.zeros(2, 2, 3)
    student[1, 1, 2] = value
    loss = sdd_loss(student, torch.tensor([[RIGHT, RIGHT], [RIGHT, teacher_row]]), torch.tensor([0, 0]), 4.0, kd_rows)
    assert not loss.isfinite()


def features(setup):
    """Features of both sides whose logits are those of their classifiers, and a batch."""
    generator = torch.Generator().manual_seed(5)
    sides = []
    for side in (setup.student, setup.teacher):
        maps = 3 * torch.randn(6, side.channels("final"), 4, 4, generator=generator)
        pooled = maps.mean((2, 3))
        sides.append({"final": maps, "pooled": pooled, "logits": side.classifier(pooled).detach()})
    return *sides, Batch(torch.zeros(6, 3, 4, 4), torch.tensor([0, 4, 2, 1, 3, 0]), torch.arange(6))


@pytest.fixture
def setup():
    return make_setup({"final": (3, 4, 4), "pooled": (3,)}, {"final": (6, 4, 4), "pooled": (6,)}, num_classes=5)


@pytest.mark.parametrize("base", ["kd", "dkd", "nkd"])
def test_the_whole_map_alone_is_the_base_method(setup, base):
    student, teacher, batch = features(setup)
    terms = SDD(options_of(SPEC, base=base, scales=[1], temperature=2.0), setup).terms(batch, student, teacher, make_progress())
    assert list(terms) == ["consistent"]
    if base == "kd":
        expected = kd_loss(student["logits"], teacher["logits"], 2.0, 2.0)
    else:
        spec, method = {"dkd": (DKD_SPEC, DKD), "nkd": (NKD_SPEC, NKD)}[base]
        expected = sum(method(options_of(spec, temperature=2.0), setup).terms(batch, student, teacher, make_progress()).values())
    torch.testing.assert_close(terms["consistent"], expected)


@pytest.mark.parametrize(("base", "options"), [("dkd", {"alpha": 0.0}), ("dkd", {"beta": 0.0}), ("nkd", {"gamma": 0.0})])
def test_factors_of_zero(setup, base, options):
    student, teacher, batch = features(setup)
    terms = SDD(options_of(SPEC, base=base, scales=[1], **options), setup).terms(batch, student, teacher, make_progress())
    spec, method = {"dkd": (DKD_SPEC, DKD), "nkd": (NKD_SPEC, NKD)}[base]
    expected = method(options_of(spec, temperature=4.0, **options), setup).terms(batch, student, teacher, make_progress())
    assert len(expected) == 1
    torch.testing.assert_close(terms["consistent"], sum(expected.values()))


@pytest.mark.parametrize("base", ["kd", "dkd", "nkd"])
@pytest.mark.parametrize("gap", [1e2, 1e4])
def test_sure_networks_stay_finite(setup, base, gap):
    student, teacher, batch = features(setup)
    student["final"] = (gap * student["final"]).requires_grad_()
    teacher["final"] = -gap * teacher["final"]
    total = sum(SDD(options_of(SPEC, base=base, temperature=1.0), setup).terms(batch, student, teacher, make_progress()).values())
    total.backward()
    assert total.isfinite()
    assert student["final"].grad.isfinite().all()


def test_d24_the_base_nkd_leaves_the_target_class_out(setup):
    """A student's logit of the target class moves nothing but the part on the target class, which the teacher weighs with p_t."""
    student, teacher, batch = features(setup)
    method = SDD(options_of(SPEC, base="nkd", scales=[1, 2], temperature=1.0), setup)
    setup.teacher.classifier.bias.data -= 1e4 * (torch.arange(5) == 2)  # the teacher gives class 2 no probability
    setup.teacher.classifier.weight.data[2] = 0
    only = Batch(batch.images, torch.full((6,), 2), batch.index)
    before = sum(method.terms(only, student, teacher, make_progress()).values())
    setup.student.classifier.bias.data[2] += 5.0
    assert sum(method.terms(only, student, teacher, make_progress()).values()).item() == pytest.approx(before.item(), rel=1e-5)
    setup.student.classifier.bias.data[1] += 5.0
    assert sum(method.terms(only, student, teacher, make_progress()).values()).item() != pytest.approx(before.item(), rel=1e-2)
