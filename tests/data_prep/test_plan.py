"""The shard plan, held to its promises for any input."""

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvc.data_prep.plan import key, plan_shards, shard_name


@st.composite
def plans(draw, order=None):
    """Options of a plan: any groups (runs of records), any records left out."""
    runs = draw(st.lists(st.tuples(st.integers(-1, 5), st.integers(1, 40)), max_size=60))
    ids = np.array([i for i, length in runs for _ in range(length)], np.int64)
    items = len(ids)
    lost = draw(st.sets(st.integers(0, max(items - 1, 0)), max_size=items))
    kept = np.array([i for i in range(items) if i not in lost], np.int64)
    return {
        "items": items,
        "total_bytes": draw(st.integers(0, 10**8)),
        "target_mb": draw(st.floats(0.05, 500)),
        "seed": draw(st.integers(0, 2**64)),
        "order": order or draw(st.sampled_from(["shuffled", "input"])),
        "min_shards": draw(st.integers(1, 50)),
        "group_ids": draw(st.sampled_from([None, ids])),
        "kept": draw(st.sampled_from([None, kept])),
    }


def numbers(options):
    kept = options["kept"]
    return list(range(options["items"])) if kept is None else kept.tolist()


def groups(options, order):
    """The order cut into its groups, as lists of record numbers."""
    ids = options["group_ids"]
    cut: list[list[int]] = []
    for i in order:
        group = -1 if ids is None else ids[i]
        if cut and group >= 0 and ids[cut[-1][-1]] == group:
            cut[-1].append(i)
        else:
            cut.append([i])
    return cut


@given(plans())
def test_every_kept_record_is_in_exactly_one_shard(options):
    plan = plan_shards(**options)
    items = [int(item) for shard in range(len(plan)) for item in plan.items(shard)]
    assert sorted(items) == numbers(options)
    if options["order"] == "input":
        assert items == numbers(options)


@given(plans())
def test_shard_sizes_differ_by_at_most_one_and_none_is_empty(options):
    plan = plan_shards(**options)
    sizes = {len(plan.items(shard)) for shard in range(len(plan))}
    assert not sizes or (max(sizes) - min(sizes) <= 1 and min(sizes) > 0)
    assert len(plan) >= min(options["min_shards"], len(numbers(options)))


@given(plans(order="shuffled"))
def test_a_shuffle_moves_whole_groups(options):
    order = plan_shards(**options).order.tolist()
    places = {number: place for place, number in enumerate(order)}
    for group in groups(options, numbers(options)):
        assert [order[places[group[0]] + i] for i in range(len(group))] == group


@given(plans())
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
    singles = np.full(8, -1)
    assert plan_shards(8, 0, 100, seed=7, group_ids=singles).order.tolist() == [6, 3, 4, 0, 2, 7, 5, 1]
    videos = np.array([0, 0, 0, 1, 1, -1, -1, 2])
    assert plan_shards(8, 0, 100, seed=7, group_ids=videos).order.tolist() == [6, 7, 0, 1, 2, 5, 3, 4]


def test_a_shuffle_mixes_the_input_over_all_shards():
    plan = plan_shards(10_000, 0, 100, seed=1, min_shards=10)
    for shard in range(10):
        assert abs(plan.items(shard).mean() - 5000) < 400  # a sorted shard would be off by up to 4500


def test_a_million_records_take_no_time():
    ids = np.repeat(np.arange(50_000), 20)
    start = time.monotonic()
    plan = plan_shards(10**6, 10**11, 100, group_ids=ids)
    assert time.monotonic() - start < 10
    assert len(plan) == 1020


@given(st.sets(st.integers(0, 10**10), min_size=2, max_size=50))
def test_keys_are_unique_and_hold_no_dot(numbers):
    keys = [key(number) for number in numbers]
    assert len(set(keys)) == len(numbers)
    assert all("." not in text and len(text) >= 9 for text in keys)


def test_names_sort_like_numbers():
    names = [shard_name(i) for i in range(0, 999_999, 997)]
    assert names == sorted(names)
