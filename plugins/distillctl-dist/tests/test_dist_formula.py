"""`dist` against its definition in plain Python loops, and what must hold of it."""

import math
from types import SimpleNamespace

import pytest
import torch

from distillctl import Batch
from distillctl.testing import make_progress, make_setup, options_of
from distillctl_dist.losses import correlation, inter_loss, intra_loss
from distillctl_dist.method import DIST
from distillctl_dist.plugin import SPEC

B, C = 6, 5


def dist(student, teacher, override=None, **options):
    """The terms; `override` is the temperature that a wrapper hands over."""
    method = DIST(options_of(SPEC, **options), make_setup({}, {}, num_classes=student.shape[1]))
    batch = Batch(torch.zeros(len(student), 3, 4, 4), torch.zeros(len(student), dtype=torch.int64), torch.arange(len(student)))
    extra = {} if override is None else {"temperature": override}
    return method.terms(batch, {"logits": student}, {"logits": teacher}, make_progress(), **extra)


def draw(size, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(3 * torch.randn(size, classes, dtype=torch.float64, generator=generator) for _ in range(2))


@pytest.fixture
def data():
    student, teacher = draw(B, C)
    return SimpleNamespace(student=student, teacher=teacher)


def softmax(values, temperature):
    exponentials = [math.exp((v - max(values)) / temperature) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def pearson(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    dot = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    norm_a, norm_b = (math.sqrt(sum((x - m) ** 2 for x in v)) for v, m in ((a, mean_a), (b, mean_b)))
    return dot / (norm_a * norm_b + 1e-8)


def by_loops(student, teacher, temperatures):
    """ρ of every row, and ρ of every column; one temperature for each sample."""
    y_s = [softmax(z, t) for z, t in zip(student.tolist(), temperatures, strict=True)]
    y_t = [softmax(z, t) for z, t in zip(teacher.tolist(), temperatures, strict=True)]
    rows = [pearson(a, b) for a, b in zip(y_s, y_t, strict=True)]
    columns = [pearson(a, b) for a, b in zip(zip(*y_s, strict=True), zip(*y_t, strict=True), strict=True)]
    return rows, columns


@pytest.mark.parametrize(("temperature", "beta", "gamma"), [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0), (2.5, 3.0, 0.5)])
@pytest.mark.parametrize(("size", "classes"), [(6, 5), (2, 9), (12, 2)])
def test_formula(size, classes, temperature, beta, gamma):
    student, teacher = draw(size, classes, size)
    rows, columns = by_loops(student, teacher, [temperature] * size)
    terms = dist(student, teacher, temperature=temperature, beta=beta, gamma=gamma)
    assert set(terms) == {"inter", "intra"}
    assert terms["inter"].item() == pytest.approx(beta * temperature**2 * (1 - sum(rows) / size), rel=1e-10)
    assert terms["intra"].item() == pytest.approx(gamma * temperature**2 * (1 - sum(columns) / classes), rel=1e-10)


def test_eps_is_added_to_the_product_of_the_norms():
    """Norms of 1e-4: their product is 1e-8, so that the correlation of a vector with itself is one half."""
    vector = 1e-4 * torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64) / math.sqrt(2)
    assert correlation(vector, vector, 1).item() == pytest.approx(0.5, rel=1e-6)
    assert correlation(1e-3 * vector, vector, 1).item() == pytest.approx(1e-3 / (1 + 1e-3), rel=1e-6)
    assert correlation(1e4 * vector, vector, 1).item() == pytest.approx(1 / (1 + 1e-4), rel=1e-6)


def test_hand_values_of_the_correlation():
    a = torch.tensor([[1.0, 2.0, 3.0], [1.0, 0.0, 0.0]])
    b = torch.tensor([[2.0, 4.0, 6.0], [0.0, 1.0, 0.0]])
    assert correlation(a, b, 1).tolist() == pytest.approx([1.0, -0.5], abs=1e-6)
    assert correlation(a, b, 0).tolist() == pytest.approx([0.0, 1.0, 1.0], abs=1e-6)  # the first column of a is constant


def test_temperature_of_a_wrapper_replaces_the_option(data):
    terms = dist(data.student, data.teacher, torch.tensor(2.5), temperature=7.0)
    alone = dist(data.student, data.teacher, temperature=2.5)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx({k: v.item() for k, v in alone.items()}, rel=1e-12)


def test_temperature_per_sample(data):
    """The square of each sample's temperature in `inter`, the mean of the squares in `intra`."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    rows, columns = by_loops(data.student, data.teacher, values)
    terms = dist(data.student, data.teacher, torch.tensor(values, dtype=torch.float64).unsqueeze(1))
    assert terms["inter"].item() == pytest.approx(sum(t**2 * (1 - r) for t, r in zip(values, rows, strict=True)) / B, rel=1e-10)
    assert terms["intra"].item() == pytest.approx(sum(t**2 for t in values) / B * (1 - sum(columns) / C), rel=1e-10)


def test_gradient_reaches_the_temperature(data):
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    sum(dist(data.student, data.teacher, temperature).values()).backward()

    def loss(t):
        rows, columns = by_loops(data.student, data.teacher, [t] * B)
        return t**2 * (2 - sum(rows) / B - sum(columns) / C)

    assert temperature.grad.item() == pytest.approx((loss(2 + 1e-6) - loss(2 - 1e-6)) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_almost_zero_at_equality_up_to_a_shift(data, temperature):
    terms = dist(data.teacher + torch.arange(B)[:, None], data.teacher, temperature=temperature)
    assert all(0 <= term.item() < 1e-2 for term in terms.values())
    apart = dist(data.student, data.teacher, temperature=temperature)
    assert all(term.item() > 0.1 for term in apart.values())


def test_scale_of_the_logits_matters(data):
    before, after = dist(data.student, data.teacher), dist(2 * data.student, data.teacher)
    assert after["inter"].item() != pytest.approx(before["inter"].item(), rel=1e-3)


def test_affine_maps_leave_the_correlation(data):
    a, b = data.student, data.teacher
    for dim in (0, 1):
        torch.testing.assert_close(correlation(3 * a + 2, b, dim), correlation(a, b, dim), rtol=1e-6, atol=0)
        torch.testing.assert_close(correlation(-a, b, dim), -correlation(a, b, dim), rtol=1e-12, atol=0)


def test_classes_and_samples_may_change_places_on_both_sides(data):
    rows, columns = torch.tensor([3, 0, 5, 2, 1, 4]), torch.tensor([4, 0, 2, 1, 3])
    before = dist(data.student, data.teacher)
    after = dist(data.student[rows][:, columns], data.teacher[rows][:, columns])
    assert {k: v.item() for k, v in after.items()} == pytest.approx({k: v.item() for k, v in before.items()}, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_values_stay_within_their_range(temperature):
    student, teacher = draw(4, 2, 3)
    opposite = dist(-teacher, teacher, temperature=temperature)
    assert opposite["inter"].item() == pytest.approx(2 * temperature**2, rel=1e-4)  # two classes: exactly opposed
    for term in dist(student, teacher, temperature=temperature).values():
        assert 0 <= term.item() <= 2 * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_uniform_student(data, temperature):
    """Correlates with nothing: T² each, 32 in all at T = 4; the gradients are finite."""
    student = torch.zeros(B, C, requires_grad=True)
    terms = dist(student, data.teacher.float(), temperature=temperature)
    sum(terms.values()).backward()
    assert [term.item() for term in terms.values()] == pytest.approx([temperature**2] * 2)
    assert student.grad.isfinite().all()


def test_batch_of_one_has_no_intra_but_a_graph(data):
    student = data.student[:1].clone().requires_grad_()
    terms = dist(student, data.teacher[:1])
    assert terms["intra"] == 0
    terms["intra"].backward()
    assert (student.grad == 0).all()
    assert terms["inter"].item() == pytest.approx(1 - by_loops(data.student[:1], data.teacher[:1], [1.0])[0][0], rel=1e-10)


def test_d12_intra_relates_the_samples_of_the_batch_it_is_given(data):
    """Two halves of a batch, as two processes would see it, are not the batch: `intra` differs, `inter` is the mean of both."""
    whole = dist(data.student, data.teacher)
    halves = [dist(data.student[part], data.teacher[part]) for part in (slice(0, 3), slice(3, 6))]
    assert sum(half["inter"] for half in halves).item() / 2 == pytest.approx(whole["inter"].item(), rel=1e-10)
    assert sum(half["intra"] for half in halves).item() / 2 != pytest.approx(whole["intra"].item(), rel=1e-2)


@pytest.mark.parametrize("gap", [1e2, 1e4])
def test_sure_networks_stay_finite(gap):
    teacher = gap * torch.eye(4, C)
    for student in (teacher.clone(), -teacher, torch.zeros(4, C)):
        student.requires_grad_()
        terms = dist(student, teacher)
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
        assert student.grad.isfinite().all()


def test_factor_of_zero_leaves_a_term_out(data):
    assert set(dist(data.student, data.teacher, beta=0.0)) == {"intra"}
    assert set(dist(data.student, data.teacher, gamma=0.0)) == {"inter"}


def test_losses_are_the_terms(data):
    terms = dist(data.student, data.teacher, temperature=3.0)
    assert terms["inter"] == inter_loss(data.student, data.teacher, 3.0)
    assert terms["intra"] == intra_loss(data.student, data.teacher, 3.0)
