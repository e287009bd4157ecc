"""Region similarity J and contour accuracy F of the objects of one frame, as the DAVIS tools define them.

All objects are counted in one pass over both label maps. Contours are kept as lists of pixels and as one
bit per pixel: whether another contour passes within the radius is a question to a few machine words.
"""

import math

import numpy as np
from numpy.typing import NDArray

from hvc.evaluation.propagation.compiled import compiled

Labels = NDArray[np.uint8]
Values = NDArray[np.float64]
Counts = NDArray[np.int64]

TOLERANCE = 0.008
"""How far contours may lie apart, as a share of the image diagonal."""

_IDS = 256
_WORD = 8  # label pixels in a machine word
_SHIFT, _LAST = 6, 63  # a word of bits: 2**6 pixels


def measure_frame(truth: Labels, predicted: Labels, objects: NDArray[np.uint8]) -> tuple[Values, Labels]:
    """J and F of every object, and the ids that the prediction shows.

    A contour pixel differs from its neighbour to the east, south or south-east in belonging to the
    object; at the right and lower border, where there is none, the pixel itself stands for it. It is
    matched when the other contour passes within `boundary_radius`.

    Args:
        truth: uint8 [H, W]; ids other than the objects' are background.
        predicted: uint8 [H, W].
        objects: ids, uint8 [n].

    Returns float64 [n, 2] in [0, 1] (1 where both masks, or both contours, are empty), and the
    predicted ids in ascending order, background included.
    """
    radius = boundary_radius(*truth.shape)
    spans = np.array([math.isqrt(radius**2 - step**2) for step in range(radius + 1)])
    counts, shown = _count(np.ascontiguousarray(truth), np.ascontiguousarray(predicted), objects, spans)
    both, either, *contours = counts.T
    region = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return np.stack([region, _f_measure(*contours)], axis=1), np.flatnonzero(shown).astype(np.uint8)


def boundary_radius(height: int, width: int) -> int:
    """Pixels that contours may lie apart in an image of this size (8 at 854 x 480)."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


def _f_measure(
    truth: Counts, predicted: Counts, truth_matched: Counts, predicted_matched: Counts
) -> Values:
    """F per object from its contour pixels and how many of them the other contour matches, all [n]."""
    precision = predicted_matched / np.maximum(predicted, 1)
    recall = truth_matched / np.maximum(truth, 1)
    total = precision + recall
    measure: Values = 2 * precision * recall / np.where(total > 0, total, 1)
    return np.where((truth == 0) & (predicted == 0), 1.0, measure)


@compiled()
def _count(truth: Labels, predicted: Labels, objects: Labels, spans: Counts) -> tuple[Counts, Counts]:
    """Per object, int64 [n, 6]: pixels in both masks, in either; contour pixels of truth and of the
    prediction; how many of these are matched. And how often each id is predicted, int64 [256].

    Args:
        spans: for each distance in rows from 0 to the radius, how far in columns the disc reaches.
    """
    height, width = truth.shape
    areas = np.zeros((3, _IDS), np.int64)  # truth, predicted, both
    # Room for all pixels is asked for, but memory is taken only as far as it is written.
    edges = np.empty((2, 2, height * width), np.int32)  # truth and predicted; y and x
    true_edges, predicted_edges = 0, 0
    padded = (width + _WORD - 1) // _WORD * _WORD
    true_changes, predicted_changes = np.zeros(padded, np.uint8), np.zeros(padded, np.uint8)
    true_words, predicted_words = true_changes.view(np.uint64), predicted_changes.view(np.uint64)
    for y in range(height):
        south = min(y + 1, height - 1)
        _changes(truth[y], truth[south], true_changes)
        _changes(predicted[y], predicted[south], predicted_changes)
        x = 0
        while x < width:
            start = x
            while x + _WORD <= width and true_words[x // _WORD] | predicted_words[x // _WORD] == 0:
                x += _WORD  # nothing changes in these pixels: they are all like the first
            t, p = truth[y, start], predicted[y, start]
            areas[0, t] += x - start
            areas[1, p] += x - start
            if t == p:
                areas[2, t] += x - start
            for at in range(x, min(x + _WORD, width)):
                t, p = truth[y, at], predicted[y, at]
                areas[0, t] += 1
                areas[1, p] += 1
                if t == p:
                    areas[2, t] += 1
                if true_changes[at]:
                    edges[0, 0, true_edges], edges[0, 1, true_edges] = y, at
                    true_edges += 1
                if predicted_changes[at]:
                    edges[1, 0, predicted_edges], edges[1, 1, predicted_edges] = y, at
                    predicted_edges += 1
            x += _WORD
    counts = np.zeros((len(objects), 6), np.int64)
    true_points = np.empty((2, true_edges), np.int32)
    predicted_points = np.empty((2, predicted_edges), np.int32)
    bits = np.zeros((height, (width + _LAST) >> _SHIFT), np.uint64)
    for index in range(len(objects)):
        number = objects[index]
        both = areas[2, number]
        n_true = _contour(truth, number, edges[0], true_edges, true_points)
        n_predicted = _contour(predicted, number, edges[1], predicted_edges, predicted_points)
        counts[index, 0] = both
        counts[index, 1] = areas[0, number] + areas[1, number] - both
        counts[index, 2] = n_true
        counts[index, 3] = n_predicted
        if n_true and n_predicted:
            by_truth, by_prediction = true_points[:, :n_true], predicted_points[:, :n_predicted]
            counts[index, 4] = _matched(by_truth, by_prediction, bits, width, spans)
            counts[index, 5] = _matched(by_prediction, by_truth, bits, width, spans)
    return counts, areas[1]


@compiled()
def _changes(row: Labels, south: Labels, changes: Labels) -> None:
    """Mark the pixels of a row whose east, south or south-east neighbour has another label (not 0)."""
    last = len(row) - 1
    for x in range(last):
        changes[x] = (row[x] ^ row[x + 1]) | (row[x] ^ south[x]) | (row[x] ^ south[x + 1])
    changes[last] = row[last] ^ south[last]


@compiled()
def _contour(
    labels: Labels, number: int, edges: NDArray[np.int32], n_edges: int, points: NDArray[np.int32]
) -> int:
    """Write those of the first `n_edges` that are an object's contour to `points`; returns how many."""
    height, width = labels.shape
    found = 0
    for index in range(n_edges):
        y, x = edges[0, index], edges[1, index]
        south, east = min(y + 1, height - 1), min(x + 1, width - 1)
        inside = labels[y, x] == number
        if (
            (labels[y, east] == number) != inside
            or (labels[south, x] == number) != inside
            or (labels[south, east] == number) != inside
        ):
            points[0, found], points[1, found] = y, x
            found += 1
    return found


@compiled()
def _matched(
    points: NDArray[np.int32],
    others: NDArray[np.int32],
    bits: NDArray[np.uint64],
    width: int,
    spans: Counts,
) -> int:
    """How many of the points [2, N] have one of the others [2, M] within the disc.

    Rows nearby are looked at first, all of a row's span at once.

    Args:
        bits: uint64 [H, words], all 0; so are they afterwards.
    """
    for index in range(others.shape[1]):
        x = others[1, index]
        bits[others[0, index], x >> _SHIFT] |= np.uint64(1) << np.uint64(x & _LAST)
    height, count = len(bits), 0
    for index in range(points.shape[1]):
        y, x = points[0, index], points[1, index]
        for step in range(len(spans)):
            left, right = max(x - spans[step], 0), min(x + spans[step], width - 1)
            if (y >= step and _any(bits, y - step, left, right)) or (
                step > 0 and y + step < height and _any(bits, y + step, left, right)
            ):
                count += 1
                break
    for index in range(others.shape[1]):
        bits[others[0, index], others[1, index] >> _SHIFT] = np.uint64(0)
    return count


@compiled()
def _any(bits: NDArray[np.uint64], y: int, left: int, right: int) -> bool:
    """Whether one of the bits `left` to `right`, both included, is set in a row."""
    ones = ~np.uint64(0)
    first, last = left >> _SHIFT, right >> _SHIFT
    start, end = ones << np.uint64(left & _LAST), ones >> np.uint64(_LAST - (right & _LAST))
    if first == last:
        return bits[y, first] & start & end != 0
    if bits[y, first] & start != 0 or bits[y, last] & end != 0:
        return True
    for word in range(first + 1, last):  # noqa: SIM110 (a loop, for the compiler)
        if bits[y, word] != 0:
            return True
    return False
