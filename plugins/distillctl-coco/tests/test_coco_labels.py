"""What is read from COCO's and YOLO's labels, and what is told of the rest."""

from __future__ import annotations

import json

import pytest
import torch

from distillctl import DataError
from distillctl.testing.trees import write_image
from distillctl_coco import coco_json
from distillctl_coco.coco_json import read_coco
from distillctl_coco.places import Place
from distillctl_coco.yolo import read_names, read_yolo

WIDTH, HEIGHT = 100, 60


def image(number, **more):
    return {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT, "licence": 1} | more


def box(number, bbox, *, image=3, category=7, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "segmentation": [[1, 2, 3, 4]]} | more


CATEGORIES = [{"id": 9, "name": "bee", "supercategory": "x"}, {"id": 7, "name": "zebra"}, {"id": 40, "name": "ant"}]
GOOD = {
    "images": [image(3), image(1), image(2)],
    "annotations": [
        box(11, [10, 20, 30, 25.5], area=400),
        box(12, [0, 0, 5, 5], category=40, iscrowd=1),
        box(13, [1, 2, 3, 4], image=1, category=9, area=7.25, iscrowd=0),
    ],
    "categories": CATEGORIES,
}


def read(tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_coco(path, tmp_path / "images")


def test_images_are_sorted_by_number_and_classes_count_from_0(tmp_path):
    listed = read(tmp_path, GOOD)
    assert [file.relative_to(tmp_path).as_posix() for file in listed.files] == ["images/1.jpg", "images/2.jpg", "images/3.jpg"]
    assert listed.categories == ((7, "zebra"), (9, "bee"), (40, "ant"))
    first, second, third = listed.targets
    assert (first["boxes"].tolist(), first["labels"].tolist(), first["area"].tolist()) == ([[1, 2, 4, 6]], [1], [7.25])
    assert (second["boxes"].shape, int(second["image_id"]), second["size"].tolist()) == ((0, 4), 2, [HEIGHT, WIDTH])
    assert third["boxes"].tolist() == [[10, 20, 40, 45.5], [0, 0, 5, 5]]
    assert (third["labels"].tolist(), third["crowd"].tolist(), third["area"].tolist()) == ([0, 2], [False, True], [400, 25])
    assert (listed.left_out, listed.remarks) == (0, ())


def test_a_file_without_annotations_has_empty_images(tmp_path):
    assert [len(t["labels"]) for t in read(tmp_path, GOOD | {"annotations": []}).targets] == [0, 0, 0]


FAULTS = {
    "are of an image that is not listed, and are left out": [{"image": 5}, {"image": -1}],
    "are of a category that is not listed, and are left out": [{"category": 8}, {"category": 99}],
    "have no box of four finite numbers, and are left out": [
        {"bbox": bbox}
        for bbox in ([1, 2, 3], None, [1, 2, 3, float("nan")], [1, float("inf"), 3, 4], [1, None, 3, 4], [-1e300, 2, 1e308, 4])
    ],
    "have a box without width or height, and are left out": [{"bbox": [1, 2, 0, 4]}, {"bbox": [1, 2, 3, -1]}],
    "have a box outside of the picture, and are left out": [
        {"bbox": [WIDTH, 2, 3, 4]}, {"bbox": [1, HEIGHT, 3, 4]}, {"bbox": [-5, 2, 5, 4]}, {"bbox": [1, -4, 5, 4]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("words", FAULTS)
def test_what_is_left_out_is_told(tmp_path, words):
    odd = [box(100 + k, **({"bbox": [1, 2, 3, 4]} | fault)) for k, fault in enumerate(FAULTS[words])]
    listed = read(tmp_path, GOOD | {"annotations": [odd[0], *GOOD["annotations"], *odd[1:]]})
    assert [len(target["labels"]) for target in listed.targets] == [1, 0, 2]
    assert listed.left_out == len(odd)
    numbers = ", ".join(str(100 + k) for k in range(len(odd)))
    assert listed.remarks == (f"{len(odd)} of `{tmp_path / 'boxes.json'}` {words}: annotation {numbers}",)


@pytest.mark.parametrize("area", [None, -1, float("nan"), 1e300])
def test_an_area_that_means_nothing_is_that_of_the_box(tmp_path, area):
    listed = read(tmp_path, GOOD | {"annotations": [box(1, [1, 2, 3, 4], area=area)]})
    assert listed.targets[2]["area"].tolist() == [12]


def test_many_that_are_left_out_are_counted(tmp_path):
    (remark,) = read(tmp_path, GOOD | {"annotations": [box(k, [1, 2, 0, 4]) for k in range(13)]}).remarks
    assert remark.startswith("13 of ")
    assert remark.endswith("annotation 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more")


def test_a_box_that_reaches_beyond_the_picture_stays_and_is_told(tmp_path):
    annotations = [box(1, [-1, -1, 20, 20]), box(2, [90, 2, 11.1, 5]), box(3, [90, 2, 11, 5]), box(4, [9, 50, 5, 12])]
    listed = read(tmp_path, GOOD | {"annotations": annotations})
    assert listed.targets[2]["boxes"][:2].tolist() == [[-1, -1, 19, 19], [90, 2, pytest.approx(101.1), 7]]
    assert listed.left_out == 0
    assert [remark.partition("` ")[2] for remark in listed.remarks] == [
        "reach beyond the picture, and are cut to it in training: annotation 2, 4"
    ]


def changed(**more):
    return GOOD | more


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"images": [', "is broken or not JSON"),
        (b"\xff\xfe\x00", "is broken or not JSON"),
        (b"[" * 200_000, "is not an annotation file of COCO: Expected `object`, got `array`"),
        (b'{"images": [{"x": ' + b"[" * 200_000, "lie too deep in each other"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}], "Expected `object`, got `array`"),
        ({"images": [image(1)]}, "missing required field `annotations`"),
        (changed(annotations=[{"image_id": 3, "caption": "a bee"}]), "missing required field `category_id`"),
        (changed(annotations=[box(1, ["1", 2, 3, 4])]), r"Expected `float \| null`, got `str`"),
        (changed(images=[{"id": 1, "file_name": "1.jpg"}]), "missing required field `height`"),
        (changed(images=[image(1, width=0)]), "Expected `int` >= 1"),
        (changed(images=[image(2**70)]), "Expected `int` <= 9223372036854775807"),
        (changed(images=[]), "lists no images"),
        (changed(images=[image(0), image(0)]), "lists image 0 twice"),
        (changed(images=[image(1, file_name="../1.jpg")]), "names `../1.jpg` for image 1, which is not a file"),
        (changed(images=[image(1, file_name="/etc/passwd")]), "names `/etc/passwd`"),
        (changed(images=[image(1, file_name="")]), "names `` for image 1"),
        (changed(categories=[]), "lists no categories"),
        (changed(categories=[*CATEGORIES, {"id": 7, "name": "cat"}]), "two categories of .* have the number `7`"),
        (changed(categories=[*CATEGORIES, {"id": 8, "name": "bee"}]), "two categories of .* have the name `bee`"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_a_file_that_is_too_large_or_a_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_coco(tmp_path / "folder.json", tmp_path)
    monkeypatch.setattr(coco_json, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"has 0\.0 GB, more than"):
        read(tmp_path, GOOD)


NAMES = ("ant", "bee")


def yolo(tmp_path, **texts):
    """A text file for each name; images for those that do not begin with `no_`."""
    for name, text in texts.items():
        if not name.startswith("no_"):
            write_image(tmp_path / "images" / "train" / f"{name}.jpg", seed=len(name))
        if text is not None:
            path = tmp_path / "labels" / "train" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return Place(tmp_path / "labels" / "train", tmp_path / "images" / "train")


def test_yolo_boxes_are_shares_until_the_picture_is_decoded(tmp_path):
    listed = read_yolo(yolo(tmp_path, a="1 0.5 0.5 0.2 0.4\n\n0 0.25 0.25 0.5 0.5", b="", c=None), NAMES)
    assert [file.name for file in listed.files] == ["a.jpg", "b.jpg", "c.jpg"]
    assert listed.categories == ((0, "ant"), (1, "bee"))
    first = listed.targets[0]
    assert torch.allclose(first["boxes"], torch.tensor([[0.4, 0.3, 0.6, 0.7], [0, 0, 0.5, 0.5]]))
    assert (first["labels"].tolist(), first["size"].tolist()) == ([1, 0], [1, 1])
    assert first["area"].tolist() == pytest.approx([0.08, 0.25])
    assert [len(target["labels"]) for target in listed.targets] == [2, 0, 0]
    assert (listed.left_out, listed.remarks) == (0, ())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.2", "are not `class x y width height`, and are left out"),
        ("ant 0.5 0.5 0.2 0.2", "are not `class x y width height`, and are left out"),
        ("0 0.5 0.5 0.2 nan", "have no box of four finite numbers, and are left out"),
        ("0 0.5 0.5 1e300 0.2", "have no box of four finite numbers, and are left out"),
        ("2 0.5 0.5 0.2 0.2", "are of a class that has no name, and are left out"),
        ("-1 0.5 0.5 0.2 0.2", "are of a class that has no name, and are left out"),
        ("0.5 0.5 0.5 0.2 0.2", "are of a class that has no name, and are left out"),
        ("0 0.5 0.5 0 0.2", "have a box without width or height, and are left out"),
        ("0 1.5 0.5 0.2 0.2", "have a box outside of the picture, and are left out"),
        ("0 0.95 0.5 0.2 0.2", "reach beyond the picture, and are cut to it in training"),
    ],
)
def test_odd_lines_are_told_by_file_and_number(tmp_path, line, words):
    place = yolo(tmp_path, a=f"0 0.5 0.5 0.2 0.4\n{line}\n", no_image="0 0.5 0.5 0.2 0.2")
    listed = read_yolo(place, NAMES)
    left_out = words.endswith("left out")
    assert (len(listed.targets[0]["labels"]), listed.left_out) == (2 - left_out, left_out)
    assert listed.remarks == (
        f"1 of `{place.labels}` {words}: line a.txt:2",
        f"1 of `{place.labels}` belong to no image: line no_image.txt",
    )


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nnames: ['ant', \"bee\"]  # two\nnc: 2\n",
        "names: [ant,\n  bee]\n",
        "nc: 2\nnames:\n  - ant\n  - 'bee'\n\ntrain: x\n",
        "names:\n- ant # a\n- bee\n",
        'names:\n  0: ant\n  1: "bee"\npath: x\n',
        "names: {0: ant, 1: 'bee'}\n",
    ],
)
def test_names_of_a_yaml_file(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    assert read_names(tmp_path) == NAMES


def test_names_may_have_commas_and_spaces(tmp_path):
    (tmp_path / "data.yml").write_text("names: ['ant, red', big bee]")
    assert read_names(tmp_path) == ("ant, red", "big bee")


def test_names_of_a_text_file_win(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [cat]")
    (tmp_path / "classes.txt").write_text("ant\r\nbee\n\n", encoding="utf-8-sig")
    assert read_names(tmp_path) == NAMES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 2\n", "nothing in .* tells the names of the classes"),
        ("names: names.txt\n", "is not a list of names"),
        ("names:\n  1: ant\n  2: bee\n", "not numbered from 0"),
        ("names: [ant, bee\n", "is not a list of names"),
        ("names: &x\n  - ant\n", "is not a list of names"),
        ("names: [ant, ant]\n", "has the name of a class twice"),
    ],
)
def test_names_that_are_not_understood(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_names(tmp_path)
