"""Which samples an epoch has: weights, frames per video, subsets, and all of them together."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.pretrain.data.selection import Selection, fraction_size, frames_per_video, subset, weighted

weights = st.one_of(st.integers(1, 3).map(float), st.floats(0.01, 4))


def video_runs(counts, gaps):
    """Videos of these lengths, with as many single images before each."""
    lengths = np.array(counts, np.int64).reshape(-1)
    starts = np.cumsum(np.array(gaps[: len(lengths)]) + np.concatenate([[0], lengths[:-1]]))
    return np.stack([starts, lengths], axis=1).astype(np.int64)


videos = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 5)), min_size=1, max_size=20).map(
    lambda rows: video_runs([row[0] for row in rows], [row[1] for row in rows])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), weights), min_size=1, max_size=4), st.integers(0, 9))
def test_weights_bring_each_dataset_round_evenly(datasets, seed):
    sizes, factors = zip(*datasets, strict=True)
    total, epochs = sum(sizes), 7
    counts = np.zeros(total, int)
    starts = np.cumsum([0, *sizes])
    for epoch in range(epochs):
        ids = weighted(sizes, factors, seed, epoch)
        ids = np.arange(total) if ids is None else ids
        assert len(np.unique(ids)) == len(ids) == Selection(sizes, factors).length
        assert (np.diff(ids) > 0).all()
        counts += np.bincount(ids % max(total, 1), minlength=total)[:total]
        for number, (size, factor) in enumerate(datasets):
            own = counts[starts[number] : starts[number + 1]]
            assert np.ptp(own) <= 1 if size else True
            assert own.sum() == (epoch + 1) * (int(factor) * size + fraction_size(size, factor))


def test_a_fraction_of_a_weight_is_rounded_to_samples():
    assert [fraction_size(10, weight) for weight in (1, 1.24, 1.26, 0.5, 0.01)] == [0, 2, 3, 5, 1]
    assert weighted((4, 3), (1.0, 1.0), 0, 0) is None
    assert weighted((4, 3), (2.0, 1.0), 0, 5).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    halves = [weighted((4,), (0.5,), 3, epoch) for epoch in range(4)]
    assert sorted([*halves[0], *halves[1]]) == [0, 1, 2, 3]
    assert halves[0].tolist() == halves[2].tolist() != halves[1].tolist()


@settings(max_examples=60, deadline=None)
@given(videos, st.integers(1, 120), st.integers(0, 5), st.integers(0, 5))
def test_a_video_gives_at_most_so_many_frames(runs, limit, seed, epoch):
    total = int(runs[-1].sum()) + 3
    frames = frames_per_video(runs, total, limit, seed, epoch)
    assert (np.diff(frames) > 0).all()
    assert frames[0] >= 0
    assert frames[-1] < total
    single = np.ones(total, bool)
    for first, count in runs:
        inside = (frames >= first) & (frames < first + count)
        assert inside.sum() == min(count, limit)
        single[first : first + count] = False
    assert np.isin(np.flatnonzero(single), frames).all()


def test_frames_are_drawn_anew_and_fairly():
    runs = np.array([[2, 40], [42, 10]])
    epochs = [frames_per_video(runs, 55, 10, 1, epoch) for epoch in range(400)]
    assert epochs[0].tolist() != epochs[1].tolist()
    counts = np.bincount(np.concatenate(epochs), minlength=55)
    assert (counts[[0, 1, *range(42, 55)]] == 400).all()
    # 100 of 400 expected of each frame, standard deviation 8.7
    assert counts[2:42].min() > 60
    assert counts[2:42].max() < 140


def test_the_official_youtube_recipe_is_quick():
    # 3,471 videos of 469,887 frames at 80 frames: how many short videos there are decides the count.
    short = np.full(235, 46)
    short[:171] += 2
    counts = np.concatenate([short, np.full(3236, 141)])
    counts[-1] += 469_887 - counts.sum()
    runs = np.stack([np.cumsum(counts) - counts, counts], axis=1)
    start = time.process_time()
    frames = frames_per_video(runs, 469_887, 80, 0, 0)
    assert time.process_time() - start < 1  # seen: 0.09 s
    assert len(frames) == np.minimum(counts, 80).sum()
    assert len(frames) == Selection((469_887,), frames_per_video=80, runs=runs).length


@given(st.integers(1, 300), st.integers(0, 320), st.integers(0, 320), st.integers(0, 3))
def test_subsets_are_nested(total, few, more, seed):
    few, more = sorted((few, more))
    small, large = subset(total, few, seed), subset(total, more, seed)
    assert len(small) == min(few, total)
    assert (np.diff(small) > 0).all()
    assert np.isin(small, large).all()
    if 20 < few < total:
        assert small.tolist() != subset(total, few, seed + 1).tolist()


@settings(max_examples=80, deadline=None)
@given(videos, st.data())
def test_everything_together_has_one_length_and_keeps_every_rule(runs, data):
    first = int(runs[-1].sum()) + data.draw(st.integers(0, 4))  # a dataset of videos, then one of images
    sizes = (first, data.draw(st.integers(0, 40)))
    total = sum(sizes)
    factors = data.draw(st.sampled_from([(), (1.0, 1.0), (2.0, 0.5), (0.4, 1.6)]))
    limit = data.draw(st.sampled_from([None, 1, 7, 80]))
    count = data.draw(st.sampled_from([None, total // 2 + 1, total]))
    selection = Selection(sizes, factors, count, limit, runs, seed=4)
    allowed = np.arange(total) if count is None else subset(total, count, 4)
    for epoch in range(3):
        ids = selection.epoch(epoch)
        ids = np.arange(total) if ids is None else ids
        assert len(ids) == selection.length
        assert (np.diff(ids) > 0).all()
        assert np.isin(ids % total, allowed).all()
        for start, frames in runs if limit else []:
            inside = (ids % total >= start) & (ids % total < start + frames)
            assert (np.bincount(ids[inside] // total, minlength=1) <= limit).all()


def test_without_wishes_an_epoch_is_everything():
    assert Selection((3, 4)).epoch(0) is None
    assert Selection((3, 4), (1.0, 1.0), subset=9).epoch(5) is None
    assert Selection((3, 4)).length == 7


@pytest.mark.parametrize("seed", [0, 2**32])
def test_seeds_of_any_size_differ(seed):
    assert subset(1000, 500, seed).tolist() != subset(1000, 500, seed + 1).tolist()
    assert subset(1000, 500, 0).tolist() != subset(1000, 500, 2**32).tolist()
