"""Which methods run on a detector: all of them are tried, and the README has the table."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from distillctl import DistillError
from distillctl.commands.dry_run import dry_run
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.options import FasterRCNNOptions

README = Path(__file__).parents[1] / "README.md"
TINY = """name = "fasterrcnn"
backbone = "mobilenet_v3_small"
width = 8
head_width = 16
anchor_size = 8.0
proposals = 64
anchor_samples = 32
box_samples = 16
"""
PROFILE = f"""
[dataset]
name = "shapes"
train = 8
val = 2
test = 2
image_size = 64
[student]
{TINY}
[train]
epochs = 1
batch_size = 4
"""
_P4 = 'student_stage = "p4"\nteacher_stage = "p4"'
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
    "ofd": Case(_LEVELS, refused="finds no batch normalisation"),
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


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.manual_seed(1)
    options = FasterRCNNOptions(
        backbone="mobilenet_v3_small", width=8, head_width=16, anchor_size=8.0, proposals=64, anchor_samples=32, box_samples=16
    )
    torch.save(FasterRCNN(3, options).state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_each_method_runs_or_is_refused_in_a_sentence(name: str, registry: Registry, teacher: Path, tmp_path: Path) -> None:
    case = CASES[name]
    taught = f'[teacher]\n{TINY}checkpoint = "{teacher.as_posix()}"\n' if registry.methods.get(name).needs_teacher else ""
    profile = tmp_path / "profile.toml"
    profile.write_text(f'{PROFILE}[method]\nname = "{name}"\n{case.options}\n{taught}')
    if case.refused:
        with pytest.raises(DistillError, match=case.refused):
            dry_run(load(profile, registry=registry), registry, device="cpu")
        return
    terms = dry_run(load(profile, registry=registry), registry, device="cpu").parts[-1].reading.terms
    assert list(terms) == ["task.objectness", "task.rpn_box_reg", "task.classifier", "task.box_reg", *case.terms]


def table() -> str:
    lines = ["| method | on | options |", "| --- | --- | --- |"]
    registry = Registry.load()
    for name, case in CASES.items():
        spec = registry.methods.get(name)
        rows = spec.unit == "rows" or (spec.kind == "wrapper" and spec.inner_kinds != ("features",))
        where = f"no: it {case.refused}" if case.refused else "boxes" if spec.relabels else "proposals" if rows else "maps"
        stated = "; ".join(f"`{line}`" for line in case.options.split("\n") if line and not case.refused)
        lines.append(f"| `{name}` | {where} | {stated} |")
    return "\n".join(lines)


def test_the_readme_has_the_table_of_all_methods(registry: Registry) -> None:
    assert table() in README.read_text(encoding="utf-8")
    ours = {spec.name for spec in registry.methods if registry.methods.plugin(spec).package.startswith("distillctl")}
    assert ours - {"none"} <= set(CASES)
