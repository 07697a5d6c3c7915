from __future__ import annotations

import pytest
import torch

from distillctl.api.data import NO_LABEL
from distillctl.data.order import Share, balanced_order, batch_bounds, epoch_order, grouped_batches, image_of, mixed_length, mixed_order

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_is_a_permutation(count):
    assert torch.equal(epoch_order(count, 4, 2, CPU).sort().values, torch.arange(count))


def test_depends_on_seed_and_epoch_and_nothing_else():
    state = torch.get_rng_state()
    first = epoch_order(100, 4, 2, CPU)
    torch.rand(3)
    assert torch.equal(first, epoch_order(100, 4, 2, CPU))
    others = [epoch_order(100, 4, 3, CPU), epoch_order(100, 5, 2, CPU), epoch_order(100, 2, 4, CPU)]
    assert not any(torch.equal(first, other) for other in others)
    torch.set_rng_state(state)
    epoch_order(100, 4, 2, CPU)
    assert torch.equal(state, torch.get_rng_state())


def test_every_image_comes_at_every_place_about_equally_often():
    orders = torch.stack([epoch_order(5, 1, e, CPU) for e in range(4000)])
    counts = torch.stack([(orders == i).sum(0) for i in range(5)])
    assert int((counts - 800).abs().max()) < 130  # five standard deviations


@pytest.mark.parametrize(
    ("count", "size", "smallest", "sizes"),
    [
        (10, 5, 2, [5, 5]),
        (11, 5, 2, [5, 6]),
        (12, 5, 2, [5, 5, 2]),
        (11, 5, 1, [5, 5, 1]),
        (1, 5, 2, [1]),
        (3, 1, 2, [1, 1, 1]),
        (4, 9, 2, [4]),
        (0, 9, 2, []),
        (11, 4, 4, [4, 7]),
        (12, 4, 4, [4, 4, 4]),
    ],
)
def test_batches_drop_nothing_and_none_of_one_image_is_left(count, size, smallest, sizes):
    bounds = batch_bounds(count, size, smallest=smallest)
    assert [b - a for a, b in bounds] == sizes
    assert [i for a, b in bounds for i in range(a, b)] == list(range(count))


RARE = torch.tensor([0] * 2 + [5] * 30 + [3] * 9)  # 41 draws: of one class 13, of the others 14


def test_a_balanced_epoch_draws_each_class_equally_often():
    longer = set()
    for epoch in range(12):
        draws = balanced_order(RARE, 4, epoch, CPU)
        images, times = image_of(draws), draws >> 40
        counts = {c: int((RARE[images] == c).sum()) for c in (0, 3, 5)}
        assert (sum(counts.values()), max(counts.values()) - min(counts.values())) == (41, 1)
        longer.add(min(counts, key=counts.get))
        assert len(draws.unique()) == 41  # an image that comes again is another draw
        for image in images.unique():
            assert sorted(times[images == image].tolist()) == list(range(int((images == image).sum())))
        for own in (images[RARE[images] == c] for c in counts):
            shares = own.bincount()[own.unique()]
            assert int(shares.max() - shares.min()) <= 1
    assert longer == {0, 3, 5}
    seen = torch.cat([image_of(balanced_order(RARE, 4, epoch, CPU)) for epoch in range(12)])
    assert len(seen.unique()) == 41  # each epoch has other images of the frequent class


def test_a_balanced_epoch_depends_on_seed_and_epoch_and_mixes_its_classes():
    first = balanced_order(RARE, 4, 2, CPU)
    assert torch.equal(first, balanced_order(RARE, 4, 2, CPU))
    assert not any(torch.equal(first, balanced_order(RARE, seed, epoch, CPU)) for seed, epoch in ((4, 3), (5, 2), (2, 4)))
    runs = int((RARE[image_of(first)].diff() != 0).sum())
    assert runs > 15  # of classes one behind the other there would be 2


def test_fewer_images_than_draws_of_the_rarest_class_and_one_class_alone():
    assert image_of(balanced_order(torch.tensor([7, 7, 7]), 1, 0, CPU)).sort().values.tolist() == [0, 1, 2]
    assert image_of(balanced_order(torch.tensor([2, 1]), 1, 0, CPU)).sort().values.tolist() == [0, 1]


def test_processes_share_the_draws():
    draws = balanced_order(RARE, 4, 2, CPU)[:10]
    rows = [Share(rank, 3).rows(draws) for rank in range(3)]
    assert torch.equal(torch.cat(rows), draws)


BARE = torch.tensor([0, 1, NO_LABEL, 2, NO_LABEL, 0, 1, NO_LABEL, 2, 0, 1])  # eight with a label, three without


@pytest.mark.parametrize(("share", "length"), [(0.5, 16), (0.25, 10), (0.2, 10), (0.9, 80), (0.01, 8)])
def test_an_epoch_goes_once_through_the_labelled_images_and_spreads_the_others(share, length):
    assert mixed_length(8, share) == length
    for epoch in range(4):
        order = mixed_order(BARE, share, 1, epoch, CPU)
        assert len(order) == length
        free = BARE[image_of(order)] == NO_LABEL
        assert sorted(image_of(order)[~free].tolist()) == [0, 1, 3, 5, 6, 8, 9, 10]
        assert not (order[~free] >> 40).any()
        for start in range(length):  # of any stretch
            for end in range(start + 1, length + 1):
                assert abs(int(free[start:end].sum()) - (end - start) * share) <= 1


def test_images_without_a_label_come_in_turn_over_the_epochs_each_in_another_view():
    drawn = []
    for epoch in range(9):
        order = mixed_order(BARE, 0.5, 1, epoch, CPU)
        draws = order[BARE[image_of(order)] == NO_LABEL]
        assert len(set(draws.tolist())) == len(draws)  # eight of three images: no view twice in an epoch
        drawn += image_of(draws).tolist()
    passes = [drawn[at : at + 3] for at in range(0, len(drawn), 3)]
    assert all(sorted(one) == [2, 4, 7] for one in passes)
    assert len({tuple(one) for one in passes}) > 3
    assert not torch.equal(mixed_order(BARE, 0.5, 1, 0, CPU), mixed_order(BARE, 0.5, 2, 0, CPU))
    assert not torch.equal(mixed_order(BARE, 0.5, 1, 0, CPU), mixed_order(BARE, 0.5, 1, 3, CPU))


GROUPS = torch.tensor([7, 3, 3, 3, 7, 3, 3, 3, 3, 7, 3, 7, 3, 3, 7, 3, 3])  # 12 of 3 and 5 of 7


@pytest.mark.parametrize(("smallest", "sizes"), [(1, [[4, 4, 4], [4, 1]]), (2, [[4, 4, 4], [5]]), (8, [[4, 4, 4, 5]])])
def test_each_batch_is_of_one_group_and_nothing_is_left_out(smallest, sizes):
    """A group that is too small by itself is taken into the largest."""
    places = set()
    for epoch in range(8):
        batches = grouped_batches(GROUPS, 4, 1, epoch, smallest=smallest)
        assert sorted(i for batch in batches for i in batch) == list(range(17))
        kinds = [set(GROUPS[batch].tolist()) for batch in batches]
        if smallest < 8:
            assert all(len(kind) == 1 for kind in kinds)
            found = [[len(batch) for batch, kind in zip(batches, kinds, strict=True) if kind == {name}] for name in (3, 7)]
            assert [sorted(part, reverse=True) for part in found] == sizes
        else:
            assert sorted(map(len, batches)) == [4, 4, 4, 5]
        places.add(kinds.index({7}) if {7} in kinds else -1)
    assert len(places) > 1 or smallest == 8  # the groups do not take turns in a fixed order


def test_batches_of_groups_depend_on_seed_and_epoch_alone():
    first = grouped_batches(GROUPS, 4, 1, 2)
    torch.rand(3)
    assert first == grouped_batches(GROUPS, 4, 1, 2)
    assert len({repr(grouped_batches(GROUPS, 4, seed, epoch)) for seed, epoch in ((1, 2), (1, 3), (2, 2), (2, 1))}) == 4
