"""J, F and their statistics: definitions, corners, limits."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_dilation

from hvc.base.errors import HvcError
from hvc.evaluation.davis_measures import boundary_map, boundary_radius, contour_accuracy, region_similarity
from hvc.evaluation.davis_metrics import count_objects, score_dataset, score_sequence, statistics

masks = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


def by_dilation(truth, predicted):
    """The textbook form of F: dilate both boundaries by a disc and count what they cover."""
    radius = boundary_radius(*truth.shape)
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = x * x + y * y <= radius * radius
    truth, predicted = boundary_map(truth), boundary_map(predicted)
    if not truth.any() or not predicted.any():
        return float(truth.any() == predicted.any())
    precision = (predicted & binary_dilation(truth, disc)).sum() / predicted.sum()
    recall = (truth & binary_dilation(predicted, disc)).sum() / truth.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=50, deadline=None)
@given(pair=masks)
def test_f_is_the_dilated_form(pair):
    assert contour_accuracy(*pair) == pytest.approx(by_dilation(*pair), abs=1e-14)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.integers(0, 20))
def test_f_is_the_dilated_form_at_larger_radii(seed, shift):
    generator = np.random.default_rng(seed)
    truth = np.zeros((300, 420), bool)
    truth[50:200, 60:300] = True
    truth[tuple(generator.integers(0, 300, (2, 9)))] = True
    predicted = np.roll(truth, (shift, -shift // 2), (0, 1))
    assert contour_accuracy(truth, predicted) == pytest.approx(by_dilation(truth, predicted), abs=1e-14)


@settings(max_examples=50, deadline=None)
@given(pair=masks)
def test_both_measures_are_symmetric_and_bounded(pair):
    for measure in (region_similarity, contour_accuracy):
        value = measure(*pair)
        assert 0 <= value <= 1
        assert value == pytest.approx(measure(*pair[::-1]))
        assert measure(pair[0], pair[0]) == 1


def test_corners():
    empty, full = np.zeros((20, 30), bool), np.ones((20, 30), bool)
    square = empty.copy()
    square[5:12, 5:12] = True
    assert region_similarity(empty, empty) == contour_accuracy(empty, empty) == 1
    assert region_similarity(square, empty) == contour_accuracy(square, empty) == 0
    assert region_similarity(empty, square) == contour_accuracy(empty, square) == 0
    assert not boundary_map(full).any()
    assert contour_accuracy(square, square, void=full) == 1
    assert region_similarity(square, full, void=~square) == 1


def test_a_real_frame_is_scored_quickly():
    generator = np.random.default_rng(0)
    blob = np.zeros((480, 854), bool)
    for y, x in generator.integers(80, 400, (30, 2)):
        blob[y - 40 : y + 40, x : x + 90] = True
    other = np.roll(blob, 5, axis=1)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        contour_accuracy(blob, other)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.03


def video(frames=6, objects=2):
    truth = np.zeros((frames, 20, 30), np.uint8)
    for index in range(objects):
        truth[:, 2:9, 1 + 9 * index : 8 + 9 * index] = index + 1
    return truth


def test_the_first_and_the_last_frame_do_not_count():
    truth = video()
    labels = truth.copy()
    labels[0] = labels[-1] = 0
    score = score_sequence(truth, labels)
    assert score.region.shape == score.contour.shape == (2, 4)
    assert score.mean == 1


def test_void_is_background_and_no_object():
    truth = video()
    truth[:, 15:, :] = 255
    assert count_objects(truth[0]) == 2
    assert score_sequence(truth, video()).mean == 1
    assert count_objects(np.zeros((3, 3), np.uint8)) == 0


@pytest.mark.parametrize(
    ("truth", "labels", "message"),
    [
        (video(), video(7), "different videos"),
        (video(2), video(2), "2 frames"),
        (video(objects=0), video(objects=0), "no object"),
        (video(objects=1), video(objects=2), "id 2, but the annotations have 1 objects"),
    ],
)
def test_what_cannot_be_scored(truth, labels, message):
    with pytest.raises(HvcError, match=message):
        score_sequence(truth, labels)


def test_statistics():
    values = np.array([1.0, 1.0, 0.5, 0.6, 0.2, 0.0])
    found = statistics(values)
    assert found.mean == pytest.approx(0.55)
    assert found.recall == pytest.approx(3 / 6)
    assert found.decay == pytest.approx(1.0 - 0.1)  # frames 0 and 1 against 4 and 5


def test_decay_of_long_videos_is_right_unless_the_official_numbers_are_wanted():
    values = np.linspace(1, 0, 300)
    assert statistics(values).decay == pytest.approx(values[:76].mean() - values[224:].mean())
    wrapped = statistics(values, official_decay=True).decay
    assert wrapped != pytest.approx(statistics(values).decay, abs=0.01)
    assert statistics(values[:256], official_decay=True) == statistics(values[:256])


def test_a_data_set_averages_objects_not_sequences():
    perfect = score_sequence(video(objects=3), video(objects=3))
    poor = score_sequence(video(objects=1), np.zeros_like(video()))
    total = score_dataset([perfect, poor])
    assert total.objects == 4
    assert total.region.mean == total.contour.mean == total.mean == pytest.approx(0.75)
    with pytest.raises(HvcError, match="no sequence was scored"):
        score_dataset([])
