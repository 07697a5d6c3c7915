"""What brings a student's map into the teacher's shape."""

import pytest
import torch
from torch import nn

from distillctl import Batch, LenientBatchNorm2d
from distillctl.testing import make_progress, make_setup, options_of
from distillctl_ab.method import AB
from distillctl_ab.modules import connector
from distillctl_ab.plugin import SPEC


@pytest.mark.parametrize(
    ("student", "teacher", "kind"),
    [((3, 8, 6), (5, 4, 3), nn.Conv2d), ((3, 4, 3), (5, 8, 6), nn.ConvTranspose2d), ((3, 7, 6), (3, 5, 6), nn.Conv2d)],
)
def test_shape_becomes_the_teachers(student, teacher, kind):
    conv, norm = connector(student, teacher)
    assert (type(conv), type(norm)) == (kind, LenientBatchNorm2d)
    assert nn.Sequential(conv, norm)(torch.randn(2, *student)).shape == (2, *teacher)


def test_a_bias_would_change_nothing():
    """The peers' convolutions have one, which the batch normalisation takes away again: its gradient is 0."""
    conv, norm = connector((3, 8, 8), (5, 4, 4))
    x, bias = torch.randn(2, 3, 8, 8), torch.randn(5, 1, 1)
    torch.testing.assert_close(norm(conv(x) + bias), norm(conv(x)), rtol=1e-4, atol=1e-5)


def test_equal_shapes_need_nothing():
    assert isinstance(connector((3, 8, 8), (3, 8, 8)), nn.Identity)
    assert isinstance(connector((3, 8, 8), (4, 8, 8)), nn.Sequential)


@pytest.mark.parametrize(("student", "teacher"), [((3, 3, 3), (5, 8, 8)), ((3, 8, 6), (5, 6, 8))])
def test_other_sizes_keep_the_students_and_are_pooled_in_the_method(student, teacher):
    """FitNet's table ends here with an error."""
    assert connector(student, teacher)(torch.randn(2, *student)).shape == (2, teacher[0], *student[1:])
    setup = make_setup({"stage1:pre": student}, {"stage1:pre": teacher})
    method = AB(options_of(SPEC), setup)
    ours, theirs = torch.randn(2, *student), torch.randn(2, *teacher)
    value = method.forward_phase("init", None, {"stage1:pre": ours}, {"stage1:pre": theirs}, make_progress())
    size = tuple(min(pair) for pair in zip(student[1:], teacher[1:], strict=True))
    s = nn.functional.adaptive_avg_pool2d(method.connectors[0](ours), size)
    t = nn.functional.adaptive_avg_pool2d(theirs, size)
    expected = torch.where(t > 0, (1 - s).clamp(min=0), (1 + s).clamp(min=0)).square().sum() / 2 * 3 / 1000
    torch.testing.assert_close(value, expected)


def test_batch_of_one_with_maps_of_one_pixel():
    """A channel with one value has no variance; plain batch normalisation raises there."""
    setup = make_setup({"stage1:pre": (3, 1, 1)}, {"stage1:pre": (4, 1, 1)})
    method = AB(options_of(SPEC), setup)
    student = {"stage1:pre": torch.tensor([0.5, -0.5, 2.0]).reshape(1, 3, 1, 1).requires_grad_()}
    before = {name: value.clone() for name, value in method.named_buffers()}
    batch = Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1))
    loss = method.terms(batch, student, {"stage1:pre": torch.ones(1, 4, 1, 1)}, make_progress(), phase="init")[""]
    loss.backward()
    assert loss.isfinite()
    assert student["stage1:pre"].grad.abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in method.named_buffers())


def test_d11_widths_are_measured():
    """The peers' hard-coded widths leave out students such as ShuffleV1; here every width comes from the shapes."""
    setup = make_setup({"stage1:pre": (7, 4, 4), "stage2:pre": (11, 2, 2)}, {"stage1:pre": (13, 4, 4), "stage2:pre": (17, 2, 2)})
    method = AB(options_of(SPEC), setup)
    assert [tuple(conv.weight.shape[:2]) for conv, _ in method.connectors] == [(13, 7), (17, 11)]
