"""Labelled folders of classes, and a folder of more images from which methods learn as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from distillctl.api.data import NO_LABEL, ArrayImages, Splits, View
from distillctl.build.checks import check_reads, check_sampler
from distillctl.build.mixing import mixing_of
from distillctl.builtin.classification_task import Classification
from distillctl.builtin.imagefolder_data import build
from distillctl.builtin.imagefolder_options import ImageFolderOptions
from distillctl.commands.check_data import check_data
from distillctl.data import train_loader
from distillctl.data.order import Share
from distillctl.data.splits import limit_training
from distillctl.errors import DataError, ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing.trees import write_tree

CPU = torch.device("cpu")


def built(tmp_path: Path, **values: Any) -> Splits:
    root, more = tmp_path / "birds", tmp_path / "more"
    if not root.exists():
        write_tree(root, {f"{split}/{name}": count for split, count in (("train", 6), ("val", 2)) for name in ("cat", "dog")})
        write_tree(more, {"a": 3, "b/c": 2})
    return build(ImageFolderOptions(root=root, **({"image_size": 12, "unlabelled": more} | values)), 0)


def test_more_images_stand_behind_the_labelled_ones(tmp_path: Path) -> None:
    splits = built(tmp_path)
    assert (len(splits.train), splits.unlabelled_share) == (17, 0.5)
    assert splits.train.labels.tolist() == [0] * 6 + [1] * 6 + [NO_LABEL] * 5
    assert splits.val is not None
    assert len(splits.val) == 4
    assert f"5 of train without a label, from `{tmp_path / 'more'}`: 0.5 of each batch" in splits.description
    plain = built(tmp_path, unlabelled=None)
    assert (len(plain.train), plain.unlabelled_share) == (12, 0.0)
    assert plain.description.partition("listing ")[2][:12] != splits.description.partition("listing ")[2][:12]
    limited = limit_training(splits, 4, 0).train.labels
    assert limited.tolist() == [0, 0, 1, 1] + [NO_LABEL] * 5
    assert len(limit_training(splits, 12, 0).train) == 17


def test_batches_hold_their_share_for_any_number_of_processes(tmp_path: Path) -> None:
    splits = built(tmp_path, unlabelled_share=0.25)

    def epochs(share: Share) -> list[list[tuple[int, int]]]:
        loader = train_loader(splits, batch_size=8, seed=3, device=CPU, workers=0, share=share)
        assert loader.steps == 2
        found = [list(zip(b.index.tolist(), b.labels.tolist(), strict=True)) for epoch in range(2) for b in loader.epoch(epoch)]
        loader.close()
        return found

    whole = epochs(Share())
    assert [sum(label == NO_LABEL for _, label in batch) for batch in whole] == [2, 2, 2, 2]
    assert sorted(i for batch in whole[:2] for i, label in batch if label != NO_LABEL) == list(range(12))
    halves = [epochs(Share(rank, 2)) for rank in range(2)]
    assert [one + two for one, two in zip(*halves, strict=True)] == whole
    assert all(sum(label == NO_LABEL for _, label in batch) == 1 for half in halves for batch in half)


def test_what_is_held_out_is_not_learnt_from(tmp_path: Path) -> None:
    built(tmp_path)
    with pytest.raises(DataError, match=r"4 images of .*birds`, such as .*val/cat/0000.jpg`, would be learnt from and are held out, too"):
        built(tmp_path, unlabelled=tmp_path / "birds")
    for folder, words in ((tmp_path / "none", "there is no folder"), (tmp_path / "empty", "there is no image in")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=words):
            built(tmp_path, unlabelled=folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"unlabelled": None, "unlabelled_share": 0.3}, "`unlabelled_share` has no effect without `unlabelled`"),
        ({"labels": False}, "`unlabelled` has no effect with `labels = false`"),
        ({"unlabelled_share": 1.0}, "less than 1"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        built(tmp_path, **values)


def test_images_in_memory_are_not_mixed() -> None:
    images = ArrayImages(torch.zeros(4, 4, 4, 3, dtype=torch.uint8), torch.tensor([0, 1, NO_LABEL, NO_LABEL]))
    splits = Splits(images, None, None, ("a", "b"), (0.5,) * 3, (0.5,) * 3, View(4), "made up", unlabelled_share=0.5)
    with pytest.raises(ProfileError, match="either all labelled or all without a label"):
        train_loader(splits, batch_size=2, seed=0, device=CPU, workers=0)


PROFILE = """
[dataset]
name = "imagefolder"
root = "{folder}/birds"
unlabelled = "{folder}/more"
image_size = 32
[student]
name = "cifar/resnet8"
{teacher}
[method]
name = "{method}"
[train]
epochs = 1
batch_size = 8
{train}
"""


TEACHER = '[teacher]\nname = "cifar/resnet14"\ncheckpoint = "{folder}/teacher.pt"'


def profile_of(folder: Path, method: str, train: str) -> Path:
    (folder / "teacher.pt").touch()
    path = folder / "p.toml"
    teacher = "" if method == "none" else TEACHER.format(folder=folder)
    path.write_text(PROFILE.format(folder=folder, method=method, train=train, teacher=teacher))
    return path


@pytest.mark.parametrize(
    ("method", "train", "words"),
    [
        ("dkd", "", "`dkd` reads labels, and some images have none"),
        ("none", "", "nothing is learnt from the images without labels: there is no method"),
        ("kd", "mixup = 1.0", "`train.mixup` mixes labels, and some images have none"),
        ("kd", 'sampler = "balanced"', "`train.sampler` balances classes, and some images have none"),
        ("kd", "erase = 0.5", ""),
    ],
)
def test_what_needs_a_label_for_each_image_is_refused(tmp_path: Path, method: str, train: str, words: str) -> None:
    task = Classification(built(tmp_path))
    profile = load(profile_of(tmp_path, method, train), registry=Registry.load())

    def check() -> None:
        check_reads(profile, task)
        check_sampler(profile, task)
        mixing_of(profile.train, task)

    if words:
        with pytest.raises(ProfileError, match=words):
            check()
    else:
        check()


def test_check_data_counts_them_and_finds_no_class_for_them(tmp_path: Path) -> None:
    splits = built(tmp_path)
    copy = Path(str(splits.train.paths[0]))  # type: ignore[union-attr]
    (tmp_path / "more" / "copy.jpg").write_bytes(copy.read_bytes())
    found = check_data(load(profile_of(tmp_path, "kd", "workers = 0"), registry=Registry.load()))
    assert found.splits["train"].images == 18
    assert found.splits["train"].classes == {"cat": 6, "dog": 6}
    (group,) = [places for places in found.duplicates if any("copy.jpg" in place.image for place in places)]
    assert {place.label for place in group} == {"cat", ""}
