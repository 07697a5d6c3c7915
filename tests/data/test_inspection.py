"""All image files are looked at before anything is trained; only those that look odd are decoded."""

from __future__ import annotations

import os
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from distillctl.api.data import ArrayImages, FileImages, Splits, View
from distillctl.data import inspection
from distillctl.data.decode import upright_size
from distillctl.data.inspection import inspect
from distillctl.errors import DataError
from distillctl.testing.trees import write_image

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
SAVED = {
    "jpg": {},
    "png": {},
    "gif": {},
    "webp": {},
    "bmp": {},
    "ppm": {},
    "tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "tiled.tif": {"compression": "tiff_adobe_deflate", "tile": (16, 16)},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def images(paths):
    return FileImages(paths, torch.zeros(len(paths), dtype=torch.int64))


def splits(train=(), val=(), test=(), **view):
    parts = [images(list(part)) if part else None for part in (train, val, test)]
    return Splits(*parts, classes=("a",), mean=(0.5,) * 3, std=(0.5,) * 3, view=View(size=12, **view))


def saved(tmp_path, name):
    path = tmp_path / f"whole.{name}"
    Image.fromarray(PICTURE).save(path, **SAVED[name])
    return path


@pytest.fixture
def decoded(monkeypatch):
    """Files whose pixels were read."""
    seen, load = [], ImageFile.ImageFile.load

    def noted(self):
        if not seen or seen[-1] != self.filename:
            seen.append(self.filename)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    return seen


@pytest.mark.parametrize("name", SAVED)
def test_a_whole_file_is_not_decoded(tmp_path, name, decoded, monkeypatch):
    monkeypatch.setattr(inspection, "_constant", lambda *_: [])  # it decodes a few on purpose
    inspect(splits(train=[saved(tmp_path, name)]))
    assert not decoded


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_file_that_is_cut_short_is_found_in_every_split(tmp_path, name, split):
    data = saved(tmp_path, name).read_bytes()
    whole = [write_image(tmp_path / f"{i}.png", seed=i) for i in range(5)]
    for share in (0.5, 0.99):
        cut = tmp_path / f"cut-{share}.{name}"
        cut.write_bytes(data[: int(share * len(data))])
        parts = {"train": whole, split: [*whole, cut]}
        with pytest.raises(DataError, match="cannot be used") as error:
            inspect(splits(**parts))
        count = 6 if split == "train" else 11
        assert f"1 of {count} images cannot be used ({split} 1): `{cut}` cannot be decoded: " in str(error.value)


@pytest.mark.parametrize("name", ["jpg", "png", "gif", "webp", "tiled.tif"])
def test_a_file_that_was_allocated_and_not_filled_is_found(tmp_path, name):
    """As a download that broke off leaves it: its size is right, its end is zeros."""
    data = saved(tmp_path, name).read_bytes()
    (tmp_path / f"a.{name}").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(DataError, match="cannot be decoded"):
        inspect(splits(train=[tmp_path / f"a.{name}"]))


def test_zeros_behind_the_end_are_padding(tmp_path):
    path = saved(tmp_path, "jpg")
    path.write_bytes(path.read_bytes() + bytes(5000))
    inspect(splits(train=[path]))


@pytest.mark.parametrize("name", ["jpg", "png", "gif"])
def test_something_behind_the_picture_makes_it_no_broken_file(tmp_path, name, decoded):
    """Phones put films and notes there; such a file is decoded to be sure."""
    path = saved(tmp_path, name)
    path.write_bytes(path.read_bytes() + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 4)
    inspect(splits(train=[path]))
    assert decoded == [str(path)] or decoded == [path]


def test_at_most_three_are_named_with_the_number_of_all(tmp_path):
    broken = []
    for number, content in enumerate([b"", b"<html>not found", b"%!PS-Adobe", b"\xff\xd8\xff", b"GIF89a"]):
        broken.append(tmp_path / f"broken-{number}.jpg")
        broken[-1].write_bytes(content)
    whole = write_image(tmp_path / "a.png")
    with pytest.raises(DataError) as error:
        inspect(splits(train=[whole, broken[0]], val=broken[1:3], test=[*broken[3:], tmp_path / "gone.jpg"]))
    text = error.value.problems[0].message
    assert text.startswith(f"6 of 7 images cannot be used (train 1, val 2, test 3): `{broken[0]}` cannot be decoded: it is not an image")
    assert text.count("broken-") == 3
    assert text.endswith("; and 3 more")
    assert "nothing has been trained yet" in error.value.problems[0].hint


def test_a_missing_and_a_large_file_are_told_as_what_they_are(tmp_path):
    with pytest.raises(DataError, match=r"1 of 1 images cannot be used \(test 1\): `.*gone\.jpg` is missing"):
        inspect(splits(test=[tmp_path / "gone.jpg"]))
    with pytest.raises(DataError, match=r"50×40 pixels, more than the 0\.001 megapixels") as error:
        inspect(splits(test=[saved(tmp_path, "png")], max_megapixels=0.001))
    assert "dataset.max_megapixels=1" in error.value.problems[0].hint


def test_what_was_found_is_remembered_until_a_file_changes(tmp_path, monkeypatch, cache):
    paths = [write_image(tmp_path / f"{i}.png", seed=i) for i in range(4)]
    looked = []
    look = inspection._look
    monkeypatch.setattr(inspection, "_look", lambda path, view: looked.append(path) or look(path, view))
    first = inspect(splits(train=paths[:3], test=paths[3:]))
    assert sorted(looked) == paths
    assert len([*(cache / "inspected").iterdir()]) == 1
    looked.clear()
    assert inspect(splits(train=paths[:3], test=paths[3:])) == first
    assert not looked
    os.utime(paths[1], ns=(1, time.time_ns()))
    inspect(splits(train=paths[:3], test=paths[3:]))
    assert len(looked) == 4
    looked.clear()
    paths[3].write_bytes(paths[3].read_bytes()[:100])
    for _ in range(2):  # what is wrong is not remembered
        with pytest.raises(DataError):
            inspect(splits(train=paths[:3], test=paths[3:]))
    assert len(looked) == 8
    with pytest.raises(DataError):  # nor is it forgotten that less is allowed now
        inspect(splits(train=paths[:3], max_megapixels=1e-6))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"white": null, "notes": 5}', b'{"white": [], "notes": []}', b"\xff"])
def test_a_damaged_memory_is_none(tmp_path, cache, content):
    paths = [write_image(tmp_path / "a.png")]
    first = inspect(splits(train=paths))
    (file,) = (cache / "inspected").iterdir()
    file.write_bytes(content)
    assert inspect(splits(train=paths)) == first


def test_without_a_cache_that_can_be_written_it_works_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "file"))
    assert inspect(splits(train=[write_image(tmp_path / "a.png")])).notes == ()


def test_images_in_memory_need_no_look(cache):
    pixels = ArrayImages(torch.zeros(2, 4, 4, 1, dtype=torch.uint8), torch.tensor([0, 0]))
    assert inspect(Splits(pixels, None, pixels, ("a",), (0.5,), (0.5,), View(4))).notes == ()
    assert not cache.exists()


def test_many_files_take_little_time(tmp_path):
    """Four times what it takes on two cores would still be below a minute for 100,000."""
    data = saved(tmp_path, "jpg").read_bytes()
    paths = [tmp_path / f"{i}.jpg" for i in range(2000)]
    for path in paths:
        path.write_bytes(data)
    started = time.perf_counter()
    inspect(splits(train=paths))
    assert time.perf_counter() - started < 4


def deep(path, largest, dtype=np.uint16, shape=(20, 24)):
    """Grey from 0 to `largest`."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.linspace(0, largest, shape[0] * shape[1]).reshape(shape).astype(dtype)).save(path)
    return path


@pytest.mark.parametrize(
    ("largest", "dtype", "white"),
    [
        ([40, 255], np.uint16, 255),
        ([40, 256], np.uint16, 1023),
        ([4000, 3000], np.uint16, 4095),
        ([5000, 3000], np.uint16, 16383),
        ([65535, 1], np.uint16, 65535),
        ([200, 100], np.int32, 255),
        ([65536, 9], np.int32, 2**31 - 1),
        ([0.3, 1.0], np.float32, 1),
        ([0.3, 200.0], np.float32, 255),
        ([1, 1], np.int32, 255),
    ],
)
def test_white_is_measured_over_the_training_images(tmp_path, largest, dtype, white):
    paths = [deep(tmp_path / f"{n}.tif", value, dtype) for n, value in enumerate(largest)]
    test = [deep(tmp_path / "test.tif", 7 * max(largest), dtype)]
    found = inspect(splits(train=[write_image(tmp_path / "colour.png"), *paths], test=test))
    assert found.white == white
    (note,) = [note for note in found.notes if "white" in note]
    assert note.startswith("2 images have grey of more than 8 bits, with values up to ")
    assert f"values up to {np.float32(max(largest)):.10g}: " in note
    assert f": {white} is taken as white (`dataset.white` states another)" in note
    assert inspect(splits(train=[write_image(tmp_path / "colour.png"), *paths], test=test)) == found  # from the cache


def test_white_is_not_measured_where_it_is_stated_or_could_not_be_kept(tmp_path):
    paths = [deep(tmp_path / "a.png", 4000)]
    found = inspect(splits(train=paths, white=60000.0))
    assert (found.white, found.notes) == (60000, ())
    found = inspect(splits(train=paths), white=50000.0)
    assert (found.white, found.notes) == (50000, ())
    assert inspect(splits(train=paths)).white == 4095  # what was given is not remembered as measured
    found = inspect(splits(train=paths), white=50000.0)
    assert (found.white, found.notes) == (50000, ())
    assert inspect(splits(train=[write_image(tmp_path / "colour.png")]), white=65535.0).white is None
    found = inspect(splits(train=paths), measure=False)
    assert found.white is None
    assert found.notes == ("1 image has grey of more than 8 bits: 65535 is taken as white",)
    assert inspect(splits(train=[write_image(tmp_path / "colour.png")], white=9.0)).white is None


def test_white_beyond_all_that_is_usual_must_be_stated(tmp_path):
    with pytest.raises(DataError, match=r"beyond every usual white(.|\n)*dataset\.white"):
        inspect(splits(train=[deep(tmp_path / "a.tif", 1e12, np.float32)]))


def test_values_below_black_are_told(tmp_path):
    Image.fromarray(np.array([[-1000, 500]], np.int32)).save(tmp_path / "ct.tif")
    found = inspect(splits(train=[tmp_path / "ct.tif"]))
    assert found.white == 1023
    assert "values below 0 become black" in found.notes[0]


def test_colours_of_sixteen_bits_that_hold_fewer_are_told(tmp_path):
    """Pillow reads their upper eight bits alone."""
    path = tmp_path / "a.png"
    _png_of_16_bits(path, PICTURE.astype(np.uint16) * 16)
    (note,) = inspect(splits(train=[path])).notes
    assert note.startswith("WARNING: 1 image has colours of 16 bits that are nearly black: of 65535, they reach 4095 at most")
    _png_of_16_bits(path, PICTURE.astype(np.uint16) * 257)
    assert inspect(splits(train=[path])).notes == ()


def _png_of_16_bits(path, values):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    data = b"".join(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize(("blank", "told"), [(0, False), (4, False), (5, True), (40, True)])
def test_a_sample_of_constant_images_is_a_warning(tmp_path, blank, told):
    paths = [write_image(tmp_path / f"{n:02}.png", seed=n) for n in range(40 - blank)]
    for number in range(blank):
        paths.append(tmp_path / f"blank-{number}.png")
        Image.new("RGB", (20, 24), (number, 0, 9)).save(paths[-1])
    draw = np.random.default_rng(0).permutation(40)
    notes = inspect(splits(train=[paths[i] for i in draw])).notes
    assert any("have the same colour everywhere" in note and note.startswith("WARNING: ") for note in notes) == told


def test_wrong_exif_blocks_are_told_once_for_all_and_pillow_says_nothing(tmp_path, recwarn):
    paths = [tmp_path / f"{n}.jpg" for n in range(5)]
    for number, path in enumerate(paths):
        exif = b"Exif\0\0garbage" if number else b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
        Image.fromarray(PICTURE).save(path, exif=exif)
    (note,) = inspect(splits(train=paths[:3], test=paths[3:])).notes
    assert "images have an EXIF block that cannot be read, taken as not rotated: " in note
    assert f"`{paths[1]}`" in note
    assert not recwarn


def test_a_file_of_another_size_than_stated_is_refused(tmp_path, cache):
    """Also one that an EXIF block turns; what was found is remembered for the same sizes alone."""
    paths = [tmp_path / "plain.jpg", tmp_path / "turned.jpg", tmp_path / "late.png"]
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(PICTURE).save(paths[0])
    Image.fromarray(PICTURE).save(paths[1], exif=turned)
    Image.fromarray(PICTURE).save(paths[2])
    assert [upright_size(path) for path in paths] == [(40, 50), (50, 40), (40, 50)]

    def stated(*sizes):
        part = FileImages(paths, sizes=torch.tensor(sizes))
        assert part.subset(torch.tensor([1])).sizes.tolist() == [list(sizes[1])]
        return Splits(part, part, None, (), (0.5,) * 3, (0.5,) * 3, View(size=12))

    inspect(stated((40, 50), (50, 40), (50, 40)))  # how a PNG is turned may follow its pixels
    for name, *sizes in (("plain", (50, 40), (50, 40), (40, 50)), ("turned", (40, 50), (40, 50), (40, 50))):
        with pytest.raises(DataError, match=rf"2 of 6 images cannot be used \(train 1, val 1\): .*{name}.jpg` has .* its annotation says"):
            inspect(stated(*sizes))
    with pytest.raises(DataError, match=r"late.png` has 50×40 pixels when it stands upright, and its annotation says 50×41"):
        inspect(stated((40, 50), (50, 40), (41, 50)))
    with pytest.raises(DataError, match="sizes must be int64"):
        FileImages(paths, sizes=torch.zeros(2, 2))
