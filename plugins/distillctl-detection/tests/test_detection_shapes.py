from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distillctl import ArrayImages, Splits
from distillctl.data import eval_loader, train_loader
from distillctl_detection.options import ShapesOptions
from distillctl_detection.shapes import CLASSES, build

CPU = torch.device("cpu")


def splits(seed: int = 0, **options: Any) -> Splits:
    return build(ShapesOptions(**{"train": 24, "val": 4, "test": 4, "image_size": 64, **options}), seed)


def train(of: Splits) -> ArrayImages:
    assert isinstance(of.train, ArrayImages)
    return of.train


def test_boxes_are_those_of_the_shapes() -> None:
    """Without noise, everything within a box that is not the background touches all its sides, unless another shape lies over it."""
    images = train(splits(noise=0.0, most=1))
    seen: set[int] = set()
    for pixels, target in zip(images.images, images.targets, strict=True):
        shape = (pixels != pixels[0, 0]).any(-1) if (pixels[0] == pixels[0, 0]).all() else (pixels != pixels[-1, -1]).any(-1)
        assert len(target["boxes"]) == bool(shape.any())
        if not shape.any():
            continue
        seen.add(int(target["labels"][0]))
        rows, columns = shape.any(1).nonzero()[:, 0], shape.any(0).nonzero()[:, 0]
        edges = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
        assert (target["boxes"][0] - edges).abs().max() <= 1  # the tip of a triangle may miss the middles of all pixels
    assert seen == set(range(len(CLASSES)))


def test_areas_and_sizes_vary_and_some_pictures_are_empty() -> None:
    targets = train(splits(train=60)).targets
    assert {len(target["boxes"]) for target in targets} == {0, 1, 2, 3, 4}
    areas = torch.cat([target["area"] for target in targets])
    assert areas.max() > 9 * areas.min()
    for target in targets:
        boxes = target["boxes"]
        assert ((boxes >= 0) & (boxes <= 64)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_the_seed_draws_the_pictures_and_no_split_depends_on_another() -> None:
    one, same, longer, other = splits(), splits(), splits(train=30), splits(1)
    assert torch.equal(train(one).images, train(same).images)
    assert torch.equal(train(longer).images[:24], train(one).images)
    assert isinstance(one.val, ArrayImages)
    assert isinstance(longer.val, ArrayImages)
    assert torch.equal(one.val.images, longer.val.images)
    assert not torch.equal(train(one).images, train(other).images)
    assert not torch.equal(one.val.images, train(one).images[:4])
    assert torch.equal(splits(seed=1, train=4).train.images, train(other).images[:4])  # type: ignore[union-attr]


def test_loaders_keep_targets_beside_their_images(tmp_path: Path) -> None:
    made = splits()
    for batch in train_loader(made, batch_size=7, seed=0, device=CPU, workers=0).epoch(0):
        assert len(batch.labels) == 0
        assert [int(target["image_id"]) for target in batch.targets] == batch.index.tolist()
    assert made.test is not None
    ids = [
        int(target["image_id"]) for batch in eval_loader(made, made.test, batch_size=3, device=CPU, workers=0) for target in batch.targets
    ]
    assert ids == [0, 1, 2, 3]
