"""The phase, the two networks, options and presets of `ft`."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from distillctl import Phase, RunError
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_ft.method import FT
from distillctl_ft.plugin import SPEC


def build(student=(6, 3, 3), teacher=(8, 3, 3), **options):
    setup = make_setup({"last": student}, {"last": teacher})
    torch.manual_seed(0)
    return FT(options_of(SPEC, **options), setup), make_batch(setup, 4)


def shapes(module):
    return [tuple(layer.weight.shape[:2]) for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]


def test_the_phase():
    method, _ = build(init_epochs=3, init_lr=0.05)
    assert tuple(method.phases()) == (
        Phase(name="paraphraser", epochs=3, lr=0.05, student=False, modules=("paraphraser",), weighted=False),
    )
    default = build()[0].phases()[0]
    assert (default.epochs, default.lr) == (30, 0.01)


def test_the_phase_trains_the_paraphraser_alone_and_the_main_part_all_but_it():
    method, _ = build()
    (phase,) = method.phases()
    for now, trained, mode in ((phase, "paraphraser.", True), (None, "translator.", False)):
        method.enter(now)
        assert {name.partition(".")[0] + "." for name, p in method.named_parameters() if p.requires_grad} == {trained}
        assert method.paraphraser.training is mode


def test_paraphraser_learns_in_its_phase_and_is_still_afterwards():
    method, batch = build()
    teacher = {"last": torch.rand(4, 8, 3, 3, generator=torch.Generator().manual_seed(0))}
    student = {"last": torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(1))}
    losses = {}
    for phase, seen in ((method.phases()[0], {}), (None, student)):
        method.enter(phase)
        before = {name: value.clone() for name, value in method.state_dict().items()}
        optimizer = torch.optim.SGD(method.parameter_groups(), lr=0.1, momentum=0.9)
        name = phase.name if phase else ""
        losses[name] = []
        for _ in range(60):
            loss = method.terms(batch, seen, teacher, make_progress(), phase=name)[""]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[name].append(loss.item())
        changed = {key.partition(".")[0] for key, value in method.state_dict().items() if not torch.equal(value, before[key])}
        assert changed == {"paraphraser" if phase else "translator"}
    assert losses["paraphraser"][-1] < 0.8 * losses["paraphraser"][0]
    assert losses[""][-1] < 0.5 * losses[""][0]


def test_the_networks_follow_the_shapes():
    method, _ = build((6, 3, 3), (8, 3, 3))
    assert shapes(method.paraphraser.encoder) == [(8, 8), (4, 8), (4, 4)]
    assert shapes(method.paraphraser.decoder) == [(4, 4), (4, 8), (8, 8)]  # a transposed convolution's weight is (inner, outer)
    assert shapes(method.translator) == [(6, 6), (4, 6), (4, 4)]
    assert not [m for m in method.paraphraser.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len([m for m in method.translator.modules() if isinstance(m, nn.BatchNorm2d)]) == 3
    assert {m.negative_slope for m in method.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}
    assert not [m for m in build(batch_norm=False)[0].modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(("rate", "factors"), [(0.5, 3), (1.0, 7), (2.0, 14), (0.01, 1)])
def test_rate_gives_the_channels_of_both_factors(rate, factors):
    method, _ = build((6, 3, 3), (7, 3, 3), rate=rate)
    assert shapes(method.paraphraser.encoder)[-1] == shapes(method.translator)[-1] == (factors, factors)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_one_image_with_maps_of_one_pixel(batch_norm):
    """Batch normalisation has one value per channel there: no error, and the gradient arrives."""
    setup = make_setup({"last": (6, 1, 1)}, {"last": (8, 1, 1)})
    method = FT(options_of(SPEC, factor="full", batch_norm=batch_norm), setup)
    method.enter(None)
    student = torch.randn(1, 6, 1, 1, requires_grad=True)
    loss = method.terms(make_batch(setup, 1), {"last": student}, {"last": torch.randn(1, 8, 1, 1)}, make_progress())[""]
    loss.backward()
    assert loss.isfinite()
    assert student.grad.abs().sum() > 0


def test_networks_run_in_the_precision_of_the_run_and_the_loss_in_float32():
    method, batch = build()
    method.enter(None)
    dtypes = []
    for module in (method.translator, method.paraphraser.encoder):
        module.register_forward_hook(lambda _module, _args, out: dtypes.append(out.dtype))
    student, teacher = {"last": torch.randn(4, 6, 3, 3).bfloat16()}, {"last": torch.randn(4, 8, 3, 3).bfloat16()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.terms(batch, student, teacher, make_progress())[""]
    outside = method.terms(batch, student, teacher, make_progress())[""]
    assert dtypes == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert (inside.dtype, outside.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize(("student", "teacher", "model"), [((6,), (8, 3, 3), "tiny_student"), ((6, 3, 3), (8,), "tiny_teacher")])
def test_feature_that_is_no_map_is_refused(student, teacher, model):
    with pytest.raises(RunError, match=rf"`ft` needs a feature map \(C, H, W\), but `last` of `{model}` has shape"):
        build(student, teacher)


@pytest.mark.parametrize(
    "options",
    [{"student_stage": "stages"}, {"rate": 0.0}, {"factor": "half"}, {"p1": 0.5}, {"p2": 0.0}, {"init_epochs": 0}, {"init_lr": 0.0}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_power_of_the_mean_is_refused_where_there_is_no_mean():
    with pytest.raises(ValidationError, match="`p1` belongs to"):
        options_of(SPEC, factor="full", p1=3.0)
    assert options_of(SPEC, factor="full", p2=2.0).p1 == 2.0
    assert options_of(SPEC, p1=3.0).p1 == 3.0


def test_wanted_features_are_the_chosen_stages():
    wants = FT.wants(options_of(SPEC, student_stage="stage2", teacher_stage="final"))
    assert (wants.student, wants.teacher) == (("stage2",), ("final",))


def test_defaults_and_presets():
    options = options_of(SPEC)
    assert (options.student_stage, options.teacher_stage, options.rate, options.p1, options.p2) == ("last", "last", 0.5, 2.0, 1.0)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (200.0, 1.0, 0.0)
    found = {(p.dataset, p.teacher, p.student): p.values for p in SPEC.presets}
    assert found["cifar100", "", "vgg*"] == {"init_lr": 0.05}
    assert found["imagenet", "resnet34", "resnet18"] == {"weight": 1000.0, "factor": "full", "batch_norm": False, "init_epochs": 1}
