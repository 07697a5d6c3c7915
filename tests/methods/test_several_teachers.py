"""Several teachers: what methods see of them against loops in float64, single runs within them, and every method with two."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.api.method import Progress
from distillctl.engine.objective import Losses
from distillctl.errors import ProfileError, RunError
from distillctl.plugin.registry import Registry

TWO = ("tiny_wide", "cifar/resnet8")
STUDENT = "tiny_cnn"


def looked_at(bench: Any, method: str, teacher: str | tuple[str, ...]) -> tuple[Losses, Tensor, list[Tensor], Any]:
    """The losses of one batch, logits of the student and of each teacher, and the batch. Answers are as sure as those of trained ones."""
    made = bench.experiment(bench.profile(method, STUDENT, teacher))
    sure = [model.register_forward_hook(lambda *given: 20 * given[-1]) for model in (made.model, *(one.model for one in made.networks))]
    torch.manual_seed(7)
    try:
        batch = next(iter(made.loader.epoch(0)))
        objective = made.objective
        objective.eval()
        progress = Progress(torch.tensor(1.0), torch.tensor(0.0))
        losses = objective(batch, made.teacher.look(batch, objective.teacher_norms), progress)
        with torch.no_grad():
            logits = [network.model(batch.images) for network in made.networks]
            return losses, made.model(batch.images), logits, batch
    finally:
        for handle in sure:
            handle.remove()
        made.close()


def method(name: str = "kd", *lines: str) -> str:
    return "\n".join(["[method]", f'name = "{name}"', *lines])


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    parts = [math.exp(value - top) for value in row]
    return [part / sum(parts) for part in parts]


def kd_by_hand(student: Tensor, answers: list[list[float]], temperature: float) -> float:
    """T² · mean over the rows of Σ_c p_c · log(p_c / q_c), with p of the logits `answers`."""
    total = 0.0
    for ours, theirs in zip(student.double().tolist(), answers, strict=True):
        p, q = (softmax([value / temperature for value in row]) for row in (theirs, ours))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(answers)


def mean_by_hand(logits: list[Tensor], weights: list[list[float]]) -> list[list[float]]:
    """Row by row the logarithm of the weighted mean of the probabilities. weights: of each row, one for each teacher."""
    rows = []
    for number, shares in enumerate(weights):
        each = [softmax(one[number].double().tolist()) for one in logits]
        rows.append([math.log(sum(w * p[c] for w, p in zip(shares, each, strict=True))) for c in range(len(each[0]))])
    return rows


@pytest.mark.parametrize(("stated", "weights"), [("", [0.5, 0.5]), ("teacher_weights = [0.7, 0.3]", [0.7, 0.3])])
def test_kd_learns_from_the_mean_of_probabilities(bench: Any, stated: str, weights: list[float]) -> None:
    losses, student, logits, _ = looked_at(bench, method("kd", "temperature = 3.0", stated), TWO)
    expected = kd_by_hand(student, mean_by_hand(logits, [weights] * len(student)), 3.0)
    assert losses.terms["kd"].item() == pytest.approx(expected, rel=1e-5)


def test_kd_once_for_each(bench: Any) -> None:
    """Its gradient is that of the mean of probabilities softened at T, which `mean` softens afterwards."""
    losses, student, logits, _ = looked_at(bench, method("kd", "weight = 2.0", 'teachers = "each"', "teacher_weights = [0.7, 0.3]"), TWO)
    for name, one in zip(("tiny_wide", "resnet8"), logits, strict=True):
        assert losses.terms[f"kd[{name}]"].item() == pytest.approx(kd_by_hand(student, one.double().tolist(), 4.0), rel=1e-5)
    expected = 2.0 * (0.7 * losses.terms["kd[tiny_wide]"] + 0.3 * losses.terms["kd[resnet8]"])
    torch.testing.assert_close(losses.distillation, expected)


def test_who_is_nearer_to_the_label_counts_more(bench: Any) -> None:
    """CA-MKD's weights, image by image."""
    losses, student, logits, batch = looked_at(bench, method("kd", 'teacher_weights = "confidence"'), TWO)
    weights = []
    for number, label in enumerate(batch.labels.tolist()):
        wrong = softmax([-math.log(softmax(one[number].double().tolist())[label]) for one in logits])
        weights.append([1 - share for share in wrong])
    assert max(max(row) for row in weights) > 0.51
    expected = kd_by_hand(student, mean_by_hand(logits, weights), 4.0)
    assert losses.terms["kd"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["at", "vid", "crd"])
def test_the_terms_for_each_are_those_of_runs_with_one(bench: Any, name: str) -> None:
    """Of methods with modules and draws of their own too: the first one's are those of a run with that teacher alone."""
    lines = ["negatives = 8"] if name == "crd" else []
    both, _, _, _ = looked_at(bench, method(name, *lines, "weight = 1.0", "teacher_weights = [0.25, 0.75]"), TWO)
    alone, _, _, _ = looked_at(bench, method(name, *lines, "weight = 1.0"), TWO[0])
    (first, second) = [value for key, value in both.terms.items() if key.startswith(f"{name}[")]
    assert torch.equal(first, alone.terms[name])
    torch.testing.assert_close(both.distillation, 0.25 * first + 0.75 * second)


@pytest.mark.parametrize("name", ["kd", "at", "vid", "dkd", "simkd"])
def test_all_weight_on_one_is_a_run_with_that_one(bench: Any, name: str) -> None:
    """Bit for bit where the method asks each; a mean of one goes through logarithms."""
    lines = ['teachers = "each"'] if name == "kd" else []
    found, _, _, _ = looked_at(bench, method(name, *lines, "teacher_weights = [1.0, 0.0]"), TWO)
    alone, _, _, _ = looked_at(bench, method(name), TWO[0])
    if name == "dkd":
        torch.testing.assert_close(found.distillation, alone.distillation, rtol=1e-6, atol=1e-6)
    else:
        assert torch.equal(found.task + found.distillation, alone.task + alone.distillation)
        assert sorted(found.terms) == sorted(key if key == "task" else f"{name}[tiny_wide]" for key in alone.terms)


@pytest.mark.parametrize("name", ["kd", "at"])
def test_their_order_is_only_a_matter_of_rounding(bench: Any, name: str) -> None:
    bench.teacher(TWO[1], 0), bench.teacher(TWO[0], 1)  # each with the same weights at either place
    known = bench._teachers
    kept = dict(known)
    known[TWO[1], 0], known[TWO[0], 1] = bench.teacher(TWO[1], 1), bench.teacher(TWO[0], 0)
    try:
        one, _, _, _ = looked_at(bench, method(name, "teacher_weights = [0.8, 0.2]"), TWO)
        other, _, _, _ = looked_at(bench, method(name, "teacher_weights = [0.2, 0.8]"), TWO[::-1])
    finally:
        known.update(kept)
    torch.testing.assert_close(one.distillation, other.distillation)


def test_two_of_one_model_have_names_of_their_own(bench: Any) -> None:
    losses, _, _, _ = looked_at(bench, method("at"), ("tiny_wide", "tiny_wide"))
    assert {"at[tiny_wide]", "at[tiny_wide-2]"} < set(losses.terms)
    assert losses.terms["at[tiny_wide]"] != losses.terms["at[tiny_wide-2]"]


def test_a_teacher_runs_where_it_is_asked_alone(bench: Any) -> None:
    text = method("kd").replace("[method]", "[[method]]") + '\n[[method]]\nname = "at"\nteacher_weights = [0.0, 1.0]\ntask_weight = 0.5'
    made = bench.experiment(bench.profile(text, STUDENT, TWO))
    try:
        assert made.objective.teacher_norms == ("running", "running@1")
        names = [network.names for network in made.networks]
        assert (names[0], bool(names[1])) == ((), True)
    finally:
        made.close()
    made = bench.experiment(
        bench.profile(method("reviewkd", 'teacher_norm = "batch"'), "cifar/resnet8", ("cifar/resnet14", "cifar/resnet8"))
    )
    try:
        assert made.objective.teacher_norms == ("batch", "batch@1")
        before = {key: value.clone() for network in made.networks for key, value in network.model.state_dict().items()}
        batch = next(iter(made.loader.epoch(0)))
        looks = made.teacher.look(batch, ["running", "running@1", "batch", "batch@1"])
        assert not torch.equal(looks["running@1"]["logits"], looks["batch@1"]["logits"])
        assert all(torch.equal(value, before[key]) for key, value in made.networks[1].model.state_dict().items())
    finally:
        made.close()


REFUSED = {
    "simkd": "both replace the classifier of `resnet8`",
    "tfkd-self": "`tfkd-self` learns from an earlier run of the same model, but the teacher is `resnet14+resnet8`",
}
NAMES = [spec.name for spec in Registry.load().methods if spec.name != "none"]
FEW = ("kd", "at", "ctkd", "crd", "simkd", "pseudo")
METHODS = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_from_two_or_is_refused_in_a_sentence(bench: Any, name: str) -> None:
    spec = bench.registry.methods.get(name)
    teacher = ("cifar/resnet14", "cifar/resnet8") if spec.needs_teacher else None
    try:
        experiment, terms = bench.run(bench.profile(method(name), "cifar/resnet8", teacher, extra="dropout = 0.2"), steps=1)
    except (ProfileError, RunError) as error:
        (problem,) = error.problems
        assert name in REFUSED, problem
        assert REFUSED[name] in problem.message
        assert problem.hint
        return
    experiment.close()
    assert name not in REFUSED
    own = [key for part in terms.values() for key in part if key.startswith(name)]
    for other in ("resnet14", "resnet8"):  # one for each, or one for both
        assert any(f"[{other}]" in key for key in own) == any("[" in key for key in own), own
    if spec.relabels:
        assert not own
    elif spec.kind == "features" and name != "ofa":  # whose features are the student's
        assert any("[" in key for key in own), own
    elif spec.kind == "logits":
        assert own
        assert not any("[" in key for key in own), own


def test_an_earlier_run_of_the_same_model_twice(bench: Any) -> None:
    _, terms = bench.run(bench.profile(method("tfkd-self", 'teachers = "each"'), "cifar/resnet8", ("cifar/resnet8",) * 2), steps=1)
    assert {"tfkd-self[resnet8]", "tfkd-self[resnet8-2]"} < terms["main"].keys()


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (method("at", 'teachers = "mean"'), "`at` reads the feature `stages` of its teacher"),
        (method("at", 'teacher_weights = "confidence"'), "`at` reads features and learns from each teacher by itself"),
    ],
)
def test_what_has_no_meaning_is_refused(bench: Any, stated: str, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        bench.experiment(bench.profile(stated, STUDENT, TWO))
    assert message in caught.value.problems[0].message
    assert caught.value.problems[0].hint
