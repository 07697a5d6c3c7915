from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from distillctl.data.decode import read_image
from distillctl.errors import DataError

HEIGHT, WIDTH = 24, 16
PIXELS = (np.add.outer(np.arange(HEIGHT) * 4, np.arange(WIDTH) * 5)[..., None] + np.array([0, 20, 40])).astype(np.uint8)
GREY = PIXELS[..., 0]


def exact(tensor):
    return tensor.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "PNG"])
def test_lossless_formats_give_the_pixels(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path)
    got = read_image(path)
    assert got.dtype == torch.uint8
    assert got.shape == (3, HEIGHT, WIDTH)
    assert np.array_equal(exact(got), PIXELS)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_in_every_colour_space_becomes_rgb(tmp_path, mode):
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.jpg", quality=97)
    want = PIXELS if mode != "L" else np.asarray(Image.fromarray(PIXELS).convert("L").convert("RGB"))
    assert np.abs(exact(read_image(tmp_path / "a.jpg")).astype(int) - want).max() <= 12


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA"])
def test_png_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(GREY).convert(mode) if mode != "RGBA" else Image.fromarray(np.dstack([GREY, GREY, GREY, GREY // 2]))
    image.save(tmp_path / "a.png")
    want = np.asarray(image.convert("RGB")) if mode == "1" else np.repeat(GREY[..., None], 3, axis=2)
    assert np.array_equal(exact(read_image(tmp_path / "a.png")), want)


def test_palette_with_transparency_does_not_warn(tmp_path):
    image = Image.fromarray(GREY).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert np.array_equal(exact(read_image(tmp_path / "a.png"))[..., 0], GREY)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(exact(read_image(tmp_path / f"a.{suffix}")), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, lambda x: x), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (6, lambda x: np.rot90(x, -1)), (8, np.rot90)],
)
def test_exif_orientation_turns_the_picture(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(exact(read_image(tmp_path / "a.png")), turn(PIXELS))


def test_first_picture_of_an_animation(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(exact(read_image(tmp_path / "a.gif"))[..., 0], GREY)


def test_a_name_in_any_language(tmp_path):
    path = tmp_path / "птица 鳥 é.png"
    Image.fromarray(PIXELS).save(path)
    assert np.array_equal(exact(read_image(path)), PIXELS)


def jpeg(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    return (tmp_path / "whole.jpg").read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda data: b"", "not an image of a known format"),
        (lambda data: b"<html>not found</html>", "not an image of a known format"),
        (lambda data: data[:20], "cannot be decoded"),
        (lambda data: data[: len(data) // 2], "truncated"),
    ],
)
def test_broken_files_are_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "bird.jpg"
    path.write_bytes(content(jpeg(tmp_path)))
    with pytest.raises(DataError, match=reason) as error:
        read_image(path)
    assert f"`{path}`" in error.value.problems[0].message
    assert "\n" not in error.value.problems[0].message


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jpg` is missing"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(tmp_path)


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="no agreed range"):
        read_image(tmp_path / "a.tif")
