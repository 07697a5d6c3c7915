"""`sdd` against its definition in plain Python loops, and what must hold of it."""

import math
from types import SimpleNamespace

import pytest
import torch

from distillctl import Batch
from distillctl.testing import make_progress, make_setup, options_of
from distillctl_sdd.losses import regional_vectors
from distillctl_sdd.method import SDD
from distillctl_sdd.plugin import SPEC

B, C, SIDE = 5, 4, 8
BASES = {"kd": {}, "dkd": {"alpha": 0.5, "beta": 2.0}, "nkd": {"gamma": 3.5}}


@pytest.fixture
def case():
    """Features in float64 whose map is twice as fine as the finest grid, and a setup with classifiers in float64."""
    setup = make_setup({"final": (3, SIDE, SIDE), "pooled": (3,)}, {"final": (6, SIDE, SIDE), "pooled": (6,)}, num_classes=C)
    generator = torch.Generator().manual_seed(0)
    student, teacher = {}, {}
    for features, side, channels in ((student, setup.student, 3), (teacher, setup.teacher, 6)):
        side.model.double()
        features["final"] = 4 * torch.randn(B, channels, SIDE, SIDE, dtype=torch.float64, generator=generator)
        features["pooled"] = features["final"].mean((2, 3))
    return SimpleNamespace(setup=setup, student=student, teacher=teacher, labels=torch.tensor([0, 3, 1, 1, 2]))


def sdd(case, override=None, **options):
    """The terms; `override` is the temperature that a wrapper hands over."""
    method = SDD(options_of(SPEC, **options), case.setup)
    batch = Batch(torch.zeros(B, 3, 4, 4), case.labels, torch.arange(B))
    extra = {} if override is None else {"temperature": override}
    return method.terms(batch, case.student, case.teacher, make_progress(), **extra)


def softmax(values, temperature=1.0):
    exponentials = [math.exp((v - max(values)) / temperature) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def without(values, g):
    return values[:g] + values[g + 1 :]


def kd(z_s, z_t, g, t):
    return t**2 * divergence(softmax(z_t, t), softmax(z_s, t))


def dkd(z_s, z_t, g, t, alpha, beta):
    p_s, p_t = softmax(z_s, t)[g], softmax(z_t, t)[g]
    target = divergence([p_t, 1 - p_t], [p_s, 1 - p_s])
    return t**2 * (alpha * target + beta * divergence(softmax(without(z_t, g), t), softmax(without(z_s, g), t)))


def nkd(z_s, z_t, g, t, gamma):
    other = sum(a * math.log(b) for a, b in zip(softmax(without(z_t, g), t), softmax(without(z_s, g), t), strict=True))
    return -softmax(z_t)[g] * math.log(softmax(z_s)[g]) - gamma * t**2 * other


def grid(plane, parts):
    """Means over parts×parts equal blocks of a square of numbers."""
    size = len(plane) // parts
    return [
        [sum(plane[i * size + a][j * size + b] for a in range(size) for b in range(size)) / size**2 for j in range(parts)]
        for i in range(parts)
    ]


def regional_logits(image, classifier, scales):
    """Logits of each region: the whole map, then the grids."""
    weight, bias = classifier.weight.tolist(), classifier.bias.tolist()
    finest = [grid(plane, max(scales)) for plane in image]
    out = []
    for scale in sorted(scales):
        coarse = [grid(plane, scale) for plane in finest]
        for i in range(scale):
            for j in range(scale):
                out.append(
                    [sum(w * plane[i][j] for w, plane in zip(row, coarse, strict=True)) + c for row, c in zip(weight, bias, strict=True)]
                )
    return out


def by_loops(case, base, scales, temperatures, factor=2.0, **factors):
    """(consistent, complementary), and how many regions are complementary."""
    loss = {"kd": kd, "dkd": dkd, "nkd": nkd}[base]
    parts, count, regions = [0.0, 0.0], 0, sum(s * s for s in scales)
    for b, g in enumerate(case.labels.tolist()):
        ours = regional_logits(case.student["final"][b].tolist(), case.setup.student.classifier, scales)
        theirs = regional_logits(case.teacher["final"][b].tolist(), case.setup.teacher.classifier, scales)
        globally = theirs[0].index(max(theirs[0])) == g
        for z_s, z_t in zip(ours, theirs, strict=True):
            locally = z_t.index(max(z_t)) == g
            apart = locally != globally
            count += apart
            parts[apart] += (factor if apart else 1.0) * loss(z_s, z_t, g, temperatures[b], **factors) / (B * regions)
    return parts, count


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("scales", [[1, 2, 4], [2, 1], [1, 4], [1, 2, 4, 8]])
def test_formula(case, base, scales):
    parts, count = by_loops(case, base, scales, [3.0] * B, **BASES[base])
    assert 0 < count < B * sum(s * s for s in scales)
    terms = sdd(case, base=base, scales=scales, temperature=3.0, **BASES[base])
    assert list(terms) == ["consistent", "complementary"]
    assert [term.item() for term in terms.values()] == pytest.approx(parts, rel=1e-10)


@pytest.mark.parametrize("base", BASES)
def test_temperature_of_a_wrapper(case, base):
    """0-dim or one for each sample, which then holds for all of its regions."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    parts, _ = by_loops(case, base, [1, 2], values, **BASES[base])
    terms = sdd(case, torch.tensor(values, dtype=torch.float64).unsqueeze(1), base=base, scales=[1, 2], **BASES[base])
    assert [term.item() for term in terms.values()] == pytest.approx(parts, rel=1e-10)
    parts, _ = by_loops(case, base, [1, 2], [2.5] * B, **BASES[base])
    terms = sdd(case, torch.tensor(2.5, dtype=torch.float64), base=base, scales=[1, 2], temperature=7.0, **BASES[base])
    assert [term.item() for term in terms.values()] == pytest.approx(parts, rel=1e-10)


def test_gradient_reaches_the_temperature(case):
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    sum(sdd(case, temperature, scales=[1, 2]).values()).backward()
    slope = sum(sign * sum(by_loops(case, "kd", [1, 2], [2 + sign * 1e-5] * B)[0]) for sign in (1, -1)) / 2e-5
    assert temperature.grad.item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_complementary_weight(case, factor):
    parts, _ = by_loops(case, "kd", [1, 2], [4.0] * B, factor)
    terms = sdd(case, scales=[1, 2], complementary_weight=factor)
    assert [term.item() for term in terms.values()] == pytest.approx(parts, rel=1e-10)


def test_without_weight_complementary_regions_are_left_out(case):
    terms = sdd(case, scales=[1, 2], complementary_weight=0.0)
    assert list(terms) == ["consistent"]
    assert terms["consistent"] == sdd(case, scales=[1, 2])["consistent"]


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_zero_value_and_gradient_at_equality_up_to_a_shift(base):
    setup = make_setup(*[{"final": (3, 4, 4), "pooled": (3,)}] * 2, num_classes=C)
    for side in (setup.student, setup.teacher):
        side.model.double()
    setup.student.model.load_state_dict(setup.teacher.model.state_dict())
    setup.student.classifier.bias.data += 3.0  # the same number for all classes
    maps = torch.randn(B, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    student = {"final": maps.clone().requires_grad_(), "pooled": maps.mean((2, 3)).requires_grad_()}
    teacher = {"final": maps, "pooled": maps.mean((2, 3))}
    one = SimpleNamespace(setup=setup, student=student, teacher=teacher, labels=torch.tensor([0, 1, 2, 3, 0]))
    total = sum(sdd(one, base=base).values())
    total.backward()
    assert abs(total.item()) < 1e-12
    assert student["final"].grad.abs().max() < 1e-12
    assert setup.student.classifier.weight.grad.abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(4, 4), (8, 8), (8, 12), (2, 2), (1, 1), (4, 2)])
def test_mean_over_each_grid_is_the_whole_map(shape):
    """Where the grid divides the map, or the map the grid."""
    maps = torch.randn(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    vectors = regional_vectors(maps, maps.mean((2, 3)), [1, 2, 4])
    assert vectors.shape == (2, 21, 3)
    for part in (vectors[:, 1:17], vectors[:, 17:]):
        torch.testing.assert_close(part.mean(1), vectors[:, 0])


def test_mean_of_regional_logits_is_the_logits(case):
    classifier = case.setup.student.classifier
    logits = classifier(regional_vectors(case.student["final"], case.student["pooled"], [1, 2, 4]))
    torch.testing.assert_close(logits[:, 1:17].mean(1), logits[:, 0])
    torch.testing.assert_close(logits[:, 17:].mean(1), logits[:, 0])


def test_coarse_grids_are_averaged_from_the_finest():
    """On a 7×7 map the windows overlap, so that it matters what the 2×2 regions are made of."""
    maps = torch.randn(1, 1, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    vectors = regional_vectors(maps, maps.mean((2, 3)), [1, 2, 4]).flatten()
    edges = [(0, 2), (1, 4), (3, 6), (5, 7)]
    finest = [[maps[0, 0, a:b, c:d].mean().item() for c, d in edges] for a, b in edges]
    coarse = [value for row in grid(finest, 2) for value in row]
    assert vectors[0].item() == maps.mean().item()
    assert vectors[1:].tolist() == pytest.approx([value for row in finest for value in row] + coarse, rel=1e-12)


def test_channels_last_maps_give_the_same_regions():
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    other = maps.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(regional_vectors(other, maps.mean((2, 3)), [1, 2]), regional_vectors(maps, maps.mean((2, 3)), [1, 2]))
