"""Boxes on pictures."""

from __future__ import annotations

from PIL import Image

from distillctl.commands.contact_sheet import draw_sheet
from distillctl.commands.drawn_boxes import draw_boxes
from distillctl.commands.predict import Prediction
from distillctl.testing.trees import write_image

FOUND = Prediction("a.png", (("wren", 0.9), ("robin", 0.6)), boxes=((20.0, 40.0, 60.0, 80.0), (70.0, 30.0, 130.0, 95.0)))
CLASSES = ("robin", "wren")


def drawn(prediction, scale=1.0):
    picture = Image.new("RGB", (100, 100))
    draw_boxes(picture, prediction, CLASSES, scale=scale, width=1)
    return picture


def test_a_box_is_drawn_at_its_edges():
    picture = drawn(FOUND)
    colours = {picture.getpixel(place) for place in ((20, 60), (59, 60), (40, 40), (40, 79))}
    (wren,) = colours
    assert wren != (0, 0, 0)
    assert {picture.getpixel(place) for place in ((19, 60), (60, 60), (40, 80), (40, 41), (58, 60))} == {(0, 0, 0)}
    assert picture.getpixel((70, 60)) not in (wren, (0, 0, 0))  # another class has another colour, and a box may reach beyond
    half = drawn(FOUND, 0.5)
    assert half.getpixel((10, 30)) == half.getpixel((29, 30)) == wren


def test_a_name_stands_above_its_box_or_within():
    """A name at the upper edge has no room above it."""
    low = Prediction("a.png", (("wren", 0.9),), boxes=((20.0, 2.0, 60.0, 80.0),))
    assert drawn(FOUND).getpixel((21, 30)) == drawn(low).getpixel((21, 3)) != (0, 0, 0)
    far = Prediction("a.png", (("wren", 0.9),), boxes=((95.0, 40.0, 99.0, 80.0),))
    assert drawn(far).getpixel((60, 30)) != (0, 0, 0)  # moved to the left, so that it is seen whole


def test_the_likeliest_lies_on_top():
    same = Prediction("a.png", (("wren", 0.9), ("robin", 0.6)), boxes=((20.0, 40.0, 60.0, 80.0),) * 2)
    assert drawn(same).getpixel((20, 60)) == drawn(FOUND).getpixel((20, 60))


def test_a_sheet_counts_what_was_found(tmp_path):
    path = str(write_image(tmp_path / "wren" / "1.png"))
    sheets = []
    for count in (0, 1, 2):
        answers = (("wren", 0.9), ("robin", 0.6))[:count]
        one = Prediction(path, answers, boxes=((2.0, 2.0, 12.0, 12.0), (8.0, 8.0, 20.0, 18.0))[:count])
        sheets.append(draw_sheet([one], classes=CLASSES, reading={}, title="t", of=1, boxes=True))
    assert len({sheet.tobytes() for sheet in sheets}) == 3
    green = (26, 152, 80)  # a folder's name judges classes alone
    assert all(green not in {colour for _, colour in sheet.getcolors(1 << 20)} for sheet in sheets)
