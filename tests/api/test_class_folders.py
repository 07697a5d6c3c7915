from __future__ import annotations

import subprocess
import sys

import pytest

from distillctl import DataError, list_images, scan_classes
from distillctl.testing.trees import write_image, write_tree


def test_images_of_one_folder_are_those_that_class_folders_have(tmp_path):
    root = write_tree(tmp_path, {"cat": 3})
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "cat" / ".hidden.jpg").write_bytes(b"hidden")
    (root / "cat" / "folder.jpg").mkdir()
    write_image(root / "cat" / "0000A.PNG")
    assert [path.name for path in list_images(root / "cat")] == ["0000.jpg", "0000A.PNG", "0001.jpg", "0002.jpg"]
    assert list_images(root / "cat") == scan_classes(root).images["cat"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"the folder `.*nothing` cannot be read"):
        list_images(tmp_path / "nothing")


def test_listing_imports_no_torch():
    code = "import sys; from distillctl import list_images, scan_classes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
