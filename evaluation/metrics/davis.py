"""Scores of label maps as the official DAVIS evaluation computes them, also for VOST."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.davis_measures import measure_frame
from hvc.evaluation.metrics.scored_masks import Objects, annotation, result_file, same_size
from hvc.evaluation.metrics.scorer import Scorer, Summary, need_records, percent

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


class MaskScorer(Scorer):
    """J and F of every object in every frame but the first and the last.

    Objects are those that the first annotation shows; all else is background, void (255) too, as in
    the semi-supervised track.
    """

    headline = "jf_mean"
    measures: ClassVar[tuple[str, ...]] = ("j", "f")

    def __init__(self, *, merged: bool = False, official_decay: bool = False) -> None:
        """Scores masks.

        Args:
            merged: all that is not background is one object, in both masks.
            official_decay: see `statistics`.
        """
        self.merged, self.official_decay = merged, official_decay
        self.settings: dict[str, Any] = {"merged": merged, "official_decay": official_decay}

    def frames(self, sequence: Sequence) -> list[int]:
        annotated = self._annotated(sequence)
        if len(annotated) < 3:
            raise HvcError(
                f"sequence {sequence.name}: {len(annotated)} annotated frames: the first and the last do "
                "not count, so 3 are needed"
            )
        return annotated[1:-1]

    def _annotated(self, sequence: Sequence) -> list[int]:
        for index in sequence.results:
            annotation(sequence, index)
        return sequence.results

    def files(self, sequence: Sequence, results: Path) -> list[Path]:
        return [result_file(results, sequence, index) for index in self.frames(sequence)]

    def measure(self, sequence: Sequence, results: Path, frames: list[int]) -> Values:
        """[frames, objects, 2]: J and F."""
        objects = Objects.of(sequence, self.merged or sequence.single_object)
        rows = [self._measure(objects, sequence, results, index) for index in frames]
        return np.stack(rows) if rows else np.empty((0, len(objects.ids), 2))

    def _measure(self, objects: Objects, sequence: Sequence, results: Path, index: int) -> Values:
        path, truth_path = result_file(results, sequence, index), annotation(sequence, index)
        truth, predicted = objects.truth(truth_path), objects.result(path)
        same_size(predicted, path, truth, truth_path)
        values, shown = measure_frame(truth, predicted, objects.ids)
        self._check_shown(objects, shown, path)
        return values

    def _check_shown(self, objects: Objects, shown: NDArray[np.uint8], path: Path) -> None:
        objects.refuse_others(shown, path)

    def record(self, sequence: Sequence, measured: Values) -> dict[str, Any]:
        objects = Objects.of(sequence, self.merged or sequence.single_object)
        values = {
            measure: measured[:, :, number].T.tolist() for number, measure in enumerate(self.measures)
        }
        return {
            "objects": objects.ids.tolist(),
            "scored": [sequence.frames[index].stem for index in self.frames(sequence)],
            **values,
        }

    def summarise(self, records: Mapping[str, dict[str, Any]]) -> Summary:
        need_records(records)
        objects = {
            f"{name}/{number}": self._object(record, row)
            for name, record in records.items()
            for row, number in enumerate(record["objects"])
        }
        sequences = {
            name: _mean_of([objects[f"{name}/{number}"] for number in record["objects"]])
            for name, record in records.items()
        }
        return Summary(
            scores=percent(_mean_of(list(objects.values()))),
            per_sequence={name: percent(values) for name, values in sequences.items()},
            per_object={name: percent(values) for name, values in objects.items()},
            curves={name: self._curves(record) for name, record in records.items()},
        )

    def _object(self, record: Mapping[str, Any], row: int) -> dict[str, float]:
        """Statistics of one object, the headline first."""
        region, contour = (
            statistics(np.array(record[measure][row]), self.official_decay) for measure in ("j", "f")
        )
        return {
            "jf_mean": (region.mean + contour.mean) / 2,
            **{f"j_{name}": value for name, value in vars(region).items()},
            **{f"f_{name}": value for name, value in vars(contour).items()},
        }

    def _curves(self, record: Mapping[str, Any]) -> dict[str, list[float]]:
        numbers = record["objects"]
        curves: dict[str, list[float]] = {}
        for measure in self.measures:
            values = 100 * np.array(record[measure])
            curves[measure] = values.mean(axis=0).tolist()
            if len(numbers) > 1:
                curves |= {f"{measure}/{n}": row.tolist() for n, row in zip(numbers, values, strict=True)}
        return curves


def _mean_of(items: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every measure over objects."""
    table = np.array([list(item.values()) for item in items])
    return dict(zip(items[0], table.mean(axis=0).tolist(), strict=True))
