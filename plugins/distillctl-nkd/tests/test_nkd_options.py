import pytest

from distillctl import RunError
from distillctl.testing import make_setup, options_of
from distillctl_nkd.method import NKD
from distillctl_nkd.plugin import SPEC


def test_defaults_are_the_papers():
    options = options_of(SPEC)
    assert (options.temperature, options.gamma) == (1.0, 1.5)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (1.0, 1.0, 0.0)
    assert SPEC.takes_temperature


@pytest.mark.parametrize(("dataset", "temperature", "gamma"), [("cifar100", 3.0, 3.5), ("imagenet", 1.0, 1.5)])
def test_published_settings_by_data_set(dataset, temperature, gamma):
    found = [(p.values, p.teacher, p.student) for p in SPEC.presets if p.dataset == dataset]
    assert found == [({"temperature": temperature, "gamma": gamma}, "", "")]


def test_one_class_is_refused():
    with pytest.raises(RunError, match="`nkd` needs at least 2 classes, not 1"):
        NKD(options_of(SPEC), make_setup({}, {}, num_classes=1, num_data=4))
