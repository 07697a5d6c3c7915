"""`dot`: the rule of its update, again as plain loops over numbers, and what follows from it."""

import io

import pytest
import torch

from distillctl import SeparateGradients
from distillctl_dot.optimizer import DISTILLATION, DOT, TASK

LR, MOMENTUM, DELTA, DECAY = 0.1, 0.9, 0.075, 0.01


def draw(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def parameter(*shape, seed=0, dtype=torch.float64):
    return torch.nn.Parameter(draw(*shape, seed=seed, dtype=dtype))


def dot(groups, **changes):
    return DOT(groups, **{"lr": LR, "momentum": MOMENTUM, "delta": DELTA, "weight_decay": DECAY, **changes})


def step(optimizer, grads):
    """`grads`: for each parameter the gradients of both sides, either may be None."""
    for p, (task, _) in grads.items():
        p.grad = None if task is None else task.clone()
    optimizer.distillation_grads = {p: kd.clone() for p, (_, kd) in grads.items() if kd is not None}
    optimizer.step()


def by_loops(theta, pairs, *, lr=LR, task_momentum, kd_momentum, decay_on):
    """One parameter, given as a list of numbers; `pairs`: for each step the lists of both gradients, or None."""
    v_ce = v_kd = None
    theta = list(theta)
    for g_ce, g_kd in pairs:
        decayed = [DECAY * x for x in theta]
        if g_ce is not None:
            g = [a + b for a, b in zip(g_ce, decayed, strict=True)] if decay_on == "task" else g_ce
            v_ce = g if v_ce is None else [task_momentum * v + x for v, x in zip(v_ce, g, strict=True)]
        if g_kd is not None:
            g = [a + b for a, b in zip(g_kd, decayed, strict=True)] if decay_on == "kd" else g_kd
            v_kd = g if v_kd is None else [kd_momentum * v + x for v, x in zip(v_kd, g, strict=True)]
        for v in (v_ce, v_kd):
            if v is not None:
                theta = [x - lr * y for x, y in zip(theta, v, strict=True)]
    return theta


def test_two_steps_by_hand():
    """θ₀ 1, η 0.1, μ 0.5, Δ 0.25, λ 0; gradients 2 and 4, then 1 and 0."""
    p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = dot([{"params": [p]}], momentum=0.5, delta=0.25, weight_decay=0.0)
    step(optimizer, {p: (torch.tensor([2.0]).double(), torch.tensor([4.0]).double())})
    assert p.item() == pytest.approx(1 - 0.1 * 6)  # v = g
    step(optimizer, {p: (torch.tensor([1.0]).double(), torch.tensor([0.0]).double())})
    assert optimizer.state[p][TASK].item() == pytest.approx(0.25 * 2 + 1)
    assert optimizer.state[p][DISTILLATION].item() == pytest.approx(0.75 * 4)
    assert p.item() == pytest.approx(0.4 - 0.1 * (1.5 + 3.0))


@pytest.mark.parametrize(
    ("sides", "task_momentum", "kd_momentum", "decay_on"),
    [
        ("both", MOMENTUM - DELTA, MOMENTUM + DELTA, "task"),
        ("task", MOMENTUM, None, "task"),
        ("kd", None, MOMENTUM, "kd"),
    ],
)
def test_rule_for_parameters_of_both_sides_or_one(sides, task_momentum, kd_momentum, decay_on):
    p = parameter(5)
    start = p.tolist()
    optimizer = dot([{"params": [p]}])
    pairs = []
    for k in range(7):
        pair = (None if sides == "kd" else draw(5, seed=2 * k + 1), None if sides == "task" else draw(5, seed=2 * k + 2))
        step(optimizer, {p: pair})
        pairs.append(tuple(None if g is None else g.tolist() for g in pair))
    expected = by_loops(start, pairs, task_momentum=task_momentum, kd_momentum=kd_momentum, decay_on=decay_on)
    torch.testing.assert_close(p.data, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert set(optimizer.state[p]) == {"both": {TASK, DISTILLATION}, "task": {TASK}, "kd": {DISTILLATION}}[sides]


def test_a_zero_gradient_is_not_a_missing_one():
    """With a KD gradient of zero, the task's momentum is μ − Δ; without one it is μ."""
    zero, missing = parameter(3), parameter(3)
    optimizer = dot([{"params": [zero, missing]}])
    for k in range(3):
        step(optimizer, {zero: (draw(3, seed=k), torch.zeros(3).double()), missing: (draw(3, seed=k), None)})
    assert not torch.allclose(zero, missing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_delta_it_is_sgd_on_the_sum(dtype):
    """50 steps with weight decay: tensors of several shapes, each reached by both sides, by one, now and then, or never."""
    shapes = [(4, 3), (4,), (2, 3, 3, 3), (1,), (6, 2)]
    ours = [parameter(*shape, seed=k, dtype=dtype) for k, shape in enumerate(shapes)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    optimizer = dot([{"params": ours}], delta=0.0)
    sgd = torch.optim.SGD(theirs, lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    for k in range(50):
        pairs = [tuple(draw(*shape, seed=1000 * k + 10 * i + side, dtype=dtype) for side in range(2)) for i, shape in enumerate(shapes)]
        pairs[1] = (pairs[1][0], None)
        pairs[2] = (None, pairs[2][1])
        pairs[3] = (pairs[3][0] if k % 3 else None, pairs[3][1] if k > 9 and k % 4 else None)
        pairs[4] = (None, None)
        step(optimizer, dict(zip(ours, pairs, strict=True)))
        for q, pair in zip(theirs, pairs, strict=True):
            found = [g for g in pair if g is not None]
            q.grad = sum(found) if found else None
        sgd.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert ours[4] not in optimizer.state


def test_a_side_that_comes_later_and_goes_again():
    """One number: alone with the label loss μ, then μ ∓ Δ for good; a missing gradient counts as 0, and none at all as no step."""
    p = parameter(1)
    optimizer = dot([{"params": [p]}], weight_decay=0.0)
    g = [draw(1, seed=k) for k in range(8)]
    low, high = MOMENTUM - DELTA, MOMENTUM + DELTA
    step(optimizer, {p: (g[0], None)})
    step(optimizer, {p: (g[1], None)})
    v_ce = MOMENTUM * g[0] + g[1]
    torch.testing.assert_close(optimizer.state[p][TASK], v_ce)
    step(optimizer, {p: (g[2], g[3])})
    v_ce, v_kd = low * v_ce + g[2], g[3]
    step(optimizer, {p: (g[4], None)})
    v_ce, v_kd = low * v_ce + g[4], high * v_kd
    step(optimizer, {p: (None, g[5])})
    v_ce, v_kd = low * v_ce, high * v_kd + g[5]
    torch.testing.assert_close(optimizer.state[p][TASK], v_ce)
    torch.testing.assert_close(optimizer.state[p][DISTILLATION], v_kd)
    before = p.detach().clone()
    step(optimizer, {p: (None, None)})
    assert torch.equal(p, before)
    assert torch.equal(optimizer.state[p][DISTILLATION], v_kd)
    step(optimizer, {p: (g[6], g[7])})
    torch.testing.assert_close(p.data, before - LR * (low * v_ce + g[6] + high * v_kd + g[7]))


def test_decay_enters_once_and_with_the_weights_before_the_step():
    p = parameter(4)
    start = p.detach().clone()
    optimizer = dot([{"params": [p]}])
    step(optimizer, {p: (torch.zeros(4).double(), torch.zeros(4).double())})
    torch.testing.assert_close(p.data, start * (1 - LR * DECAY))
    torch.testing.assert_close(optimizer.state[p][TASK], DECAY * start)
    assert not optimizer.state[p][DISTILLATION].any()


def test_d32_several_groups_with_their_own_settings():
    """The authors' code takes one group only; here every group has its own rate, decay and momenta, at every step."""
    settings = [{}, {"lr": 0.01, "weight_decay": 0.0}, {"momentum": 0.5, "delta": 0.2}]
    together = [parameter(3, seed=k) for k in range(3)]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in together]
    optimizer = dot([{"params": [p], "lr_scale": 2.0, **extra} for p, extra in zip(together, settings, strict=True)])
    singles = [dot([{"params": [p]}], **extra) for p, extra in zip(alone, settings, strict=True)]
    assert all(group["lr_scale"] == 2.0 for group in optimizer.param_groups)
    for k in range(6):
        pairs = [(draw(3, seed=10 * k + i), draw(3, seed=10 * k + i + 5)) for i in range(3)]
        for one in (optimizer, *singles):
            for group in one.param_groups:  # as the engine's schedule does
                group["lr"] *= 0.8
        step(optimizer, dict(zip(together, pairs, strict=True)))
        for single, p, pair in zip(singles, alone, pairs, strict=True):
            step(single, {p: pair})
    assert all(torch.equal(p, q) for p, q in zip(together, alone, strict=True))


def test_state_round_trip_is_exact():
    def run(optimizer, params, seeds):
        for k in seeds:
            step(optimizer, {params[0]: (draw(3, seed=k), draw(3, seed=k + 50)), params[1]: (None, draw(2, seed=k + 90))})

    straight = [parameter(3), parameter(2)]
    optimizer = dot([{"params": [straight[0]]}, {"params": [straight[1]], "weight_decay": 0.0}])
    run(optimizer, straight, range(4))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = [torch.nn.Parameter(p.detach().clone()) for p in straight]
    other = dot([{"params": [resumed[0]]}, {"params": [resumed[1]]}], lr=7.0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert [set(other.state[p]) for p in resumed] == [{TASK, DISTILLATION}, {DISTILLATION}]
    assert [group["weight_decay"] for group in other.param_groups] == [DECAY, 0.0]
    for one, params in ((optimizer, straight), (other, resumed)):
        run(one, params, range(4, 7))
    assert all(torch.equal(p, q) for p, q in zip(straight, resumed, strict=True))
    assert all(
        torch.equal(optimizer.state[p][k], other.state[q][k]) for p, q in zip(straight, resumed, strict=True) for k in other.state[q]
    )


def test_gradients_are_left_as_they_are_and_may_lie_otherwise_in_memory():
    p, q = parameter(2, 3, 4, 4), parameter(2, 3, 4, 4)
    task, kd = draw(2, 3, 4, 4, seed=1), draw(2, 3, 4, 4, seed=2)
    first, second = dot([{"params": [p]}]), dot([{"params": [q]}])
    for _ in range(2):
        step(first, {p: (task, kd)})
        q.grad = task.contiguous(memory_format=torch.channels_last)
        second.distillation_grads = {q: kd.contiguous(memory_format=torch.channels_last)}
        second.step()
        assert torch.equal(q.grad, task)
        assert torch.equal(second.distillation_grads[q], kd)
    assert torch.equal(p, q)


def test_before_the_first_gradients_a_step_does_nothing():
    p = parameter(2)
    start = p.detach().clone()
    optimizer = dot([{"params": [p]}])
    assert isinstance(optimizer, SeparateGradients)
    optimizer.step()
    assert torch.equal(p, start)
    assert not optimizer.state_dict()["state"]
