"""Score any method's results, as they lie on disk."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hvc.base.errors import HvcError, UsageError
from hvc.data_prep.pool import default_workers
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.layouts.common import raise_all
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.measures import finite
from hvc.evaluation.metrics.score_frames import score_sequences
from hvc.evaluation.metrics.scorer import Scorer
from hvc.evaluation.metrics.scoring import Summary, scorer_of
from hvc.evaluation.propagation.protocol import Protocol

_SHOWN = 5
_CHOICES = ("lost_joints", "joint_first_frame")
"""What scores depend on of a protocol, besides the results."""


@dataclass(frozen=True)
class Report:
    """What came out."""

    benchmark: str
    headline: str
    sequences: int
    settings: dict[str, Any]
    summary: Summary

    def values(self) -> dict[str, Any]:
        """As plain data for JSON; what is not finite is null."""
        return {
            "benchmark": self.benchmark,
            "headline": self.headline,
            "sequences": self.sequences,
            "settings": self.settings,
            **finite(asdict(self.summary)),
        }


def score(
    benchmark: str,
    results: Path,
    data: Path,
    names: list[str] | None = None,
    *,
    overrides: list[str] | None = None,
    official_decay: bool = False,
    workers: int = 0,
) -> Report:
    """Compare a folder of results with a benchmark's ground truth.

    Args:
        benchmark: its name.
        results: RESULTS/NAME/STEM.png, or RESULTS/NAME.json of joints.
        data: the benchmark's folder.
        names: only these sequences; by default all of the benchmark, and each must have results.
        overrides: `lost_joints=wrong`, `joint_first_frame=true`: how JHMDB counts, see `Protocol`.
        official_decay: see `davis_metrics.statistics`.
        workers: cores to use; 0: all.

    Raises HvcError that names the file at fault; nothing is taken from an earlier scoring.
    """
    if overrides and benchmark != "jhmdb":
        raise UsageError(f"{overrides[0]}: there is nothing to choose in the measures of {benchmark}")
    for override in overrides or []:
        if override.partition("=")[0] not in _CHOICES:
            raise UsageError(f"{override}: scores of joints depend on {' and '.join(_CHOICES)} only")
    protocol = Protocol.parse({}, overrides, where="hvc score")
    scorer = scorer_of(benchmark, protocol, official_decay=official_decay)
    if scorer is None:
        raise HvcError(
            f"the ground truth of {benchmark} is not public; send its server what `hvc evaluate` packs, or "
            "look at `hvc check-results`"
        )
    sequences = BENCHMARKS[benchmark].read(data, names)
    _check(scorer, sequences, results, chosen=names is not None)
    records = score_sequences(scorer, sequences, results, workers or default_workers())
    return Report(benchmark, scorer.headline, len(sequences), scorer.settings, scorer.summarise(records))


def _check(scorer: Scorer, sequences: list[Sequence], results: Path, *, chosen: bool) -> None:
    """HvcError when results are missing; what is there for others is nobody's business."""
    if not results.is_dir():
        unpack = " (it is a file: unpack it)" if results.is_file() else ""
        raise HvcError(f"no such folder of results: {results}{unpack}")
    problems, absent = [], []
    for sequence in sequences:
        files = scorer.files(sequence, results)
        if not any(path.is_file() for path in files):
            absent.append(sequence.name)
            continue
        try:
            scorer.check_present(sequence, results)
        except HvcError as error:
            problems.append(str(error))
    if absent:
        mend = "" if chosen else "; score a part of the benchmark by naming it: --sequences NAME,NAME"
        example = scorer.files(next(item for item in sequences if item.name == absent[0]), results)[0]
        problems.insert(
            0,
            f"{results} has no results of {len(absent)} of {len(sequences)} sequences "
            f"({', '.join(absent[:_SHOWN])}{', ...' if len(absent) > _SHOWN else ''}): expected "
            f"{example}{_elsewhere(results, example)}{mend}",
        )
    raise_all(problems, _SHOWN)


def _elsewhere(results: Path, expected: Path) -> str:
    """Where the results seem to lie instead: NAME, or of joints NAME.json, is one folder below."""
    name = expected.relative_to(results).parts[0]
    below = sorted(path for path in results.iterdir() if path.is_dir())
    found = next((path for path in below if (path / name).exists()), None)
    return f"; is {found} the folder of results?" if found else ""
