"""Which methods run on a detector: all of them are tried, and the README has the table."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.torch
import torch

from distillctl import Batch, DistillError, MethodSpec, RunError
from distillctl.build.checks import check_reads
from distillctl.commands.dry_run import dry_run
from distillctl.models.features import Tapped
from distillctl.plugin.registry import Registry
from distillctl.plugin.registry import load as load_attribute
from distillctl.profile.reading import load
from distillctl_detection.options import ShapesOptions
from distillctl_detection.shapes import build as build_shapes
from distillctl_detection.task import Detection

README = Path(__file__).parents[1] / "README.md"
DETECTORS = {
    "fasterrcnn": """backbone = "mobilenet_v3_small"
width = 8
head_width = 16
anchor_size = 8.0
proposals = 64
anchor_samples = 32
box_samples = 16
""",
    "retinanet": """backbone = "mobilenet_v3_small"
width = 8
""",
    "fcos": """backbone = "mobilenet_v3_small"
width = 64
""",
    "ssdlite": """width_mult = 0.25
""",
}
LOSSES = {
    "fasterrcnn": ("objectness", "rpn_box_reg", "classifier", "box_reg"),
    "retinanet": ("classification", "bbox_regression"),
    "fcos": ("classification", "bbox_regression", "bbox_ctrness"),
    "ssdlite": ("bbox_regression", "classification"),
}
OTHER_LEVELS = {
    "ssdlite": (("p4", "p5"), ("p3", "p4"), ("c3", "p5"), ("c2", "p4"), ("backbone.body.3", "p4:pre"), ("backbone.body.8", "p5:pre")),
    "retinanet": (("c3", "c4"), ("c2", "c3")),
    "fcos": (("c3", "c4"), ("c2", "c3")),
}
"""What a detector has in place of the levels in `CASES`, the later one first."""
SIGMOIDS = "has a sigmoid for each class"
PROFILE = """
[dataset]
name = "shapes"
train = 8
val = 2
test = 2
image_size = 64
[optimizer]
lr = 1e-6
[train]
epochs = 1
batch_size = 4
"""
"""At a usual rate the sum of all methods at once leads to weights beyond all numbers in two steps."""
_P4 = 'student_stage = "p4"\nteacher_stage = "p4"'
_BLOCKS = '["backbone.body.3", "backbone.body.8"]'
_LEVELS = 'student_stages = ["p3", "p4"]\nteacher_stages = ["p3", "p4"]'


class Case(NamedTuple):
    """Options, and what comes: terms of the main part, or why not."""

    options: str = ""
    terms: tuple[str, ...] = ()
    refused: str = ""


CASES = {
    "ab": Case('student_stages = ["p3", "p4"]\nteacher_stages = ["p3", "p4"]\ninit_epochs = 1'),
    "at": Case(terms=("at",)),
    "byot": Case(refused="reads labels of whole images"),
    "cc": Case(_P4, ("cc",)),
    "crd": Case(refused="reads labels of whole images"),
    "ctkd": Case(terms=("ctkd",)),
    "cwd": Case(_LEVELS, ("cwd",)),
    "dist": Case(terms=("dist.inter", "dist.intra")),
    "dkd": Case("alpha = 1.0\nbeta = 0.25\ntemperature = 1.0", ("dkd.tckd", "dkd.nckd")),
    "fitnet": Case(_P4, ("fitnet",)),
    "fsp": Case('student_stages = ["c2", "c3"]\nteacher_stages = ["c2", "c3"]'),
    "ft": Case(_P4, ("ft",)),
    "kd": Case(terms=("kd",)),
    "kdsvd": Case(_LEVELS, ("kdsvd",)),
    "lskd": Case(terms=("lskd",)),
    "mgd": Case(_P4 + '\nmask = "spatial"\nmask_ratio = 0.45', ("mgd",)),
    "nkd": Case(terms=("nkd.target", "nkd.other")),
    "nst": Case(_LEVELS, ("nst",)),
    "ofa": Case(refused="reads labels of whole images"),
    "ofd": Case(f"student_stages = {_BLOCKS}\nteacher_stages = {_BLOCKS}", ("ofd",)),
    "pefd": Case(_P4, ("pefd",)),
    "pkd": Case(_LEVELS, ("pkd",)),
    "pkt": Case(_P4, ("pkt",)),
    "pseudo": Case(),
    "rdrop": Case(refused="reads logits of whole images"),
    "reviewkd": Case('teacher_stages = ["stages"]\npooled = false', ("reviewkd",)),
    "rkd": Case(_P4, ("rkd.distance", "rkd.angle")),
    "sdd": Case(refused="reads labels of whole images"),
    "simkd": Case(refused="replaces the classifier of whole images"),
    "soft-target": Case(terms=("soft-target",)),
    "sp": Case(_LEVELS, ("sp",)),
    "tfkd": Case(terms=("tfkd",)),
    "tfkd-self": Case(terms=("tfkd-self",)),
    "ttm": Case(terms=("ttm",)),
    "unit-scale": Case('inner = {name = "pkd", student_stages = ["p3", "p4"], teacher_stages = ["p3", "p4"]}', ("unit-scale",)),
    "vid": Case(_LEVELS, ("vid",)),
    "vkd": Case(_P4, ("vkd",)),
    "wttm": Case(terms=("wttm",)),
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def on_rows(spec: MethodSpec) -> bool:
    return spec.unit == "rows" or (spec.kind == "wrapper" and spec.inner_kinds != ("features",))


def case_of(name: str, detector: str, registry: Registry) -> Case:
    """What comes of a method on a detector."""
    case, spec = CASES[name], registry.methods.get(name)
    if spec.relabels and detector != "fasterrcnn":
        return Case(refused="boxes that count differently")
    if on_rows(spec) and not case.refused and detector in ("retinanet", "fcos") and not spec.binary:
        return Case(refused=SIGMOIDS)
    for old, new in OTHER_LEVELS.get(detector, ()):
        case = case._replace(options=case.options.replace(old, new))
    return case


def write(folder: Path, detector: str, cases: dict[str, Case], teacher: Path | None = None) -> Path:
    """A profile with these methods."""
    table = f'name = "{detector}"\n{DETECTORS[detector]}'
    methods = [f'[[method]]\nname = "{name}"\n{case.options}' for name, case in cases.items()]
    taught = "" if teacher is None else f'[teacher]\n{table}checkpoint = "{teacher.as_posix()}"'
    methods[0] += "\ntask_weight = 1.0"
    (folder / "profile.toml").write_text("\n".join([f"{PROFILE}[student]\n{table}", *methods, taught]))
    return folder / "profile.toml"


@pytest.mark.slow
@pytest.mark.parametrize("detector", DETECTORS)
def test_each_method_runs(detector: str, registry: Registry, tmp_path: Path) -> None:
    """One real step with all of them: building the detectors costs more than any method."""
    spec = registry.models.get(detector)
    torch.manual_seed(1)
    options = load_attribute(spec.options, detector)(**tomllib.loads(DETECTORS[detector]))
    teacher = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(load_attribute(spec.implementation, detector)(detector, 3, options).state_dict(), teacher)
    cases = {name: case for name in CASES if not (case := case_of(name, detector, registry)).refused}
    parts = dry_run(load(write(tmp_path, detector, cases, teacher), registry=registry), registry, device="cpu").parts
    assert list(parts[-1].reading.terms) == [
        *(f"task.{loss}" for loss in LOSSES[detector]),
        *(term for case in cases.values() for term in case.terms),
    ]
    early = {part.name.partition(".")[0] for part in parts[:-1]} | {name for name in cases if registry.methods.get(name).relabels}
    assert {name for name, case in cases.items() if not case.terms} <= early, "without a term in the main part, a method has a phase"


@pytest.mark.slow
def test_detectors_of_different_kinds_share_maps_and_no_rows(registry: Registry, tmp_path: Path) -> None:
    spec = registry.models.get("fasterrcnn")
    tiny = DETECTORS["fasterrcnn"].replace("mobilenet_v3_small", "resnet18")
    model = load_attribute(spec.implementation, "t")("fasterrcnn", 3, load_attribute(spec.options, "t")(**tomllib.loads(tiny)))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "teacher.safetensors")
    taught = f'[teacher]\nname = "fasterrcnn"\n{tiny}checkpoint = "{(tmp_path / "teacher.safetensors").as_posix()}"'
    resnet = 'teacher_stages = ["backbone.body.layer2.1.bn2", "backbone.body.layer3.1.bn2"]'
    maps = {"fitnet": Case(_P4), "ofd": Case(f"student_stages = {_BLOCKS}\n{resnet}")}
    path = write(tmp_path, "fcos", maps)
    path.write_text(f"{path.read_text()}\n{taught}")
    terms = dry_run(load(path, registry=registry), registry, device="cpu").parts[-1].reading.terms
    assert list(terms)[-2:] == ["fitnet", "ofd"]
    path = write(tmp_path, "fcos", {"kd": Case()})
    path.write_text(f"{path.read_text()}\n{taught}")
    with pytest.raises(DistillError, match="methods on logits compare the same places, and student and teacher have different anchors"):
        dry_run(load(path, registry=registry), registry, device="cpu")


def test_frozen_norms_have_no_statistics_of_the_batch(registry: Registry, tmp_path: Path) -> None:
    options = DETECTORS["fasterrcnn"] + "frozen_norm = true\n"
    spec = registry.models.get("fasterrcnn")
    model = load_attribute(spec.implementation, "t")("fasterrcnn", 3, load_attribute(spec.options, "t")(**tomllib.loads(options)))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "teacher.safetensors")
    case = Case('teacher_stages = ["stages"]\npooled = false\nteacher_norm = "batch"')
    path = write(tmp_path, "fasterrcnn", {"reviewkd": case}, tmp_path / "teacher.safetensors")
    path.write_text(f"{path.read_text()}\nfrozen_norm = true\n")  # the teacher's table is the last
    with pytest.raises(DistillError, match="`reviewkd` wants the teacher's batch normalisation to use the statistics of the batch"):
        dry_run(load(path, registry=registry), registry, device="cpu")


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_others_are_refused_in_a_sentence(detector: str, registry: Registry, tmp_path: Path) -> None:
    task = Detection(build_shapes(ShapesOptions(train=2, val=2, test=2, image_size=64), 0))
    cases = {name: case for name in CASES if (case := case_of(name, detector, registry)).refused}
    assert len(cases) >= 6
    if cases.pop("pseudo", None):
        spec = registry.models.get(detector)
        options = load_attribute(spec.options, detector)(**tomllib.loads(DETECTORS[detector]))
        model = load_attribute(spec.implementation, detector)(detector, 3, options)
        target = {"boxes": torch.ones(0, 4), "labels": torch.ones(0), "crowd": torch.ones(0) > 0, "weights": torch.ones(0)}
        batch = Batch(torch.zeros(1, 3, 64, 64), torch.empty(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), targets=[target])
        with pytest.raises(RunError, match="boxes that count differently"):
            task.forward(Tapped(model, spec, ()), batch)
    teacher = tmp_path / "teacher.pt"
    teacher.touch()
    for name, case in cases.items():
        needed = registry.methods.get(name).needs_teacher
        profile = load(write(tmp_path, detector, {name: case}, teacher if needed else None), registry=registry)
        with pytest.raises(DistillError, match=case.refused):
            check_reads(profile, task)


def table(registry: Registry) -> str:
    lines = [
        f"| method | {' | '.join(f'`{name}`' for name in DETECTORS)} | options, or why not |",
        "| --- |" + " --- |" * (len(DETECTORS) + 1),
    ]
    for name, case in CASES.items():
        spec = registry.methods.get(name)
        runs = "boxes" if spec.relabels else "rows" if on_rows(spec) else "maps"
        cells = [case_of(name, detector, registry) for detector in DETECTORS]
        reasons = dict.fromkeys(one.refused.replace(SIGMOIDS, "the detector has a sigmoid for each class") for one in cells if one.refused)
        told = "; ".join([*(f"`{line}`" for line in case.options.split("\n") if line and not case.refused), *reasons])
        lines.append(f"| `{name}` | {' | '.join('no' if one.refused else runs for one in cells)} | {told} |")
    return "\n".join(lines)


def test_the_readme_has_the_table_of_all_methods(registry: Registry) -> None:
    assert table(registry) in README.read_text(encoding="utf-8")
    ours = {spec.name for spec in registry.methods if registry.methods.plugin(spec).package.startswith("distillctl")}
    assert ours - {"none"} <= set(CASES)
    models = {spec.name for spec in registry.models if registry.models.plugin(spec).package == "distillctl-detection"}
    assert models - {"onnx"} == set(DETECTORS), "`onnx` is no student"
