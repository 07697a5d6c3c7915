from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from distillctl import DataError
from distillctl.testing import options_table
from distillctl_cub.listing import read_boxes, read_listing
from distillctl_cub.plugin import CUB200

FILES = {
    "images.txt": "1 001.A/a1.jpg\n2 001.A/a2.jpg\n3 002.B/b1.jpg\n10 002.B/b2.jpg\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n10 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n10 0\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for line in FILES["images.txt"].splitlines():
        path = tmp_path / "images" / line.split()[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_reads_what_is_there(folder):
    listing = read_listing(folder)
    assert listing.names == ("001.A/a1.jpg", "001.A/a2.jpg", "002.B/b1.jpg", "002.B/b2.jpg")
    assert listing.labels == (0, 0, 1, 1)
    assert listing.official_train == (True, False, True, False)
    assert listing.classes == ("001.A", "002.B")


def test_order_of_the_lines_and_blank_lines_do_not_matter(folder):
    want = read_listing(folder)
    for name, text in FILES.items():
        (folder / name).write_text("\r\n".join(["", *reversed(text.splitlines()), ""]))
    assert read_listing(folder) == want


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("images.txt", None, "the listing `.*images.txt` is missing"),
        ("train_test_split.txt", None, "the listing `.*train_test_split.txt` is missing"),
        ("images.txt", "", "is empty"),
        ("images.txt", "1 001.A/a1.jpg\nnonsense\n", "line 2 of .* is not a number and a value: `nonsense`"),
        ("image_class_labels.txt", "1 1\n1 2\n", "line 2 of .* repeats a number"),
        ("image_class_labels.txt", "1 1\n2 1\n3 2\n", r"list different images: 1 number \(`10`\)"),
        ("train_test_split.txt", FILES["train_test_split.txt"] + "11 1\n", r"list different images: 1 number \(`11`\)"),
        ("train_test_split.txt", "1 1\n2 0\n3 2\n10 0\n", r"other than 0 and 1 for 1 image \(`3`\)"),
        ("image_class_labels.txt", "1 1\n2 one\n3 2\n10 2\n", "`one` for image 2, which is not an integer"),
        ("image_class_labels.txt", "1 1\n2 2\n3 2\n10 2\n", "do not fit: 2 folders, 2 numbers"),
        ("image_class_labels.txt", "1 1\n2 1\n3 1\n10 1\n", "do not fit: 2 folders, 1 numbers"),
        ("images.txt", "1 001.A/a1.jpg\n2 001.A/a1.jpg\n3 002.B/b1.jpg\n10 002.B/b2.jpg\n", r"1 file \(`001.A/a1.jpg`\) twice"),
        ("images.txt", "1 001.A/a1.jpg\n2 ../../secret.jpg\n3 002.B/b1.jpg\n10 002.B/b2.jpg\n", "not of the form `CLASS/FILE`"),
        ("images.txt", "1 001.A/a1.jpg\n2 /etc/passwd\n3 002.B/b1.jpg\n10 002.B/b2.jpg\n", "not of the form `CLASS/FILE`"),
    ],
)
def test_what_is_wrong_with_a_listing(folder, file, text, message):
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read_listing(folder)


def test_a_listing_that_is_no_text(folder):
    (folder / "images.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_listing(folder)


def test_missing_images_are_counted_and_the_first_are_named(folder):
    (folder / "images" / "001.A" / "a2.jpg").unlink()
    (folder / "images" / "002.B" / "b1.jpg").unlink()
    with pytest.raises(DataError, match=r"of 4 listed images 2 files \(`001.A/a2.jpg`, `002.B/b1.jpg`\) are not in"):
        read_listing(folder)


def test_no_images_at_all(folder):
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(DataError, match=r"of 4 listed images 4 files \(.*, …\) are not in"):
        read_listing(folder)


def test_declaring_it_imports_no_torch():
    code = "import sys, distillctl_cub.plugin, distillctl_cub.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_readme_lists_the_options():
    assert options_table(CUB200) in (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_boxes_are_whole_pixels_around_the_birds_in_the_order_of_the_listing(folder):
    (folder / "bounding_boxes.txt").write_text("10 0.0 1.0 7.0 8.0\n1 60.0 27.5 32.0 30.0\n2 1 2 3 4\n3 5.25 6.0 10.5 20.0\n")
    listing = read_listing(folder)
    assert read_boxes(folder, listing, 0.0) == [(60, 27, 92, 58), (1, 2, 4, 6), (5, 6, 16, 26), (0, 1, 7, 9)]
    assert read_boxes(folder, listing, 0.25)[0] == (52, 20, 100, 65)  # 8 pixels at the sides, 7.5 above and below


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"the listing `.*bounding_boxes.txt` is missing"),
        ("1 1 1 2 2\n2 1 1 2 2\n3 1 1 2 2\n", r"list different images: 1 number \(`10`\)"),
        ("1 1 1 2\n2 1 1 2 2\n3 1 1 2 2\n10 1 1 2 2\n", "has `1 1 2` for image 1, which is not a box"),
        ("1 1 1 2 2\n2 1 1 2 x\n3 1 1 2 2\n10 1 1 2 2\n", "for image 2, which is not a box"),
        ("1 1 1 2 2\n2 1 1 2 nan\n3 1 1 2 2\n10 1 1 2 2\n", "for image 2, which is not a box"),
        ("1 1 1 2 2\n2 1 1 2 2\n3 1 1 0 2\n10 1 1 2 2\n", "for image 3, which is not a box"),
    ],
)
def test_boxes_that_are_wrong_are_told(folder, text, message):
    if text is not None:
        (folder / "bounding_boxes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_boxes(folder, read_listing(folder), 0.0)
