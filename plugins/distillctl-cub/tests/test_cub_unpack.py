from __future__ import annotations

import io
import os
import tarfile

import pytest

from distillctl import DataError, DistillError, ProfileError
from distillctl.data.archives import STAMP
from distillctl_cub.options import CUBOptions
from distillctl_cub.unpack import find, preview

GOOD = {"CUB_200_2011/images.txt": b"1 001.A/a.jpg\n", "CUB_200_2011/images/001.A/a.jpg": b"picture", "attributes.txt": b"x"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pack(path, members, extra=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return path


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("name", ["CUB_200_2011.tgz", "birds.tar.gz", "birds.tar"])
def test_an_archive_is_unpacked_beside_itself_once(tmp_path, name):
    archive = pack(tmp_path / "data" / name, GOOD)
    folder = find(archive)
    assert folder == tmp_path / "data" / name.split(".")[0]
    assert (folder / "images" / "001.A" / "a.jpg").read_bytes() == b"picture"
    assert listing(tmp_path / "data") == sorted([name, folder.name])
    (folder / "mark").touch()
    assert find(archive) == folder
    assert (folder / "mark").exists()


def test_an_archive_without_a_folder_on_top(tmp_path):
    archive = pack(tmp_path / "CUB_200_2011.tgz", {"images.txt": b"1 A/a.jpg\n", "images/A/a.jpg": b"p"})
    assert listing(find(archive)) == [STAMP, "images", "images.txt"]


def test_root_may_be_the_folder_the_one_above_or_lie_beside_the_archive(tmp_path):
    archive = pack(tmp_path / "CUB_200_2011.tgz", GOOD)
    folder = find(tmp_path / "CUB_200_2011")
    assert folder == tmp_path / "CUB_200_2011"
    archive.unlink()
    assert find(folder) == folder
    assert find(tmp_path) == folder
    pack(tmp_path / "more" / "CUB_200_2011.tgz", GOOD)
    assert find(tmp_path / "more") == tmp_path / "more" / "CUB_200_2011"


def test_the_cache_takes_what_the_folder_cannot(tmp_path, cache, monkeypatch):
    archive = pack(tmp_path / "fixed" / "CUB_200_2011.tgz", GOOD)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(archive.parent) and access(path, mode))
    folder = find(archive)
    assert (folder.name, folder.parents[1]) == ("CUB_200_2011", cache / "unpacked")
    (folder / "mark").touch()
    assert find(archive) == folder
    assert (folder / "mark").exists()
    assert listing(archive.parent) == ["CUB_200_2011.tgz"]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "other"))
    with pytest.raises(DistillError, match=r"none of `.*fixed`, `.*other` can be written") as caught:
        find(archive)
    assert caught.value.exit_code == 3


def test_a_relative_cache_folder_is_ignored(tmp_path, monkeypatch):
    archive = pack(tmp_path / "fixed" / "CUB_200_2011.tgz", GOOD)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(archive.parent) and access(path, mode))
    monkeypatch.delenv("DISTILLCTL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert find(archive).parents[1] == tmp_path / ".cache" / "distillctl" / "unpacked"
    assert not (tmp_path / "relative").exists()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "extra"),
    [
        ({"../evil": b"x"}, ()),
        ({"CUB_200_2011/../../evil": b"x"}, ()),
        ({"/tmp/../evil": b"x"}, ()),
        ({}, (link("CUB_200_2011/out", "../.."),)),
        ({}, (link("CUB_200_2011/out", "/etc/passwd"),)),
        ({}, (link("CUB_200_2011/out", "CUB_200_2011/images.txt", tarfile.LNKTYPE),)),
        ({}, (link("CUB_200_2011/pipe", "", tarfile.FIFOTYPE),)),
        ({}, (link("CUB_200_2011/device", "", tarfile.CHRTYPE),)),
    ],
)
def test_no_member_leaves_the_folder_and_nothing_stays_behind(tmp_path, members, extra):
    archive = pack(tmp_path / "data" / "CUB_200_2011.tgz", GOOD | members, extra)
    with pytest.raises(DataError, match=r"is not unpacked: (its|a) member"):
        find(archive)
    assert listing(tmp_path / "data") == ["CUB_200_2011.tgz"]
    assert listing(tmp_path) == ["data"]


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.9])
def test_a_broken_archive_leaves_nothing(tmp_path, cut):
    members = GOOD | {"CUB_200_2011/big": os.urandom(50_000)}
    archive = pack(tmp_path / "data" / "CUB_200_2011.tgz", members)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(cut * len(whole)) if isinstance(cut, float) else cut])
    with pytest.raises(DataError, match="broken or cut short"):
        find(archive)
    assert listing(tmp_path / "data") == ["CUB_200_2011.tgz"]


def test_an_archive_of_something_else(tmp_path):
    with pytest.raises(DataError, match=r"holds no `images\.txt`"):
        find(pack(tmp_path / "data" / "CUB_200_2011.tgz", {"readme": b"x"}))
    assert listing(tmp_path / "data") == ["CUB_200_2011.tgz"]


def test_a_folder_in_the_way_is_not_touched(tmp_path):
    archive = pack(tmp_path / "CUB_200_2011.tgz", GOOD)
    (tmp_path / "CUB_200_2011").mkdir()
    (tmp_path / "CUB_200_2011" / "mine").write_text("mine")
    with pytest.raises(DataError, match="is in the way"):
        find(archive)
    assert listing(tmp_path) == ["CUB_200_2011", "CUB_200_2011.tgz"]
    assert (tmp_path / "CUB_200_2011" / "mine").read_text() == "mine"


def test_nothing_there_says_what_is_wanted(tmp_path):
    with pytest.raises(ProfileError, match="there is no folder or archive") as error:
        find(tmp_path / "data" / "CUB_200_2011")
    assert "CUB_200_2011.tgz" in error.value.problems[0].hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProfileError, match=r"there is no `images\.txt`"):
        find(tmp_path / "empty")
    (tmp_path / "birds.rar").write_bytes(b"x")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        find(tmp_path / "birds.rar")


def test_a_preview_says_where_it_lies_and_unpacks_nothing(tmp_path):
    options = CUBOptions(root=tmp_path / "CUB_200_2011")
    with pytest.raises(ProfileError, match="there is no folder or archive"):
        preview(options)
    pack(tmp_path / "CUB_200_2011.tgz", GOOD)
    assert preview(options) == f"CUB-200-2011 in `{tmp_path / 'CUB_200_2011.tgz'}`"
    assert listing(tmp_path) == ["CUB_200_2011.tgz"]
    place = find(options.root)
    assert preview(options) == f"CUB-200-2011 in `{place}`"
