"""The plan of an epoch: every sample once, the same global batches on any number of ranks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvc.pretrain.order import epoch_order, rank_batches, rank_slice, steps_per_epoch

shards = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(shards, st.integers(0, 5), st.integers(0, 5), st.booleans(), st.integers(1, 4))
def test_an_epoch_holds_every_sample_once(sizes, seed, epoch, shuffle, window):
    order = epoch_order(sizes, seed, epoch, shuffle, window)
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    np.testing.assert_array_equal(order, epoch_order(sizes, seed, epoch, shuffle, window))


@given(st.integers(0, 50), st.integers(1, 12))
def test_slices_cover_a_batch_evenly(count, world):
    parts = [range(count)[rank_slice(count, rank, world)] for rank in range(world)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(shards, st.integers(1, 7), st.integers(1, 5), st.booleans())
def test_global_batches_do_not_depend_on_the_world_size(sizes, batch_size, world, shuffle):
    steps = 2 * steps_per_epoch(sum(sizes), batch_size)

    def run(size):
        options = {"seed": 3, "shuffle": shuffle, "first_step": 0, "last_step": steps}
        return [list(rank_batches(sizes, batch_size, rank, size, **options)) for rank in range(size)]

    alone, together = run(1)[0], run(world)
    assert all(len(rank) == steps for rank in together)
    for step in range(steps):
        mine = [rank[step] for rank in together if rank[step].weight > 0]
        joined = np.concatenate([batch.samples for batch in mine])
        np.testing.assert_array_equal(joined, alone[step].samples)
        # Averaging the ranks' weighted means gives the mean over the global batch.
        shares = [batch.weight / world / len(batch.samples) for batch in mine]
        np.testing.assert_allclose(shares, 1 / len(joined))


def test_a_later_start_is_the_same_sequence():
    options = {"seed": 1, "shuffle": True, "last_step": 20}
    whole = list(rank_batches([5, 6, 7], 4, 1, 2, first_step=0, **options))
    rest = list(rank_batches([5, 6, 7], 4, 1, 2, first_step=13, **options))
    assert [b.samples.tolist() for b in rest] == [b.samples.tolist() for b in whole[13:]]


def test_orders_differ_between_epochs_and_seeds():
    a, b, c = (epoch_order([100], *se, True) for se in ((0, 0), (0, 1), (1, 0)))
    assert a.tolist() != b.tolist()
    assert a.tolist() != c.tolist()
