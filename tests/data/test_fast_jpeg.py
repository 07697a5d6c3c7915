"""JPEG by torchcodec: used where it gives the pixels of Pillow, and for files that both read. A stand-in decodes here, and counts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from distillctl.data.decode import read_image
from distillctl.data.fast_jpeg import _by_pillow, jpeg_decoder
from distillctl.errors import DataError
from distillctl.testing.trees import write_image

Install = Callable[..., list[bytes]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a torchcodec in place that decodes as it is told, and gives the list of the files that it will have decoded."""

    def put(decode: Callable[[bytes], Tensor] = _by_pillow) -> list[bytes]:
        seen: list[bytes] = []

        def decode_jpeg(data: bytes, *, mode: str) -> Tensor:
            assert mode == "RGB"
            seen.append(data)
            return decode(data)

        module: Any = ModuleType("torchcodec.decoders")
        module.decode_jpeg = decode_jpeg
        monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
        monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
        jpeg_decoder.cache_clear()
        jpeg_decoder()
        seen.clear()
        return seen

    yield put
    jpeg_decoder.cache_clear()


def saved(path: Path, mode: str = "RGB", kind: str = "JPEG", **more: Any) -> Path:
    picture = np.random.default_rng(0).integers(0, 256, (17, 22, 3), np.uint8)
    Image.fromarray(picture).convert(mode).save(path, kind, **more)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_common_files_are_decoded_by_it(tmp_path: Path, install: Install, mode: str) -> None:
    path = saved(tmp_path / "a.jpg", mode)
    expected = read_image(path)
    seen = install()
    assert torch.equal(read_image(path), expected)
    assert seen == [path.read_bytes()]


def test_other_files_are_left_to_pillow(tmp_path: Path, install: Install) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    others = [saved(tmp_path / "a.png", kind="PNG"), saved(tmp_path / "b.jpg", "CMYK"), saved(tmp_path / "c.jpg", exif=turned)]
    expected = [read_image(path) for path in others]
    seen = install()
    assert all(torch.equal(read_image(path), before) for path, before in zip(others, expected, strict=True))
    assert expected[2].shape == (3, 22, 17)
    assert read_image(saved(tmp_path / "d.jpg"), box=(1, 2, 4, 9)).shape == (3, 7, 3)
    assert not seen


def test_a_decoder_with_other_pixels_is_not_used(tmp_path: Path, install: Install) -> None:
    def off_by_one(data: bytes) -> Tensor:
        pixels = _by_pillow(data).clone()
        with Image.open(BytesIO(data)) as image:
            if "progressive" in image.info:  # of the trials, one alone
                pixels[0, 0, 0] ^= 1
        return pixels

    seen = install(off_by_one)
    read_image(saved(tmp_path / "a.jpg"))
    assert not seen
    assert jpeg_decoder() is None


def test_without_it_or_with_another_interface_pillow_decodes(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    del sys.modules["torchcodec.decoders"].decode_jpeg
    jpeg_decoder.cache_clear()
    assert jpeg_decoder() is None
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)  # as if it were not installed
    jpeg_decoder.cache_clear()
    assert jpeg_decoder() is None


def test_a_file_that_it_refuses_is_read_or_refused_by_pillow(tmp_path: Path, install: Install) -> None:
    path = write_image(tmp_path / "a.jpg", seed=1)
    expected = read_image(path)
    refused: list[bytes] = []

    def refuses(data: bytes) -> Tensor:
        if data in refused:
            raise RuntimeError("decode_rows")
        return _by_pillow(data)

    seen = install(refuses)
    refused.append(path.read_bytes())
    assert torch.equal(read_image(path), expected)
    path.write_bytes(path.read_bytes()[:-40])
    refused.append(path.read_bytes())
    with pytest.raises(DataError, match=r"the image `.*a\.jpg` cannot be decoded: image file is truncated"):
        read_image(path)
    assert len(seen) == 2
