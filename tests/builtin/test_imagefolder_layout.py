"""Which folders are splits and which are classes, in the trees that people have."""

from __future__ import annotations

import pytest

from distillctl.builtin.imagefolder_data import build
from distillctl.builtin.imagefolder_options import ImageFolderOptions
from distillctl.errors import DataError, ProfileError
from distillctl.testing.trees import write_image, write_tree


def built(root, **options):
    return build(ImageFolderOptions(root=root, image_size=12, **options), 0)


def refusal(root, **options):
    with pytest.raises(DataError) as caught:
        built(root, **options)
    (problem,) = caught.value.problems
    return problem


def tree(root, *folders, classes=("cat", "dog"), count=2):
    return write_tree(root, {f"{folder}/{name}".lstrip("/"): count for folder in folders for name in classes})


@pytest.mark.parametrize(
    ("folders", "ways"),
    [
        (["seg_train/seg_train", "seg_test/seg_test"], ['train = "seg_train/seg_train"', 'test = "seg_test/seg_test"']),
        (["training_set", "test_set"], ['train = "training_set"', 'test = "test_set"']),
        (["training_set/training_set", "test_set/test_set"], ['train = "training_set/training_set"']),
        (["train_images", "test_images"], ['train = "train_images"']),
        (["train_images"], ['train = "train_images"']),
        (["images_train", "images_val"], ['train = "images_train"', 'val = "images_val"']),
        (["TrainSet", "TestSet"], ['train = "TrainSet"', 'test = "TestSet"']),
        (["trainset", "valset", "testset"], ['train = "trainset"', 'val = "valset"', 'test = "testset"']),
        (["train2017", "val2017"], ['train = "train2017"', 'val = "val2017"']),
        (["intel-train", "intel-dev"], ['train = "intel-train"', 'val = "intel-dev"']),
        (["Train Data", "Hold Out"], ['train = "Train Data"', 'val = "Hold Out"']),
        (["training_set", "test"], ['train = "training_set"', 'test = "test"']),
    ],
)
def test_folders_that_are_splits_do_not_become_classes(tmp_path, folders, ways):
    problem = refusal(tree(tmp_path, *folders))
    assert "look like splits, and not like classes" in problem.message
    assert all(f"`{way}`" in problem.hint for way in ways)
    stated = dict(way.split(" = ") for way in ways)
    splits = built(tmp_path, **{name: value.strip('"') for name, value in stated.items()})
    assert splits.classes == ("cat", "dog")
    assert all(getattr(splits, name) is not None for name in stated)


@pytest.mark.parametrize(
    "folders",
    [
        ["fold0", "fold1", "fold2"], ["fold_1", "fold_2"], ["split1", "split2"], ["Fold 1", "Fold 2"], ["part-1", "part-2"],
        ["images", "masks"], ["images", "labels"], ["seg_pred"],
    ],
)  # fmt: skip
def test_other_parts_of_a_data_set_do_not_become_classes(tmp_path, folders):
    problem = refusal(tree(tmp_path, *folders))
    assert "look like splits, and not like classes" in problem.message
    assert f'`dataset.root = "{tmp_path / sorted(folders)[0]}"`' in problem.hint
    assert built(tmp_path, train=".", val_fraction=0.0).classes == tuple(sorted(folders)) if len(folders) > 1 else True


@pytest.mark.parametrize("other", ["dev", "eval", "holdout", "hold_out", "test_set", "validation-images"])
def test_a_split_of_another_name_beside_train_is_not_left_out_in_silence(tmp_path, other):
    problem = refusal(tree(tmp_path, "train", other))
    assert f"`{other}` in" in problem.message
    assert "looks like a split, too" in problem.message
    assert f'`dataset.val = "{other}"`' in problem.hint
    assert len(built(tmp_path, val=other).val) == 4
    assert len(built(tmp_path, train="train", val_fraction=0.5).val) == 2


@pytest.mark.parametrize("inside", [("train", "test"), ("Train", "Val"), ("train",), ("train", "good")])
def test_splits_inside_of_classes(tmp_path, inside):
    problem = refusal(write_tree(tmp_path, {f"{name}/{split}": 2 for name in ("cat", "dog") for split in inside}))
    assert "the class folders of" in problem.message
    assert "hold splits" in problem.message
    assert len(built(tmp_path, train=".", val_fraction=0.0).train) == 4 * len(inside)


def test_domains_above_classes(tmp_path):
    problem = refusal(tree(tmp_path, "amazon", "webcam"))
    assert "each folder of" in problem.message
    assert f'`dataset.root = "{tmp_path / "amazon"}"`' in problem.hint
    assert built(tmp_path, train=".", val_fraction=0.0).classes == ("amazon", "webcam")


@pytest.mark.parametrize("above", ["mydata", "archive/mydata", "images", "train"])
def test_a_folder_above_all(tmp_path, above):
    problem = refusal(tree(tmp_path, f"{above}/{'train' if above == 'train' else ''}", classes=("cat", "dog", "emu")))
    assert "only one class" in problem.message
    assert f"`{tmp_path / above}" in problem.hint
    assert "name that one" in problem.hint


def test_a_folder_above_splits(tmp_path):
    tree(tmp_path, "mydata/train", "mydata/val")
    assert f"`{tmp_path / 'mydata'}` has several folders" in refusal(tmp_path).hint


@pytest.mark.parametrize("split", ["val", "test", "Valid", "testing"])
@pytest.mark.parametrize("images", [0, 3])
def test_a_flat_split_beside_train_does_not_disappear(tmp_path, split, images):
    root = tree(tmp_path, "train")
    (root / split).mkdir()
    for number in range(images):
        write_image(root / split / f"{number}.jpg", seed=number)
    problem = refusal(root)
    name = "test" if split.startswith("test") else "val"
    assert f"`{split}` in `{root}` has {'images but no class folders' if images else 'no images'}" in problem.message
    assert f"`{split}/CLASS/`" in problem.hint
    assert f'`dataset.{name} = ""`' in problem.hint
    splits = built(root, **{name: ""}, val_fraction=0.5)
    assert (len(splits.train), len(splits.val), splits.test) == (2, 2, None)


def test_classes_that_are_called_like_splits_are_classes_beside_others(tmp_path):
    assert built(write_tree(tmp_path, {"train": 2, "bus": 2, "test tube": 1, "image 1": 1}), val_fraction=0.0).classes == (
        "bus", "image 1", "test tube", "train",
    )  # fmt: skip


def test_stated_folders_lie_anywhere(tmp_path):
    train, test = tree(tmp_path / "one", "a"), tree(tmp_path / "two", "b")
    splits = built(train, train="a", test=str(test / "b"), val_fraction=0.5)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (2, 2, 4)
    assert "test 4 (b)" in splits.description


def test_a_stated_folder_that_is_missing_names_what_is_near(tmp_path):
    tree(tmp_path, "training", "testing")
    with pytest.raises(ProfileError, match=r"there is no folder .*trainin`") as caught:
        built(tmp_path, train="trainin")
    assert f"did you mean `{tmp_path / 'training'}`" in caught.value.problems[0].hint


def test_a_fraction_beside_a_stated_folder_has_no_effect(tmp_path):
    tree(tmp_path, "a", "b")
    with pytest.raises(ProfileError, match="`val_fraction` has no effect"):
        built(tmp_path, train="a", val="b", val_fraction=0.3)


def test_folders_that_systems_leave_are_no_classes(tmp_path):
    tree(tmp_path, "")
    write_image(tmp_path / "__MACOSX" / "cat" / "._0000.jpg", seed=1)
    write_image(tmp_path / "cat" / "@eaDir" / "thumb.jpg", seed=2)
    splits = built(tmp_path, val_fraction=0.0)
    assert splits.classes == ("cat", "dog")
    assert len(splits.train) == 4


def test_pictures_that_are_left_out_for_their_ending_are_told(tmp_path):
    tree(tmp_path, "")
    (tmp_path / "cat" / "0000.jpg").rename(tmp_path / "cat" / "photo")
    (tmp_path / "dog" / "0000.jpg").rename(tmp_path / "dog" / "x.jfif")
    (tmp_path / "dog" / "notes.txt").write_text("not a picture")
    splits = built(tmp_path, val_fraction=0.0)
    assert len(splits.train) == 3
    assert "2 files ignored (`.txt` 1, without an ending 1)" in splits.description
    assert "WARNING: 1 picture ignored for the ending: `cat/photo`" in splits.description


def test_classes_in_the_order_of_numbers(tmp_path):
    write_tree(tmp_path, dict.fromkeys(("0", "10", "2", "a10", "a9"), 1))
    assert built(tmp_path, val_fraction=0.0).classes == ("0", "10", "2", "a10", "a9")
    splits = built(tmp_path, val_fraction=0.0, class_order="natural")
    assert splits.classes == ("0", "2", "10", "a9", "a10")
    assert [splits.classes[label] for label in splits.train.labels] == [path.parent.name for path in splits.train.paths]


def test_classes_in_a_stated_order(tmp_path):
    tree(tmp_path, "")
    splits = built(tmp_path, val_fraction=0.0, class_order=["dog", "cat"])
    assert splits.classes == ("dog", "cat")
    assert {path.parent.name for path, label in zip(splits.train.paths, splits.train.labels, strict=True) if label == 0} == {"dog"}
    for wrong in (["dog"], ["dog", "cat", "emu"], ["dog", "cat", "cat"]):
        with pytest.raises(ProfileError, match="`class_order` must name each of the 2 classes once"):
            built(tmp_path, class_order=wrong)


def test_classes_called_by_their_split_do_not_become_classes_of_their_own(tmp_path):
    for number, names in enumerate((["train_cat", "train_dog", "test_cat", "test_dog"], ["CatTrain", "CatVal", "DogTrain"])):
        root = write_tree(tmp_path / str(number), dict.fromkeys(names, 2))
        problem = refusal(root)
        assert "look like the classes of several splits" in problem.message
        assert 'dataset.train = "."' in problem.hint
        assert len(built(root, train=".").classes) == len(names)
    trains = write_tree(tmp_path / "trains", {"steam_train": 2, "model_train": 2, "train_station": 2})
    assert built(trains).classes == ("model_train", "steam_train", "train_station")


def test_a_copy_of_the_classes_among_them_is_no_class(tmp_path):
    root = tree(tmp_path / "x", "", "augmented")
    problem = refusal(root)
    assert problem.message == f"`augmented` in `{root}` has folders of the classes beside it: `cat`, `dog`"
    assert built(root, train=".").classes == ("augmented", "cat", "dog")


def test_a_folder_above_the_classes_of_each_split(tmp_path):
    root = tree(tmp_path / "x", "train/images", "val/images")
    problem = refusal(root)
    assert "there is only one class" in problem.message
    assert problem.hint == 'state them in [dataset]: `train = "train/images"`, `val = "val/images"`'
    assert built(root, train="train/images", val="val/images").classes == ("cat", "dog")
    assert refusal(tree(tmp_path / "y", "train/images")).hint == f"`{tmp_path / 'y/train/images'}` has several folders: name that one"


@pytest.mark.parametrize(
    ("name", "words"), [("Cat", "rename it: `Cat` for `cat`"), ("unknown", '`dataset.test = ""` leaves out the split')]
)
def test_a_class_that_only_the_test_has(tmp_path, name, words):
    root = write_tree(tmp_path / "x", {"train/cat": 2, "train/dog": 2, f"test/{name}": 2})
    assert words in refusal(root).hint
