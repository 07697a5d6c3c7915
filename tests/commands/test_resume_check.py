"""A run goes on only as what it was; what changed is named line by line, and can be accepted for good."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distillctl.api.data import NO_LABELS, FileImages, Splits, View
from distillctl.api.tracker import RunStart, Tracker
from distillctl.commands.dry_run import dry_run
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.resume_check import adopt, changed, changed_profile, listing, refuse
from distillctl.commands.train import Result, train
from distillctl.data import inspection
from distillctl.data.decode import read_image
from distillctl.errors import DataError, ProfileError
from distillctl.files import cache_folder
from distillctl.models.deploy import read_student
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.rundir.directory import RunDirectory, text_hash
from distillctl.testing.trees import write_image, write_tree

pytestmark = pytest.mark.slow

PROFILE = """
[dataset]
name = "imagefolder"
root = "images"
image_size = 16
resize = 18
eval_resize = 16
augment = "crop_flip"
val_fraction = 0.2
[student]
name = "resnet8"
[teacher]
name = "resnet8"
checkpoint = "teacher.pt"
allow_untrained = true
[method]
name = "kd"
[optimizer]
lr = 0.02
[train]
epochs = 2
workers = 0
"""


class Ear(Tracker):
    """Says nothing; `stops` interrupts after so many epochs."""

    def __init__(self, stops: int = 0) -> None:
        super().__init__()
        self.stops, self.resumed = stops, -1
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, run: RunStart) -> None:
        self.resumed = len(run.records)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.stops -= 1
        if self.stops == 0:
            raise KeyboardInterrupt("of the test")


def teacher(folder: Path, seed: int) -> None:
    from distillctl_cifar.models import resnet8

    torch.manual_seed(seed)
    torch.save(resnet8(num_classes=3).state_dict(), folder / "teacher.pt")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """A folder with a run that was stopped after one of two epochs, in `run`, and one that went on to its end, in `straight`."""
    folder = tmp_path_factory.mktemp("original")
    write_tree(folder / "images", {"ape": 10, "bee": 11, "cow": 12})
    teacher(folder, 0)
    (folder / "profile.toml").write_text(PROFILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(KeyboardInterrupt, match="of the test"):
            train(load("profile.toml", registry=registry), registry, Ear(1), out=Path("run"), device="cpu")
        train(load("profile.toml", registry=registry), registry, Ear(), out=Path("straight"), device="cpu")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it elsewhere, in which the test is."""
    shutil.copytree(original, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def go_on(registry: Registry, *overrides: str, ear: Ear | None = None, **options: Any) -> Result:
    profile = load("profile.toml", registry=registry, overrides=overrides)
    return train(profile, registry, ear or Ear(), out=Path("run"), device="cpu", **options)


def info_says(key: str, value: Any, inner: str = "") -> Callable[[Path], None]:
    """As if the run had begun with this."""

    def change(folder: Path) -> None:
        path = folder / "run" / "run.json"
        info = json.loads(path.read_text())
        if inner:
            assert inner in info[key]
            info[key][inner] = value
        else:
            assert key in info
            info[key] = value
        del info["checksum"]
        path.write_text(json.dumps(info))

    return change


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "images" / old).rename(folder / "images" / new)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)


CHANGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...], list[str]]] = {
    "a value of the profile": (lambda _: None, ("train.epochs=3",), [r"`train\.epochs`: 2 → 3"]),
    "two values": (
        lambda _: None,
        ("optimizer.lr=0.5", "method.temperature=3"),
        [r"`method\.temperature`: 4\.0 → 3\.0", r"`optimizer\.lr`: 0\.02 → 0\.5"],
    ),
    "an image more": (
        lambda folder: shutil.copy(folder / "images/ape/0000.jpg", folder / "images/ape/more.jpg"),
        (),
        [r"the data `train`: 27 images, \w+ → 28 images, \w+", "the data `val`: 6 images, "],
    ),
    "an image with another name": (
        rename("ape/0000.jpg", "ape/zzz.jpg"),
        (),
        [r"the data `(train|val)`: (\d+) images, \w+ → \2 images, "] * 2,
    ),
    "a class with another name": (rename("bee", "bug"), (), ["the data `classes`: 3, ", "the data `train`: ", "the data `val`: "]),
    "the content of an image": (
        lambda folder: write_image(folder / "images/ape/0000.jpg", seed=99),
        (),
        [r"the sizes of the files in `(train|val)`: \d+ bytes, \w+ → \d+ bytes, \w+$"],
    ),
    "the content of an image, which is as long": (
        lambda folder: flip_a_bit(folder / "images/ape/0000.jpg"),
        (),
        [r"the times at which files were changed \(a copy may have others\) in `(train|val)`: newest \S+ \S+, \w+ → newest \S+ \S+, \w+$"],
    ),
    "a copy of the data with other times": (
        lambda folder: [path.touch() for path in (folder / "images").rglob("*.jpg")],
        (),
        [rf"the times at which files were changed \(a copy may have others\) in `{name}`: " for name in ("train", "val")],
    ),
    "the teacher's file": (lambda folder: teacher(folder, 1), (), ["the teacher's weights: [0-9a-f]{12} → [0-9a-f]{12}$"]),
    "a plugin's version": (
        info_says("packages", "0.0.9", "distillctl-cifar"), (), [r"the package `distillctl-cifar`: 0\.0\.9 → \d"]
    ),
    "torch's version": (info_says("packages", "2.0", "torch"), (), [r"the package `torch`: 2\.0 → \d"]),
    "the number of processes": (info_says("processes", 2), (), ["the number of processes: 2 → 1"]),
    "the teacher's profile": (info_says("teacher_profile", "a" * 64), (), ["the teacher's profile: a{12} → None"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_in_a_line_each_and_nothing_is_written(folder: Path, registry: Registry, name: str) -> None:
    change, overrides, lines = CHANGES[name]
    change(folder)
    before = {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file() and p.name != "run.lock"}
    with pytest.raises(DataError) as caught:
        go_on(registry, *overrides)
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) <= len(lines)
    for message, line in zip(messages, lines, strict=False):
        assert "\n" not in message
        assert re.match(f"changed since `run` began: {line}", message), message
    assert [bool(p.hint) for p in caught.value.problems] == [False] * (len(messages) - 1) + [True]
    assert "`--accept-change`" in caught.value.problems[-1].hint
    assert caught.value.exit_code == 1
    assert {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file() and p.name != "run.lock"} == before


@pytest.mark.parametrize("name", CHANGES)
def test_an_accepted_change_goes_on_and_is_noted_for_good(folder: Path, registry: Registry, name: str) -> None:
    change, overrides, _ = CHANGES[name]
    change(folder)
    ear = Ear(1)
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        go_on(registry, *overrides, ear=ear, accept_change=True)
    assert ear.resumed == 1
    (note,) = json.loads((folder / "run" / "run.json").read_text())["changes"]
    assert note["epoch"] == 1
    assert note["changes"]
    result = go_on(registry, *overrides)  # it is the same run now, and nobody asks again
    assert result.summary["accepted_changes"] == len(note["changes"])
    assert json.loads((folder / "run" / "run.json").read_text())["changes"] == [note]
    assert go_on(registry, *overrides).already
    evaluate_run(folder / "run", registry, device="cpu")


def test_what_is_no_part_of_a_run_may_change(folder: Path, registry: Registry) -> None:
    """The number of workers, the time between checkpoints, and where all of it lies: this folder is a copy."""
    go_on(registry, "train.workers=1", "train.save_every=1s")
    assert "changes" not in json.loads((folder / "run" / "run.json").read_text())
    for name in ("student.safetensors", "model.json"):
        assert (folder / "run" / name).read_bytes() == (folder / "straight" / name).read_bytes()
    resolved = (folder / "run" / "resolved.toml").read_text()
    assert str(folder / "teacher.pt") in resolved, "files are named where they are now"
    assert "workers = 1" in resolved


@pytest.mark.parametrize("stated", [True, False], ids=["another number", "a run of an older version"])
def test_a_run_goes_on_with_the_threads_with_which_it_began(folder: Path, registry: Registry, stated: bool) -> None:
    """Sums are cut by threads, so that another number changes the last digits of a run."""
    now = torch.get_num_threads()
    info = json.loads((folder / "run" / "run.json").read_text())
    assert info["threads"] == now
    began = now + 1 if stated else now
    info_says("threads", began if stated else None)(folder)
    seen: list[int] = []

    class Counts(Ear):
        def note(self, text: str) -> None:
            seen.append(text.startswith(f"computing with {began} threads"))

        def epoch(self, record: Mapping[str, Any]) -> None:
            seen.append(torch.get_num_threads())

    go_on(registry, ear=Counts())
    assert seen == ([True, began] if stated else [began])
    assert torch.get_num_threads() == now


def test_a_finished_run_can_be_prolonged(folder: Path, registry: Registry) -> None:
    go_on(registry)
    with pytest.raises(DataError, match=r"`train\.epochs`: 2 → 4"):
        go_on(registry, "train.epochs=4")
    ear = Ear()
    result = go_on(registry, "train.epochs=4", ear=ear, accept_change=True)
    assert (ear.resumed, result.already, result.summary["last"]["epoch"]) == (2, False, 4)


def test_a_run_cannot_be_cut_below_what_it_has_done(folder: Path, registry: Registry) -> None:
    go_on(registry)
    before = (folder / "run" / "run.json").read_bytes()
    with pytest.raises(DataError, match="`run` has done 2 epochs already, and the profile now asks for 1"):
        go_on(registry, "train.epochs=1", accept_change=True)
    assert (folder / "run" / "run.json").read_bytes() == before


def test_changes_add_up(folder: Path, registry: Registry) -> None:
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        go_on(registry, "train.epochs=3", ear=Ear(1), accept_change=True)
    teacher(folder, 1)
    result = go_on(registry, "train.epochs=3", accept_change=True)
    assert result.summary["accepted_changes"] == 2
    assert len(json.loads((folder / "run" / "run.json").read_text())["changes"]) == 2


def test_a_finished_run_that_goes_back_is_unfinished_until_it_is_done_again(folder: Path, registry: Registry) -> None:
    go_on(registry)
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        go_on(registry, "train.save_every=never", from_previous=True, ear=Ear(1))
    result = go_on(registry)
    assert not result.already
    assert (folder / "run" / "student.safetensors").read_bytes() == (folder / "straight" / "student.safetensors").read_bytes()


def test_going_back_without_a_run_says_so(folder: Path, registry: Registry) -> None:
    profile = load("profile.toml", registry=registry)
    with pytest.raises(DataError, match="there is no run in `new` to continue"):
        train(profile, registry, Ear(), out=Path("new"), device="cpu", from_previous=True)
    assert not (folder / "new").exists()


@pytest.fixture
def run(folder: Path) -> RunDirectory:
    return RunDirectory.open(folder / "run")


def test_facts_that_a_run_of_an_older_version_does_not_know_are_not_compared(run: RunDirectory) -> None:
    info = {k: v for k, v in run.info().items() if k not in ("packages", "processes", "file_sizes", "file_times", "checksum")}
    (run.path / "run.json").write_text(json.dumps(info))
    assert changed(run, {"packages": {"torch": "x"}, "processes": 5, "teacher_sha256": info["teacher_sha256"]}) == []
    assert changed(run, {"file_sizes": {"train": "5 bytes"}, "file_times": {"train": "newest"}}) == []


def test_a_package_that_came_or_went(run: RunDirectory) -> None:
    before = run.info()["packages"]
    lines = changed(run, {"packages": {**{k: v for k, v in before.items() if k != "torchvision"}, "new": "1.0"}})
    assert lines == ["the package `new`: nothing → 1.0", f"the package `torchvision`: {before['torchvision']} → nothing"]


def test_more_changes_than_one_can_read_are_counted(run: RunDirectory) -> None:
    with pytest.raises(DataError) as caught:
        refuse(run, [f"line {n}" for n in range(50)])
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1].message.startswith("30 more changes")
    refuse(run, [])


def test_a_crash_while_a_change_is_accepted_keeps_the_note(run: RunDirectory, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillctl.commands import resume_check

    profile = load("profile.toml", registry=registry, overrides=["train.epochs=3"])
    lines = changed_profile(run, profile)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt("of the test")

    with monkeypatch.context() as patch:
        patch.setattr(resume_check, "write_text", crash)
        with pytest.raises(KeyboardInterrupt, match="of the test"):
            adopt(run, profile, {"epochs": 3}, lines)
    assert changed_profile(run, profile) == []
    assert [note["changes"] for note in run.info()["changes"]] == [lines]
    assert go_on(registry, "train.epochs=3").summary["accepted_changes"] == 1
    assert "epochs = 3" in run.resolved.read_text()


def more_apes(folder: Path) -> None:
    for number, path in enumerate(sorted((folder / "images/ape").iterdir())):
        shutil.copy(path, path.with_name(f"{number}.jpg"))


def evaluated(**options: Any) -> float:
    return evaluate_run(Path("straight"), Registry.load(), device="cpu", split="val", **options).figures["top1"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (rename("bee", "bug"), "the data `classes`: 3, "),
        (lambda folder: shutil.copytree(folder / "images/ape", folder / "images/yak"), "the data `classes`: 3, "),
        (more_apes, "the data `val`: 6 "),
    ],
    ids=["a class has another name", "a class more", "more images, of which others are carved"],
)
def test_an_evaluation_of_other_images_is_refused(folder: Path, change: Callable[[Path], object], line: str) -> None:
    before = evaluated()
    change(folder)
    with pytest.raises(DataError, match=line) as caught:
        evaluated()
    assert "`--accept-change` evaluates those that are there now" in caught.value.problems[-1].hint
    if line.startswith("the data `val`"):
        assert 0 <= evaluated(accept_change=True) <= 1
    assert 0 <= before <= 1


def test_a_resolved_profile_that_somebody_changed_is_not_evaluated(folder: Path) -> None:
    path = folder / "straight" / "resolved.toml"
    path.write_text(path.read_text().replace("eval_resize = 16", "eval_resize = 18"))
    with pytest.raises(DataError, match="was changed by somebody else than its run"):
        evaluated()


def test_a_run_that_goes_on_with_an_accepted_change_can_be_evaluated(folder: Path, registry: Registry) -> None:
    go_on(registry, "train.epochs=3", accept_change=True)
    assert evaluate_run(folder / "run", registry, device="cpu").run == folder / "run"


def spoil(path: Path) -> None:
    """Header and end stay as they are, so that only decoding tells."""
    Image.open(path).save(path, format="PNG")
    data = bytearray(path.read_bytes())
    data[60:-20] = bytes(len(data) - 80)
    path.write_bytes(data)


def with_test_split(folder: Path) -> tuple[str, ...]:
    """Moves two images of each class into a test split."""
    for name in ("ape", "bee", "cow"):
        (folder / "split" / "test" / name).mkdir(parents=True)
        shutil.copytree(folder / "images" / name, folder / "split" / "train" / name)
        for number in (0, 1):
            (folder / "split" / "train" / name / f"000{number}.jpg").rename(folder / "split" / "test" / name / f"{number}.jpg")
    return ("dataset.root=split", "train.epochs=1")


def test_a_broken_image_of_the_test_split_is_an_error_before_training(folder: Path, registry: Registry) -> None:
    profile = load("profile.toml", registry=registry, overrides=with_test_split(folder))
    broken = folder / "split" / "test" / "bee" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    for command in (train, dry_run):
        with pytest.raises(
            DataError, match=r"1 of 33 images cannot be used \(test 1\): `split/test/bee/1\.jpg` cannot be decoded: .*runcated"
        ):
            command(profile, registry, *([Ear()] if command is train else []), out=Path("other"), device="cpu")
    assert not (folder / "other").exists()


def test_a_student_is_deployed_although_its_last_evaluation_fails(folder: Path, registry: Registry) -> None:
    overrides = with_test_split(folder)
    text = PROFILE.replace(PROFILE[PROFILE.index("[teacher]") : PROFILE.index("[method]")], "").replace('"kd"', '"none"')
    (folder / "profile.toml").write_text(text)
    path = folder / "split" / "test" / "bee" / "1.jpg"
    whole = path.read_bytes()
    spoil(path)
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(path)
    with pytest.raises(DataError) as caught:
        train(load("profile.toml", registry=registry, overrides=overrides), registry, Ear(), out=Path("other"), device="cpu")
    assert "`split/test/bee/1.jpg` cannot be decoded" in caught.value.problems[0].message
    assert "its student, of epoch 1, is written to `other/student.safetensors`" in caught.value.problems[1].message
    read_student(folder / "other", registry)
    assert RunDirectory.open(folder / "other").info()["state"] == "running"
    path.write_bytes(whole)
    profile = load("profile.toml", registry=registry, overrides=overrides)
    result = train(profile, registry, Ear(), out=Path("other"), device="cpu", accept_change=True)
    assert result.summary["best"]["count"] == 6


def of_twelve_bits(folder: Path) -> None:
    """All images become grey of 12 bits."""
    for path in (folder / "images").rglob("*.jpg"):
        values = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16
        Image.fromarray(values).save(path.with_suffix(".png"))
        path.unlink()


def test_the_white_that_was_measured_is_fixed_in_the_run(folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    of_twelve_bits(folder)
    profile = load("profile.toml", registry=registry)
    ear = Ear(1)
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        train(profile, registry, ear, out=Path("deep"), device="cpu")
    assert next(note for note in ear.notes if "white" in note).startswith("27 images have grey of more than 8 bits, with values up to ")
    run = RunDirectory.open(folder / "deep")
    assert "white = 4095.0" in run.resolved.read_text()
    assert run.info()["digest"] == profile.digest
    monkeypatch.setattr(inspection, "_measured", lambda *_: pytest.fail("measured again"))
    shutil.rmtree(str(cache_folder()))
    result = train(profile, registry, Ear(), out=Path("deep"), device="cpu")
    assert result.summary["best"]["top1"] == evaluate_run(folder / "deep", registry, device="cpu").figures["top1"]
    assert "white = 4095.0" in run.resolved.read_text()
    assert json.loads((run.path / "model.json").read_text())["input"]["white"] == 4095
    assert train(profile, registry, Ear(), out=Path("deep"), device="cpu").already
    with pytest.raises(DataError) as caught:  # what was measured is no change
        train(load("profile.toml", registry=registry, overrides=["train.epochs=3"]), registry, Ear(), out=Path("deep"), device="cpu")
    assert len(caught.value.problems) == 1
    with pytest.raises(DataError, match=r"`dataset\.white`: 4095\.0 → 5000\.0"):
        train(load("profile.toml", registry=registry, overrides=["dataset.white=5000"]), registry, Ear(), out=Path("deep"), device="cpu")


def test_eval_reads_pixels_as_the_run_did(folder: Path, registry: Registry) -> None:
    of_twelve_bits(folder)
    train(load("profile.toml", registry=registry), registry, Ear(), out=Path("deep"), device="cpu")
    seen = {}
    for white in ("4095.0", "65535.0"):
        run = RunDirectory.open(folder / "deep")
        run.resolved.write_text(re.sub(r"white = .*", f"white = {white}", run.resolved.read_text()))
        run.update(resolved_sha256=text_hash(run.resolved.read_text()))
        seen[white] = evaluate_run(folder / "deep", registry, device="cpu").figures["loss"]
    assert seen["4095.0"] == RunDirectory.open(folder / "deep").info()["result"]["best"]["loss"] != seen["65535.0"]


def test_a_run_of_an_older_version_keeps_its_white(folder: Path, registry: Registry) -> None:
    of_twelve_bits(folder)
    profile = load("profile.toml", registry=registry)
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        train(profile, registry, Ear(1), out=Path("deep"), device="cpu")
    run = RunDirectory.open(folder / "deep")
    run.resolved.write_text(run.resolved.read_text().replace("white = 4095.0\n", ""))
    train(profile, registry, Ear(), out=Path("deep"), device="cpu")
    assert "white = 65535.0" in run.resolved.read_text()


def test_a_run_is_evaluated_from_another_folder(folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data lie where they lay: below the folder where the training ran."""
    before = evaluated()
    RunDirectory.open(folder / "straight").update(directory=str(folder))
    (folder / "away").mkdir()
    monkeypatch.chdir(folder / "away")
    assert evaluate_run(folder / "straight", registry, device="cpu", split="val").figures["top1"] == before


def test_an_evaluation_of_data_that_were_moved(folder: Path, registry: Registry) -> None:
    before = evaluated()
    RunDirectory.open(folder / "straight").update(directory=str(folder))
    (folder / "images").rename(folder / "moved")
    with pytest.raises(ProfileError, match="there is no folder `images`"):
        evaluated()
    assert evaluated(overrides=["dataset.root=moved"]) == before
    with pytest.raises(ProfileError, match=r"`train\.epochs=3` is not a key that an evaluation reads"):
        evaluated(overrides=["train.epochs=3"])


def test_a_checkpoint_is_evaluated_with_the_run_in_which_it_lies(folder: Path, registry: Registry) -> None:
    file = folder / "straight" / "checkpoints" / "best.pt"
    report = evaluate_run(None, registry, checkpoint=str(file), device="cpu", split="val")
    assert (report.run, report.figures["top1"]) == (folder / "straight", evaluated())
    shutil.copy(file, folder / "elsewhere.pt")
    with pytest.raises(ProfileError, match=r"`elsewhere\.pt` does not say of which run's model it is"):
        evaluate_run(None, registry, checkpoint="elsewhere.pt", device="cpu")


NAMES = [Path("a/1.png"), Path("a/2.png"), Path("b/1.png")]
FILES = FileImages(NAMES, torch.tensor([0, 0, 1]), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))


def listed(files: FileImages) -> str:
    splits = Splits(train=files, val=None, test=None, classes=("a", "b"), mean=(0.5,), std=(0.5,), view=View(8))
    return listing(splits)["train"]


@pytest.mark.parametrize(
    "other",
    [
        replace(FILES, paths=[*NAMES[:2], Path("b/2.png")]),
        replace(FILES, labels=torch.tensor([0, 1, 1])),
        replace(FILES, targets=torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])),
        replace(FILES, targets=None),
        replace(FILES, labels=NO_LABELS),
        FILES.subset(torch.tensor([1, 0, 2])),
        FILES.subset(torch.tensor([0, 1])),
    ],
    ids=["a name", "a label", "a target", "no targets", "no labels", "the order", "fewer"],
)
def test_the_listing_of_files_tells_every_change(other: FileImages) -> None:
    assert listed(other) != listed(FILES)


def test_the_listing_of_files_does_not_tell_where_they_lie() -> None:
    assert listed(replace(FILES, paths=[Path("/elsewhere") / path for path in NAMES])) == listed(FILES)


def test_a_lost_resolved_profile_is_a_change(run: RunDirectory, registry: Registry) -> None:
    run.resolved.unlink()
    assert changed_profile(run, load("profile.toml", registry=registry)) == []
    assert changed_profile(run, load("profile.toml", registry=registry, overrides=["train.epochs=3"]))
