"""`ctkd` with a temperature for every sample: its network, the reversed gradient, and that the student's gradient is left alone."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from distillctl.builtin.kd import KD
from distillctl.builtin.methods import register_method
from distillctl.testing import make_batch, make_features, make_progress, make_setup, options_of
from distillctl_ctkd.method import CTKD
from distillctl_ctkd.plugin import SPEC
from distillctl_dkd.method import DKD
from distillctl_dkd.plugin import SPEC as DKD_SPEC
from distillctl_lskd.method import LSKD
from distillctl_lskd.plugin import SPEC as LSKD_SPEC

KD_SPEC = next(spec for spec in register_method() if spec.name == "kd")
SETUP = make_setup({}, {}, num_classes=6)
START = 1 + 20 / (1 + math.exp(-1))


def ctkd(inner=None, seed=0, moved=True, **options):
    """In float64; `moved`: as it is after some training, when temperatures differ."""
    torch.manual_seed(seed)
    inner = KD(options_of(KD_SPEC), SETUP) if inner is None else inner
    method = CTKD(options_of(SPEC, form="instance", **{"hidden": 7, **options}), SETUP, inner).double()
    if moved:
        nn.init.normal_(method.predictor.out.weight, std=0.3)
    return method


def inputs(size=5):
    sides = [make_features(side, size, seed)["logits"].double() for seed, side in enumerate((SETUP.student, SETUP.teacher))]
    return make_batch(SETUP, size), {"logits": sides[0].requires_grad_()}, {"logits": sides[1]}


def temperatures_by_loops(method, student, teacher):
    """The network again, number by number."""
    net = method.predictor
    result = []
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        given, theta = [*z_t, *z_s], net.out.bias.item()
        for row, bias, out in zip(net.hidden.weight.tolist(), net.hidden.bias.tolist(), net.out.weight[0].tolist(), strict=True):
            theta += out * max(0.0, bias + sum(w * v for w, v in zip(row, given, strict=True)))
        result.append(method.t_start + method.t_end / (1 + math.exp(-theta)))
    return result


def kd_by_loops(student, teacher, temperatures):
    """As the authors say it: the loss of each sample at its own temperature, and their mean."""
    total = 0.0
    for z_s, z_t, t in zip(student.tolist(), teacher.tolist(), temperatures, strict=True):
        e_s, e_t = [math.exp(v / t) for v in z_s], [math.exp(v / t) for v in z_t]
        total += t**2 * sum(a / sum(e_t) * (math.log(a / sum(e_t)) - math.log(b / sum(e_s))) for a, b in zip(e_t, e_s, strict=True))
    return total / len(student)


def test_value_is_the_mean_of_each_sample_at_its_own_temperature():
    method = ctkd()
    batch, student, teacher = inputs()
    temperatures = temperatures_by_loops(method, student["logits"], teacher["logits"])
    assert max(temperatures) - min(temperatures) > 0.5
    got = method.temperature(torch.tensor(3.0), student, teacher)
    assert got.shape == (5, 1)
    assert got.flatten().tolist() == pytest.approx(temperatures, rel=1e-10)
    term = method.terms(batch, student, teacher, make_progress(3))[""]
    assert term.item() == pytest.approx(kd_by_loops(student["logits"], teacher["logits"], temperatures), rel=1e-10)


def test_starts_at_the_published_temperature_for_every_sample():
    method = ctkd(moved=False)
    _, student, teacher = inputs()
    assert method.temperature(torch.tensor(1.0), student, teacher).flatten().tolist() == pytest.approx([START] * 5)
    assert method.metrics()["temperature"].item() == pytest.approx(START)


def test_metric_is_the_mean_over_the_last_training_batch():
    method = ctkd()
    batch, student, teacher = inputs()
    method.terms(batch, student, teacher, make_progress(3))
    mean = sum(temperatures_by_loops(method, student["logits"], teacher["logits"])) / 5
    metric = method.metrics()["temperature"]
    assert metric.item() == pytest.approx(mean, rel=1e-10)
    with torch.no_grad():
        method.terms(batch, {"logits": student["logits"] * 3}, teacher, make_progress(3))
    assert method.metrics()["temperature"] == metric
    method.terms(batch, {"logits": student["logits"] * 3}, teacher, make_progress(3))
    assert method.metrics()["temperature"] != metric


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3, 1e6])
def test_temperatures_stay_in_their_range(scale):
    method = ctkd(t_start=2.0, t_end=6.0)
    batch, student, teacher = inputs()
    student = {"logits": (student["logits"].detach() * scale).requires_grad_()}
    temperatures = method.temperature(torch.tensor(12.0), student, teacher)
    assert ((temperatures >= 2.0) & (temperatures <= 8.0)).all()
    term = method.terms(batch, student, teacher, make_progress(12))[""]
    term.backward()
    assert term.isfinite()
    assert student["logits"].grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("inner", ["kd", "dkd", "lskd"])
def test_student_gradient_is_that_of_the_inner_method_at_the_same_temperatures(inner):
    plain = KD(options_of(KD_SPEC), SETUP)
    inner = {"kd": plain, "dkd": DKD(options_of(DKD_SPEC), SETUP), "lskd": LSKD(options_of(LSKD_SPEC), SETUP, plain)}[inner]
    method = ctkd(inner)
    batch, student, teacher = inputs()
    torch.stack(list(method.terms(batch, student, teacher, make_progress(4)).values())).sum().backward()
    through = student["logits"].grad.clone()
    student["logits"].grad = None
    fixed = method.temperature(torch.tensor(4.0), student, teacher).detach()
    alone = inner.terms(batch, student, teacher, make_progress(4), temperature=fixed)
    torch.stack(list(alone.values())).sum().backward()
    torch.testing.assert_close(through, student["logits"].grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("epoch", [1, 4, 10, 30])
def test_gradient_of_the_network_is_reversed_and_scaled(epoch):
    method = ctkd()
    batch, student, teacher = inputs()
    method.terms(batch, student, teacher, make_progress(epoch))[""].backward()
    strength = -0.5 * (1 - math.cos(math.pi * min(epoch, 10) / 10))
    theta = method.predictor(teacher["logits"], student["logits"])
    temperature = 1 + 20 * theta.sigmoid()
    plain = method.inner.terms(batch, student, teacher, make_progress(epoch), temperature=temperature)[""]
    expected = torch.autograd.grad(plain, list(method.predictor.parameters()))
    for p, gradient in zip(method.predictor.parameters(), expected, strict=True):
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(p.grad, strength * gradient, rtol=1e-6, atol=1e-12)


def test_a_step_of_the_network_raises_the_loss():
    method = ctkd(moved=False)
    batch, student, teacher = inputs()
    values = []
    for _ in range(4):
        term = method.terms(batch, student, teacher, make_progress(10))[""]
        values.append(term.item())
        method.zero_grad()
        term.backward()
        torch.optim.SGD(method.predictor.parameters(), lr=0.01).step()
    assert values == sorted(values)
    temperatures = method.temperature(torch.tensor(10.0), student, teacher)
    assert temperatures.max() - temperatures.min() > 1e-4  # samples go different ways


@pytest.mark.parametrize("decay", [0.0, 5e-4])
def test_the_network_has_its_own_group(decay):
    (group,) = ctkd(weight_decay=decay).parameter_groups()
    assert group["weight_decay"] == decay
    assert [tuple(p.shape) for p in group["params"]] == [(7, 12), (7,), (1, 7), (1,)]


def test_each_form_has_its_own_parameters():
    assert set(ctkd().state_dict()) == {"predictor.hidden.weight", "predictor.hidden.bias", "predictor.out.weight", "predictor.out.bias"}
    assert set(CTKD(options_of(SPEC), SETUP, KD(options_of(KD_SPEC), SETUP)).state_dict()) == {"theta"}


def test_options():
    assert (options_of(SPEC).form, options_of(SPEC).hidden) == ("global", 64)
    with pytest.raises(ValidationError, match="`hidden` belongs to"):
        options_of(SPEC, hidden=32)
    for wrong in ({"form": "sample"}, {"form": "instance", "hidden": 0}):
        with pytest.raises(ValidationError, match=rf"for \w+\n{[*wrong][-1]}\b"):
            options_of(SPEC, **wrong)
