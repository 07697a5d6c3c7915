"""The exits of `byot`: their shape, their place, and what they count."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from distillctl import RunError, Wants
from distillctl.testing import make_batch, make_features, make_progress, make_setup, options_of
from distillctl_byot.method import BYOT
from distillctl_byot.modules import Exit
from distillctl_byot.plugin import SPEC

RESNET18 = {"stage1": (64, 32, 32), "stage2": (128, 16, 16), "stage3": (256, 8, 8), "stage4": (512, 4, 4), "pooled": (512,)}
TINY = {"stage1": (4, 8, 8), "stage2": (6, 4, 4), "stage3": (8, 2, 2), "pooled": (8,)}


def byot(shapes, num_classes=10, **options):
    return BYOT(options_of(SPEC, **options), make_setup(shapes, None, num_classes=num_classes))


def normalised(maps):
    mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), unbiased=False, keepdim=True)
    return ((maps - mean) / (variance + 1e-5).sqrt()).relu()


def test_an_exit_is_a_bottleneck_an_average_and_a_linear_layer():
    torch.manual_seed(0)
    exit_ = Exit((4, 8, 6), (2, 2), 12, 5).double()
    maps = torch.randn(3, 4, 8, 6, dtype=torch.float64)
    features, logits = exit_(maps)
    first, patch, last = (exit_.bottleneck[k].weight for k in (0, 3, 6))
    assert (first.shape, patch.shape, last.shape) == ((3, 4, 1, 1), (3, 3, 4, 3), (12, 3, 1, 1))
    middle = normalised(torch.einsum("oc,bchw->bohw", first[:, :, 0, 0], maps))
    patches = middle.reshape(3, 3, 2, 4, 2, 3)  # b, c, row, within it, column, within it
    middle = normalised(torch.einsum("ocij,bcrisj->bors", patch, patches))
    expected = normalised(torch.einsum("oc,bchw->bohw", last[:, :, 0, 0], middle)).mean((2, 3))
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(logits, expected @ exit_.classifier.weight.T + exit_.classifier.bias)


def test_exits_begin_as_the_option_says():
    """He's normal distribution by fan-out has √(2 / (outputs · kernel)), PyTorch's default √(1 / (3 · inputs · kernel)) with bounds."""
    for options, deviations in (({}, (0.072, 0.0064, 0.051)), ({"init": "kaiming"}, (0.125, 0.0156, 0.0625))):
        torch.manual_seed(0)
        first = byot(RESNET18, **options).exits[0].bottleneck
        for convolution, deviation in zip((first[0], first[3], first[6]), deviations, strict=True):
            assert convolution.weight.std().item() == pytest.approx(deviation, rel=0.05)
            bound = 3**0.5 * deviation
            assert (convolution.weight.abs().max() > 1.2 * bound) == bool(options), "normal, or uniform"


def test_exits_of_a_resnet18():
    method = byot(RESNET18, num_classes=100)
    convolutions = [[tuple(exit_.bottleneck[k].weight.shape) for k in (0, 3, 6)] for exit_ in method.exits]
    assert convolutions == [
        [(128, 64, 1, 1), (128, 128, 8, 8), (512, 128, 1, 1)],
        [(128, 128, 1, 1), (128, 128, 4, 4), (512, 128, 1, 1)],
        [(128, 256, 1, 1), (128, 128, 2, 2), (512, 128, 1, 1)],
    ]
    assert all(tuple(exit_.classifier.weight.shape) == (100, 512) for exit_ in method.exits)


@pytest.mark.parametrize(("stage", "deepest", "patch"), [((7, 7), (3, 3), (2, 2)), ((2, 8), (4, 2), (1, 4)), ((5, 5), (5, 5), (1, 1))])
def test_maps_of_any_size(stage, deepest, patch):
    exit_ = Exit((4, *stage), deepest, 8, 5)
    assert exit_.bottleneck[3].kernel_size == exit_.bottleneck[3].stride == patch
    features, logits = exit_(torch.randn(2, 4, *stage))
    assert (features.shape, logits.shape) == ((2, 8), (2, 5))


def test_exits_sit_at_all_named_stages_but_the_last():
    assert BYOT.wants(options_of(SPEC)) == Wants(student=("stages", "pooled"))
    assert byot(TINY).stages == ("stage1", "stage2")
    chosen = byot(TINY, student_stages=["stage2", "stage3"])
    assert (chosen.stages, len(chosen.exits)) == (("stage2",), 1)
    assert byot(TINY, student_stages=["stage1", "stages"]).stages == ("stage1", "stage2")


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ({"stage1": (4, 2, 2), "pooled": (4,)}, {}, "at least two stages of the student `tiny_student`.*there is only `stage1`"),
        ({"pooled": (4,)}, {}, "at least two stages of the student `tiny_student`.*it declares none"),
        (TINY, {"student_stages": ["stage2"]}, "there is only `stage2`"),
        (TINY, {"student_stages": ["stage3", "stage1"]}, "shallow to deep, but `student_stages` has `stage3`, `stage1`"),
        (TINY, {"student_stages": ["layer.0", "stage2:pre", "stage1"]}, "shallow to deep, but `student_stages` has `stage2:pre`, `stage1`"),
        (TINY, {"student_stages": ["stage2", "stages"]}, "shallow to deep, but `student_stages` has `stage2`, `stage1`, `stage3`"),
        (TINY, {"student_stages": ["pooled", "stage3"]}, r"`pooled` of `tiny_student` has shape \(8,\)"),
        (TINY, {"student_stages": ["stage2", "pooled"]}, r"`pooled` of `tiny_student` has shape \(8,\)"),
    ],
)
def test_refusals(shapes, options, message):
    with pytest.raises(RunError, match=message) as error:
        byot(shapes, **options)
    assert error.value.problems[0].hint


@pytest.mark.parametrize("values", [{"alpha": 1.1}, {"alpha": -0.1}, {"beta": -1.0}, {"temperature": 0.0}, {"feature_reduction": "max"}])
def test_options_out_of_bounds(values):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*values][-1]}\b"):
        options_of(SPEC, **values)


def test_one_image_and_one_position():
    """Nothing to take a variance of: plain batch normalisation raises there."""
    method = byot({"stage1": (4, 2, 2), "stage2": (6, 1, 1), "pooled": (6,)})
    setup = make_setup({"stage1": (4, 2, 2), "stage2": (6, 1, 1), "pooled": (6,)}, None)
    terms = method.terms(make_batch(setup, 1), make_features(setup.student, 1), {}, make_progress())
    assert all(term.isfinite() for term in terms.values())


def test_metrics_are_the_accuracies_of_an_epoch():
    method = byot(TINY)
    setup = make_setup(TINY, None)

    def step(size, seed, epoch):
        batch, student = make_batch(setup, size, seed), make_features(setup.student, size, seed)
        method.terms(batch, student, {}, make_progress(epoch))
        return [
            (exit_(student[name])[1].argmax(1) == batch.labels).sum().item()
            for name, exit_ in zip(method.stages, method.exits, strict=True)
        ]

    assert [value.item() for value in method.metrics().values()] == [0, 0]
    step(8, 0, 1)
    right = [sum(pair) for pair in zip(step(20, 1, 2), step(12, 2, 2), strict=True)]
    assert sum(right) > 0
    found = method.metrics()
    assert list(found) == ["stage1_top1", "stage2_top1"]
    assert [value.item() for value in found.values()] == pytest.approx([number / 32 for number in right])


def test_looking_on_does_not_count():
    method = byot(TINY)
    setup = make_setup(TINY, None)
    with torch.no_grad():
        method.terms(make_batch(setup, 4), make_features(setup.student, 4), {}, make_progress())
    assert method.seen == 0


def test_the_student_is_left_alone():
    setup = make_setup(TINY, None)
    before = set(setup.student.model.state_dict())
    method = BYOT(options_of(SPEC), setup)
    assert set(setup.student.model.state_dict()) == before
    assert not {id(p) for p in method.parameters()} & {id(p) for p in setup.student.model.parameters()}
    assert method.head() is None


def test_what_the_classifier_receives_may_be_a_map():
    shapes = {**TINY, "pooled": (8, 1, 1)}
    setup = make_setup(TINY, None)
    setup = replace(setup, student=replace(setup.student, shapes={**setup.student.shapes, "pooled": (8, 1, 1)}))
    method = BYOT(options_of(SPEC), setup)
    features = make_features(setup.student, 4)
    assert features["pooled"].shape[1:] == shapes["pooled"]
    assert all(term.isfinite() for term in method.terms(make_batch(setup, 4), features, {}, make_progress()).values())


def test_defaults():
    options = options_of(SPEC)
    assert (options.alpha, options.temperature, options.beta, options.feature_reduction) == (0.1, 3.0, 1e-6, "sum")
    assert (SPEC.weight, SPEC.task_weight, SPEC.needs_teacher, SPEC.kind) == (1.0, 0.9, False, "self")
