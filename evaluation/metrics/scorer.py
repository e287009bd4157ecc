"""What all benchmarks' measures share: frames in, one record per sequence, one summary of all."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.common import some
from hvc.evaluation.layouts.sequences import Sequence

_SHOWN = 3


@dataclass(frozen=True)
class Summary:
    """Scores of a benchmark, in percent."""

    scores: dict[str, float]
    """Over all objects, classes or joints of all sequences, as the benchmark averages them."""
    per_sequence: dict[str, dict[str, float]]
    """Sequence -> measure -> value."""
    per_object: dict[str, dict[str, float]]
    """`NAME/ID` -> measure -> value; empty where objects are not scored apart."""
    curves: dict[str, dict[str, list[float]]]
    """Sequence -> measure -> one value per scored frame, the mean over objects; `j/3`: of object 3."""


class Scorer(ABC):
    """Measures one benchmark. Frames can be measured in any portions, in any processes."""

    headline: str
    """The measure by which methods are compared."""
    settings: dict[str, Any]
    """What the numbers depend on besides the results: switches, and rules that tools differ in."""

    @abstractmethod
    def frames(self, sequence: Sequence) -> list[int]:
        """Indices of the frames that count; HvcError when too little is annotated."""

    @abstractmethod
    def files(self, sequence: Sequence, results: Path) -> list[Path]:
        """The files of results that `measure` reads for `frames(sequence)`."""

    @abstractmethod
    def measure(self, sequence: Sequence, results: Path, frames: list[int]) -> NDArray[np.float64]:
        """The measures of some frames, [len(frames), ...]; HvcError that names the file at fault.

        Args:
            sequence: the video with its ground truth.
            results: the folder that holds the results of all sequences.
            frames: some of `frames(sequence)`.
        """

    @abstractmethod
    def record(self, sequence: Sequence, measured: NDArray[np.float64]) -> dict[str, Any]:
        """The JSON-able record of a sequence from the measures of all its frames, in their order."""

    @abstractmethod
    def summarise(self, records: Mapping[str, dict[str, Any]]) -> Summary:
        """Records by sequence -> scores; HvcError when there is none."""

    def score(self, sequence: Sequence, results: Path) -> dict[str, Any]:
        """The record of one sequence, measured here and now; HvcError as `measure`."""
        self.check_present(sequence, results)
        return self.record(sequence, self.measure(sequence, results, self.frames(sequence)))

    def check_present(self, sequence: Sequence, results: Path) -> None:
        """HvcError that names the files of results that are not there."""
        files = self.files(sequence, results)
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise HvcError(
                f"sequence {sequence.name}: {len(missing)} of {len(files)} files of results are missing: "
                f"{some([str(path) for path in missing], _SHOWN)}; write a result for every frame that is "
                "scored, under the frame's name"
            )


def need_records(records: Mapping[str, dict[str, Any]]) -> None:
    """HvcError when there is nothing to summarise."""
    if not records:
        raise HvcError("no sequence was scored; is there ground truth for every frame?")


def percent(values: Mapping[str, float]) -> dict[str, float]:
    """Shares as percent."""
    return {name: 100 * float(value) for name, value in values.items()}
