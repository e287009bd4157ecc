"""J and F of a frame: equal to the textbook form to the last bit, whatever the masks."""

import time

import numpy as np
import pytest
from dense_measures import dense_measures, measure_masks
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hvc.evaluation.metrics.davis_measures import boundary_radius, measure_frame

ids = st.sampled_from([0, 1, 2, 3, 200, 255])
label_maps = st.tuples(st.integers(1, 24), st.integers(1, 40)).flatmap(
    lambda shape: st.tuples(arrays(np.uint8, shape, elements=ids), arrays(np.uint8, shape, elements=ids))
)


@settings(max_examples=150, deadline=None)
@given(pair=label_maps)
def test_every_object_is_measured_as_in_the_dense_form(pair):
    objects = np.array([1, 2, 200, 7], np.uint8)
    values, shown = measure_frame(*pair, objects)
    for row, number in zip(values, objects, strict=True):
        assert tuple(row) == dense_measures(pair[0] == number, pair[1] == number)
    assert shown.tolist() == np.unique(pair[1]).tolist()


@pytest.mark.parametrize("size", [(300, 421), (64, 5000), (2500, 66)])
@pytest.mark.parametrize("seed", range(2))
def test_larger_radii_and_all_widths(size, seed):
    """5000 pixels make a radius of more than 31: a disc's row is wider than a machine word."""
    generator = np.random.default_rng(seed)
    height, width = size
    truth = np.zeros(size, bool)
    truth[height // 6 : height // 2, width // 7 : width // 2] = True
    truth[tuple(generator.integers(0, side, 9) for side in size)] = True
    shift = generator.integers(-40, 40, 2)
    predicted = np.roll(truth, tuple(shift), (0, 1)) ^ (generator.random(size) < 0.0005)
    assert measure_masks(truth, predicted) == dense_measures(truth, predicted)


@pytest.mark.parametrize(("apart", "measure"), [(8, 1.0), (9, 0.0)])
def test_contours_match_up_to_the_radius_and_not_beyond(apart, measure):
    truth, predicted = np.zeros((2, 480, 854), bool)
    truth[:, :100], predicted[:, : 100 + apart] = True, True
    assert measure_masks(truth, predicted)[1] == measure


@settings(max_examples=50, deadline=None)
@given(pair=label_maps)
def test_both_measures_are_symmetric_and_bounded(pair):
    truth, predicted = pair[0] == 1, pair[1] == 1
    values = measure_masks(truth, predicted)
    assert all(0 <= value <= 1 for value in values)
    assert values == pytest.approx(measure_masks(predicted, truth))
    assert measure_masks(truth, truth) == (1, 1)


def test_corners():
    empty, full = np.zeros((20, 30), bool), np.ones((20, 30), bool)
    square = empty.copy()
    square[5:12, 5:12] = True
    assert measure_masks(empty, empty) == measure_masks(full, full) == (1, 1)
    assert measure_masks(square, empty) == measure_masks(empty, square) == (0, 0)
    assert measure_masks(full, empty) == (0, 1)  # a full frame has no contour
    assert boundary_radius(480, 854) == 8


def test_views_of_larger_arrays_are_measured_like_copies():
    generator = np.random.default_rng(0)
    large = generator.integers(0, 3, (2, 60, 90), np.uint8)
    objects = np.array([1, 2], np.uint8)
    views, copies = large[:, ::2, 5:80:3], large[:, ::2, 5:80:3].copy()
    np.testing.assert_array_equal(measure_frame(*views, objects)[0], measure_frame(*copies, objects)[0])


def test_a_real_frame_is_scored_quickly():
    generator = np.random.default_rng(0)
    blob = np.zeros((480, 854), bool)
    for y, x in generator.integers(80, 400, (30, 2)):
        blob[y - 40 : y + 40, x : x + 90] = True
    other = np.roll(blob, 5, axis=1)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        measure_masks(blob, other)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.003
