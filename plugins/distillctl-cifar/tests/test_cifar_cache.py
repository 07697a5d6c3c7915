"""The cache of decoded images: used when the files are the same, made anew when they or it are not, and never in the way."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from distillctl import DataError
from distillctl_cifar.data import cache
from distillctl_cifar.data import folders as source


@pytest.fixture
def decoded(monkeypatch):
    """How many images were decoded."""
    counts = []
    original = source.decode

    def counting(paths):
        counts.append(len(paths))
        return original(paths)

    monkeypatch.setattr(source, "decode", counting)
    return counts


def read(root):
    return source.read("cifar10", root, 10)


def the_file(folder):
    (file,) = folder.iterdir()
    return file


def test_the_second_reading_decodes_nothing(folders, cache_folder, decoded):
    first = read(folders)
    second = read(folders)
    assert decoded == [40, 20]
    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.test_images, second.test_images)
    assert the_file(cache_folder).name.startswith("cifar10-")


def touch(root):
    os.utime(root / "train" / "ant" / "00.png", ns=(1, 1))


def replace(root):
    Image.new("RGB", (32, 32), (1, 2, 3)).save(root / "train" / "ant" / "00.png")


def rename(root):
    (root / "train" / "ant" / "00.png").rename(root / "train" / "ant" / "zz.png")


def remove(root):
    (root / "test" / "jay" / "00.png").unlink()


@pytest.mark.parametrize("change", [touch, replace, rename, remove])
def test_changed_files_are_decoded_again(folders, change, decoded):
    read(folders)
    change(folders)
    read(folders)
    assert len(decoded) == 4


def test_a_moved_data_set_keeps_its_cache(folders, decoded):
    read(folders)
    read(folders.rename(folders.with_name("elsewhere")))
    assert len(decoded) == 2


def empty(file):
    file.write_bytes(b"")


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file):
    data = bytearray(file.read_bytes())
    data[-5000] ^= 1
    file.write_bytes(data)


def other_shape(file):
    train, test = torch.zeros(3, 32, 32, 3, dtype=torch.uint8), torch.zeros(20, 32, 32, 3, dtype=torch.uint8)
    cache.save(file, train, test)


def other_content(file):
    save_file({"weight": torch.zeros(3)}, file)


def fewer_checksums(file):
    content = cache.load_tensors(file.read_bytes())
    save_file({**content, "crc32": content["crc32"][:1]}, file)


@pytest.mark.parametrize("damage", [empty, truncate, flip_a_bit, other_shape, other_content, fewer_checksums])
def test_a_damaged_cache_is_made_anew(folders, cache_folder, damage, decoded):
    first = read(folders)
    damage(the_file(cache_folder))
    second = read(folders)
    assert len(decoded) == 4
    assert torch.equal(first.train_images, second.train_images)
    read(folders)
    assert len(decoded) == 4, "what was made anew is used"


def test_a_cache_that_cannot_be_written_only_costs_time(folders, cache_folder, decoded):
    cache_folder.write_text("a file where the folder should be")
    assert torch.equal(read(folders).train_images, read(folders).train_images)
    assert len(decoded) == 4


def test_a_crash_while_writing_leaves_no_half_a_cache(folders, cache_folder, monkeypatch):
    def crash(tensors, path):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(cache, "save_file", crash)
    read(folders)
    assert list(cache_folder.iterdir()) == []


def test_bad_images_are_not_cached(folders, cache_folder):
    (folders / "train" / "ant" / "00.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"ant/00\.png` cannot be decoded"):
        read(folders)
    assert not cache_folder.exists()
