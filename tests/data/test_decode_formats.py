from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from distillctl.builtin.imagefolder_scan import EXTENSIONS
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


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.eps"])
def test_no_other_format_is_opened_whatever_the_ending_says(tmp_path, name, monkeypatch):
    """PostScript would start Ghostscript."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(DataError, match=r"not an image of a known format \(JPEG, .*\), but PostScript"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["ICO", "TGA", "SGI", "PCX", "JPEG2000"])
def test_formats_without_an_ending_of_ours_are_refused(tmp_path, kind):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", format=kind)
    with pytest.raises(DataError, match="not an image of a known format"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("ending", sorted(EXTENSIONS))
def test_every_known_ending_has_its_format(tmp_path, ending):
    Image.fromarray(GREY if ending == ".pgm" else PIXELS).save(tmp_path / f"a{ending}")
    assert read_image(tmp_path / f"a{ending}").shape == (3, HEIGHT, WIDTH)


def test_pictures_of_phones_with_several_images_are_jpeg(tmp_path):
    pictures = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    pictures[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=pictures[1:], quality=97)
    assert np.abs(exact(read_image(tmp_path / "a.jpg")).astype(int) - PIXELS).max() <= 12


def large(path, side, ending):
    """A small file of a large black picture."""
    path = path / f"a{ending}"
    Image.new("1" if ending in (".png", ".tif") else "L", (side, side)).save(
        path, **({"compression": "group4"} if ending == ".tif" else {})
    )
    return path


@pytest.mark.parametrize("ending", [".png", ".tif", ".webp", ".gif"])
def test_the_pixels_of_a_file_are_bounded_before_it_is_decoded(tmp_path, ending, monkeypatch, recwarn):
    path = large(tmp_path, 1200, ending)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(DataError) as error:
        read_image(path, max_megapixels=1.4)
    text = str(error.value)
    assert f"`{path}` has 1200×1200 pixels, more than the 1.4 megapixels of `dataset.max_megapixels`" in text
    assert "--set dataset.max_megapixels=2`" in text
    assert not recwarn


def test_the_bound_has_a_default_and_pillow_says_nothing(tmp_path, recwarn):
    with pytest.raises(DataError, match="13000×13000 pixels, more than the 128 megapixels"):
        read_image(large(tmp_path, 13_000, ".png"))
    assert not recwarn


@pytest.mark.parametrize("pillows", [1000, None])
def test_only_our_bound_holds_and_pillows_is_left_as_it_was(tmp_path, pillows, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    paths = [large(tmp_path, side, ending) for side, ending in ((60, ".png"), (61, ".webp"), (62, ".tif"))]
    paths[0].with_name("broken.png").write_bytes(paths[0].read_bytes()[:40])
    with ThreadPoolExecutor(4) as pool:
        assert [x.shape[1] for x in pool.map(read_image, paths * 20)] == [60, 61, 62] * 20
    with pytest.raises(DataError):
        read_image(tmp_path / "broken.png")
    assert pillows == Image.MAX_IMAGE_PIXELS
    assert not recwarn
