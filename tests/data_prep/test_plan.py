"""The shard plan, held to its promises for any input."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvc.data_prep.plan import key, plan_shards, shard_name

plans = st.fixed_dictionaries(
    {
        "items": st.integers(0, 3000),
        "total_bytes": st.integers(0, 10**9),
        "target_mb": st.floats(0.05, 500),
        "seed": st.integers(0, 2**64),
        "order": st.sampled_from(["shuffled", "input"]),
        "min_shards": st.integers(1, 50),
    }
)


@given(plans)
def test_every_item_is_in_exactly_one_shard(options):
    plan = plan_shards(**options)
    items = [int(item) for shard in range(len(plan)) for item in plan.items(shard)]
    assert sorted(items) == list(range(options["items"]))


@given(plans)
def test_shard_sizes_differ_by_at_most_one_and_none_is_empty(options):
    plan = plan_shards(**options)
    sizes = {len(plan.items(shard)) for shard in range(len(plan))}
    assert not sizes or (max(sizes) - min(sizes) <= 1 and min(sizes) > 0)
    assert len(plan) >= min(options["min_shards"], options["items"])


@given(plans)
def test_the_same_options_give_the_same_plan(options):
    first, second = plan_shards(**options), plan_shards(**options)
    assert np.array_equal(first.order, second.order)
    assert np.array_equal(first.bounds, second.bounds)


@given(st.integers(1, 10**5), st.integers(10**3, 10**6), st.floats(1, 500))
def test_shards_come_close_to_the_target(items, mean_bytes, target_mb):
    plan = plan_shards(items, items * mean_bytes, target_mb)
    largest = max(np.diff(plan.bounds)) * mean_bytes / 1e6
    assert largest <= 1.5 * target_mb + mean_bytes / 1e6


def test_the_order_of_a_seed_never_changes():
    assert plan_shards(8, 0, 100, seed=7).order.tolist() == [6, 3, 4, 0, 2, 7, 5, 1]
    assert plan_shards(8, 0, 100, seed=7, order="input").order.tolist() == list(range(8))


def test_a_shuffle_mixes_the_input_over_all_shards():
    plan = plan_shards(10_000, 0, 100, seed=1, min_shards=10)
    for shard in range(10):
        assert abs(plan.items(shard).mean() - 5000) < 400  # a sorted shard would be off by up to 4500


@given(st.sets(st.integers(0, 10**10), min_size=2, max_size=50))
def test_keys_are_unique_and_hold_no_dot(numbers):
    keys = [key(number) for number in numbers]
    assert len(set(keys)) == len(numbers)
    assert all("." not in text and len(text) >= 9 for text in keys)


def test_names_sort_like_numbers():
    names = [shard_name(i) for i in range(0, 999_999, 997)]
    assert names == sorted(names)
