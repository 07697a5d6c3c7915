"""Every command of the table in `profiles/README.md` trains, for an epoch on a few made-up images in the official layout."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
import torchvision

from distillctl import cli
from distillctl.testing.trees import write_image

PROFILES = Path(__file__).parents[3] / "profiles"
ROWS = re.findall(
    r"^\| (?P<run>[^|]+) \|[^|]*\|[^|]*\|[^|]*\| `(?P<command>distillctl train profiles/cub/[^`]+)` \|$",
    (PROFILES / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
CUT = ("train.epochs=1", "train.workers=0", "dataset.image_size=32")
CLASSES, IMAGES = 3, 10


def settings(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def arguments(command: str) -> list[str]:
    """Those of a row, and what makes its run short. MGD's generator for 2048 channels would be 900 MB in every checkpoint."""
    given = shlex.split(command)[1:]
    cut = settings(*CUT, f"dataset.root={Path('birds').absolute()}")
    if "distilled" in command or "patient" in command:
        cut += settings(*(f"teacher.overrides.{value}" for value in CUT), "teacher.allow_untrained=true")
    if "mgd" in command:
        cut += settings("method.mgd.teacher_stage=" + ("blocks.1" if "ghostnet" in command else "stage1"))
    return [*given, *cut, "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The profiles, birds in CUB's layout, and files of weights where the networks look for them. Nothing of their gigabytes is kept."""
    import timm

    path = tmp_path_factory.mktemp("rows")
    shutil.copytree(PROFILES, path / "profiles")
    names = [f"{c + 1:03d}.Bird_{c}/Bird_{c}_{i:04d}.jpg" for c in range(CLASSES) for i in range(IMAGES)]
    for number, name in enumerate(names):
        write_image(path / "birds" / "images" / name, seed=number)
    for file, value in (("images", str), ("image_class_labels", lambda name: int(name[:3])), ("train_test_split", lambda name: 1)):
        lines = [f"{number} {value(name)}\n" for number, name in enumerate(names, 1)]
        (path / "birds" / f"{file}.txt").write_text("".join(lines))
    torch.manual_seed(0)
    for name in ("mobilenet_v2", "resnet50", "efficientnet_v2_s"):
        url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
        file = path / "hub" / "checkpoints" / Path(urlparse(url).path).name
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torchvision.models.get_model(name, weights=None).state_dict(), file)
    (path / "cache" / "timm").mkdir(parents=True)
    torch.save(timm.create_model("ghostnet_100").state_dict(), path / "cache" / "timm" / "ghostnet_100.in1k.pth")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_HOME", str(folder))
    monkeypatch.setenv("DISTILLCTL_CACHE", str(folder / "cache"))
    return folder


def run(*command: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = cli.run(list(command))
    assert code == 0, out.getvalue()
    return out.getvalue()


def trained(command: str) -> str:
    """The directory of a row's run, trained now or before."""
    found = re.search(r"^run +(runs/\S+)$", run(*arguments(command)), re.MULTILINE)
    assert found
    return found[1]


def test_there_is_a_row_for_each_published_run() -> None:
    assert len(ROWS) == len({command for _, command in ROWS}) == 23


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command"), ROWS, ids=[name for name, _ in ROWS])
def test_the_command_of_a_row_trains(here: Path, name: str, command: str) -> None:
    path = Path(trained(command))
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    terms = {key.partition(".")[0] for record in records for key in record.get("terms", {})}
    wanted = {"SoftTarget": "soft-target", "MGD": "mgd", "AT": "at", "SP": "sp", "R-Drop": "rdrop"}
    if "distilled" in command:  # others may be teachers of rows to come
        shutil.rmtree(path)
    assert terms - {"task"} == {term for word, term in wanted.items() if word in name} | ({"mgd", "rdrop"} if "both" in name else set())


@pytest.mark.slow
def test_the_patient_recipe_trains_without_labels(here: Path) -> None:
    path = Path(trained("distillctl train profiles/cub/patient.toml"))
    (record,) = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(path)
    assert record["total"] == pytest.approx(record["terms"]["kd"], rel=1e-5)


@pytest.mark.slow
def test_ten_crops_of_a_run(here: Path) -> None:
    told = run("eval", trained(ROWS[0][1]), "--tta", "--device", "cpu")
    assert "test, 6 images, ten_crop\n" in told
