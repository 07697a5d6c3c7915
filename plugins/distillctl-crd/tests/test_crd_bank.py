from __future__ import annotations

import pytest
import torch

from distillctl_crd.bank import last_of_each, move_rows, new_bank


def test_new_rows_are_uniform_and_have_a_length_near_one() -> None:
    torch.manual_seed(0)
    bank = new_bank(2000, 128)
    limit = (3 / 128) ** 0.5
    assert bank.abs().max() <= limit
    assert bank.min() < -0.99 * limit
    assert bank.max() > 0.99 * limit
    assert bank.mean().item() == pytest.approx(0, abs=1e-3)
    assert bank.square().sum(1).mean().item() == pytest.approx(1, abs=0.01)


def test_rows_move_by_hand() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    move_rows(bank, torch.tensor([2, 0]), torch.tensor([[0.0, 1.0], [0.0, 1.0]]), 0.25)
    # Row 2: (0.75, 1.75), row 0: (0.25, 0.75), both divided by their length.
    expected = [[0.25 / 0.625**0.5, 0.75 / 0.625**0.5], [0.0, 1.0], [0.75 / 3.625**0.5, 1.75 / 3.625**0.5]]
    torch.testing.assert_close(bank, torch.tensor(expected))


def test_image_twice_in_a_batch_takes_its_last_embedding() -> None:
    torch.manual_seed(0)
    start, v = new_bank(6, 4), torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    bank, expected = start.clone(), start.clone()
    move_rows(bank, torch.tensor([3, 1, 3, 0, 1]), v, 0.5)
    move_rows(expected, torch.tensor([3, 0, 1]), v[[2, 3, 4]], 0.5)
    assert torch.equal(bank, expected)


def test_equal_images_are_all_given_the_last_position() -> None:
    """So that equal rows are written with equal values, in whatever order a device writes them."""
    assert last_of_each(torch.tensor([3, 1, 3, 0, 1, 7])).tolist() == [2, 4, 2, 3, 4, 5]


def test_opposite_row_and_embedding_stay_finite() -> None:
    bank = torch.tensor([[1.0, 0.0]])
    move_rows(bank, torch.tensor([0]), torch.tensor([[-1.0, 0.0]]), 0.5)
    assert bank.isfinite().all()
