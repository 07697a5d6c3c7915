"""`ctkd`: the temperature, its reversed gradient, and that the inner method is otherwise left alone."""

import math

import pytest
import torch

from distillctl import Method, RunError, Wants
from distillctl.builtin.kd import KD
from distillctl.builtin.methods import register_method
from distillctl.profile.presets import Pair, preset_values
from distillctl.testing import make_batch, make_features, make_progress, make_setup, options_of
from distillctl_ctkd.method import CTKD, reversal_strength, scale_gradient
from distillctl_ctkd.plugin import SPEC
from distillctl_dkd.method import DKD
from distillctl_dkd.plugin import SPEC as DKD_SPEC
from distillctl_lskd.plugin import SPEC as LSKD_SPEC

KD_SPEC = next(spec for spec in register_method() if spec.name == "kd")
SETUP = make_setup({}, {}, num_classes=6)


def ctkd(inner=None, **options):
    return CTKD(options_of(SPEC, **options), SETUP, KD(options_of(KD_SPEC), SETUP) if inner is None else inner)


def inputs(dtype=torch.float64):
    student, teacher = (
        {"logits": make_features(side, 5, seed)["logits"].to(dtype)} for seed, side in enumerate((SETUP.student, SETUP.teacher))
    )
    return make_batch(SETUP, 5), {"logits": student["logits"].requires_grad_()}, teacher


def kd_by_loops(student, teacher, temperature):
    total = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        e_s, e_t = [math.exp(v / temperature) for v in z_s], [math.exp(v / temperature) for v in z_t]
        for a, b in zip(e_t, e_s, strict=True):
            total += a / sum(e_t) * (math.log(a / sum(e_t)) - math.log(b / sum(e_s)))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("theta", [-3.0, 0.0, 1.0, 4.0])
def test_value_is_the_inner_methods_at_the_learnt_temperature(theta):
    method = ctkd().double()
    method.theta.data.fill_(theta)
    batch, student, teacher = inputs()
    temperature = 1 + 20 / (1 + math.exp(-theta))
    terms = method.terms(batch, student, teacher, make_progress(3))
    assert list(terms) == [""]
    assert terms[""].item() == pytest.approx(kd_by_loops(student["logits"], teacher["logits"], temperature), rel=1e-12)
    assert method.metrics()["temperature"].item() == pytest.approx(temperature)


def test_starts_at_the_published_temperature():
    assert ctkd().metrics()["temperature"].item() == pytest.approx(15.62, abs=0.005)


@pytest.mark.parametrize("theta", [-50.0, -5.0, 5.0, 50.0])
def test_temperature_stays_in_its_range(theta):
    method = ctkd(t_start=2.0, t_end=6.0)
    method.theta.data.fill_(theta)
    assert 2.0 <= method.metrics()["temperature"].item() <= 8.0
    if abs(theta) < 10:
        assert 2.0 < method.metrics()["temperature"].item() < 8.0


@pytest.mark.parametrize(("epoch", "strength"), [(1, -0.0245), (2, -0.0955), (5, -0.5), (10, -1.0), (11, -1.0), (240, -1.0)])
def test_published_schedule_of_the_reversal(epoch, strength):
    value = reversal_strength(torch.tensor(float(epoch)), 10.0)
    assert value.item() == pytest.approx(strength, abs=5e-5)
    expected = 0.5 * (math.cos(math.pi * min(epoch, 10) / 10) + 1) * (0 - -1) + -1
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_reversal_is_the_identity_going_forward():
    value = torch.tensor(0.1, requires_grad=True)
    scaled = scale_gradient(value, torch.tensor(-0.3))
    scaled.backward()
    assert scaled.item() == value.item()
    assert value.grad.item() == pytest.approx(-0.3)


@pytest.mark.parametrize("epoch", [1, 4, 10, 30])
def test_gradient_of_theta_is_reversed_and_scaled(epoch):
    method = ctkd().double()
    batch, student, teacher = inputs()
    method.terms(batch, student, teacher, make_progress(epoch))[""].backward()

    def loss(theta):
        return kd_by_loops(student["logits"], teacher["logits"], 1 + 20 / (1 + math.exp(-theta)))

    slope = (loss(1 + 1e-5) - loss(1 - 1e-5)) / 2e-5
    strength = -0.5 * (1 - math.cos(math.pi * min(epoch, 10) / 10))
    assert abs(slope) > 1e-3
    assert method.theta.grad.item() == pytest.approx(strength * slope, rel=1e-5)


def test_without_reversal_theta_gets_weight_decay_alone():
    strength = reversal_strength(torch.tensor(0.0), 10.0)
    assert strength == 0
    method = ctkd(weight_decay=0.1).double()
    batch, student, teacher = inputs()
    scaled = 1 + 20 * scale_gradient(method.theta, strength).sigmoid()
    method.inner.terms(batch, student, teacher, make_progress(1), temperature=scaled)[""].backward()
    assert method.theta.grad == 0
    torch.optim.SGD(method.parameter_groups(), lr=0.5).step()
    assert method.theta.item() == pytest.approx(1 - 0.5 * 0.1)


def test_a_step_raises_the_loss_by_theta_alone():
    method = ctkd().double()
    batch, student, teacher = inputs()
    before = method.terms(batch, student, teacher, make_progress(10))[""]
    before.backward()
    torch.optim.SGD([method.theta], lr=0.1).step()
    assert method.terms(batch, student, teacher, make_progress(10))[""] > before


def test_student_gradient_is_that_of_kd_at_the_same_temperature():
    method = ctkd().double()
    batch, student, teacher = inputs()
    method.terms(batch, student, teacher, make_progress(4))[""].backward()
    reversed_gradient = student["logits"].grad.clone()
    student["logits"].grad = None
    plain = KD(options_of(KD_SPEC, temperature=method.metrics()["temperature"].item()), SETUP)
    plain.terms(batch, student, teacher, make_progress(4))[""].backward()
    torch.testing.assert_close(reversed_gradient, student["logits"].grad, rtol=1e-12, atol=1e-14)


def test_terms_of_the_inner_method_keep_their_names_and_values():
    inner = DKD(options_of(DKD_SPEC, beta=2.0), SETUP)
    method = ctkd(inner).double()
    batch, student, teacher = inputs()
    terms = method.terms(batch, student, teacher, make_progress(4))
    temperature = method.metrics()["temperature"]
    alone = inner.terms(batch, student, teacher, make_progress(4), temperature=temperature)
    assert terms.keys() == alone.keys() == {"tckd", "nckd"}
    assert all(terms[name] == alone[name] for name in terms)


@pytest.mark.parametrize("decay", [0.0, 5e-4])
def test_theta_has_its_own_group(decay):
    class WithParameter(KD):
        def __init__(self):
            super().__init__(options_of(KD_SPEC), SETUP)
            self.layer = torch.nn.Linear(2, 2)

        def parameter_groups(self):
            return [{"params": list(self.layer.parameters()), "lr_scale": 10.0}]

    inner = WithParameter()
    method = ctkd(inner, weight_decay=decay)
    first, second = method.parameter_groups()
    assert (first["params"], first["weight_decay"]) == ([method.theta], decay)
    assert second == {"params": list(inner.layer.parameters()), "lr_scale": 10.0}


def test_what_the_inner_method_does_besides_goes_on():
    class Busy(KD):
        compiles = False
        steps = 0

        def metrics(self):
            return {"inner": torch.tensor(3.0)}

        def after_step(self):
            self.steps += 1

    inner = Busy(options_of(KD_SPEC), SETUP)
    method = ctkd(inner)
    method.after_step()
    assert inner.steps == 1
    assert method.metrics()["inner"] == 3
    assert not method.compiles
    assert CTKD.compiles
    assert ctkd().compiles


def test_a_method_without_temperature_is_refused():
    class Other(Method):
        pass

    with pytest.raises(RunError, match="`Other` has none"):
        ctkd(Other(None, SETUP))


def test_needs_no_features_of_its_own():
    assert CTKD.wants(options_of(SPEC)) == Wants()


@pytest.mark.parametrize(
    ("dataset", "inner", "values"),
    [
        ("imagenet", KD_SPEC, {"weight": 1.0, "task_weight": 1.0, "loops": 5.0}),
        ("cifar100", KD_SPEC, {}),
        ("cifar100", LSKD_SPEC, {"weight": 9.0}),
    ],
)
def test_published_settings(dataset, inner, values):
    found = preset_values(SPEC, Pair((dataset,), ("ResNet34",), ("ResNet18",)), {}, inner)
    assert {key: value for key, (value, _) in found.items()} == values


def test_defaults():
    options = options_of(SPEC)
    assert (options.t_start, options.t_end, options.loops, options.weight_decay) == (1.0, 20.0, 10.0, 0.0)
    assert (SPEC.weight, SPEC.task_weight, SPEC.inner) == (0.9, 0.1, "kd")
