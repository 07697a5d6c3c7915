"""Every method on every kind of pair: it trains, or is refused before training in one sentence that says what would work.

What came out stands as a table in `plugins/README.md`; no cell of it is untested.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from distillctl.errors import ProfileError, RunError
from distillctl.plugin.registry import Registry

GUIDE = Path(__file__).parents[2] / "plugins" / "README.md"
BEGIN, END = "<!-- pairs: made by tests/methods/test_pairs.py -->\n", "<!-- end of pairs -->"

PAIRS: Mapping[str, tuple[str, str]] = {
    "same network": ("cifar/resnet8", "cifar/resnet8"),
    "deeper": ("cifar/resnet8", "cifar/resnet14"),
    "wider": ("cifar/resnet8", "cifar/resnet8x4"),
    "wide ResNets": ("cifar/wrn_16_1", "cifar/wrn_16_2"),
    "ResNet → ShuffleNet": ("cifar/ShuffleV2", "cifar/resnet8x4"),
    "VGG → MobileNet": ("cifar/MobileNetV2", "cifar/vgg8"),
    "4 → 3 stages": ("cifar/resnet8", "cifar/vgg8"),
    "3 → 4 stages": ("cifar/MobileNetV2", "cifar/resnet8x4"),
    "torchvision": ("torchvision/mobilenet_v2", "torchvision/resnet18"),
    "CNN → ViT": ("tiny_vit", "cifar/resnet8x4"),
    "ViT → CNN": ("cifar/resnet8", "tiny_vit"),
    "ViT → ViT": ("tiny_vit", "tiny_vit"),
}
"""Kind → student and teacher."""
KINDS = [kind if kind == "wider" else pytest.param(kind, marks=pytest.mark.slow) for kind in PAIRS]

METHODS = tuple(spec.name for spec in Registry.load().methods if spec.name != "none" and not spec.relabels)
_found: dict[tuple[str, str], str] = {}


def outcome(bench: Any, method: str, kind: str) -> str:
    """Empty if every part of a run trains, or the sentence of the refusal."""
    if (method, kind) not in _found:
        student, teacher = PAIRS[kind]
        needs = bench.registry.methods.get(method).needs_teacher
        try:
            experiment, _ = bench.run(bench.profile(f'[method]\nname = "{method}"', student, teacher if needs else None), steps=1)
        except (ProfileError, RunError) as error:
            (problem,) = error.problems
            assert problem.hint, problem
            _found[method, kind] = f"{problem.message}; {problem.hint}"
        else:
            experiment.close()
            _found[method, kind] = ""
    return _found[method, kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_it_trains_or_is_refused_clearly(bench: Any, method: str, kind: str) -> None:
    refusal = outcome(bench, method, kind)
    if refusal:
        assert "`" in refusal, "names the stages or models"
        assert "\n" not in refusal
        assert len(refusal) < 500


def table(bench: Any) -> str:
    """The table of the guide."""
    lines = ["| method | " + " | ".join(PAIRS) + " |", "| --- |" + " --- |" * len(PAIRS)]
    for method in METHODS:
        lines.append(f"| `{method}` | " + " | ".join("–" if outcome(bench, method, kind) else "✓" for kind in PAIRS) + " |")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_the_table_of_the_guide_is_current(bench: Any, request: pytest.FixtureRequest) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    made = table(bench)
    if request.config.getoption("--write"):
        before, _, rest = text.partition(BEGIN)
        text = f"{before}{BEGIN}{made}{END}{rest.partition(END)[2]}"
        GUIDE.write_text(text, encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == made, "uv run pytest tests/methods/test_pairs.py --write"


@pytest.mark.slow
def test_a_method_for_any_pair_is_refused_by_none(bench: Any) -> None:
    """What compares logits or samples knows no shapes."""
    for spec in bench.registry.methods:
        if spec.kind in ("logits", "relations") and spec.name not in ("sdd", "tfkd-self"):  # a map; one model
            assert [kind for kind in PAIRS if outcome(bench, spec.name, kind)] == [], spec.name


ADVICE = {
    "fsp": ("wider", 'student_stages = ["stage2", "stage3"]\nteacher_stages = ["stem", "stage1"]', ""),
    "kdsvd": ("wider", 'variant = "width"', ""),
    "reviewkd": ("ViT → CNN", 'teacher_stages = ["stages"]', ""),
    "ab": ("CNN → ViT", 'student_stages = ["stages"]', ""),
    "ofd": ("CNN → ViT", 'student_stages = ["stages"]', ""),
    "rdrop": ("deeper", "", "dropout = 0.2"),
    "cwd": ("torchvision", 'student_stages = ["stage3"]\nteacher_stages = ["stage3"]', ""),
}
"""What the hint of a refusal says, for one refused kind of pair."""


@pytest.mark.parametrize("method", ADVICE)
def test_what_a_refusal_advises_works(bench: Any, method: str) -> None:
    kind, options, extra = ADVICE[method]
    assert outcome(bench, method, kind)
    student, teacher = PAIRS[kind]
    needs = bench.registry.methods.get(method).needs_teacher
    profile = bench.profile(f'[method]\nname = "{method}"\n{options}', student, teacher if needs else None, extra=extra)
    experiment, terms = bench.run(profile, steps=1)
    experiment.close()
    assert any(key.startswith(method) for part in terms.values() for key in part)
