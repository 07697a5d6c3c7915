"""What `pseudo` makes of a teacher's answers, and what it declares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from distillctl import Batch, Guesses, Progress, Relabels, RunError, Setup, Side
from distillctl.build.models import build_classifier
from distillctl.commands.dry_run import dry_run
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing import options_of
from distillctl.testing.declarations import DeclarationChecks
from distillctl.testing.trees import write_tree
from distillctl_pseudo.method import Pseudo
from distillctl_pseudo.options import PseudoOptions
from distillctl_pseudo.plugin import SPEC

PROFILES = Path(__file__).parents[3] / "profiles"
GUESSES = Guesses(torch.tensor([0.9, 0.5, 0.49]), torch.tensor([0, 1, 1]), torch.tensor([True, False]))
PROGRESS = Progress(torch.tensor(1.0), torch.tensor(0.0))


class TestDeclarations(DeclarationChecks):
    """It has no terms, so that the rest of the contract has nothing to look at."""

    spec = SPEC


def method(labels: list[int], **options: object) -> Pseudo:
    side = Side("net", nn.Identity(), {})
    return Pseudo(PseudoOptions(**options), Setup(side, side, 3, torch.tensor(labels)))  # type: ignore[arg-type]


def relabels(**options: object) -> Relabels:
    return method([0, -1], **options).relabel(GUESSES, PROGRESS)


def test_answers_from_the_threshold_on_count_by_their_score() -> None:
    assert relabels().weights.tolist() == pytest.approx([0.9, 0.5, 0.0])
    assert relabels(threshold=0.6).weights.tolist() == pytest.approx([0.9, 0.0, 0.0])
    assert relabels(soft=False).weights.tolist() == [1.0, 1.0, 0.0]


def test_images_with_labels_keep_them_unless_all_are_meant() -> None:
    assert relabels().images.tolist() == [False, True]
    assert relabels(images="all").images.tolist() == [True, True]


def test_without_images_without_labels_nothing_would_be_learnt() -> None:
    with pytest.raises(RunError, match="all images have their own"):
        method([0, 1], images="unlabelled")
    assert method([0, 1], images="all").notes == ()
    told = method([0, 1])
    assert told.every
    assert "in place of all labels" in told.notes[0]


def test_there_are_no_terms() -> None:
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([0, -1]), torch.arange(2))
    assert method([0, -1])(batch, {}, {}, PROGRESS) == {}


def test_the_profiles_with_labels_and_without_differ_in_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("yolox_nano.onnx").touch()
    pseudo, labels = (load(PROFILES / f"coco_{name}.toml", registry=Registry.load()) for name in ("pseudo", "labels"))
    assert [choice.spec.name for choice in pseudo.methods] == ["pseudo"]
    assert [choice.spec.name for choice in labels.methods] == ["none"]
    for part in ("seed", "student", "optimizer", "schedule", "train", "evaluate", "task_weight"):
        assert getattr(pseudo, part) == getattr(labels, part), part
    ours, theirs = pseudo.dataset.options.model_dump(), labels.dataset.options.model_dump()
    assert {name for name, value in ours.items() if value != theirs[name]} == {"train", "unlabelled"}


RUN = """
[dataset]
name = "imagefolder"
root = "birds"
unlabelled = "more"
image_size = 32
[student]
name = "cifar/resnet8"
[teacher]
name = "cifar/resnet8"
checkpoint = "teacher.pt"
[method]
name = "pseudo"
threshold = 0.1
[train]
epochs = 1
batch_size = 8
workers = 0
"""


@pytest.mark.slow
def test_classes_are_learnt_beside_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of a step is that of labels, and of the answers of a teacher that is sure of one class, by the weight of the method."""
    monkeypatch.chdir(tmp_path)
    write_tree(Path("birds"), {f"{split}/{name}": 4 for split in ("train", "val") for name in ("cat", "dog")})
    write_tree(Path("more"), {"any": 8})
    registry = Registry.load()
    spec = registry.models.get("cifar/resnet8")
    model = build_classifier(spec, options_of(spec), 2)
    with torch.no_grad():
        model.get_parameter(f"{spec.classifier}.bias").copy_(torch.tensor([0.0, 50.0]))
    torch.save(model.state_dict(), "teacher.pt")
    Path("p.toml").write_text(RUN)
    terms = []
    for weight in (1.0, 0.5):
        changes = [f"method.weight={weight}", "teacher.allow_untrained=true"]
        (part,) = dry_run(load("p.toml", registry=registry, overrides=changes), registry, device="cpu").parts
        assert list(part.reading.terms) == ["task"]
        terms.append(part.reading.terms["task"])
    assert terms[1] < 0.9 * terms[0]
