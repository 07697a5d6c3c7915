"""Layers between student and teacher."""

import pytest
import torch
from torch import nn

from distillctl import LenientBatchNorm2d, end_after, matching_convolution


def norms():
    """Ours and PyTorch's with the same parameters and statistics."""
    ours, theirs = LenientBatchNorm2d(3), nn.BatchNorm2d(3)
    for norm in (ours, theirs):
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
            norm.bias.copy_(torch.tensor([0.0, 3.0, -1.0]))
            norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
            norm.running_var.fill_(4.0)
    return ours, theirs


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (2, 3, 1, 1), (1, 3, 1, 2), (1, 3, 2, 1)])
def test_lenient_norm_is_the_usual_one_in_training_and_evaluation(shape):
    ours, theirs = norms()
    maps = torch.randn(shape)
    torch.testing.assert_close(ours(maps), theirs(maps), rtol=0, atol=0)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    assert ours.num_batches_tracked == 1
    torch.testing.assert_close(ours.eval()(maps), theirs.eval()(maps), rtol=0, atol=0)
    one = maps[:1, :, :1, :1]
    torch.testing.assert_close(ours(one), theirs(one), rtol=0, atol=0)


def test_lenient_norm_takes_the_running_statistics_for_one_value_per_channel():
    ours, theirs = norms()
    one = torch.tensor([3.0, 2.0, 1.0]).reshape(1, 3, 1, 1).requires_grad_()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        theirs(one)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    value = ours(one)
    torch.testing.assert_close(value.flatten(), torch.tensor([1.0, 3.0, -1.5]), rtol=1e-5, atol=1e-5)  # but for its eps
    value.sum().backward()
    torch.testing.assert_close(one.grad.flatten(), torch.tensor([0.5, -1.0, 0.25]), rtol=1e-5, atol=0)
    assert all(p.grad.isfinite().all() for p in ours.parameters())
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)


class Three(nn.Module):
    """Three stages, pooled."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.ReLU()) for i, o in ((3, 4), (4, 6), (6, 8)))
        self.fc = nn.Linear(8, 5)

    def forward(self, images):
        return self.fc(self.c(self.b(self.a(images))).mean((2, 3)))


def test_a_network_ends_after_a_stage():
    images = torch.randn(2, 3, 16, 16)
    for count, width in ((1, 4), (2, 6)):
        model = Three()
        before = model.state_dict()
        end_after(model, count, ("a", "b", "c"), "fc")
        kept = {name for name in before if name[0] in "abc"[:count]}
        assert model.state_dict().keys() == {*kept, "fc.weight", "fc.bias"}
        assert all(torch.equal(model.state_dict()[name], before[name]) for name in kept)
        assert model.fc.weight.shape == (5, width)
        first = model.a(images) if count == 1 else model.b(model.a(images))
        torch.testing.assert_close(model(images), model.fc(first.mean((2, 3))))
    model = Three()
    end_after(model, 1, ("a", "b", "c"), "fc", 7)
    assert model.fc.weight.shape == (5, 7)
    model = Three()
    end_after(model, 3, ("a", "b", "c"), "fc")
    assert model.fc.weight.shape == (5, 8)
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"it has 3 stages, not {count}"):
            end_after(model, count, ("a", "b", "c"), "fc")


TABLE = [  # sizes of student and teacher; layer, kernel, stride, padding
    ((8, 8), (8, 8), nn.Conv2d, (1, 1), 1, 0),
    ((8, 6), (4, 3), nn.Conv2d, (3, 3), 2, 1),
    ((2, 2), (1, 1), nn.Conv2d, (3, 3), 2, 1),
    ((4, 3), (8, 6), nn.ConvTranspose2d, (4, 4), 2, 1),
    ((1, 1), (2, 2), nn.ConvTranspose2d, (4, 4), 2, 1),
    ((7, 6), (5, 6), nn.Conv2d, (3, 1), 1, 0),
    ((8, 8), (8, 6), nn.Conv2d, (1, 3), 1, 0),
    ((8, 8), (2, 2), nn.Conv2d, (7, 7), 1, 0),
    ((8, 4), (4, 3), nn.Conv2d, (5, 2), 1, 0),
]


@pytest.mark.parametrize(("student", "teacher", "kind", "kernel", "stride", "padding"), TABLE)
@pytest.mark.parametrize("channels", [(3, 5), (4, 4)])
def test_matching_convolution_gives_the_teachers_shape(channels, student, teacher, kind, kernel, stride, padding):
    ours, theirs = channels
    convolution = matching_convolution((ours, *student), (theirs, *teacher))
    assert type(convolution) is kind
    assert (convolution.kernel_size, convolution.stride, convolution.padding) == (kernel, (stride,) * 2, (padding,) * 2)
    assert convolution.bias is None
    assert convolution(torch.randn(2, ours, *student)).shape == (2, theirs, *teacher)


@pytest.mark.parametrize(("student", "teacher"), [((3, 3), (8, 8)), ((2, 2), (6, 6)), ((4, 2), (2, 4)), ((8, 6), (6, 8)), ((4, 4), (8, 4))])
def test_matching_convolution_keeps_the_students_size_otherwise(student, teacher):
    convolution = matching_convolution((3, *student), (5, *teacher))
    assert (type(convolution), convolution.kernel_size, convolution.stride) == (nn.Conv2d, (3, 3), (1, 1))
    assert convolution.bias is None
    assert convolution(torch.randn(2, 3, *student)).shape == (2, 5, *student)
