"""Scores of VOST: J over all frames and over the last quarter, where objects have changed most."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.davis import MaskScorer, statistics
from hvc.evaluation.metrics.scored_masks import Objects

_LAST_QUARTER = 0.75


class VostScorer(MaskScorer):
    """J and J_last of every object, over the annotated frames but the first and the last.

    Frames without annotation are not scored, and ids that are no object's are background, as in the
    official tool.
    """

    headline = "j_mean"
    measures: ClassVar[tuple[str, ...]] = ("j",)

    def __init__(self, *, official_decay: bool = False) -> None:
        super().__init__(official_decay=official_decay)
        self.settings = {"official_decay": official_decay, "other_ids": "background"}

    def _annotated(self, sequence: Sequence) -> list[int]:
        return [index for index, path in enumerate(sequence.annotations) if path is not None]

    def _check_shown(self, objects: Objects, shown: NDArray[np.uint8], path: Path) -> None:
        """Any id may be shown."""

    def _object(self, record: Mapping[str, Any], row: int) -> dict[str, float]:
        values = np.array(record["j"][row])
        whole = statistics(values, self.official_decay)
        last = statistics(values[int(_LAST_QUARTER * len(values)) :], self.official_decay)
        return {
            **{f"j_{name}": value for name, value in vars(whole).items()},
            "j_last": last.mean,
            "j_last_recall": last.recall,
            "j_last_decay": last.decay,
        }
