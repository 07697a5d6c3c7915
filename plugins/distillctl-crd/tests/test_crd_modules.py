from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillctl import Batch, RunError
from distillctl_crd.modules import OtherClasses, last_of_each, move_rows, new_bank

# Classes 0 … 5 with sizes 1, 7, 0, 20, 2, 3, in no order.
UNBALANCED = torch.tensor([3, 1, 5] * 3 + [3] * 17 + [1] * 4 + [0] + [4] * 2)


def anchors(index: Tensor, start: int = 0, total: int = 0) -> Batch:
    """A batch of which only the positions of its images count."""
    return Batch(torch.zeros(len(index), 3, 1, 1), torch.zeros_like(index), index, start, total)


def draw(labels: Tensor, count: int) -> Tensor:
    """Row i: the negatives of image i. Asked for in another order."""
    torch.manual_seed(0)
    index = torch.randperm(len(labels))
    return OtherClasses(labels)(anchors(index), count)[index.argsort()]


def test_never_the_class_of_the_anchor() -> None:
    rows = draw(UNBALANCED, 500)
    assert (rows.shape, rows.dtype) == ((len(UNBALANCED), 500), torch.int64)
    assert (UNBALANCED[rows] != UNBALANCED.unsqueeze(1)).all()


def test_every_image_of_other_classes_is_equally_likely() -> None:
    count = 20_000
    rows = draw(UNBALANCED, count)
    for anchor, drawn in enumerate(rows):
        others = UNBALANCED[anchor] != UNBALANCED
        share = 1 / others.sum().item()
        hits = torch.bincount(drawn, minlength=len(UNBALANCED))[others].double()
        assert (hits - count * share).abs().max() < 5 * (count * share * (1 - share)) ** 0.5


def test_anchors_draw_independently_and_anew() -> None:
    torch.manual_seed(0)
    sampler = OtherClasses(UNBALANCED)
    batch = anchors(torch.tensor([0, 0, 3]))
    first, second = sampler(batch, 50), sampler(batch, 50)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(OtherClasses(UNBALANCED)(batch, 50), first)


def test_processes_draw_what_one_would() -> None:
    index = torch.tensor([4, 20, 0, 7, 11])
    drawn = []
    for rows, start, total in ((index, 0, 0), (index[:3], 0, 5), (index[3:], 3, 5)):
        torch.manual_seed(0)
        drawn.append(OtherClasses(UNBALANCED)(anchors(rows, start, total), 50))
    assert torch.equal(drawn[0], torch.cat(drawn[1:]))


def test_more_negatives_than_images_of_other_classes() -> None:
    rows = draw(torch.tensor([0, 1]), 10)
    assert rows.tolist() == [[1] * 10, [0] * 10]


def test_tables_do_not_go_into_checkpoints() -> None:
    assert not OtherClasses(UNBALANCED).state_dict()


@pytest.mark.parametrize(("labels", "message"), [([2] * 5, "all 5 training images have the label 2"), ([], "there are no training images")])
def test_one_class_is_refused(labels: list[int], message: str) -> None:
    with pytest.raises(RunError, match=message):
        OtherClasses(torch.tensor(labels, dtype=torch.int64))


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
    move_rows([bank], torch.tensor([2, 0]), [torch.tensor([[0.0, 1.0], [0.0, 1.0]])], 0.25)
    # Row 2: (0.75, 1.75), row 0: (0.25, 0.75), both divided by their length.
    expected = [[0.25 / 0.625**0.5, 0.75 / 0.625**0.5], [0.0, 1.0], [0.75 / 3.625**0.5, 1.75 / 3.625**0.5]]
    torch.testing.assert_close(bank, torch.tensor(expected))


def test_image_twice_in_a_batch_takes_its_last_embedding() -> None:
    torch.manual_seed(0)
    start, v = new_bank(6, 4), torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    bank, expected = start.clone(), start.clone()
    move_rows([bank], torch.tensor([3, 1, 3, 0, 1]), [v], 0.5)
    move_rows([expected], torch.tensor([3, 0, 1]), [v[[2, 3, 4]]], 0.5)
    assert torch.equal(bank, expected)


def test_equal_images_are_all_given_the_last_position() -> None:
    """So that equal rows are written with equal values, in whatever order a device writes them."""
    assert last_of_each(torch.tensor([3, 1, 3, 0, 1, 7])).tolist() == [2, 4, 2, 3, 4, 5]


def test_opposite_row_and_embedding_stay_finite() -> None:
    bank = torch.tensor([[1.0, 0.0]])
    move_rows([bank], torch.tensor([0]), [torch.tensor([[-1.0, 0.0]])], 0.5)
    assert bank.isfinite().all()


def test_several_banks_take_their_own_vectors() -> None:
    banks, v = [torch.randn(4, 2), torch.randn(4, 2)], [torch.randn(3, 2), torch.randn(3, 2)]
    expected = [bank.clone() for bank in banks]
    index = torch.tensor([3, 1, 3])
    move_rows(banks, index, v, 0.5)
    for bank, one in zip(expected, v, strict=True):
        move_rows([bank], index, [one], 0.5)
    assert all(torch.equal(a, b) for a, b in zip(banks, expected, strict=True))
