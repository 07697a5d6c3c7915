"""Archives from elsewhere: nothing outside of the new folder is touched, the caps hold, and what is refused leaves nothing behind."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from distillctl import DataError, DistillError, unpacked
from distillctl.data import archives

GOOD = {"data/list.txt": b"1\n", "data/images/a.png": b"picture"}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder for the archive, with another beside it that nothing may get into."""
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(archives, "SMALL", 1 << 20)  # as in earnest, but quicker
    (tmp_path / "outside").mkdir()
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def info(name, content=b"", kind=tarfile.REGTYPE, **values):
    member = tarfile.TarInfo(name)
    member.size, member.type = len(content), kind
    for key, value in values.items():
        setattr(member, key, value)
    return member, content


def tar(*members, good=GOOD, form=tarfile.PAX_FORMAT):
    """The bytes of a tar file with the good members and then these."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for member, content in [*(info(n, c) for n, c in good.items()), *members]:
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(*members, good=GOOD, packed=zipfile.ZIP_DEFLATED):
    """The bytes of a zip file; a member is a `ZipInfo`, or a name, and its content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as file:
        for name, content in [*good.items(), *members]:
            file.writestr(name, content)
    return buffer.getvalue()


def zip_info(name, mode):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


def header(**fields):
    """One raw header of a tar file with a right checksum, whatever the fields say. Positions and lengths as POSIX has them."""
    places = {"name": (0, 100), "size": (124, 12), "kind": (156, 1), "magic": (257, 8)}
    block = bytearray(512)
    for name, value in {"kind": b"0", "magic": b"ustar\x0000", **fields}.items():
        start, length = places[name]
        block[start : start + len(value)] = value[:length]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def negative_size():
    """A member whose size leads back to its own header, so that reading goes round for ever."""
    return tar()[:2048] + header(name=b"data/round", size=(-512 & (2**96 - 1)).to_bytes(12, "big")) + bytes(1024)


def huge_header(kind):
    """A long name, or extended header, of 20 MB, which gzip packs into 90 kB."""
    size = 20 << 20
    return gzip.compress(header(name=b"x", kind=kind, size=b"%011o\0" % size) + bytes(size), 1)


def changed_sizes(data, size):
    """A zip file whose directory claims another size for every member."""
    result = bytearray(data)
    position = -1
    while (position := result.find(b"PK\1\2", position + 1)) >= 0:
        result[position + 24 : position + 28] = struct.pack("<I", size)
    return bytes(result)


LINKS = {
    "a link out": info("data/out", kind=tarfile.SYMTYPE, linkname="../../outside"),
    "an absolute link": info("data/out", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a link within": info("data/same", kind=tarfile.SYMTYPE, linkname="list.txt"),
    "a hard link": info("data/same", kind=tarfile.LNKTYPE, linkname="data/list.txt"),
    "a hard link out": info("data/same", kind=tarfile.LNKTYPE, linkname="../../outside/x"),
    "a FIFO": info("data/pipe", kind=tarfile.FIFOTYPE),
    "a device": info("data/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a disk": info("data/sda", kind=tarfile.BLKTYPE, devmajor=8),
    "a kind that nobody knows": info("data/odd", kind=b"Z"),
}
NAMES = {
    "dots": "../outside/evil",
    "dots in the middle": "data/../../outside/evil",
    "many dots": "../" * 20 + "tmp/evil",
    "absolute": "/tmp/evil-of-distillctl",
    "two slashes": "//tmp/evil-of-distillctl",
    "a line's end": "data/a\nb",
    "an escape": "data/\x1b[2Jb",
    "a long name": "data/" + "x" * 300,
    "a long path": "data/" + "x/" * 600 + "y",
    "a deep path": "d/" * 40 + "y",
    "twice": "data/list.txt",
    "a file as folder": "data/list.txt/below",
    "a folder as file": "data/images",
}
REFUSED = {
    **{f"tar: {name}": lambda member=member: tar(member) for name, member in LINKS.items()},
    "tar: through a link": lambda: tar(LINKS["a link out"], info("data/out/evil", b"x")),
    **{f"tar: {name}": lambda text=text: tar(info(text, b"x")) for name, text in NAMES.items() if "dots" in name},
    "zip: encrypted": lambda: zipped().replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"),
    "bomb: gzip": lambda: gzip.compress(tar(info("data/big", bytes(5 << 20))), 1),
    "bomb: bzip2": lambda: bz2.compress(tar(info("data/big", bytes(5 << 20)))),
    "bomb: xz": lambda: lzma.compress(tar(info("data/big", bytes(5 << 20))), preset=0),
    "bomb: zip": lambda: zipped(("data/big", bytes(5 << 20))),
    "bomb: zip that says it is small": lambda: changed_sizes(zipped(("data/big", bytes(5 << 20))), 10),
    "bomb: a tar file that says it is large": lambda: tar()[:2048] + header(name=b"data/big", size=b"77777777777\0"),
    "bomb: a long name": lambda: huge_header(b"L"),
    "bomb: an extended header": lambda: huge_header(b"x"),
    "bomb: sparse": lambda: tar(info("data/sparse", kind=tarfile.GNUTYPE_SPARSE), form=tarfile.GNU_FORMAT),
    "bomb: a size below zero": negative_size,
    "bomb: zeros behind the last member": lambda: gzip.compress(tar() + bytes(20 << 20), 1),
    "broken: a damaged header": lambda: tar()[:1050] + b"X" + tar()[1051:],
    "broken: no archive": lambda: b"<html>not found</html>" * 100,
    "broken: empty": lambda: b"",
    "broken: random": lambda: bytes(range(256)) * 64,
    "broken: gzip of nothing": lambda: gzip.compress(b""),
    "broken: a gzip file cut short": lambda: gzip.compress(tar(info("data/big", os.urandom(50_000))))[:-30_000],
    "broken: a gzip file with a wrong checksum": lambda: gzip.compress(tar())[:-8] + bytes(8),
    "broken: a zip file cut short": lambda: zipped(("data/big", os.urandom(50_000)))[:-30_000],
    "broken: a zip file with a wrong checksum": lambda: zipped(packed=zipfile.ZIP_STORED).replace(b"picture", b"pictare"),
    "something else": lambda: tar(good={"readme": b"x"}),
    "something else, deeper": lambda: tar(good={"a/b/list.txt": b"x"}),
}  # fmt: skip

HELD = {
    **{f"tar: {name}": lambda text=text: tar(info(text, b"x")) for name, text in NAMES.items() if "dots" not in name},
    **{f"zip: {name}": lambda text=text: zipped((text, b"x")) for name, text in NAMES.items() if name != "twice"},
    "zip: a link": lambda: zipped((zip_info("data/out", stat.S_IFLNK | 0o777), b"../../outside")),
    "zip: a device": lambda: zipped((zip_info("data/null", stat.S_IFCHR | 0o666), b"")),
    "zip: a FIFO": lambda: zipped((zip_info("data/pipe", stat.S_IFIFO | 0o666), b"")),
    "zip: a null in a name": lambda: zipped(("data/eviX.png", b"x")).replace(b"eviX", b"evi\0"),
    "zip: bzip2 inside": lambda: zipped(packed=zipfile.ZIP_BZIP2),
    "zip: lzma inside": lambda: zipped(packed=zipfile.ZIP_LZMA),
}
"""What the library makes harmless, as plain files below the new folder, or what the file system does not take."""


LARGE = "content is far larger than it may be"
REASONS = {
    "dots": "leave the folder", "link": "neither a file nor", "device": "neither a file nor", "FIFO": "neither a file nor",
    "encrypted": "encrypted", "checksum": "broken|CRC", "cut short": "broken or cut short",
    "damaged": "a header is damaged", "something": "holds no `list.txt`", "bomb: gzip": LARGE, "bomb: bzip2": LARGE, "bomb: xz": LARGE,
    "bomb: zip": LARGE, "bomb: zip that says": "CRC", "bomb: a tar": LARGE, "bomb: a long name": "a header of it is far larger",
    "bomb: an extended": "a header of it is far larger", "bomb: sparse": "neither", "zeros": LARGE,
    "below zero": "too many files|a header is damaged|cut short",  # by version of Python (CVE-2025-8194)
}  # fmt: skip
"""A case must not be refused for another reason than its own: the last of these words that it has."""


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name != archives.STAMP)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_touches_nothing(case, place, tmp_path):
    content = REFUSED[case]()
    archive = place / ("data.zip" if content[:2] == b"PK" else "data.tar.gz")
    archive.write_bytes(content)
    reason = [pattern for word, pattern in REASONS.items() if word in case]
    with pytest.raises(DataError, match=reason[-1] if reason else ".") as caught:
        unpacked(archive, containing="list.txt", max_bytes=1 << 30, max_files=1000)
    assert everything(tmp_path) == ["in", f"in/{archive.name}", "outside"]
    assert not Path("/tmp/evil-of-distillctl").exists()
    (problem,) = caught.value.problems
    assert problem.message.isprintable()
    assert len(problem.message) < 500 + len(str(archive))


@pytest.mark.parametrize("case", HELD)
def test_what_is_taken_stays_within_the_new_folder(case, place, tmp_path):
    content = HELD[case]()
    archive = place / ("data.zip" if content[:2] == b"PK" else "data.tar.gz")
    archive.write_bytes(content)
    with suppress(DistillError):
        unpacked(archive, containing="list.txt", max_bytes=1 << 30, max_files=2000)
    assert (place / "data" / "list.txt").exists() == (place / "data").exists(), "all of it or nothing"
    assert {path.split("/")[0] for path in everything(tmp_path)} == {"in", "outside"}
    assert everything(tmp_path / "outside") == []
    assert {path.split("/")[0] for path in everything(place)} <= {archive.name, "data"}
    assert all(path.is_dir() or (path.is_file() and not path.is_symlink()) for path in place.rglob("*"))
    assert not Path("/tmp/evil-of-distillctl").exists()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("data.tar", bytes),
        ("data.tar.gz", gzip.compress),
        ("data.tgz", lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:])),
        ("data.tar.bz2", bz2.compress),
        ("data.tar.xz", lzma.compress),
        ("data.tar", gzip.compress),  # what it is, its content says
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_form_of_tar(place, name, pack, form):
    more = {f"data/images/{'n' * 90}{i}.png": os.urandom(3000) for i in range(5)}
    folder = [info("data/empty", kind=tarfile.DIRTYPE, mode=0), info("./data/images/é.png", b"e", mode=0o4777)]
    (place / name).write_bytes(pack(tar(*folder, good={**GOOD, **more}, form=form)))
    found, ours = unpacked(place / name, containing="list.txt"), ("é.png", archives.STAMP)
    assert found == place / "data"
    assert {f"data/{p.relative_to(found)}": p.read_bytes() for p in found.rglob("*") if p.is_file() and p.name not in ours} == GOOD | more
    assert (found / "empty").is_dir()
    assert not (found / "images" / "é.png").stat().st_mode & 0o7022, "nobody else may write, and nothing runs as somebody else"


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip(place, packed):
    (place / "data.zip").write_bytes(zipped(("data/empty/", b""), packed=packed))
    found = unpacked(place / "data.zip", containing="list.txt")
    assert everything(found) == ["empty", "images", "images/a.png", "list.txt"]


def test_a_tar_file_that_ends_with_a_zip_file(place):
    (place / "data.tar").write_bytes(tar(info("data/inner.zip", zipped(packed=zipfile.ZIP_STORED))))
    assert (unpacked(place / "data.tar", containing="list.txt") / "inner.zip").is_file()


def test_another_name_for_the_folder_and_an_ending_in_capitals(place):
    (place / "cifar-10-python.TAR.GZ").write_bytes(gzip.compress(tar()))
    assert unpacked(place / "cifar-10-python.TAR.GZ", containing="list.txt", name="batches") == place / "batches"
    (place / "b.TGZ").write_bytes(gzip.compress(tar()))
    assert unpacked(place / "b.TGZ", containing="list.txt") == place / "b"


@pytest.mark.parametrize("make", [tar, zipped])
def test_the_caps(place, make):
    archive = place / "data.tar"
    archive.write_bytes(make(good={"list.txt": b"1", **{f"{i}": bytes(1000) for i in range(20)}}))
    with pytest.raises(DataError, match="far larger than it may be"):
        unpacked(archive, containing="list.txt", max_bytes=20_000)
    with pytest.raises(DataError, match="too many files"):
        unpacked(archive, containing="list.txt", max_files=20)
    assert len(everything(unpacked(archive, containing="list.txt", max_bytes=20_001, max_files=21))) == 21


@pytest.fixture
def fixed(place, monkeypatch):
    """The folder of the archive cannot be written to."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != place and access(path, mode))
    return place


def test_another_archive_of_the_same_name_is_not_taken_from_the_cache(fixed, tmp_path):
    for folder, content in ((fixed, b"1"), (tmp_path / "outside", b"2")):
        (folder / "weights.tar").write_bytes(tar(good={"data/list.txt": content}))
    found = unpacked(fixed / "weights.tar", containing="list.txt")
    assert (found / "list.txt").read_bytes() == b"1"
    assert found.parents[1] == tmp_path / "cache" / "unpacked", "the folder of converted weights is another one"
    assert found.parent.stat().st_mode & 0o777 == 0o700
    other = unpacked(tmp_path / "outside" / "weights.tar", containing="list.txt")
    assert other == tmp_path / "outside" / "weights"
    assert (other / "list.txt").read_bytes() == b"2"
    (fixed / "weights.tar").write_bytes(tar(good={"data/list.txt": b"new"}))
    assert (unpacked(fixed / "weights.tar", containing="list.txt") / "list.txt").read_bytes() == b"new"


def replaced(archive):
    archive.write_bytes(tar(good={"data/list.txt": b"2"}))  # of the same size
    os.utime(archive, (1, 1))


def torn(archive):
    (archive.with_suffix("") / archives.STAMP).write_bytes(b"[")


@pytest.mark.parametrize("change", [replaced, torn])
def test_the_folder_of_another_archive_beside_this_one_is_told(place, change):
    archive = place / "data.tar"
    archive.write_bytes(tar(good={"data/list.txt": b"1"}))
    unpacked(archive, containing="list.txt")
    change(archive)
    with pytest.raises(DataError, match="was unpacked from another archive") as caught:
        unpacked(archive, containing="list.txt")
    assert caught.value.problems[0].hint
    assert (place / "data" / "list.txt").read_bytes() == b"1"


def test_a_copy_of_the_archive_and_a_folder_that_somebody_else_unpacked_are_taken(place):
    archive = place / "data.tar"
    archive.write_bytes(tar())
    inode = unpacked(archive, containing="list.txt").stat().st_ino
    os.utime(archive, (1, 1))
    assert unpacked(archive, containing="list.txt").stat().st_ino == inode
    (place / "data" / archives.STAMP).unlink()
    archive.write_bytes(b"")
    assert unpacked(archive, containing="list.txt").stat().st_ino == inode


def test_names_with_backslashes_and_colons_are_names_here(place):
    names = ("C:/evil", "data/..\\..\\evil", "\\\\server\\evil", "12:30.png")
    for make, ending in ((tar, "tar"), (zipped, "zip")):
        content = make(good={"top/list.txt": b"1", **{f"top/{name}": b"x" for name in names}})
        (place / f"{ending}.{ending}").write_bytes(content)
        found = unpacked(place / f"{ending}.{ending}", containing="list.txt")
        assert everything(found) == sorted(["list.txt", "C:", "data", *names])
    assert everything(place.parent / "outside") == []


def test_the_label_of_a_volume_is_no_member(place):
    (place / "data.tar").write_bytes(header(name=b"backup of the birds", kind=b"V", size=b"%011o\0" % 0, magic=b"ustar  \0") + tar())
    assert everything(unpacked(place / "data.tar", containing="list.txt")) == ["images", "images/a.png", "list.txt"]


def test_a_disk_that_is_full(place, monkeypatch):
    (place / "data.tar").write_bytes(tar())

    def full(source, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "makefile", full)
    with pytest.raises(DistillError, match="no space left on device") as caught:
        unpacked(place / "data.tar", containing="list.txt")
    assert caught.value.exit_code == 3
    assert everything(place) == ["data.tar"]


CHILD = """
import sys, tarfile, time
from pathlib import Path
from distillctl.data import archives
write = tarfile.TarFile.makefile
def slow(*arguments):
    write(*arguments)
    print("writing", flush=True)
    time.sleep(60)
tarfile.TarFile.makefile = slow
archives.unpacked(Path(sys.argv[1]), containing="list.txt")
"""


def test_a_killed_unpacking_leaves_no_target_and_a_later_one_clears_up(place):
    archive = place / "data.tar"
    archive.write_bytes(tar())
    with subprocess.Popen([sys.executable, "-c", CHILD, str(archive)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        assert unpacked(archive, containing="list.txt", name="other") == place / "other", "nobody waits"
        child.kill()
        child.wait(10)
    assert not (place / "data").exists()
    (left,) = place.glob(".data.*")
    assert unpacked(archive, containing="list.txt") == place / "data"
    assert left.exists(), "it may be another process's"
    os.utime(left, (1, 1))
    (place / "data").rename(place / "moved")
    assert unpacked(archive, containing="list.txt") == place / "data"
    assert sorted(p.name for p in place.iterdir()) == ["data", "data.tar", "moved", "other"]


def test_the_first_of_two_that_unpack_at_once_stays(place, monkeypatch):
    archive = place / "data.tar"
    archive.write_bytes(tar())
    extract, others = archives._extract, []

    def slowly(*arguments):
        monkeypatch.setattr(archives, "_extract", extract)
        extract(*arguments)
        others.append(unpacked(archive, containing="list.txt").stat().st_ino)

    monkeypatch.setattr(archives, "_extract", slowly)
    assert [unpacked(archive, containing="list.txt").stat().st_ino] == others
    assert sorted(p.name for p in place.iterdir()) == ["data", "data.tar"]


def test_what_cannot_be_opened(place):
    with pytest.raises(DataError, match="cannot be read: no such file"):
        unpacked(place / "data.tar", containing="list.txt")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        unpacked(place / "data.rar", containing="list.txt")


def test_there_are_enough_of_them():
    assert len(REFUSED) + len(HELD) >= 60
