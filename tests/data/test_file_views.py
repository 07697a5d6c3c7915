from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from distillctl.api.data import View
from distillctl.data.augment import evaluation_transform, five_crop_transform, ten_crop_transform, training_transform

AUGMENTS = ("none", "resize_crop", "crop_flip", "random_resized_crop", "autoaugment", "randaugment", "trivialaugment", "augmix")


def image(height=30, width=40, seed=0):
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return pixels.permute(2, 0, 1)


def coordinates(size):
    """Every pixel says where it is: red its column, green its row."""
    line = torch.arange(size, dtype=torch.uint8)
    return torch.stack([line.expand(size, size), line[:, None].expand(size, size), torch.zeros(size, size, dtype=torch.uint8)])


def drawn(transform, picture, seeds):
    views = []
    for seed in seeds:
        torch.manual_seed(seed)
        views.append(transform(picture))
    return views


@pytest.fixture(autouse=True)
def _keep_the_global_generator():
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (16, 16), (9, 100), (3, 2)])
def test_every_augmentation_gives_views_of_the_size(augment, shape):
    transform = training_transform(View(size=16, augment=augment, resize=18, eval_resize=17))
    for view in drawn(transform, image(*shape), range(4)):
        assert view.shape == (3, 16, 16)
        assert view.dtype == torch.uint8


@pytest.mark.parametrize("augment", AUGMENTS[1:])
def test_the_generator_decides(augment):
    transform = training_transform(View(size=16, augment=augment, resize=20))
    a, b = drawn(transform, image(), [1, 1])
    assert torch.equal(a, b)
    assert len({v.numpy().tobytes() for v in drawn(transform, image(), range(12))}) > 6


def test_none_draws_nothing():
    state = torch.get_rng_state()
    view = View(size=16, augment="none", eval_resize=18)
    assert torch.equal(training_transform(view)(image()), evaluation_transform(view)(image()))
    assert torch.equal(state, torch.get_rng_state())


def test_crops_lie_anywhere_and_flips_are_where_they_should_be():
    picture = coordinates(12)
    for augment, flips in (("resize_crop", False), ("crop_flip", True)):
        views = drawn(training_transform(View(size=10, augment=augment, resize=12)), picture, range(200))
        mirrored = [bool(v[0, 0, 0] > v[0, 0, -1]) for v in views]
        assert (60 < sum(mirrored) < 140) if flips else not any(mirrored)
        corners = {(int(v[0].min()), int(v[1].min())) for v in views}
        assert corners == {(x, y) for x in range(3) for y in range(3)}


def test_autoaugment_is_the_imagenet_policy_without_a_flip():
    transform = training_transform(View(size=16, augment="autoaugment", resize=16))
    parts = list(transform)
    policy = next(p for p in parts if isinstance(p, v2.AutoAugment))
    assert policy.policy == v2.AutoAugmentPolicy.IMAGENET
    assert not any(isinstance(p, v2.RandomHorizontalFlip) for p in parts)


@pytest.mark.parametrize(("augment", "policy"), [("trivialaugment", v2.TrivialAugmentWide), ("augmix", v2.AugMix)])
def test_policies_beside_a_random_resized_crop(augment, policy):
    parts = list(training_transform(View(size=16, augment=augment)))
    assert isinstance(parts[0], v2.RandomResizedCrop)
    assert [type(part) for part in parts].count(policy) == 1


@pytest.mark.parametrize("augment", AUGMENTS)
def test_rotation_turns_what_was_cut_in_both_directions(augment):
    """The grey square keeps its middle and loses its corners to black, whichever way it turns."""
    view = View(size=31, augment=augment, rotation=20)
    grey = torch.full((3, 31, 31), 128, dtype=torch.uint8)
    corners = [bool(v[:, 0, 0].eq(0).all() and v[:, -1, -1].eq(0).all()) for v in drawn(training_transform(view), grey, range(12))]
    assert sum(corners) > 6
    assert torch.equal(evaluation_transform(view)(grey), grey)


def test_rotation_reaches_the_angle_on_both_sides():
    transform = training_transform(View(size=31, rotation=20))
    assert torch.equal(*drawn(transform, image(31, 31), [5, 5]))
    line = torch.zeros(3, 31, 31, dtype=torch.uint8)
    line[:, 15] = 255  # a horizontal line: its right end is above or below the middle by 15·tan(angle)
    heights = [15 - int(v[0, :, 29].float().argmax()) for v in drawn(transform, line, range(200))]
    assert (min(heights), max(heights)) == (-5, 5)
    assert abs(sum(heights)) < 200


def test_resize_0_means_the_crop():
    whole = training_transform(View(size=12, augment="resize_crop"))
    assert torch.equal(whole(coordinates(12)), coordinates(12))
    assert torch.equal(evaluation_transform(View(size=12))(coordinates(12)), coordinates(12))


def test_evaluation_resizes_the_short_side_and_takes_the_centre():
    view = evaluation_transform(View(size=10, eval_resize=12))(coordinates(12))
    assert torch.equal(view, coordinates(12)[:, 1:11, 1:11])
    assert evaluation_transform(View(size=10, eval_resize=12))(image(24, 60)).shape == (3, 10, 10)


@pytest.mark.parametrize("shape", [(20, 20), (20, 27)])
def test_ten_crops_are_four_corners_the_centre_and_their_mirror_images(shape):
    picture = image(*shape)
    views = ten_crop_transform(View(size=16), 20)(picture)
    assert views.shape == (10, 3, 16, 16)
    h, w = shape
    top, left = round((h - 16) / 2), round((w - 16) / 2)
    corners = [(0, 0), (0, w - 16), (h - 16, 0), (h - 16, w - 16), (top, left)]
    for i, (y, x) in enumerate(corners):
        assert torch.equal(views[i], picture[:, y : y + 16, x : x + 16])
        assert torch.equal(views[5 + i], picture.flip(-1)[:, y : y + 16, x : x + 16])


def test_five_crops_are_the_ten_without_their_mirror_images():
    picture = image(20, 27)
    for resize in (20, 0):
        view = View(size=16)
        assert torch.equal(five_crop_transform(view, resize)(picture), ten_crop_transform(view, resize)(picture)[:5])


def test_ten_crops_resize_to_a_tenth_more():
    picture = coordinates(22)
    views = ten_crop_transform(View(size=20), 0)(picture)
    assert torch.equal(views[3], picture[:, 2:, 2:])


@pytest.mark.parametrize(
    ("augment", "flips"),
    [
        ("none", 0),
        ("resize_crop", 0),
        ("crop_flip", 1),
        ("random_resized_crop", 1),
        ("autoaugment", 0),
        ("randaugment", 1),
        ("trivialaugment", 1),
        ("augmix", 1),
    ],
)
def test_who_flips_as_the_table_says(augment, flips):
    transform = training_transform(View(8, augment))
    assert sum(isinstance(module, v2.RandomHorizontalFlip) for module in transform.modules()) == flips
