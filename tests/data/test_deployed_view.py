"""What a deployed student sees of a picture is what an evaluation shows it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distillctl.api.data import ArrayImages, FileImages, Splits, View
from distillctl.data.deployed_view import Preprocessing, description
from distillctl.data.loaders import eval_loader
from distillctl.errors import DataError, ProfileError

TOLD = {"channels": 3, "size": 24, "resize": 30, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
CPU = torch.device("cpu")


def picture(seed=0, height=40, width=53):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def evaluated(images, view, channels=3):
    splits = Splits(images, None, images, ("a", "b"), tuple(TOLD["mean"][:channels]), tuple(TOLD["std"][:channels]), view)
    loader = eval_loader(splits, images, batch_size=8, device=CPU, workers=0)
    return torch.cat([batch.images for batch in loader])


def test_a_file_as_in_evaluations(tmp_path):
    paths = []
    for number, kind in enumerate(("png", "jpg", "bmp")):
        paths.append(tmp_path / f"{number}.{kind}")
        Image.fromarray(picture(number, 33 + number, 50)).save(paths[-1])
    seen = evaluated(FileImages(paths, torch.zeros(3, dtype=torch.int64)), View(24, eval_resize=30))
    transform = Preprocessing(TOLD)
    assert torch.equal(torch.stack([transform(path) for path in paths]), seen)
    assert torch.equal(torch.stack([transform(str(path)) for path in paths]), seen)


@pytest.mark.parametrize(("side", "size"), [(24, 24), (30, 24), (20, 24)])
def test_pixels_in_memory_as_in_evaluations(side, size):
    images = torch.from_numpy(np.stack([picture(n, side, side) for n in range(3)]))
    seen = evaluated(ArrayImages(images, torch.zeros(3, dtype=torch.int64)), View(size))
    transform = Preprocessing({**TOLD, "size": size, "resize": side})
    assert torch.equal(torch.stack([transform(image.numpy()) for image in images]), seen)
    assert torch.equal(torch.stack([transform(image.permute(2, 0, 1)) for image in images]), seen)
    assert torch.equal(torch.stack([transform(Image.fromarray(image.numpy())) for image in images]), seen)


def test_a_turned_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    transform = Preprocessing(TOLD)
    with Image.open(tmp_path / "a.png") as opened:
        assert torch.equal(transform(opened), transform(tmp_path / "a.png"))
    assert torch.equal(transform(tmp_path / "a.png"), transform(np.rot90(picture(), -1)))


def test_colour_for_a_student_of_grey_pictures():
    transform = Preprocessing({**TOLD, "channels": 1, "mean": [0.5], "std": [0.2]})
    grey = picture()[..., 0]
    assert transform.shape == (1, 24, 24)
    assert torch.equal(transform.pixels(np.repeat(grey[..., None], 3, axis=2)), transform.pixels(grey))  # grey stays, to the bit
    seen = transform._in_channels(torch.from_numpy(picture()).permute(2, 0, 1))
    assert torch.equal(seen[0], torch.from_numpy(np.array(Image.fromarray(picture()).convert("L"))))


def test_grey_pixels_for_a_student_of_colour():
    transform = Preprocessing(TOLD)
    grey = picture()[..., 0]
    assert torch.equal(transform(grey), transform(np.repeat(grey[..., None], 3, axis=2)))
    assert torch.equal(transform(grey[..., None]), transform(grey))


@pytest.mark.parametrize(
    "wrong", [torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, 8, 8, dtype=torch.uint8)]
)
def test_pixels_of_another_kind(wrong):
    with pytest.raises(ProfileError, match="pixels must be uint8"):
        Preprocessing(TOLD)(wrong)


def test_a_bound_of_its_own_on_pixels(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"more than the 0\.001 megapixels"):
        Preprocessing({**TOLD, "max_megapixels": 0.001})(tmp_path / "a.png")


@pytest.mark.parametrize(
    "change", [{"channels": 2}, {"mean": [0.5]}, {"std": [0.2, 0.0, 0.2]}, {"size": 0}, {"resize": "wide"}, {"mean": None}]
)
def test_a_description_that_says_too_little(change):
    with pytest.raises(DataError, match="does not say how"):
        Preprocessing({**TOLD, **change})
    with pytest.raises(DataError, match="does not say how"):
        Preprocessing({name: value for name, value in TOLD.items() if name not in change})


@pytest.mark.parametrize(
    ("told", "height", "width"),
    [
        ({}, 40, 53),
        ({}, 61, 33),
        ({"resize": 20}, 40, 53),
        ({"resize": 18}, 24, 24),
        ({"canvas": [0, 0, 0]}, 40, 53),
        ({"canvas": [0, 0, 0]}, 90, 21),
    ],
)
def test_where_a_picture_lies_in_its_view(told, height, width):
    """A bright patch is found where the placement says, whatever was resized, cut or padded."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    top, left, side = height // 2 - 3, width // 2 - 2, 5
    pixels[top : top + side, left : left + side] = 255
    view, placement = Preprocessing({**TOLD, **told}).placed(pixels)
    weight = view[0].double() - view[0].double().min()
    for axis, start in ((0, left), (1, top)):  # x, y
        middles = torch.arange(24) + 0.5
        found = float((weight.sum(axis) * middles).sum() / weight.sum())
        assert found == pytest.approx((start + side / 2) * placement.scale[axis] + placement.offset[axis], abs=0.3)


def test_a_canvas_holds_the_whole_picture():
    view, placement = Preprocessing({**TOLD, "canvas": [9, 8, 7]}).placed(np.full((20, 48, 3), 200, dtype=np.uint8))
    assert (view[:, :10] == 200).all()
    assert torch.equal(view[:, 10:], torch.tensor([9, 8, 7], dtype=torch.uint8)[:, None, None].expand(3, 14, 24))
    assert placement == ((0.5, 0.5), (0.0, 0.0))


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [(40, 60, (24, 36)), (60, 40, (36, 24)), (40, 100, (20, 50)), (41, 60, (24, 35))],  # the third is too long for its short side
)
def test_a_picture_between_its_two_sides(height, width, seen):
    transform = Preprocessing({**TOLD, "long_side": 50, "multiple": 16})
    view, placement = transform.placed(np.full((height, width, 3), 200, dtype=np.uint8))
    assert view.shape == (3, *seen)
    assert placement == ((seen[1] / width, seen[0] / height), (0.0, 0.0))
    given = transform(np.full((height, width, 3), 200, dtype=np.uint8))
    assert given.shape == (3, *(-(-side // 16) * 16 for side in seen))
    assert (given[:, seen[0] :] == 0).all()
    assert (given[:, :, seen[1] :] == 0).all()
    assert torch.equal(given[:, : seen[0], : seen[1]], transform._normalise(view[None])[0])


@pytest.mark.parametrize("change", [{"long_side": 20}, {"long_side": "long"}, {"long_side": 50, "multiple": 0}])
def test_two_sides_that_cannot_be(change):
    with pytest.raises(DataError, match="does not say how an image becomes its input"):
        Preprocessing({**TOLD, **change})


@pytest.mark.parametrize("canvas", [[1, 2], [0, 0, 256], [-1, 0, 0], "grey", 5])
def test_a_canvas_that_cannot_be_painted(canvas):
    with pytest.raises(DataError, match="does not say how an image becomes its input"):
        Preprocessing({**TOLD, "canvas": canvas})


class Own:
    """Cuts views as only it knows."""


def test_views_that_only_their_data_set_can_cut():
    images = FileImages([Path("a.png")], targets=[None])
    splits = Splits(images, None, None, (), (0.5,) * 3, (0.2,) * 3, View(24), joint=Own())
    assert description(splits)["joint"] is True
    with pytest.raises(DataError, match="cut its views itself"):
        Preprocessing(description(splits)).pixels(picture())
    told = description(replace(splits, view=View(24, canvas=(9, 8, 7))))
    assert (told["canvas"], told.get("joint")) == ([9, 8, 7], None)
    assert Preprocessing(told).view.canvas == (9, 8, 7)
    told = description(replace(splits, view=View(24, largest=(32, 64), multiple=32, long_side=50)))
    assert (told["long_side"], told["multiple"], told.get("joint")) == (50, 32, None)
    assert Preprocessing(told).unequal
    assert not {"canvas", "joint", "long_side"} & description(replace(splits, joint=None)).keys()
