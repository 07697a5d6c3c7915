"""`profiles/README.md`: every row is a command, has the published values, and trains an epoch on made-up images in the official layout."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from torchvision import models

from distillctl import cli
from distillctl.plugin.registry import Registry
from distillctl.profile.published_table import asked
from distillctl.profile.reading import load
from distillctl.testing.trees import write_image

ROOT = Path(__file__).parents[1]
README = ROOT / "profiles" / "README.md"
FOLDERS = ("tiny_imagenet/", "imagenet/")

# Command behind `distillctl train profiles/` → student, learning rate, images in a batch, DOT's delta, and what the method's table says.
KD_TINY = {"name": "kd", "weight": 0.9, "task_weight": 0.1, "temperature": 4.0}
KD = {"name": "kd", "weight": 0.5, "task_weight": 0.5, "temperature": 1.0}
AT = {"name": "at", "weight": 1000.0, "task_weight": 1.0, "student_stages": ["stages"]}
OFD = {"name": "ofd", "weight": 1e-4, "task_weight": 1.0}
CRD = {"name": "crd", "weight": 0.8, "task_weight": 1.0, "feat_dim": 128, "negatives": 16384, "temperature": 0.07, "momentum": 0.5}
DKD = {"name": "dkd", "weight": 1.0, "task_weight": 1.0, "temperature": 1.0, "alpha": 1.0, "warmup_epochs": 1.0}
REVIEW = {"name": "reviewkd", "task_weight": 1.0, "warmup_epochs": 1.0, "student_stages": ["stages:pre"]}
ROWS = {
    **{
        f"tiny_imagenet/ResNet18_{file}.toml{more}": (student, 0.2, 256, delta, KD_TINY)
        for file, student in (("MobileNetV2", "tiny_mobilenet_v2"), ("ShuffleV2", "ShuffleV2"))
        for more, delta in (("", None), (" --set optimizer.name=dot", 0.075))
    },
    **{
        f"imagenet/{pair}.toml{more}": (pair.partition("_")[2], *values)
        for pair, beta, review in (
            ("resnet34_resnet18", 0.5, {"weight": 1.0, "mid_channels": 512}),
            ("resnet50_mobilenet_v1", 2.0, {"weight": 8.0, "mid_channels": 256}),
        )
        for more, *values in (
            ("", 0.2, 512, None, KD),
            (" --set optimizer.name=dot --set optimizer.delta=0.09", 0.2, 512, 0.09, KD),
            (" --method dkd", 0.2, 512, None, {**DKD, "beta": beta}),
            (" --method at", 0.2, 512, None, AT),
            (" --method ofd --set train.batch_size=128 --set optimizer.lr=0.05", 0.05, 128, None, OFD),
            (" --method crd --set train.batch_size=256 --set optimizer.lr=0.1", 0.1, 256, None, CRD),
            (" --method reviewkd --set train.batch_size=256 --set optimizer.lr=0.1", 0.1, 256, None, {**REVIEW, **review}),
        )
    },
}
RECIPES = {"tiny-imagenet": (200, [60, 120, 160], 5e-4), "imagenet": (100, [30, 60, 90], 1e-4)}


def commands() -> list[str]:
    lines = [
        line for block in re.findall(r"^```sh\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S) for line in block.splitlines()
    ]
    assert all(line.startswith("distillctl train profiles/") for line in lines)
    rows = [line.removeprefix("distillctl train profiles/") for line in lines]
    return [row for row in rows if row.startswith(FOLDERS)]  # those of COCO are tested in distillctl-coco


def test_the_rows_are_these():
    assert sorted(commands()) == sorted(ROWS)


def test_no_profile_is_forgotten():
    files = {f"{folder}{path.name}" for folder in FOLDERS for path in (ROOT / "profiles" / folder).glob("*.toml")}
    assert files == {row.split()[0] for row in ROWS}


@pytest.fixture(scope="module")
def registry():
    return Registry.load({})


def read(row, registry):
    """The profile of a row, with its options."""
    file, *options = shlex.split(row)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    overrides = [value for flag, value in pairs if flag == "--set"]
    method = next((value for flag, value in pairs if flag == "--method"), None)
    return load(ROOT / "profiles" / file, overrides=overrides, registry=registry, method=method)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_the_published_values(row, registry):
    student, lr, batch, delta, method = ROWS[row]
    profile = read(row, registry)
    assert profile.student.spec.name == student
    assert (profile.optimizer.options.lr, profile.optimizer.options.momentum, profile.train.batch_size) == (lr, 0.9, batch)
    assert profile.optimizer.spec.name == ("sgd" if delta is None else "dot")
    assert delta is None or profile.optimizer.options.delta == delta
    (choice,) = profile.methods
    table = {"name": choice.spec.name, "task_weight": profile.task_weight, **choice.table.model_dump(), **choice.options.model_dump()}
    assert {key: table[key] for key in method} == method
    schedule = profile.schedule
    assert (schedule.name, schedule.gamma, schedule.warmup) == ("step", 0.1, 0)
    epochs, milestones, decay = RECIPES[profile.dataset.spec.name]
    assert [round(share * profile.train.epochs) for share in schedule.milestones] == milestones
    assert (profile.train.epochs, profile.optimizer.options.weight_decay, profile.optimizer.options.decay) == (epochs, decay, "all")
    data = profile.dataset.options
    if profile.dataset.spec.name == "imagenet":
        assert (data.val_fraction, data.image_size, data.augment) == (0, 224, "random_resized_crop")
        assert (profile.teacher.spec.qualified, profile.teacher.table.weights) == (
            f"torchvision/{row.partition('/')[2].partition('_')[0]}",
            "IMAGENET1K_V1",
        )
    else:
        assert (data.val_fraction, data.image_size, data.augment, data.rotation) == (0, 64, "crop_flip", 20)


TABLE = re.compile(r"^\[published\]\n.*", re.M | re.S)
STATED = sorted(path for path in (ROOT / "profiles").rglob("*.toml") if TABLE.search(path.read_text(encoding="utf-8")))
OF_METHOD = {None: "KD", "none": "student alone", "crd": "CRD", "dkd": "DKD", "at": "AT"}


def test_every_profile_whose_header_publishes_a_figure_states_it():
    """Of patient distillation nothing is published on birds."""
    without = [path for path in (ROOT / "profiles").rglob("*.toml") if path not in STATED and path.name != "patient.toml"]
    headers = {path.name: path.read_text(encoding="utf-8").partition("seed =")[0] for path in without}
    assert not [name for name, header in headers.items() if re.search(r"[Pp]ublished[^\n]*[ :]\d\d\.\d", header)]
    assert len(STATED) >= 34


@pytest.mark.parametrize("path", STATED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_published_figures_stand_in_the_header_too(path, registry):
    """Each number of the table stands in the header beside its name; the table is no part of what a run is."""
    text = path.read_text(encoding="utf-8")
    header = " ".join(line.lstrip("# ") for line in text.partition("seed =")[0].splitlines())
    profile = load(path, registry=registry)
    assert profile.published.figures or profile.published.teacher
    assert profile.published.teacher is None or re.search(
        rf"teacher {profile.published.teacher:.2f}|teacher {profile.published.teacher}\b", header
    )
    pairs = path.parent.name in ("cifar100", "imagenet", "tiny_imagenet")
    for what, figure in profile.published.figures.items():
        if not what.values and what.teacher is None and (what.method is None or path.parent.name != "cub"):  # others are rows of README.md
            number = f"{figure.value:.2f}" if figure.name == "top1" else f"{figure.value:.1f}"
            assert re.search(rf"[ ,]{OF_METHOD[what.method]} {number}\b" if pairs else rf" {number}\b", header), what
        assert figure.table.source


def rows_with_figures():
    """Command → the figure that README.md has for it: tables whose rows end with a command, pairs with DOT, and columns of a pair."""
    found = {}
    text = README.read_text(encoding="utf-8")
    for figure, command in re.findall(
        r"^\|[^|]*\|[^|]*\| ([\d.]+) / [\d.]+ \|[^|]*\| `distillctl train profiles/(cub/[^`]+)` \|$", text, re.M
    ):
        found[command] = float(figure)
    tiny = re.findall(r"^\| (?:ResNet18 → (?:MobileNetV2|ShuffleNetV2))? ?\| KD(?: \+ DOT)? \| ([\d.]+) \|$", text, re.M)
    for number, figure in enumerate(tiny):
        pair = ("MobileNetV2", "ShuffleV2")[number // 2]
        found[f"tiny_imagenet/ResNet18_{pair}.toml{' --set optimizer.name=dot' if number % 2 else ''}"] = float(figure)
    methods = {
        "KD": "",
        "DKD": " --method dkd",
        "KD + DOT": " --set optimizer.name=dot --set optimizer.delta=0.09",
        "AT": " --method at",
        "OFD": " --method ofd --set train.batch_size=128 --set optimizer.lr=0.05",
        "CRD": " --method crd --set train.batch_size=256 --set optimizer.lr=0.1",
        "ReviewKD": " --method reviewkd --set train.batch_size=256 --set optimizer.lr=0.1",
    }
    for name, *figures in re.findall(r"^\| ([A-Za-z+ ]+?) \| ([\d.]+) \| ([\d.]+) \| \d+, [\d.]+ \|", text, re.M):
        for pair, figure in zip(("resnet34_resnet18", "resnet50_mobilenet_v1"), figures, strict=True):
            found[f"imagenet/{pair}.toml{methods[name]}"] = float(figure)
    return found


WITH_FIGURES = rows_with_figures()


def test_all_rows_are_found():
    assert len([row for row in WITH_FIGURES if not row.startswith("cub/")]) == len(ROWS)
    assert sum(row.startswith("cub/") for row in WITH_FIGURES) == 23


@pytest.mark.parametrize("row", WITH_FIGURES)
def test_a_row_has_the_figure_of_its_profile(row, registry):
    """With the row's own options; so `reproduce` compares what the row trains."""
    file, *options = shlex.split(row)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    only = {flag: value for flag, value in pairs if flag != "--set"}
    with contextlib.chdir(ROOT):
        what = asked(only.get("--method"), only.get("--teacher"), [value for flag, value in pairs if flag == "--set"])
        figure, exact = load(ROOT / "profiles" / file, registry=registry).published.of(what)
    assert (exact, figure.value) == (True, WITH_FIGURES[row])


IDS = ("n01440764", "n02119789", "n03000684")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the profiles, made-up images where they look for them, and files of the teachers that a network has."""
    path = tmp_path_factory.mktemp("profiles")
    shutil.copytree(ROOT / "profiles", path / "profiles")
    tiny, large = path / "data" / "tiny-imagenet-200", path / "data" / "imagenet"
    annotations, labels = [], []
    for number, name in enumerate(IDS):
        for i in range(4):
            write_image(tiny / "train" / name / "images" / f"{name}_{i}.JPEG", seed=10 * number + i)
            write_image(large / "train" / name / f"{name}_{i}.JPEG", seed=10 * number + i)
        write_image(tiny / "val" / "images" / f"val_{number}.JPEG", seed=100 + number)
        write_image(large / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", seed=100 + number)
        annotations.append(f"val_{number}.JPEG\t{name}\t0\t0\t62\t62\n")
        labels.append(f"ILSVRC2012_val_{number:08d}.JPEG {name}\n")
    (tiny / "val" / "val_annotations.txt").write_text("".join(annotations))
    (tiny / "wnids.txt").write_text("".join(f"{name}\n" for name in reversed(IDS)))
    (large / "val.txt").write_text("".join(labels))
    for name in ("resnet34", "resnet50"):
        torch.manual_seed(0)
        torch.save(getattr(models, name)(num_classes=len(IDS)).state_dict(), path / f"{name}.pth")
    return path


CUT = ("train.epochs=1", "train.batch_size=6", "train.workers=0", "dataset.image_size={}")
OF_TEACHERS = tuple(f"teacher.overrides.{cut}" for cut in CUT)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_a_row_trains(row, place):
    file, *options = shlex.split(row)
    large = file.startswith("imagenet/")
    cut = [key.format(64 if large else 32) for key in (*CUT, "teacher.allow_untrained=true", *(() if large else OF_TEACHERS))]
    teacher = ["--teacher", f"{file.partition('/')[2].partition('_')[0]}.pth"] if large else []
    cut += ["method.negatives=8"] if "crd" in options else []
    sets = [part for value in cut for part in ("--set", value)]
    before = set(place.glob("runs/*"))
    with contextlib.chdir(place):
        assert cli.run(["train", f"profiles/{file}", *options, *teacher, *sets]) == 0
    (run,) = (new for new in set(place.glob("runs/*")) - before if new.name.startswith(Path(file).stem))
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    (record,) = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    assert record["total"] > 0


@pytest.mark.slow
def test_images_without_labels_train(place):
    for number in range(12):
        write_image(place / "photos" / f"{number}.jpg", seed=number)
        write_image(place / "classes" / f"c{number % 2}" / f"{number}.jpg", seed=50 + number)
    cut = [key.format(32) for key in (*CUT, "dataset.root=photos", "dataset.labelled=classes")]
    with contextlib.chdir(place):
        sets = [part for value in cut for part in ("--set", value)]
        assert cli.run(["train", "profiles/unlabelled.toml", "--teacher", "resnet50.pth", *sets]) == 0
    (run,) = place.glob("runs/unlabelled-*")
    best = json.loads((run / "run.json").read_text())["result"]["best"]
    assert set(best) == {"epoch", "agreement", "kl", "cosine", "knn", "count"}  # features of 1280 and 2048 dimensions


@pytest.mark.slow
def test_birds_on_a_cpu_train(place):
    """The teacher first, as the header says, and then a student of it."""
    for split, count in (("train", 6), ("test", 2)):
        for number in range(2 * count):
            write_image(place / "birds" / split / f"c{number % 2}" / f"{number}.jpg", seed=number)
    torch.manual_seed(0)
    torch.save(models.mobilenet_v2(num_classes=7).state_dict(), place / "seven.pth")
    keys = [
        "dataset.root=birds",
        "dataset.image_size=32",
        "dataset.val_fraction=0.2",
        "train.patience=1",
        "train.epochs=1",
        "train.batch_size=4",
        "student.checkpoint=seven.pth",
    ]
    sets, untrained = [part for key in keys for part in ("--set", key)], ("--set", "teacher.allow_untrained=true")
    with contextlib.chdir(place):
        assert cli.run(["train", "profiles/birds_cpu.toml", "--out", "runs/birds", "--method", "none", *sets]) == 0
        assert cli.run(["train", "profiles/birds_cpu.toml", "--out", "runs/pupil", "--teacher", "runs/birds", *sets, *untrained]) == 0
        assert cli.run(["eval", "runs/pupil", "--tta"]) == 0
    said = json.loads((place / "runs" / "pupil" / "run.json").read_text())
    assert said["state"] == "finished"
    assert said["result"]["best"]["count"] == 4
