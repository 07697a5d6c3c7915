from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from distillctl.builtin.methods import register_method
from distillctl.testing import MethodContract, make_batch, make_progress, make_setup, options_of
from distillctl.testing.tensors import make_features

KD, SOFT = (next(s for s in register_method() if s.name == name) for name in ("kd", "soft-target"))


class TestSoftTarget(MethodContract):
    spec = SOFT
    plugin_module = "distillctl.builtin.methods"
    has_readme = False


@pytest.mark.parametrize(("ratio", "factor"), [(0.7, 7 / 3), (0.2, 0.25), (0.5, 1.0), (0.99, 99.0)])
def test_the_ratio_gives_the_factor(ratio: float, factor: float) -> None:
    from distillctl.builtin.kd import KD as Plain
    from distillctl.builtin.soft_target import SoftTarget

    setup = make_setup({}, {})
    student, teacher = (make_features(side, 6, seed) for seed, side in enumerate((setup.student, setup.teacher)))
    arguments = make_batch(setup, 6), student, teacher, make_progress()
    kd = Plain(options_of(KD), setup)(*arguments)  # type: ignore[arg-type]
    soft = SoftTarget(options_of(SOFT, ratio=ratio), setup)(*arguments)  # type: ignore[arg-type]
    torch.testing.assert_close(soft, kd * factor)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5, -0.1])
def test_d18_a_ratio_of_one_and_more_is_refused(ratio: float) -> None:
    """pytorch-classifier falls from a factor of 99 at 0.99 to 1 at 1.0."""
    with pytest.raises(ValidationError, match=r"for \w+\nratio\n"):
        options_of(SOFT, ratio=ratio)
