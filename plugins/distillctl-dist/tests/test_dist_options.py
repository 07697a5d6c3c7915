import pytest

from distillctl import RunError
from distillctl.testing import make_setup, options_of
from distillctl_dist.method import DIST
from distillctl_dist.plugin import SPEC


def test_defaults_are_the_papers():
    options = options_of(SPEC)
    assert (options.temperature, options.beta, options.gamma) == (1.0, 1.0, 1.0)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (2.0, 1.0, 0.0)
    assert SPEC.takes_temperature


def test_published_setting_for_cifar():
    assert [(p.dataset, p.values) for p in SPEC.presets] == [("cifar100", {"temperature": 4.0})]


def test_one_class_is_refused():
    with pytest.raises(RunError, match="`dist` needs at least 2 classes, not 1"):
        DIST(options_of(SPEC), make_setup({}, {}, num_classes=1, num_data=4))


def test_no_part_at_all_is_refused():
    with pytest.raises(RunError, match="`beta` and `gamma` both 0"):
        DIST(options_of(SPEC, beta=0.0, gamma=0.0), make_setup({}, {}))
