"""The evaluation stage: label every sequence, score, report to the run that made the checkpoint."""

import json
import logging
from pathlib import Path
from typing import Any

from hvc.base.files import write_atomic
from hvc.base.stage import Outcome, Provenance, Result, Stop
from hvc.evaluation.drawing.draw_all import draw_all
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.all_sequences import Labelled, label
from hvc.evaluation.labelling.devices import kind_of
from hvc.evaluation.labelling.finished import sequence_digests
from hvc.evaluation.labelling.one_sequence import Task, is_scored
from hvc.evaluation.labelling.results import Results, results_of
from hvc.evaluation.labelling.sharing import longest_first, share
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.layouts.checks import check_sequences
from hvc.evaluation.layouts.common import some
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.scoring import scorer_of
from hvc.evaluation.reports.naming import subset_suffix
from hvc.evaluation.reports.report import log_to_run
from hvc.evaluation.reports.report_values import report_values
from hvc.evaluation.trunks.kept import forget, keep
from hvc.evaluation.trunks.method import Method, resolve_method
from hvc.evaluation.trunks.tracked import tracking_uri

_log = logging.getLogger(__name__)
_AGAIN = "the same command again goes on"


def run(config: EvaluateConfig, stop: Stop, provenance: Provenance) -> Result:
    """Evaluate; finished sequences of an earlier attempt with the same weights and files are kept.

    With `config.part` only a share of the sequences is labelled, and nothing is reported.
    """
    del provenance
    kind = kind_of(config)
    benchmark, data = BENCHMARKS[config.benchmark], Path(config.data)
    sequences = benchmark.read(data, config.sequences)
    if benchmark.coarse is not None and (words := benchmark.coarse(data)) is not None:
        _log.warning("%s", words)
    uri = tracking_uri(config.tracking_uri, config.checkpoint)
    method = resolve_method(config, uri)
    mine = _mine(config, sequences)
    check_sequences(mine)
    results = results_of(config, method)
    if config.parts > 1:
        for trunk in (method.first, method.second):
            keep(trunk, results.folder)
    done = label(config, method, results, kind, _tasks(mine), stop)
    state = {"results": str(results.folder), "finished": len(done.records), "sequences": len(mine)}
    if len(done.records) + len(done.failures) < len(mine):
        return Result(Outcome.STOPPED, {**state, "next": _AGAIN})
    done.raise_failures()
    if config.part is not None:
        part = {"part": config.part, "parts": config.parts}
        return Result(Outcome.DONE, {**state, **part, "next": "after all parts, the command without part"})
    subset = subset_suffix([sequence.name for sequence in sequences], benchmark.listed(data))
    with results.reporting(stop) as ours:
        report = _report(config, method, results, sequences, done, subset, kind, stop) if ours else None
        if report is None:
            return Result(Outcome.STOPPED, {**state, "next": _AGAIN})
        pictures = [Path(path) for path in report["pictures"]]
        logged = log_to_run(config, method, uri, report, pictures)
        if logged["run_id"] is not None:
            forget(results.folder)
        return Result(Outcome.DONE, report | logged)


def _mine(config: EvaluateConfig, sequences: list[Sequence]) -> list[Sequence]:
    """What this run labels, longest first."""
    lengths = {sequence.name: len(sequence.frames) for sequence in sequences}
    names = longest_first(lengths) if config.part is None else share(lengths, config.parts, config.part)
    known = {sequence.name: sequence for sequence in sequences}
    return [known[name] for name in names]


def _tasks(sequences: list[Sequence]) -> list[Task]:
    return [Task(*pair) for pair in zip(sequences, sequence_digests(sequences), strict=True)]


def _say_unscored(config: EvaluateConfig, sequences: list[Sequence]) -> None:
    """Warn of people's own videos that stay out of the scores while others are in them."""
    lacking = [sequence for sequence in sequences if not is_scored(config, sequence)]
    if not 0 < len(lacking) < len(sequences):
        return
    first = lacking[0]
    frame = next(first.frames[index] for index in first.results if first.annotations[index] is None)
    _log.warning(
        "%d of %d sequences are labelled but not scored, having no mask for every frame (e.g. for %s): %s",
        *(len(lacking), len(sequences), frame, some([sequence.name for sequence in lacking])),
    )


def _report(
    config: EvaluateConfig,
    method: Method,
    results: Results,
    sequences: list[Sequence],
    done: Labelled,
    subset: str,
    kind: str,
    stop: Stop,
) -> dict[str, Any] | None:
    """Scores over all sequences and pictures of them, on disk and as JSON-able data; None if stopped."""
    scorer = scorer_of(config.benchmark, config.protocol)
    _say_unscored(config, sequences)
    scored = {item.name: done.records[item.name]["scores"] for item in sequences if is_scored(config, item)}
    summary = scorer.summarise(scored) if scorer is not None and scored else None
    report = report_values(
        config, method, results, [done.records[sequence.name] for sequence in sequences], subset, summary
    )
    package = BENCHMARKS[config.benchmark].package
    if package is not None and not subset:
        report["submission"] = str(package(results.labels, sequences))
    write_atomic(results.folder / f"scores{subset}.json", json.dumps(report, indent=1))
    pictures = draw_all(config, method, results, sequences, done.records, summary, kind, subset, stop)
    if pictures is None:
        return None
    report["pictures"] = [str(path) for path in pictures]
    return report
