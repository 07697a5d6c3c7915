from __future__ import annotations

import pytest
import torch

from distillctl.data.hashing import hash_index, mix


def splitmix(values: list[int]) -> int:
    """splitmix64's finaliser, chained, with the arithmetic of unbounded integers."""
    state = 0
    for value in values:
        z = ((state ^ value) + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z // 2**30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z // 2**27) * 0x94D049BB133111EB % 2**64
        state = z ^ z // 2**31
    return state // 2


def test_first_output_of_splitmix64_for_seed_0():
    assert mix(0) == 0xE220A8397B1DCDAF >> 1  # the published first output of the generator


@pytest.mark.parametrize("prefix", [(), (0,), (1, 2, 3), (2**63, 2**64 - 1), (2**40, 7)])
def test_tensors_and_integers_agree_in_every_bit(prefix):
    index = torch.cat([torch.arange(300), torch.tensor([2**31, 2**62 + 5, 2**63 - 1])])
    assert hash_index(index, *prefix).tolist() == [splitmix([*prefix, i]) for i in index.tolist()]
    assert [mix(*prefix, i) for i in index.tolist()] == [splitmix([*prefix, i]) for i in index.tolist()]


def test_negative_and_large_integers_are_taken_modulo_two_to_the_64():
    assert mix(-1) == mix(2**64 - 1)
    assert mix(2**64 + 3) == mix(3)


def test_order_and_length_matter():
    assert len({mix(1, 2), mix(2, 1), mix(1, 2, 0), mix(0, 1, 2), mix(1), mix(2)}) == 6


def test_bits_look_random():
    h = hash_index(torch.arange(20000), 5, 6)
    assert int(h.min()) >= 0
    ones = torch.stack([(h >> b) & 1 for b in range(63)]).double().mean(1)
    assert float((ones - 0.5).abs().max()) < 0.02  # more than five standard deviations
    changed = hash_index(torch.arange(20000) ^ 1, 5, 6) ^ h
    assert float(torch.stack([(changed >> b) & 1 for b in range(63)]).double().mean()) == pytest.approx(0.5, abs=0.01)
