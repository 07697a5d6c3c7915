"""Files, folders, patterns and lists of paths."""

from __future__ import annotations

import os

import pytest

from distillctl.commands.image_paths import image_paths, listed_paths
from distillctl.errors import ProfileError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with images in two folders, and with much that is no image."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "photos/10.jpg", "photos/2.JPG", "photos/wren/1.png", "photos/wren/deep/1.tiff", "photos/notes.txt", "photos/.hidden.jpg",
        "photos/.git/1.jpg", "photos/__MACOSX/._1.jpg", "photos/a[1].jpg", "odd/a.dat", "odd/b.txt", "none/readme.md",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" if name == "odd/a.dat" else b"")
    (tmp_path / "empty").mkdir()
    return tmp_path


def slashes(paths):
    return [path.replace(os.sep, "/") for path in paths]


ALL = ["photos/2.JPG", "photos/10.jpg", "photos/a[1].jpg", "photos/wren/1.png", "photos/wren/deep/1.tiff"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["photos"], ALL),
        (["photos/"], ALL),
        (["photos/wren", "photos/2.JPG"], ["photos/wren/1.png", "photos/wren/deep/1.tiff", "photos/2.JPG"]),
        (["photos/notes.txt"], ["photos/notes.txt"]),  # named itself, it is tried
        (["photos/.hidden.jpg"], ["photos/.hidden.jpg"]),
        (["photos/a[1].jpg"], ["photos/a[1].jpg"]),  # a file, not a pattern
        (["photos/*.jpg"], ["photos/10.jpg", "photos/a[1].jpg"]),
        (["photos/*"], ALL),
        (["photos/**"], ALL),
        (["photos/**/*.png"], ["photos/wren/1.png"]),
        (["photos/[0-9]*"], ["photos/2.JPG", "photos/10.jpg"]),
        (["photos/?.*"], ["photos/2.JPG"]),
        (["odd/*.dat"], ["odd/a.dat"]),
        (["photos/10.jpg", "photos/10.jpg"], ["photos/10.jpg", "photos/10.jpg"]),
        ([], []),
    ],
)
def test_what_is_meant(photos, names, expected):
    found = slashes(image_paths(names))
    if os.path.normcase("A") == "a":  # where patterns take no notice of capitals
        found = [path for path in found if path in expected]
    assert found == expected


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("photos/1.jpg", "there is no file `photos/1.jpg`", "did you mean `photos/10.jpg`"),
        ("fotos/1.jpg", "there is no file `fotos/1.jpg`", "the folder `fotos` does not exist"),
        ("empty", "there are no images in the folder `empty`", "it is empty"),
        ("none", "there are no images in the folder `none`", "what lies there is not taken for images: `.md` 1"),
        ("odd", "there are no images in the folder `odd`", "others must be named themselves, such as `odd/a.dat`"),
        ("photos/*.gif", "the pattern `photos/*.gif` matches nothing", "`**/*.jpg` matches at any depth"),
        ("fotos/*.jpg", "the pattern `fotos/*.jpg` matches nothing", "the folder `fotos` does not exist"),
        ("none/*", "`none/*` matches `none/readme.md`, and no image among them", ""),
    ],
)
def test_nothing_is_meant(photos, name, message, hint):
    with pytest.raises(ProfileError) as caught:
        image_paths([name], "predict PATH")
    (problem,) = caught.value.problems
    assert problem.message.replace(os.sep, "/") == message
    assert hint in problem.hint.replace(os.sep, "/")
    assert bool(hint) == bool(problem.hint)
    assert problem.where == "predict PATH"


def test_all_that_is_mistyped_is_told_at_once(photos):
    with pytest.raises(ProfileError) as caught:
        image_paths(["nix", "photos", "empty", "*.bmp"])
    assert len(caught.value.problems) == 3


def test_a_list_has_no_patterns_and_may_name_what_is_gone(photos):
    names = ["photos/gone.jpg", "photos/*.jpg", "photos/wren", "photos/10.jpg"]
    assert slashes(listed_paths(names)) == [
        "photos/gone.jpg",
        "photos/*.jpg",
        "photos/wren/1.png",
        "photos/wren/deep/1.tiff",
        "photos/10.jpg",
    ]
    with pytest.raises(ProfileError, match="there are no images in the folder `empty`"):
        listed_paths(["photos/10.jpg", "empty"])
