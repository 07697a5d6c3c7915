"""Every way in which a file is broken is recognised, and what only looks odd is not taken for broken."""

from __future__ import annotations

import builtins
import errno
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from distillctl.api.data import View
from distillctl.data import workers as data_workers
from distillctl.data.examine import KINDS, examine, examine_file
from distillctl.testing.trees import write_image

VIEW = View(size=12, max_megapixels=0.01)
PICTURE = np.random.default_rng(0).integers(0, 255, (60, 50, 3), dtype=np.uint8)


def saved(path, pixels=PICTURE, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def written(path, content):
    path.write_bytes(content)
    return path


def chunk(kind, data, check=None):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if check is None else check)


def png(width, height, check=None, rows=None):
    rows = zlib.compress(bytes((1 + 3 * width) * height) if rows is None else rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows, check) + chunk(b"IEND", b"")


def filled_up(path):
    data = path.read_bytes()
    return written(path, data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def link(path):
    path.symlink_to("nowhere.jpg")
    return path


def folder(path):
    path.mkdir()
    return path


BROKEN = {
    "cut in the header": (lambda d: written(d / "a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF"), "cut off", "Truncated"),
    "broken header": (lambda d: written(d / "a.jpg", b"\xff\xd8\xff" + bytes(99)), "damaged", "begins as JPEG"),
    "cut in the middle": (lambda d: cut(saved(d / "a.jpg"), 0.5), "cut off", "truncated"),
    "cut at the end": (lambda d: cut(saved(d / "a.jpg", quality=95), 0.97), "cut off", "truncated"),
    "zeros for its end": (lambda d: filled_up(saved(d / "a.jpg")), "cut off", "zeros in its place"),
    "PNG cut short": (lambda d: cut(saved(d / "a.png"), 0.6), "cut off", "truncated"),
    "empty": (lambda d: written(d / "a.jpg", b""), "empty", "but empty"),
    "HTML": (lambda d: written(d / "a.jpg", b"<html><body>404"), "not an image", "but HTML"),
    "PostScript": (lambda d: written(d / "a.jpg", b"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 9 9"), "not an image", "but PostScript"),
    "text": (lambda d: written(d / "a.png", b"version https://git-lfs"), "not an image", "known format"),
    "wrong checksum": (lambda d: written(d / "a.png", png(4, 4, check=7)), "damaged", "checksum of its part IDAT"),
    "wrong checksum of the header": (lambda d: written(d / "a.png", png(4, 4)[:29] + b"rest" + png(4, 4)[33:]), "damaged", "begins as PNG"),
    "PNG without pixels": (lambda d: written(d / "a.png", png(0, 5)), "no pixels", "no pixels"),
    "GIF without pixels": (lambda d: written(d / "a.gif", b"GIF89a" + bytes(7) + b";"), "no pixels", "no pixels"),
    "bomb": (lambda d: written(d / "a.png", png(40_000, 40_000, rows=b"")), "too large", "40000×40000 pixels"),
    "missing": (lambda d: d / "a.jpg", "missing", "is missing"),
    "dead link": (lambda d: link(d / "a.jpg"), "dead link", "is missing"),
    "folder": (lambda d: folder(d / "a.jpg"), "folder", "cannot be decoded"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_file_is_recognised(tmp_path, name):
    make, kind, words = BROKEN[name]
    path = make(tmp_path)
    found = examine_file(path, VIEW)
    assert (found.kind, found.digest) == (kind, "")
    assert kind in KINDS
    assert words in found.problem
    assert f"`{path}`" in found.problem


def test_a_file_that_may_not_be_read_is_unreadable(tmp_path, monkeypatch):
    path, opened = saved(tmp_path / "a.png"), builtins.open

    def refused(file, *arguments, **options):
        if str(file) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return opened(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", refused)  # tests may run as a user who may read everything
    found = examine_file(path, VIEW)
    assert found.kind == "unreadable"
    assert "Permission denied" in found.problem


def with_exif(path):
    return saved(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff rubbish")


def with_remark(path):
    data = path.read_bytes()
    return data[:-12] + chunk(b"tEXt", b"Comment\0x", 7) + data[-12:]


def animated(path):
    frames = [Image.fromarray(np.roll(PICTURE, n, 0)) for n in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def cmyk(path):
    Image.fromarray(PICTURE).convert("CMYK").save(path)
    return path


GOOD = {
    "plain": (lambda d: saved(d / "a.jpg"), ()),
    "wrong ending": (lambda d: saved(d / "a.png", format="JPEG"), ("ending",)),
    "unreadable EXIF": (lambda d: with_exif(d / "a.jpg"), ("exif",)),
    "CMYK": (lambda d: cmyk(d / "a.jpg"), ()),
    "16 bits": (lambda d: saved(d / "a.png", np.arange(3000, dtype=np.uint16).reshape(60, 50)), ()),
    "floating point": (lambda d: saved(d / "a.tif", np.linspace(0, 1, 3000, dtype=np.float32).reshape(60, 50)), ()),
    "animated": (lambda d: animated(d / "a.gif"), ("animated",)),
    "PNG with a broken remark": (lambda d: written(d / "a.png", with_remark(saved(d / "b.png"))), ()),
    "one colour": (lambda d: saved(d / "a.png", np.full((60, 50, 3), 7, np.uint8)), ("one colour",)),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_odd_is_not_broken(tmp_path, name):
    make, remarks = GOOD[name]
    found = examine_file(make(tmp_path), VIEW)
    assert (found.kind, found.problem, found.remarks) == ("", "", remarks)
    assert (found.width, found.height) == (50, 60)


def test_the_size_is_that_of_the_picture_as_it_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    found = examine_file(saved(tmp_path / "a.jpg", exif=exif), VIEW)
    assert (found.width, found.height) == (60, 50)


def test_the_digest_stands_for_the_pixels(tmp_path):
    same = [saved(tmp_path / name) for name in ("a.png", "b.bmp", "c.ppm")]
    assert len({examine_file(path, VIEW).digest for path in same}) == 1
    changed = PICTURE.copy()
    changed[0, 0, 0] ^= 1
    others = [saved(tmp_path / "d.png", changed), saved(tmp_path / "e.png", PICTURE.reshape(50, 60, 3))]
    assert len({examine_file(path, VIEW).digest for path in [*same, *others]}) == 3


def test_deep_grey_has_the_digest_of_its_file(tmp_path):
    """Scaled by an unknown white, both would be black."""
    one, two = (saved(tmp_path / f"{n}.png", np.full((60, 50), n, np.uint16)) for n in (3, 4))
    assert examine_file(one, VIEW).digest != examine_file(two, VIEW).digest


def test_findings_have_the_order_of_the_files_whatever_the_workers(tmp_path):
    whole = [write_image(tmp_path / f"{n}.png", seed=n) for n in range(data_workers._CHUNK + 3)]
    files = {"train": [*whole[:5], written(tmp_path / "x.jpg", b""), *whole[5:]], "val": [], "test": whole[:2]}
    alone = examine(files, VIEW, 0)
    assert {name: len(found) for name, found in alone.items()} == {"train": len(whole) + 1, "val": 0, "test": 2}
    assert [n for n, one in enumerate(alone["train"]) if one.kind] == [5]
    assert alone["test"] == [examine_file(path, VIEW) for path in whole[:2]]
    assert examine(files, VIEW, 2) == alone
