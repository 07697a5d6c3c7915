"""Several methods in one run: named combinations, and random ones."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from distillctl.errors import RunError
from distillctl.plugin.registry import Registry

DOT = '[optimizer]\nname = "dot"\nlr = 0.01'


def tables(*methods: str, task_weight: float = 1.0) -> str:
    """A `[[method]]` table for each; `outer(inner)` wraps."""
    text = ""
    for number, method in enumerate(methods):
        outer, _, inner = method.rstrip(")").partition("(")
        text += f'[[method]]\nname = "{outer}"\n' + (f"task_weight = {task_weight}\n" if not number else "")
        depth = "method.inner"
        while inner:
            name, _, inner = inner.partition("(")
            text += f'[{depth}]\nname = "{name}"\n'
            depth += ".inner"
    return text


COMBINATIONS = {
    "crd + kd": (("crd", "kd"), "sgd"),
    "at + kd": (("at", "kd"), "sgd"),
    "reviewkd + dkd": (("reviewkd", "dkd"), "sgd"),
    "rkd + rdrop + kd with dot": (("rkd", "rdrop", "kd"), "dot"),
    "ctkd around kd": (("ctkd(kd)",), "sgd"),
    "lskd around ctkd around dkd": (("lskd(ctkd(dkd))",), "sgd"),
    "ctkd around lskd around kd, with crd": (("ctkd(lskd(kd))", "crd"), "sgd"),
    "simkd + sp": (("simkd", "sp"), "sgd"),
    "phases one after the other: ft + fsp + ab + kd": (("ft", "fsp", "ab", "kd"), "dot"),
    "ofd + kd, whose teachers normalise otherwise": (("ofd", "kd"), "sgd"),
    "byot + rdrop, without a teacher": (("byot", "rdrop"), "dot"),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_named_combination(bench: Any, name: str) -> None:
    """Every term is there and finite, and every trained parameter moves."""
    methods, optimizer = COMBINATIONS[name]
    teacher = None if name.endswith("without a teacher") else "cifar/resnet14"
    options = {"optimizer": DOT} if optimizer == "dot" else {}
    profile = bench.profile(tables(*methods), "cifar/resnet8", teacher, extra="dropout = 0.2", **options)
    torch.manual_seed(0)
    experiment, terms = bench.run(profile, steps=1)
    outer = [method.partition("(")[0] for method in methods]
    later = {key.partition(".")[0] for key in terms["main"]}
    assert later == {"task", *(m for m in outer if m not in ("fsp", "ab"))}
    assert [part for part in terms if part != "main"] == [
        f"{m}.{phase}" for m, phase in (("ft", "paraphraser"), ("fsp", "init"), ("ab", "init")) if m in outer
    ]
    start = {n: p.detach().clone() for n, p in experiment.objective.named_parameters() if p.requires_grad}
    bench.steps(experiment, 3)
    still = [n for n, p in experiment.objective.named_parameters() if n in start and torch.equal(p, start[n])]
    experiment.close()
    # The reused classifier makes the student's last blocks its own; everything else is reached.
    assert not still


def test_rdrop_acts_beside_other_methods(bench: Any) -> None:
    """D-16: beside distillation its term, and not the second pass alone, changes what is learnt."""
    states = []
    for weight in (0.3, 3.0):
        methods = tables("kd", "rdrop") + f"weight = {weight}\n"
        experiment, terms = bench.run(bench.profile(methods, "cifar/resnet8", "cifar/resnet14", extra="dropout = 0.3"), steps=1)
        assert terms["main"]["rdrop"] > 0
        states.append(experiment.model.state_dict())
        experiment.close()
    assert any(not torch.equal(states[0][key], states[1][key]) for key in states[0])


ALL = tuple(spec.name for spec in Registry.load().methods if spec.name not in ("none", "tfkd-self") and not spec.relabels)
DRAW = random.Random(20261120)
DRAWN = [(*DRAW.sample(ALL, 3), DRAW.choice(("sgd", "dot"))) for _ in range(26)]
TRIPLES = [triple for triple in DRAWN if not {"simkd", "sdd"} <= set(triple)]  # see below


@pytest.mark.slow
@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
def test_random_triple(bench: Any, triple: tuple[str, ...]) -> None:
    """Any three methods train together on a pair that each of them takes."""
    *methods, optimizer = triple
    needs = any(bench.registry.methods.get(m).needs_teacher for m in methods)
    options = {"optimizer": DOT} if optimizer == "dot" else {}
    profile = bench.profile(tables(*methods), "cifar/resnet8", "cifar/resnet14" if needs else None, extra="dropout = 0.2", **options)
    experiment, terms = bench.run(profile, steps=2)
    experiment.close()
    assert {key.partition(".")[0] for part in terms.values() for key in part} == {"task", *methods}


def test_what_reads_the_classifier_is_built_for_the_head_that_replaces_it(bench: Any) -> None:
    """`sdd` classifies regions by the student's own classifier, which `simkd` takes away: refused, in either order."""
    for methods in (("simkd", "sdd"), ("sdd", "simkd")):
        with pytest.raises(RunError, match="`sdd`"):
            bench.experiment(bench.profile(tables(*methods), "cifar/resnet8", "cifar/resnet14"))
