"""Options, defaults and what is refused."""

import pytest
from pydantic import ValidationError

from distillctl import RunError
from distillctl.profile.presets import Pair, preset_values
from distillctl.testing import make_setup, options_of
from distillctl_ofd.method import OFD
from distillctl_ofd.plugin import SPEC

MAPS = {"stage1:pre": (3, 4, 4), "stage2:pre": (5, 2, 2)}


def test_defaults():
    options = options_of(SPEC)
    assert (options.student_stages, options.teacher_stages) == (["stages:pre"], ["stages:pre"])
    assert (options.kernel_size, options.teacher_norm, options.margin_norms) == (1, "batch", [])
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (1e-3, 1.0, 0.0)
    wants = OFD.wants(options)
    assert (wants.student, wants.teacher) == (("stages:pre",), ("stages:pre",))


def test_weight_on_imagenet():
    assert preset_values(SPEC, Pair(dataset=("imagenet",)), {}, None)["weight"][0] == 1e-4
    assert not preset_values(SPEC, Pair(dataset=("cifar100",)), {}, None)


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 2}, {"kernel_size": 0}, {"teacher_norm": "eval"}, {"margin_norms": [""]}, {"student_stages": []}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_stages_are_paired_from_the_deepest(with_norms):
    deep = {"stage1:pre": (2, 8, 8), "stage2:pre": (3, 4, 4), "stage3:pre": (5, 2, 2)}
    method = OFD(options_of(SPEC), with_norms(make_setup(MAPS, deep)))
    assert method.pairs == (("stage1:pre", "stage2:pre"), ("stage2:pre", "stage3:pre"))
    assert [one[0].weight.shape[:2] for one in method.connectors] == [(3, 3), (5, 5)]


def test_unequal_lists_are_refused(with_norms):
    options = options_of(SPEC, student_stages=["stage1:pre"], teacher_stages=["stage1:pre", "stage2:pre"])
    with pytest.raises(RunError, match="`ofd` pairs 1 stages of `tiny_student`"):
        OFD(options, with_norms(make_setup(MAPS, MAPS)))


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_vectors_are_refused(with_norms, side):
    shapes = {"stage2:pre": (5, 2, 2), "pooled": (5,)}
    stages = {"student_stages": ["stage2:pre"], "teacher_stages": ["stage2:pre"], f"{side}_stages": ["pooled"]}
    with pytest.raises(RunError, match=f"`ofd` needs a feature map.*`pooled` of `tiny_{side}`"):
        OFD(options_of(SPEC, **stages), with_norms(make_setup(shapes, shapes)))


def test_teacher_is_needed():
    with pytest.raises(RunError, match="teacher"):
        OFD(options_of(SPEC), make_setup(MAPS, None))
