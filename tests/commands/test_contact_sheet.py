"""Contact sheets, by their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillctl.commands import contact_sheet
from distillctl.commands.contact_sheet import draw_sheet, write_sheet
from distillctl.commands.predict import Prediction
from distillctl.errors import Problem

BLUE = (30, 60, 200)
ODD_NAMES = [
    "", " ", "中文鸟", "ปลา", "🦜🦜", "שלום", "مرحبا", "\u202egnp.exe", "\x1b[31mred", "two\nlines", "tab\there", "null\0", "half \udcff",
    "W" * 10_000, "word " * 500, "a" * 40 + " " + "b" * 40, "e\u0301" * 50,
]  # fmt: skip


@pytest.fixture
def picture(tmp_path):
    """`picture("wren/1.png", size)` paints a blue picture and gives the student's answer to it."""

    def paint(name, size=(40, 40), answers=(("wren", 0.931), ("robin", 0.04))):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, BLUE).save(path)
        return Prediction(str(path), answers)

    return paint


def drawn(predictions, classes=(), title="runs/birds", of=0):
    return np.asarray(draw_sheet(predictions, classes=classes, reading={}, title=title, of=of or len(predictions)))


def extent(sheet, colour):
    """Left, top, width and height of what has a colour."""
    rows, columns = np.nonzero((sheet == colour).all(-1))
    return columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1


def hexed(colour):
    return tuple(bytes.fromhex(colour.removeprefix("#")))


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (7, 4, 2), (60, 10, 6)])
def test_a_grid(picture, count, columns, rows):
    sheet = drawn([picture(f"{number}.png") for number in range(count)])
    blue = (sheet == BLUE).all(-1)
    across, down = blue.any(0).astype(int), blue.any(1).astype(int)
    assert (np.diff(across, prepend=0) == 1).sum() == columns
    assert (np.diff(down, prepend=0) == 1).sum() == rows
    assert blue.sum() == count * 192 * 192


@pytest.mark.parametrize(
    ("size", "width", "height"),
    [((300, 300), 192, 192), ((400, 100), 192, 48), ((100, 400), 48, 192), ((8, 8), 192, 192), ((3000, 2), 192, 1), ((2, 3000), 1, 192)],
)
def test_pictures_keep_their_shape(picture, size, width, height):
    left, top, *found = extent(drawn([picture("a.png", size)]), BLUE)
    assert found == [width, height]
    tile = extent(drawn([picture("b.png")]), BLUE)[1] - 4
    assert (left - 14, top - tile) == ((200 - width) // 2, (200 - height) // 2)


def test_frames_say_whether_the_answer_is_what_the_folder_is_called(picture):
    right, wrong, unknown = hexed(contact_sheet._RIGHT), hexed(contact_sheet._WRONG), picture("holiday/1.png")
    classes = ("robin", "wren")
    sheets = [drawn([one], classes) for one in (picture("wren/1.png"), picture("robin/1.png"), unknown)]
    assert [[(sheet == colour).all(-1).any() for colour in (right, wrong)] for sheet in sheets] == [
        [True, False],
        [False, True],
        [False, False],
    ]
    assert extent(sheets[0], right)[2:] == (200, 200)


def test_the_folder_of_a_path_without_one(picture, tmp_path, monkeypatch):
    picture("wren/1.png")
    monkeypatch.chdir(tmp_path / "wren")
    sheet = drawn([Prediction("1.png", (("wren", 1.0),))], ("wren",))
    assert (sheet == hexed(contact_sheet._RIGHT)).all(-1).any()


def test_what_is_broken_or_gone_is_a_grey_tile_with_the_reason(picture):
    gone = picture("gone.png")
    whole = drawn([gone])
    grey = hexed(contact_sheet._GREY)
    assert (whole == grey).all(-1).sum() < 100  # edges of letters
    path = gone.path
    broken = Prediction(path, (), Problem(f"the image `{path}` cannot be decoded: it is empty"))
    told = drawn([broken])
    assert (told == grey).all(-1).sum() > 190 * 190
    assert not (told == BLUE).all(-1).any()
    Path(path).unlink()
    since = drawn([gone])
    assert (since == grey).all(-1).sum() > 190 * 190
    assert (since != told).any()


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name[:12]))
def test_captions_of_any_name_stay_below_their_picture(picture, name):
    one = picture("a.png", answers=((name, 0.5),))
    sheet = drawn([one, one], title=f"runs/{name}")
    below = sheet[extent(sheet, BLUE)[1] :]
    assert sheet.shape[1] == 2 * 200 + 3 * 14
    for gap in (slice(0, 12), slice(216, 226), slice(430, 442)):  # a letter may lean out by a pixel
        assert (below[:, gap] == 255).all()
    assert (below[-14:] == 255).all()
    broken = Prediction(one.path, (), Problem(f"it is broken: {name * 3}"))
    assert drawn([broken]).shape[1] == 414
    assert contact_sheet._wrapped(name, contact_sheet._font(15), 200, 2)


def test_words_are_not_cut_where_a_line_can_end_between_them():
    font = contact_sheet._font(15)
    assert contact_sheet._wrapped("Haemorhous cassinii (Cassin's Finch)", font, 200, 2) == ["Haemorhous cassinii (Cassin's", "Finch)"]
    assert contact_sheet._wrapped("wren", font, 200, 2) == ["wren"]
    (first, second) = contact_sheet._wrapped("bird " * 100, font, 200, 2)
    assert set(first.split()) == {"bird"}
    assert second.endswith("…")
    assert contact_sheet._shortened("x" * 100 + "end", font, 200, start=True).endswith("end")


def test_the_heading_tells_how_many_are_left_out():
    heading = contact_sheet._heading
    assert heading("runs/birds", 60, 2903, [None] * 60) == "runs/birds: the first 60 of 2,903 images"
    assert heading("runs/birds", 1, 1, [None]) == "runs/birds: 1 image"
    assert heading("r", 3, 3, [True, None, False]) == "r: 3 images; 1 of 2 as their folder is called (green), the others red"


@pytest.mark.parametrize(("name", "kind"), [("s.png", "PNG"), ("s.jpg", "JPEG"), ("s.JPEG", "JPEG")])
def test_written_in_the_format_of_its_ending(picture, tmp_path, name, kind):
    one = picture("a.png")
    write_sheet(tmp_path / name, [one], classes=(), reading={}, title="t", of=1)
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.mode) == (kind, "RGB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", name]
