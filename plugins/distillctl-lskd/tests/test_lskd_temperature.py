"""`lskd`: whose temperature holds, what can be wrapped, and what else the inner method does."""

import pytest
import torch

from distillctl import Method, Phase, Progress, RunError, TemperatureMethod, Wants, Wrapper
from distillctl.builtin.kd import KD
from distillctl.builtin.methods import register_method
from distillctl.profile.presets import Pair, preset_values
from distillctl.testing import make_batch, make_features, make_progress, make_setup, options_of
from distillctl_ctkd.method import CTKD
from distillctl_ctkd.plugin import SPEC as CTKD_SPEC
from distillctl_dkd.plugin import SPEC as DKD_SPEC
from distillctl_lskd.losses import standardise
from distillctl_lskd.method import LSKD
from distillctl_lskd.plugin import SPEC

KD_SPEC = next(spec for spec in register_method() if spec.name == "kd")
SETUP = make_setup({}, {}, num_classes=6)
BATCH = make_batch(SETUP, 5)
STUDENT, TEACHER = ({"logits": make_features(side, 5, seed)["logits"]} for seed, side in enumerate((SETUP.student, SETUP.teacher)))
SCORED = [{"logits": standardise(side["logits"])} for side in (STUDENT, TEACHER)]


def kd(**options):
    return KD(options_of(KD_SPEC, **options), SETUP)


def lskd(inner, setup=SETUP, **options):
    return LSKD(options_of(SPEC, **options), setup, inner)


def ctkd(inner, **options):
    return CTKD(options_of(CTKD_SPEC, **options), SETUP, inner)


def value(method, **extra):
    (term,) = method.terms(BATCH, STUDENT, TEACHER, make_progress(3), **extra).values()
    return term


def kd_at(temperature):
    (term,) = kd().terms(BATCH, *SCORED, make_progress(3), temperature=torch.as_tensor(temperature)).values()
    return term


class Squares(Method):
    """½ mean ‖z_s − z_t‖²; takes no temperature."""

    def forward(self, batch, student, teacher, progress):
        return (student["logits"] - teacher["logits"]).square().sum(1).mean() / 2


class Reader(Method):
    """Reads a feature that has nothing to do with logits."""

    def __init__(self, side, name):
        super().__init__(None, SETUP)
        self.side, self.name = side, name

    def forward(self, batch, student, teacher, progress):
        return (student if self.side == "student" else teacher)[self.name].sum() + student["logits"].sum() * 0


def test_unset_it_is_two_whatever_the_inner_method_has():
    torch.testing.assert_close(value(lskd(kd(temperature=7.0))), kd_at(2.0))


def test_set_it_is_the_option():
    torch.testing.assert_close(value(lskd(kd(), temperature=3.5)), kd_at(3.5))


def test_that_of_a_method_around_it_wins():
    torch.testing.assert_close(value(lskd(kd(), temperature=3.5), temperature=torch.tensor(6.0)), kd_at(6.0))
    column = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    torch.testing.assert_close(value(lskd(kd()), temperature=column), kd_at(column))


@pytest.mark.parametrize("form", ["global", "instance"])
def test_ctkd_around_it_learns_the_temperature(form):
    method = ctkd(lskd(kd()), form=form)
    term = value(method)
    torch.testing.assert_close(term, kd_at(1 + 20 * torch.tensor(1.0).sigmoid()))
    term.backward()
    assert any(p.grad.abs().sum() > 0 for p in method.parameters())


@pytest.mark.parametrize("form", ["global", "instance"])
def test_around_ctkd_the_temperature_is_the_learnt_one(form):
    inner = ctkd(kd(), form=form)
    method = lskd(inner)
    term = value(method)
    torch.testing.assert_close(term, kd_at(1 + 20 * torch.tensor(1.0).sigmoid()))
    term.backward()
    assert all(p.grad is not None for p in inner.parameters())
    assert method.parameter_groups() == inner.parameter_groups()
    assert method.metrics().keys() == {"temperature"}


def test_both_ways_round_are_the_same():
    outside, inside = ctkd(lskd(kd())), lskd(ctkd(kd()))
    one, other = value(outside), value(inside)
    torch.testing.assert_close(one, other)
    one.backward()
    other.backward()
    torch.testing.assert_close(outside.theta.grad, inside.inner.theta.grad)


def test_twice_is_once():
    torch.testing.assert_close(value(lskd(lskd(kd()), temperature=3.0)), kd_at(3.0), rtol=1e-5, atol=1e-6)


def test_a_method_without_temperature_works_as_long_as_none_is_set():
    expected = (SCORED[0]["logits"] - SCORED[1]["logits"]).square().sum(1).mean() / 2
    torch.testing.assert_close(value(lskd(Squares(None, SETUP))), expected)


def test_a_temperature_that_nobody_takes_is_refused():
    with pytest.raises(RunError, match="`lskd` has `temperature` 3, but `Squares` takes none"):
        lskd(Squares(None, SETUP), temperature=3.0)
    with pytest.raises(RunError, match="`CTKD` takes none") as caught:
        lskd(ctkd(kd()), temperature=3.0)
    assert "put `ctkd` around `lskd`" in caught.value.problems[0].hint


@pytest.mark.parametrize(("side", "name"), [("student", "last"), ("teacher", "pooled")])
def test_an_inner_method_that_reads_more_than_logits_is_refused(side, name):
    setup = make_setup({"last": (4, 2, 2)}, {"pooled": (5,)}, num_classes=6)
    with pytest.raises(RunError, match=f"`lskd` standardises logits, but `Reader` reads `{name}`"):
        lskd(Reader(side, name), setup)
    assert lskd(kd(), setup).inner.training  # what other methods of the profile have captured does not matter


def test_the_wrapped_method_is_named_through_other_wrappers():
    class Reads(TemperatureMethod):
        def forward(self, batch, student, teacher, progress, *, temperature=None):
            return student["last"].sum()

    setup = make_setup({"last": (4, 2, 2)}, {}, num_classes=6)
    with pytest.raises(RunError, match="`Reads` reads `last`"):
        lskd(ctkd(Reads(None, setup)), setup)


def test_another_error_of_the_inner_method_is_not_explained_away():
    setup = make_setup({"last": (4, 2, 2)}, {}, num_classes=6)
    with pytest.raises(KeyError, match="misspelt"):
        lskd(Reader("student", "misspelt"), setup)


def test_asking_leaves_no_trace():
    class Counts(Squares):
        def __init__(self):
            super().__init__(None, SETUP)
            self.norm = torch.nn.BatchNorm1d(6)

        def forward(self, batch, student, teacher, progress):
            torch.rand(3)
            return super().forward(batch, {"logits": self.norm(student["logits"])}, teacher, progress)

    setup = make_setup({"last": (4, 2, 2)}, {"last": (4, 2, 2)}, num_classes=6)
    inner, before = Counts(), torch.random.get_rng_state()
    lskd(inner, setup)
    assert inner.norm.num_batches_tracked == 0
    assert inner.training
    assert inner.norm.training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_two_classes_are_refused():
    setup = make_setup({}, {}, num_classes=2)
    with pytest.raises(RunError, match="at least 3 classes, not 2"):
        lskd(KD(options_of(KD_SPEC), setup), setup)


def test_what_the_inner_method_does_besides_goes_on():
    class Busy(Squares):
        compiles = False
        steps = 0

        def phases(self):
            return (Phase("first", 2, modules=("layer",)),)

        def forward_phase(self, phase, batch, student, teacher, progress):
            return {phase: student["logits"].std(1).mean()} if student else {phase: teacher["logits"].std(1).mean()}

        def metrics(self):
            return {"inner": torch.tensor(3.0)}

        def after_step(self):
            self.steps += 1

    inner = Busy(None, SETUP)
    method = lskd(inner)
    method.after_step()
    assert inner.steps == 1
    assert method.metrics() == {"inner": 3}
    assert not method.compiles
    assert LSKD.compiles
    assert lskd(kd()).compiles
    assert method.phases()[0].modules == ("inner.layer",)
    for student in (STUDENT, {}):
        terms = method.terms(BATCH, student, TEACHER, Progress(torch.tensor(1.0), torch.tensor(0.0)), phase="first")
        assert terms["first"].item() == pytest.approx(1.0, abs=1e-4)


def test_is_a_wrapper_with_a_temperature_and_wants_nothing_itself():
    assert issubclass(LSKD, Wrapper)
    assert issubclass(LSKD, TemperatureMethod)
    assert LSKD.wants(options_of(SPEC)) == Wants()
    assert (SPEC.inner, SPEC.inner_kinds) == ("kd", ("logits", "wrapper"))


@pytest.mark.parametrize(
    ("teacher", "student", "values"),
    [
        ("resnet32x4", "resnet8x4", {}),
        ("wrn_40_2", "resnet8x4", {}),
        ("vgg13", "vgg8", {"temperature": 3.0}),
        ("resnet32x4", "wrn_16_2", {"temperature": 3.0}),
        ("ResNet50", "MobileNetV2", {"temperature": 3.0, "weight": 1.0}),
        ("resnet110", "resnet20", {"temperature": 4.0, "weight": 12.0}),
    ],
)
def test_published_settings(teacher, student, values):
    found = preset_values(SPEC, Pair(("cifar100",), (teacher,), (student,)), {}, KD_SPEC)
    assert {key: value for key, (value, _) in found.items()} == values
    assert not preset_values(SPEC, Pair(("imagenet",), (teacher,), (student,)), {}, KD_SPEC)


@pytest.mark.parametrize(("inner", "values"), [(DKD_SPEC, {"task_weight": 1.0, "warmup_epochs": 20.0}), (CTKD_SPEC, {})])
def test_settings_around_other_methods(inner, values):
    found = preset_values(SPEC, Pair(("cifar100",), ("vgg8",), ("vgg8",)), {}, inner)
    assert {key: value for key, (value, _) in found.items()} == values


@pytest.mark.parametrize(
    ("teacher", "student", "values"),
    [
        ("wrn_40_2", "wrn_16_2", {"temperature": 2.0, "weight": 12.0, "inner.beta": 2.0}),
        ("vgg13", "vgg8", {"weight": 15.0, "inner.beta": 2.0}),
        ("ResNet50", "MobileNetV2", {"weight": 15.0, "inner.beta": 2.0}),
        ("resnet56", "resnet20", {"temperature": 3.0, "weight": 18.0, "inner.beta": 2.0}),
        ("resnet32x4", "resnet8x4", {}),
    ],
)
def test_published_settings_around_dkd(teacher, student, values):
    common = {"task_weight": 1.0, "warmup_epochs": 20.0}
    found = preset_values(SPEC, Pair(("cifar100",), (teacher,), (student,)), {}, DKD_SPEC)
    assert {key: value for key, (value, _) in found.items()} == common | values
    assert preset_values(SPEC, Pair(("imagenet",), (teacher,), (student,)), {}, DKD_SPEC).keys() == common.keys()
