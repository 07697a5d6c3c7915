"""`byot` against its definition in plain Python loops, and what must hold of it."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from distillctl.testing import make_batch, make_features, make_progress, make_setup, options_of
from distillctl_byot.losses import feature_distance, soft_cross_entropy
from distillctl_byot.method import BYOT
from distillctl_byot.plugin import SPEC

B, C, D = 5, 6, 12
SHAPES = {"stage1": (4, 8, 8), "stage2": (6, 4, 4), "stage3": (8, 2, 2), "pooled": (D,)}
SETUP = make_setup(SHAPES, None, num_classes=C)


def byot(**options):
    torch.manual_seed(0)
    return BYOT(options_of(SPEC, **options), SETUP).double()


def inputs(size=B, seed=0):
    features = {name: value.double().requires_grad_() for name, value in make_features(SETUP.student, size, seed).items()}
    return make_batch(SETUP, size, seed), features


def draw(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(values):
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def label_loss(logits, labels):
    return sum(-math.log(softmax(z)[y]) for z, y in zip(logits, labels, strict=True)) / len(labels)


def soft_loss(logits, target, temperature):
    total = 0.0
    for z, t in zip(logits, target, strict=True):
        q, p = softmax([v / temperature for v in z]), softmax([v / temperature for v in t])
        total -= sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(logits)


def distance(features, target, mean=False):
    total = 0.0
    for row, other in zip(features, target, strict=True):
        for a, b in zip(row, other, strict=True):
            if a > 0 or b > 0:
                total += (a - b) ** 2
    return total / (len(features) * len(features[0])) if mean else total


@pytest.mark.parametrize("temperature", [1.0, 3.0, 7.5])
def test_soft_cross_entropy(temperature):
    logits, target = 3 * draw(B, C, seed=0), 3 * draw(B, C, seed=1)
    expected = soft_loss(logits.tolist(), target.tolist(), temperature)
    assert soft_cross_entropy(logits, target, temperature).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mean", [False, True])
def test_feature_distance(mean):
    features, target = draw(B, D, seed=0), draw(B, D, seed=1)
    found = feature_distance(features, target, "mean" if mean else "sum")
    assert found.shape == ()
    assert found.item() == pytest.approx(distance(features.tolist(), target.tolist(), mean), rel=1e-12)


def test_feature_distance_by_hand():
    features, target = torch.tensor([[1.0, -1.0, 2.0, -3.0]]), torch.tensor([[3.0, -5.0, -1.0, 0.5]])
    # (1 − 3)², nothing where both are negative, (2 + 1)², (−3 − 0.5)²
    assert feature_distance(features, target, "sum").item() == 4 + 9 + 12.25
    assert feature_distance(features, target, "mean").item() == 25.25 / 4


@pytest.mark.parametrize(
    ("alpha", "temperature", "beta", "reduction"), [(0.1, 3.0, 1e-6, "sum"), (0.4, 2.0, 0.01, "sum"), (0.4, 2.0, 0.5, "mean")]
)
def test_terms(alpha, temperature, beta, reduction):
    method, (batch, student) = byot(alpha=alpha, temperature=temperature, beta=beta, feature_reduction=reduction), inputs()
    terms = method.terms(batch, student, {}, make_progress())
    outputs = [exit_(student[name]) for name, exit_ in zip(("stage1", "stage2"), method.exits, strict=True)]
    logits, features = [z.tolist() for _, z in outputs], [f.tolist() for f, _ in outputs]
    target, labels, wanted = student["logits"].tolist(), batch.labels.tolist(), student["pooled"].tolist()
    assert list(terms) == ["labels", "kd", "features"]
    assert terms["labels"].item() == pytest.approx((1 - alpha) * sum(label_loss(z, labels) for z in logits), rel=1e-10)
    assert terms["kd"].item() == pytest.approx(alpha * sum(soft_loss(z, target, temperature) for z in logits), rel=1e-10)
    assert terms["features"].item() == pytest.approx(beta * sum(distance(f, wanted, reduction == "mean") for f in features), rel=1e-10)


def test_exits_learn_from_soft_labels_where_images_are_mixed():
    method, (batch, student) = byot(alpha=0.1), inputs()
    soft = draw(B, C, seed=3).softmax(1)
    terms = method.terms(replace(batch, soft=soft.float()), student, {}, make_progress())
    outputs = [exit_(student[name])[1].tolist() for name, exit_ in zip(("stage1", "stage2"), method.exits, strict=True)]
    expected = 0.0
    for logits in outputs:
        for z, shares in zip(logits, soft.float().tolist(), strict=True):
            expected -= 0.9 * sum(s * math.log(p) for s, p in zip(shares, softmax(z), strict=True)) / B
    assert terms["labels"].item() == pytest.approx(expected, rel=1e-9)


def test_default_weights_give_the_published_total():
    """(1 − α) Σ over all exits, the last one included; α T² Σ and β Σ over the shallow ones; α 0.1, T 3, β 1e-6."""
    method, (batch, student) = byot(), inputs()
    terms = method.terms(batch, student, {}, make_progress())
    total = SPEC.task_weight * F.cross_entropy(student["logits"], batch.labels) + SPEC.weight * sum(terms.values())
    outputs = [exit_(student[name]) for name, exit_ in zip(("stage1", "stage2"), method.exits, strict=True)]
    exits = [*(z.tolist() for _, z in outputs), student["logits"].tolist()]
    expected = 0.9 * sum(label_loss(z, batch.labels.tolist()) for z in exits)
    expected += 0.1 * sum(soft_loss(z, exits[-1], 3.0) for z in exits[:-1])
    expected += 1e-6 * sum(distance(f.tolist(), student["pooled"].tolist()) for f, _ in outputs)
    assert total.item() == pytest.approx(expected, rel=1e-10)


def test_d39_the_feature_term_is_a_sum_over_the_batch_and_can_be_a_mean():
    batch, student = inputs()
    order = torch.arange(B).repeat(2)
    twice = {name: value[order] for name, value in student.items()}
    doubled = type(batch)(batch.images[order], batch.labels[order], batch.index[order])
    for reduction, factor in (("sum", 2.0), ("mean", 1.0)):
        method = byot(beta=0.01, feature_reduction=reduction)
        once, again = (method.terms(b, s, {}, make_progress()) for b, s in ((batch, student), (doubled, twice)))
        assert again["features"].item() == pytest.approx(factor * once["features"].item(), rel=1e-10)
        assert again["labels"].item() == pytest.approx(once["labels"].item(), rel=1e-10)
        assert again["kd"].item() == pytest.approx(once["kd"].item(), rel=1e-10)
    summed = byot(beta=0.01).terms(batch, student, {}, make_progress())["features"]
    mean = byot(beta=0.01 * B * D, feature_reduction="mean").terms(batch, student, {}, make_progress())["features"]
    assert mean.item() == pytest.approx(summed.item(), rel=1e-10)


def test_d39_every_parameter_is_used():
    method, (batch, student) = byot(), inputs()
    sum(method.terms(batch, student, {}, make_progress()).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


@pytest.mark.parametrize("term", ["labels", "kd", "features"])
def test_no_term_reaches_the_end_of_the_network(term):
    method, (batch, student) = byot(beta=0.1), inputs()
    method.terms(batch, student, {}, make_progress())[term].backward()
    assert all(student[name].grad is None for name in ("stage3", "pooled", "logits"))
    assert all(student[name].grad.abs().sum() > 0 for name in ("stage1", "stage2"))


def test_without_alpha_and_beta_it_is_deep_supervision():
    method, (batch, student) = byot(alpha=0.0, beta=0.0), inputs()
    ((name, term),) = method.terms(batch, student, {}, make_progress()).items()
    logits = [exit_(student[stage])[1].tolist() for stage, exit_ in zip(("stage1", "stage2"), method.exits, strict=True)]
    assert name == "labels"
    assert term.item() == pytest.approx(sum(label_loss(z, batch.labels.tolist()) for z in logits), rel=1e-10)


def test_soft_targets_are_lowest_where_an_exit_agrees_with_the_network():
    target = draw(B, C, seed=3)
    logits = (target + 4.0).requires_grad_()  # a shift of a row changes no probability
    loss = soft_cross_entropy(logits, target, 3.0)
    loss.backward()
    p = torch.softmax(target / 3, 1)
    assert loss.item() == pytest.approx(-9 * (p * p.log()).sum(1).mean().item(), rel=1e-10)  # the entropy of the network
    assert logits.grad.abs().max() < 1e-12
