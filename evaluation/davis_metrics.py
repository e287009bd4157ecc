"""Scores of a sequence and of a data set, as the official DAVIS evaluation computes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.evaluation.davis_measures import contour_accuracy, region_similarity
from hvc.evaluation.masks import VOID

Values = NDArray[np.float64]

_BINS = 4


@dataclass(frozen=True)
class Statistics:
    """One measure of one object over its frames."""

    mean: float
    recall: float
    """Share of frames above 0.5."""
    decay: float
    """Mean of the first quarter of the frames minus that of the last; positive means it gets worse."""


@dataclass(frozen=True)
class SequenceScore:
    """Per-object, per-frame measures of a sequence, each [objects, T - 2]: no first and last frame."""

    region: Values
    contour: Values

    @property
    def mean(self) -> float:
        """J&F mean over the sequence's objects, in [0, 1]."""
        return float((self.region.mean(axis=1) + self.contour.mean(axis=1)).mean() / 2)


@dataclass(frozen=True)
class DatasetScore:
    """Means over all objects of all sequences (not over sequences): J, F, and the mean of both."""

    region: Statistics
    contour: Statistics
    objects: int

    @property
    def mean(self) -> float:
        """J&F mean, in [0, 1]: the number that papers report."""
        return (self.region.mean + self.contour.mean) / 2


def score_sequence(
    annotations: NDArray[np.uint8], labels: NDArray[np.uint8], n_objects: int | None = None
) -> SequenceScore:
    """Compare label maps with ground truth, both uint8 [T, H, W], for the objects 1..n.

    Args:
        annotations: ground truth; void (255) counts as background, as in the semi-supervised track.
        labels: predicted ids.
        n_objects: by default the largest id of the first annotation.

    Raises HvcError when shapes differ, there is nothing to score, or labels show an id above n.
    """
    n_objects = count_objects(annotations[0]) if n_objects is None else n_objects
    _check(annotations, labels, n_objects)
    region = np.empty((n_objects, len(labels) - 2))
    contour = np.empty_like(region)
    for number, (truth, predicted) in enumerate(zip(annotations[1:-1], labels[1:-1], strict=True)):
        for index in range(n_objects):
            pair = truth == index + 1, predicted == index + 1
            region[index, number] = region_similarity(*pair)
            contour[index, number] = contour_accuracy(*pair)
    return SequenceScore(region, contour)


def count_objects(annotation: NDArray[np.uint8]) -> int:
    """The largest id of a mask [H, W] besides void: how many objects a sequence has."""
    return int(annotation[annotation != VOID].max(initial=0))


def statistics(values: Values, official_decay: bool = False) -> Statistics:
    """Mean, recall and decay of one object's values over frames, [T'].

    Args:
        values: one per frame; NaN is left out of means.
        official_decay: number the frames in 8 bits as the official tool does, so that the quarters
            of videos with more than 256 scored frames are the wrong ones (NaN where one is empty).
    """
    edges = np.round(np.linspace(1, len(values), _BINS + 1) + 1e-10) - 1
    edges = edges.astype(np.uint8) if official_decay else edges.astype(np.int64)
    quarters = [values[first : int(last) + 1] for first, last in pairwise(edges)]
    decay = _mean(quarters[0]) - _mean(quarters[-1])
    return Statistics(_mean(values), float(np.mean(values > 0.5)), decay)


def _mean(values: Values) -> float:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else math.nan


def score_dataset(scores: Sequence[SequenceScore], official_decay: bool = False) -> DatasetScore:
    """Aggregate sequences; HvcError when there are none."""
    if not scores:
        raise HvcError("no sequence was scored; are there annotations for every frame?")
    region = [statistics(row, official_decay) for score in scores for row in score.region]
    contour = [statistics(row, official_decay) for score in scores for row in score.contour]
    return DatasetScore(_average(region), _average(contour), len(region))


def _average(items: list[Statistics]) -> Statistics:
    table = np.array([(item.mean, item.recall, item.decay) for item in items])
    mean, recall, decay = table.mean(axis=0).tolist()
    return Statistics(mean, recall, decay)


def _check(annotations: NDArray[np.uint8], labels: NDArray[np.uint8], n_objects: int) -> None:
    if annotations.shape != labels.shape:
        shapes = f"annotations are {annotations.shape}, labels {labels.shape}"
        raise HvcError(f"{shapes} (frames, height, width): they belong to different videos")
    if len(labels) < 3:
        raise HvcError(f"{len(labels)} frames: the first and the last do not count, so 3 are needed")
    if n_objects < 1:
        raise HvcError("the first annotation shows no object, there is nothing to score")
    if labels.max() > n_objects:
        raise HvcError(f"the labels show id {labels.max()}, but the annotations have {n_objects} objects")
