from __future__ import annotations

import shutil
import zipfile
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from distillctl import DataError, ProfileError
from distillctl.testing import DatasetContract
from distillctl.testing.trees import write_image
from distillctl_tinyimagenet.data import build
from distillctl_tinyimagenet.options import TinyImageNetOptions
from distillctl_tinyimagenet.places import find, preview
from distillctl_tinyimagenet.plugin import TINY_IMAGENET

IDS = ("n01443537", "n02124075", "n07749582")
WORDS = "n00001740\tentity\nn07749582\tlemon\nn01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\n"
CLASSES = ("n01443537 goldfish", "n02124075 Egyptian cat", "n07749582 lemon")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))


def tiny_tree(root, *, each=10, val=6):
    """The raw tree as it is published; validation images are numbered across the classes, whose list is not sorted."""
    for number, name in enumerate(IDS):
        for i in range(each):
            write_image(root / "train" / name / "images" / f"{name}_{i}.JPEG", seed=100 * number + i)
        (root / "train" / name / f"{name}_boxes.txt").write_text("n_0.JPEG\t0\t32\t44\t62\n")
    lines = []
    for i in range(val):
        write_image(root / "val" / "images" / f"val_{i}.JPEG", seed=1000 + i)
        lines.append(f"val_{i}.JPEG\t{IDS[(2 * i + 1) % 3]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    write_image(root / "test" / "images" / "test_0.JPEG", seed=2000)
    (root / "wnids.txt").write_text("\n".join(reversed(IDS)) + "\n")
    (root / "words.txt").write_text(WORDS)
    return root


def built(root, **options):
    return build(TinyImageNetOptions(root=root, **options), 0)


def shown(splits):
    """File → class of every split."""
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {
        name: {path.name: splits.classes[label] for path, label in zip(part.paths, part.labels.tolist(), strict=True)}
        for name, part in parts.items()
        if part is not None
    }


class TestContract(DatasetContract):
    spec = TINY_IMAGENET

    def values(self, folder):
        if not folder.exists():
            tiny_tree(folder)
        return {"root": folder, "image_size": 16, "val_fraction": 0.3}


def test_the_official_val_is_the_test_and_validation_is_carved_from_train(tmp_path):
    splits = built(tiny_tree(tmp_path))
    found = shown(splits)
    assert splits.classes == CLASSES
    assert found["test"] == {f"val_{i}.JPEG": CLASSES[(2 * i + 1) % 3] for i in range(6)}
    assert (len(found["train"]), len(found["val"])) == (27, 3)
    assert sorted(found["val"].values()) == list(CLASSES)
    labelled = {f"{name}_{i}.JPEG": words for name, words in zip(IDS, CLASSES, strict=True) for i in range(10)}
    assert found["train"] | found["val"] == labelled
    assert "test 6 (the official `val`)" in splits.description
    everything = built(tmp_path, val_fraction=0.0)
    assert (everything.val, len(everything.train)) == (None, 30)


def test_the_view_is_the_published_one(tmp_path):
    splits = built(tiny_tree(tmp_path))
    view = splits.view
    assert (view.size, view.augment, view.resize, view.eval_resize, view.rotation) == (64, "crop_flip", 64, 64, 20.0)
    assert (splits.mean, splits.std) == ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))
    view = built(tmp_path, image_size=32, resize=36, rotation=0.0, augment="resize_crop").view
    assert (view.size, view.augment, view.resize, view.eval_resize, view.rotation) == (32, "resize_crop", 36, 32, 0.0)


def test_the_zip_is_unpacked_once_beside_itself(tmp_path):
    tiny_tree(tmp_path / "made" / "tiny-imagenet-200")
    (tmp_path / "data").mkdir()
    archive = tmp_path / "data" / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted((tmp_path / "made").rglob("*")):
            packed.write(file, file.relative_to(tmp_path / "made"))
    place = tmp_path / "data" / "tiny-imagenet-200"
    assert preview(TinyImageNetOptions(root=place)) == f"Tiny-ImageNet in `{archive}`"
    assert not place.exists()
    for root in (archive, place, tmp_path / "data"):
        assert find(root) == place
    assert shown(built(archive)) == shown(built(tmp_path / "made"))


def test_a_val_that_was_sorted_into_folders_is_the_same(tmp_path):
    """Other programs want class folders, and their users have moved the images."""
    raw = shown(built(tiny_tree(tmp_path / "raw")))["test"]
    for below in ("", "images"):
        root = tiny_tree(tmp_path / f"sorted{below}")
        for name, words in raw.items():
            place = root / "val" / words.split()[0] / below / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(root / "val" / "images" / name, place)
        assert shown(built(root))["test"] == raw
        (root / "val" / "val_annotations.txt").unlink()
        assert shown(built(root))["test"] == raw


def test_grey_images_become_colours(tmp_path):
    """Some of the published files are grey."""
    root = tiny_tree(tmp_path)
    file = root / "train" / IDS[0] / "images" / f"{IDS[0]}_0.JPEG"
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(file)
    from distillctl.data import train_loader

    splits = built(root, val_fraction=0.0, rotation=0.0)
    loader = train_loader(splits, batch_size=30, seed=0, device=torch.device("cpu"), workers=0)
    (batch,) = loader.epoch(0)
    position = next(i for i, index in enumerate(batch.index.tolist()) if splits.train.paths[index] == file)
    red, green, blue = ((batch.images[position, c] * s + m) * 255 for c, (m, s) in enumerate(zip(splits.mean, splits.std, strict=True)))
    assert torch.allclose(red, torch.full((64, 64), 90.0), atol=1)
    assert torch.allclose(red, green, atol=1e-3)
    assert torch.allclose(red, blue, atol=1e-3)


def test_without_its_words_a_class_has_its_number(tmp_path):
    root = tiny_tree(tmp_path)
    (root / "words.txt").write_text("n07749582\tlemon\n")
    assert built(root).classes == (IDS[0], IDS[1], CLASSES[2])
    (root / "words.txt").unlink()
    assert built(root).classes == IDS


def remove(*places):
    def change(root):
        for place in places:
            (shutil.rmtree if (root / place).is_dir() else type(root).unlink)(root / place)

    return change


def write(place, text):
    return lambda root: (root / place).write_text(text)


def sorted_elsewhere(root):
    shutil.move(root / "val" / "images", root / "val" / "n99999999")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (remove("val"), r"there is no `.*val`, whose images are the test split", "unpack"),
        (remove("val/images"), r"there is no image in `.*val`, neither in `images` nor in class folders", "unpack"),
        (
            remove("val/val_annotations.txt"),
            r"val_annotations\.txt` is missing, which says what the 6 images",
            r"sort the images into `val/CLASS/`",
        ),
        (remove("val/images/val_3.JPEG"), r"do not fit: 1 image \(`val_3\.JPEG`\) in only one", "unpack"),
        (write("val/val_annotations.txt", "val_0.JPEG\tn02124075\t0\n"), r"do not fit: 5 images \(`val_1\.JPEG`, .*, …\)", "unpack"),
        (write("val/val_annotations.txt", "val_0.JPEG\tn02124076\t0\n"), "line 1 of .* is not an image and a class of `train`", "unpack"),
        (write("val/val_annotations.txt", "a\tn02124075\n\na\tn02124075\n"), "line 3 of .* repeats `a`", "unpack"),
        (sorted_elsewhere, r"`.*val` has 1 folder \(`n99999999`\) that `train` lacks", r"expected: `val/images/IMAGE`"),
        (remove("train/n02124075"), r"do not fit: 1 class \(`n02124075`\) in only one of them", "unpack"),
        (remove("train/n02124075/images"), r"1 class folder \(`n02124075`\) without an image", "unpack"),
        (remove("train/n02124075", "train/n01443537"), r"has 1 class folder \(`n07749582`\), where 200 are published", "unpack"),
        (write("wnids.txt", "n01443537\n"), r"do not fit: 2 classes", "unpack"),
    ],
)
def test_a_tree_that_is_not_as_published_is_refused_with_the_way(tmp_path, change, message, hint):
    change(tiny_tree(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        built(tmp_path)
    assert hint in caught.value.problems[0].hint


def test_nothing_there_says_what_is_wanted(tmp_path):
    with pytest.raises(ProfileError, match="there is no folder or archive") as caught:
        find(tmp_path / "data" / "tiny-imagenet-200")
    assert "tiny-imagenet-200.zip" in caught.value.problems[0].hint
    with pytest.raises(ProfileError, match="there is no folder `train`"):
        preview(TinyImageNetOptions(root=tmp_path))


def test_options_that_cannot_work():
    for options in ({"resize": 32}, {"rotation": -1.0}, {"augment": "random_resized_crop", "resize": 72}):
        with pytest.raises(ValidationError):
            TinyImageNetOptions(**options)


def test_a_share_that_gives_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"`val_fraction = 0\.01` is so small"):
        built(tiny_tree(tmp_path), val_fraction=0.01)


def test_augmentations_are_those_of_image_folders():
    from distillctl.builtin.imagefolder_options import ImageFolderOptions

    ours, theirs = (get_args(model.model_fields["augment"].annotation) for model in (TinyImageNetOptions, ImageFolderOptions))
    assert ours == theirs
