from __future__ import annotations

import shutil
from typing import get_args

import numpy as np
import pytest
from scipy.io import savemat

from distillctl import DataError, ProfileError
from distillctl.testing import DatasetContract
from distillctl.testing.trees import write_image
from distillctl_imagenet.data import build
from distillctl_imagenet.matlab import read_meta
from distillctl_imagenet.options import ImageNetOptions
from distillctl_imagenet.places import find, preview
from distillctl_imagenet.plugin import IMAGENET

IDS = ("n01440764", "n02119789", "n03000684")
KIT = {2: IDS[0], 1: IDS[1], 3: IDS[2], 1001: "n00001740"}
"""As the development kit counts: neither as the numbers are sorted, nor only what is a class."""
SHOWN = (2, 0, 1, 1, 2, 0)
"""Position of the class of each validation image."""
NAMES = tuple(f"ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(len(SHOWN)))
RIGHT = dict(zip(NAMES, SHOWN, strict=True))


def tree(root, *, below="", each=10, val="flat"):
    """The training folders and the validation images, without a list of their labels."""
    base = root / below
    for number, name in enumerate(IDS):
        for i in range(each):
            write_image(base / "train" / name / f"{name}_{i}.JPEG", seed=100 * number + i)
    for i, label in enumerate(SHOWN):
        write_image(base / "val" / (IDS[label] if val == "folders" else "") / NAMES[i], seed=1000 + i)
    return root


def kit_numbers():
    number = {name: one for one, name in KIT.items()}
    return "".join(f"{number[IDS[label]]}\n" for label in SHOWN)


def kaggle():
    rows = [
        f"{name.removesuffix('.JPEG')},{IDS[label]} 85 1 499 272 {IDS[label]} 3 4 5 6\n" for name, label in zip(NAMES, SHOWN, strict=True)
    ]
    return "ImageId,PredictionString\n" + "".join(reversed(rows))


def save_meta(path, *, compressed=True):
    """The kit's `meta.mat`, with fields of every kind that it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O"), ("children", "O"), ("wordnet_height", "O")]
    rows = np.empty((len(KIT), 1), dtype=kinds)
    for i, (one, name) in enumerate(KIT.items()):
        rows[i, 0] = (np.float64(one), name, "wörds, of it", np.uint8(0), np.zeros((1, 0)), np.int16(3))
    savemat(path, {"other": np.arange(3), "synsets": rows}, do_compression=compressed)
    return path


def built(root, **options):
    return build(ImageNetOptions(root=root, image_size=16, **options), 0)


def labels_of(splits):
    return dict(zip([path.name for path in splits.test.paths], splits.test.labels.tolist(), strict=True))


class TestContract(DatasetContract):
    spec = IMAGENET

    def values(self, folder):
        if not folder.exists():
            tree(folder, val="folders")
        return {"root": folder, "image_size": 16, "val_fraction": 0.3}


def test_val_in_folders_is_the_test_and_validation_is_carved_where_asked_for(tmp_path):
    splits = built(tree(tmp_path, val="folders"))
    assert (labels_of(splits), splits.val, splits.classes) == (RIGHT, None, IDS)
    assert [IDS[label] for label in splits.train.labels] == [path.parent.name for path in splits.train.paths]
    assert "train 30, test 6 (the official `val`, labels from folders)" in splits.description
    carved = built(tmp_path, val_fraction=0.2)
    assert (len(carved.train), len(carved.val), labels_of(carved)) == (24, 6, RIGHT)
    assert {*carved.train.paths, *carved.val.paths} == {*splits.train.paths}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("val.txt", "".join(f"{name} {label}\n" for name, label in RIGHT.items())),
        ("val.txt", "".join(f"val/{name}\t{IDS[label]}\n" for name, label in RIGHT.items())),
        ("val.csv", "file,label\n" + "".join(f'"{name}",{IDS[label]}\n' for name, label in RIGHT.items())),
        ("val_labels.csv", "\n".join(f"{name.removesuffix('.JPEG')};{label}" for name, label in RIGHT.items())),
        ("LOC_val_solution.csv", kaggle()),
        ("imagenet_2012_validation_synset_labels.txt", "".join(f"{IDS[label]}\n" for label in SHOWN)),
    ],
)
@pytest.mark.parametrize("folder", ["", "val"])
def test_a_flat_val_with_each_kind_of_list(tmp_path, name, text, folder):
    (tree(tmp_path) / folder / name).write_text(text)
    splits = built(tmp_path)
    assert labels_of(splits) == RIGHT
    assert f"labels from `{name}`" in splits.description


@pytest.mark.parametrize("compressed", [True, False])
def test_the_kits_numbers_are_read_by_its_meta(tmp_path, compressed):
    data = tree(tmp_path) / "ILSVRC2012_devkit_t12" / "data"
    save_meta(data / "meta.mat", compressed=compressed)
    assert read_meta(data / "meta.mat") == KIT
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(kit_numbers())
    assert labels_of(built(tmp_path)) == RIGHT


def test_the_kits_numbers_are_read_by_the_list_of_later_years(tmp_path):
    stated = tree(tmp_path / "root").parent / "elsewhere" / "truth.txt"
    stated.parent.mkdir()
    stated.write_text(kit_numbers())
    (stated.parent / "map_clsloc.txt").write_text("".join(f"{name} {one} word_of_it\n" for one, name in KIT.items()))
    assert labels_of(built(tmp_path / "root", val_labels=stated)) == RIGHT


def test_the_kits_numbers_alone_are_refused(tmp_path):
    """Taken as positions among the sorted classes, they would be other classes, without a word."""
    (tree(tmp_path) / "ILSVRC2012_validation_ground_truth.txt").write_text(kit_numbers())
    with pytest.raises(DataError, match="counts classes as the development kit does") as caught:
        built(tmp_path)
    assert "`meta.mat`" in caught.value.problems[0].hint


@pytest.mark.parametrize("inside", ["", "ILSVRC/Data/CLS-LOC"])
def test_kaggles_layout(tmp_path, inside):
    tree(tmp_path, below="ILSVRC/Data/CLS-LOC")
    (tmp_path / "LOC_val_solution.csv").write_text(kaggle())
    (tmp_path / "LOC_synset_mapping.txt").write_text(f"{IDS[0]} tench, Tinca tinca\n{IDS[1]} kit fox, Vulpes macrotis\nn99999999 nothing\n")
    splits = built(tmp_path / inside)
    assert labels_of(splits) == RIGHT
    assert splits.classes == (f"{IDS[0]} tench", f"{IDS[1]} kit fox", IDS[2])
    assert preview(ImageNetOptions(root=tmp_path)) == f"ImageNet in `{tmp_path / 'ILSVRC/Data/CLS-LOC'}`"


def test_wordnets_list_of_words(tmp_path):
    tree(tmp_path, val="folders")
    (tmp_path / "words.txt").write_text(f"{IDS[2]}\tchain saw, chainsaw\n{IDS[0]}\ttench\n")
    assert built(tmp_path).classes == (f"{IDS[0]} tench", IDS[1], f"{IDS[2]} chain saw")


def test_the_view_is_the_published_one(tmp_path):
    splits = build(ImageNetOptions(root=tree(tmp_path, val="folders")), 0)
    view = splits.view
    assert (view.size, view.augment, view.eval_resize) == (224, "random_resized_crop", 256)
    assert (splits.mean, splits.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    view = build(ImageNetOptions(root=tmp_path, image_size=112, augment="crop_flip", resize=120, eval_resize=116), 0).view
    assert (view.size, view.resize, view.eval_resize) == (112, 120, 116)


def lists(name, text):
    return lambda root: (root / name).write_text(text)


def remove(place):
    return lambda root: shutil.rmtree(root / place)


def empty(place):
    return lambda root: [file.unlink() for file in (root / place).iterdir()]


def packed(root):
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    (root / "train" / f"{IDS[0]}.tar").write_bytes(b"x")


ORDERED = "".join(f"{IDS[label]}\n" for label in SHOWN)


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (lambda root: None, r"nothing says what the 6 images of `.*val` show", "`LOC_val_solution.csv`"),
        (remove("val"), r"there is no `.*val`, whose images are the test split", "ILSVRC2012_img_val.tar"),
        (empty("val"), r"there is no image in `.*val`", "ILSVRC2012_img_val.tar"),
        (packed, r"train` has 0 class folders with 0 images", "unpack each of its `.tar` files"),
        (empty(f"train/{IDS[1]}"), rf"1 folders of `.*train` have no image: `{IDS[1]}`", "unpack"),
        (lists("val.txt", f"{NAMES[0]} 3\n"), r"a line of `.*val\.txt` is not an image and a class", "counted from 0"),
        (lists("val.txt", f"{NAMES[0]} 1\n{NAMES[0]} 1\n"), "names an image twice", "a folder of `train`"),
        (lists("val.txt", f"{NAMES[0]} 1\n{NAMES[2]} 1\n"), rf"does not say what 4 of 6 images show: `{NAMES[1]}` is the first", ""),
        (lists("val.txt", "\n"), "is empty", ""),
        (lists("val.txt", ORDERED[:-11]), "has 5 lines, which name no images, and there are 6 images", ""),
        (lists("val.txt", ORDERED[:-10] + "n0\n"), r"line 6 of `.*` is none of the 3 classes", ""),
    ],
)
def test_a_tree_that_is_not_as_published_is_refused_with_the_way(tmp_path, change, message, hint):
    change(tree(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        built(tmp_path)
    assert hint in caught.value.problems[0].hint


def test_folders_that_train_lacks_and_a_list_beside_folders(tmp_path):
    tree(tmp_path, val="folders")
    with pytest.raises(DataError, match="`val_labels` has no effect"):
        built(tmp_path, val_labels=tmp_path / "val.txt")
    (tmp_path / "val" / IDS[0]).rename(tmp_path / "val" / "tench")
    with pytest.raises(DataError, match=r"1 folders of `.*val` that `.*train` lacks: `tench`"):
        built(tmp_path)


def test_nothing_there_says_what_is_wanted(tmp_path):
    with pytest.raises(ProfileError, match="there is no folder"):
        find(tmp_path / "imagenet")
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"x")
    with pytest.raises(ProfileError, match="there is no folder `train`") as caught:
        find(tmp_path)
    assert "ILSVRC2012_img_train.tar" in caught.value.problems[0].hint


def test_a_share_that_gives_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"`val_fraction = 0\.01` is so small"):
        built(tree(tmp_path, val="folders"), val_fraction=0.01)


@pytest.mark.parametrize("kept", [0, 100, 140, 300, 0.5, 0.95])
def test_a_meta_that_is_broken_is_no_traceback(tmp_path, kept):
    whole = save_meta(tmp_path / "meta.mat").read_bytes()
    (tmp_path / "meta.mat").write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"meta\.mat"):
        read_meta(tmp_path / "meta.mat")


def test_augmentations_are_those_of_image_folders():
    from distillctl.builtin.imagefolder_options import ImageFolderOptions

    ours, theirs = (get_args(model.model_fields["augment"].annotation) for model in (ImageNetOptions, ImageFolderOptions))
    assert ours == theirs
