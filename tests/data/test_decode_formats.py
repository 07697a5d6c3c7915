from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from distillctl.api.class_folders import EXTENSIONS
from distillctl.data.decode import read_image
from distillctl.errors import DataError

HEIGHT, WIDTH = 24, 16
PIXELS = (np.add.outer(np.arange(HEIGHT) * 4, np.arange(WIDTH) * 5)[..., None] + np.array([0, 20, 40])).astype(np.uint8)
GREY = PIXELS[..., 0]


def over(alpha, paper):
    """`GREY` with this alpha over a background."""
    mixed = GREY * (alpha / 255) + paper * (1 - alpha / 255)
    return np.repeat(np.rint(mixed)[..., None], 3, axis=2)


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
    if mode == "RGBA":
        want = over(GREY // 2, 255)
    assert np.abs(exact(read_image(tmp_path / "a.png")).astype(int) - want).max() <= (mode == "RGBA")


def test_palette_with_transparency_does_not_warn(tmp_path, recwarn):
    image = Image.fromarray(GREY).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert np.abs(exact(read_image(tmp_path / "a.png")).astype(int) - over(GREY, 255)).max() <= 1
    assert not recwarn


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


INK = np.tri(HEIGHT, WIDTH, dtype=np.uint8) * 255
"""A drawing."""


def drawing(mode):
    """A drawing in alpha, black everywhere."""
    black = np.zeros((HEIGHT, WIDTH), np.uint8)
    match mode:
        case "RGBA" | "LA":
            return Image.fromarray(np.dstack([*[black] * (3 if mode == "RGBA" else 1), INK])), {}
        case "P":
            image = Image.fromarray(INK // 255).convert("P")
            image.putpalette([0] * 6)
            return image, {"transparency": 0}
        case "P of bytes":
            image = Image.fromarray(INK // 255).convert("P")
            image.putpalette([0] * 6)
            return image, {"transparency": b"\0\xff"}
        case "RGB with a key":
            return Image.fromarray(np.dstack([255 - INK] * 3) // 255 * 7), {"transparency": (7, 7, 7)}
        case "L with a key":
            return Image.fromarray((255 - INK) // 255 * 7), {"transparency": 7}
        case "I;16 with a key":
            return Image.fromarray((255 - INK).astype(np.uint16) // 255 * 7), {"transparency": 7}
    raise AssertionError(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P of bytes", "RGB with a key", "L with a key", "I;16 with a key"])
@pytest.mark.parametrize("background", [None, [10, 200, 30]])
def test_a_drawing_in_alpha_is_seen_over_the_background(tmp_path, mode, background, recwarn):
    image, options = drawing(mode)
    image.save(tmp_path / "a.png", **options)
    want = np.where(INK[..., None] > 0, 0, np.array(background or [255, 255, 255]))
    assert np.array_equal(exact(read_image(tmp_path / "a.png", background=background)), want)
    assert not recwarn


@pytest.mark.parametrize("suffix", ["webp", "tif", "gif"])
def test_alpha_of_other_formats(tmp_path, suffix):
    image, options = drawing("RGBA" if suffix != "gif" else "P")
    image.save(tmp_path / f"a.{suffix}", **options, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(exact(read_image(tmp_path / f"a.{suffix}"))[..., 0], 255 - INK)


def test_opaque_pictures_with_alpha_are_what_they_were(tmp_path):
    Image.fromarray(np.dstack([PIXELS, np.full_like(GREY, 255)])).save(tmp_path / "a.png")
    assert np.array_equal(exact(read_image(tmp_path / "a.png")), PIXELS)


DEPTHS = [(255, 8), (1023, 10), (4095, 12), (16383, 14), (65535, 16)]


@pytest.mark.parametrize(
    ("suffix", "white", "bits"),
    [*(("png", *depth) for depth in DEPTHS), *(("tif", *depth) for depth in (*DEPTHS, (2**31 - 1, 31)))],  # PNG has no deeper grey
)
def test_white_scales_grey_of_every_depth(tmp_path, suffix, white, bits):
    values = (GREY.astype(np.int64) << bits >> 8) + (1 << bits >> 9)
    Image.fromarray(values.astype(np.uint16 if bits <= 16 else np.int32)).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(exact(read_image(tmp_path / f"a.{suffix}", white=white))[..., 0], GREY)


def test_what_lies_beyond_black_and_white_is_black_and_white(tmp_path):
    values = np.array([[-5, 0, 100, 1000, 5000]], np.int32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert exact(read_image(tmp_path / "a.tif", white=1000))[0, :, 0].tolist() == [0, 0, 25, 255, 255]


def test_floating_point_is_scaled_where_white_is_known(tmp_path):
    values = np.array([[-1.0, 0.0, 0.5, 1.0, 2.0, np.nan, np.inf]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert exact(read_image(tmp_path / "a.tif", white=1))[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0, 255]


def test_grey_of_a_portable_map_with_another_largest_value(tmp_path):
    """Pillow scales them to 65535 by what their header says."""
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 4095\n" + np.array([0, 2048, 4095], ">u2").tobytes())
    assert exact(read_image(tmp_path / "a.pgm"))[0, :, 0].tolist() == [0, 128, 255]


def exif_block(tag=0x011A, kind=5):
    """An EXIF block with one entry whose type does not fit its tag, and no orientation."""
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHII", tag, kind, 1, 0x02000000) + bytes(4)


EXIFS = {
    "no TIFF inside": b"Exif\0\0garbage and more of it",
    "cut short": b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
    "a directory that is elsewhere": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "an orientation of text": exif_block(0x0112, 2),
    "an orientation that does not exist": b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 99, 0) + bytes(4),
    "a resolution of text": exif_block(0x011A, 2),
    "nothing": b"Exif\0\0",
}


@pytest.mark.parametrize("name", EXIFS)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_wrong_exif_block_turns_nothing(tmp_path, name, suffix):
    options = {"jpg": {"quality": 97}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}", exif=EXIFS[name], **options)
    assert np.abs(exact(read_image(tmp_path / f"a.{suffix}")).astype(int) - PIXELS).max() <= 12


@pytest.mark.parametrize(
    ("orientation", "turn"), [(4, np.flipud), (5, lambda x: x.swapaxes(0, 1)), (7, lambda x: np.rot90(x.swapaxes(0, 1), 2))]
)
def test_the_other_orientations(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.webp", "a.tif"):
        Image.fromarray(PIXELS).save(tmp_path / name, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
        assert np.array_equal(exact(read_image(tmp_path / name)), turn(PIXELS))


@pytest.mark.parametrize("tag", [0x010F, 0x011A, 0x0131])
def test_a_picture_is_turned_although_another_entry_of_its_exif_block_is_wrong(tmp_path, tag):
    """Pillow's own function writes the block anew, and fails where a value does not fit its tag."""
    entries = [(min(tag, 0x0112), 5 if tag == 0x010F else 3, 1), (max(tag, 0x0112), 2 if tag != 0x010F else 3, 1)]
    body = b"".join(struct.pack(">HHI", *entry) + (b"\0\x06\0\0" if entry[0] == 0x0112 else bytes(4)) for entry in entries)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + body + bytes(4)
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(exact(read_image(tmp_path / "a.png")), np.rot90(PIXELS, -1))
