"""Scores of VIP: mean intersection over union of 20 classes, by one confusion matrix of all pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.masks import read_mask
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.layouts.vip import CLASSES
from hvc.evaluation.metrics.scored_masks import annotation, result_file
from hvc.evaluation.metrics.scorer import Scorer, Summary, need_records, percent

Labels = NDArray[np.uint8]
Values = NDArray[np.float64]

_COUNT = len(CLASSES)


class VipScorer(Scorer):
    """Mean over the classes, background included, that truth or prediction show anywhere.

    All annotated frames count, the first one too, as in the tools of UVC and CRW. A result of another
    size is resized to the annotation by nearest neighbour, as in CRW's.
    """

    headline = "miou"

    def __init__(self) -> None:
        self.settings = {"first_frame": True, "resize": "nearest", "background": True}

    def frames(self, sequence: Sequence) -> list[int]:
        found = [index for index, path in enumerate(sequence.annotations) if path is not None]
        if not found:
            raise HvcError(f"sequence {sequence.name} has no annotations, it cannot be scored")
        return found

    def files(self, sequence: Sequence, results: Path) -> list[Path]:
        return [result_file(results, sequence, index) for index in self.frames(sequence)]

    def measure(self, sequence: Sequence, results: Path, frames: list[int]) -> Values:
        """[frames, 20, 20]: pixels of a true class (row) that got a class (column)."""
        matrices = np.zeros((len(frames), _COUNT, _COUNT))
        for matrix, index in zip(matrices, frames, strict=True):
            truth = read_mask(annotation(sequence, index), black_and_white=False)
            matrix += confusion(truth, _result(result_file(results, sequence, index), truth.shape))
        return matrices

    def record(self, sequence: Sequence, measured: Values) -> dict[str, Any]:
        return {
            "scored": [sequence.frames[index].stem for index in self.frames(sequence)],
            "confusion": measured.sum(axis=0).astype(np.int64).tolist(),
            "miou": [_mean(intersection_over_union(matrix)) for matrix in measured],
        }

    def summarise(self, records: Mapping[str, dict[str, Any]]) -> Summary:
        need_records(records)
        matrices = {name: np.array(record["confusion"], np.float64) for name, record in records.items()}
        total = np.sum(list(matrices.values()), axis=0)
        classes = zip(CLASSES, intersection_over_union(total), strict=True)
        return Summary(
            scores=percent(_scores(total) | {f"iou_{c}": v for c, v in classes if not np.isnan(v)}),
            per_sequence={name: percent(_scores(matrix)) for name, matrix in matrices.items()},
            per_object={},
            curves={name: {"miou": [100 * v for v in record["miou"]]} for name, record in records.items()},
        )


def confusion(truth: Labels, predicted: Labels) -> Values:
    """[20, 20]: pixels by true class (row) and predicted class (column); true ids above 19 are void."""
    known = truth < _COUNT
    pairs = _COUNT * truth[known].astype(np.int64) + predicted[known]
    return np.bincount(pairs, minlength=_COUNT**2).reshape(_COUNT, _COUNT).astype(np.float64)


def intersection_over_union(matrix: Values) -> Values:
    """Per class, [20], of a confusion matrix; NaN where neither truth nor prediction has the class."""
    right = np.diag(matrix)
    return _divide(right, matrix.sum(axis=1) + matrix.sum(axis=0) - right)


def _scores(matrix: Values) -> dict[str, float]:
    right = np.diag(matrix)
    return {
        "miou": _mean(intersection_over_union(matrix)),
        "accuracy": float(right.sum() / max(matrix.sum(), 1)),
        "mean_accuracy": _mean(_divide(right, matrix.sum(axis=1))),
    }


def _divide(part: Values, whole: Values) -> Values:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: Values) -> float:
    """Over the classes that are there; 0 for a frame where all is void."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _result(path: Path, size: tuple[int, ...]) -> Labels:
    """A method's classes in the annotation's size."""
    classes = read_mask(path, black_and_white=False)
    if classes.max() >= _COUNT:
        raise HvcError(f"{path} shows id {classes.max()}, but VIP's classes are 0 to {_COUNT - 1}")
    if classes.shape == size:
        return classes
    height, width = size
    return np.asarray(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST))
