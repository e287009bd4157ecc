"""Scores of JHMDB: how many joints are found within a share of the body's size (PCK)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.common import some
from hvc.evaluation.layouts.joint_files import count_joint_frames, read_joint_positions, read_tracked
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.scorer import Scorer, Summary, need_records

Values = NDArray[np.float64]

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
_BODY = 0.6
"""The size of a body: this share of the diagonal of the box around its joints."""
_MISS = 1e9
"""A distance beyond all thresholds that JSON can hold."""


class PoseScorer(Scorer):
    """Per joint over all videos and frames, then the mean over joints."""

    headline = "pck_0.1"

    def __init__(self, *, lost_joints: str = "excluded", first_frame: bool = False) -> None:
        """Scores joints.

        Args:
            lost_joints: `excluded` (all published figures): joints without an answer are left out, of
                the box, too; `wrong`: they are misses.
            first_frame: whether it counts, although its joints are given (VFS).
        """
        self.lost_joints, self.first_frame = lost_joints, first_frame
        self.settings = {
            "lost_joints": lost_joints,
            "first_frame": first_frame,
            "body": f"{_BODY} diagonal",
        }

    def frames(self, sequence: Sequence) -> list[int]:
        return list(range(0 if self.first_frame else 1, count_joint_frames(_joints(sequence))))

    def files(self, sequence: Sequence, results: Path) -> list[Path]:
        return [results / f"{sequence.name}.json"]

    def measure(self, sequence: Sequence, results: Path, frames: list[int]) -> Values:
        """[frames, joints]: distances in body sizes; NaN where a joint is left out, huge: missed."""
        truth, path = read_joint_positions(_joints(sequence)), self.files(sequence, results)[0]
        found = read_tracked(path)
        tracked = found.joints
        if tracked.shape != truth.shape:
            raise HvcError(
                f"{path} has joints of {len(tracked)} frames, but {sequence.joints} has {len(truth)}; "
                "track all frames of the clip"
            )
        stems = [frame.stem for frame in sequence.frames]
        if found.frames != stems:
            raise HvcError(
                f"{path}: expected joints of the frames {some(stems)}, in this order, not "
                f"{some(found.frames)}"
            )
        return self.distances(truth, tracked)[frames]

    def distances(self, truth: Values, tracked: Values) -> Values:
        """[T, J] of two [T, J, 2] in pixels; NaN in `tracked` are lost joints."""
        lost = np.isnan(tracked[..., 0])
        wrong = self.lost_joints == "wrong"
        body = _body(truth, np.zeros(lost.shape, np.bool_) if wrong else lost)
        with np.errstate(divide="ignore", invalid="ignore"):
            distances = np.linalg.norm(tracked - truth, axis=2) / body
        # Without a body to compare with, and for a lost joint that counts, nothing is near enough.
        missed = ~np.isfinite(distances) & (wrong | ~lost)
        return np.where(missed, _MISS, distances)

    def record(self, sequence: Sequence, measured: Values) -> dict[str, Any]:
        return {
            "scored": [sequence.frames[index].stem for index in self.frames(sequence)],
            "distances": [[None if np.isnan(value) else float(value) for value in row] for row in measured],
        }

    def summarise(self, records: Mapping[str, dict[str, Any]]) -> Summary:
        need_records(records)
        tables = {name: np.array(record["distances"], np.float64) for name, record in records.items()}
        return Summary(
            scores=_scores(np.concatenate(list(tables.values()))),
            per_sequence={name: _scores(table) for name, table in tables.items()},
            per_object={},
            curves={
                name: {key: [_scores(row[None])[key] for row in table] for key in _scores(table)}
                for name, table in tables.items()
            },
        )


def correct_keypoints(distances: Values, threshold: float) -> Values:
    """Percent per joint, [J], of distances [N, J]; NaN where a joint is left out everywhere."""
    known = ~np.isnan(distances)
    hits = (known & (distances <= threshold)).sum(axis=0)
    counted = known.sum(axis=0)
    return np.divide(100.0 * hits, counted, out=np.full(len(counted), np.nan), where=counted > 0)


def _scores(distances: Values) -> dict[str, float]:
    """Mean over the joints that are counted anywhere; 0 when all are lost."""
    found = {f"pck_{threshold}": correct_keypoints(distances, threshold) for threshold in THRESHOLDS}
    return {
        name: float(np.nanmean(values)) if not np.isnan(values).all() else 0.0
        for name, values in found.items()
    }


def _body(truth: Values, lost: NDArray[np.bool_]) -> Values:
    """The size of the body per frame, [T, 1], by the joints that are not lost."""
    low = np.where(lost[..., None], np.inf, truth).min(axis=1)
    high = np.where(lost[..., None], -np.inf, truth).max(axis=1)
    sizes: Values = _BODY * np.linalg.norm(np.where(np.isfinite(low), high - low, np.nan), axis=1)
    return sizes[:, None]


def _joints(sequence: Sequence) -> Path:
    if sequence.joints is None:
        raise HvcError(f"sequence {sequence.name} has no joints to compare with")
    return sequence.joints
