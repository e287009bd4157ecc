"""Watches an experiment: every checkpoint that training registers is evaluated, the best gets an alias.

What was done is read from the runs themselves: a checkpoint whose run has the score at its step, of these
very files, is done, whoever evaluated it. So a watcher can be killed, moved to another machine, or run
twice.
"""

import errno
import logging
import math
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvc.base.errors import EXIT_FAILED, HvcError, PlaceError, UsageError
from hvc.base.stage import Outcome, Provenance, Result, Stop
from hvc.base.storage import open_store
from hvc.evaluation.evaluate import run
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.finished import dataset_digest, sequence_digests
from hvc.evaluation.labelling.one_sequence import is_scored
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.scoring import scorer_of
from hvc.evaluation.reports.naming import metrics_path, subset_suffix
from hvc.evaluation.reports.registered import Registered, experiment_of, find_experiment, registered
from hvc.evaluation.reports.scores_of_data import ScoresOfData
from hvc.evaluation.trunks.method import merged_suffix
from hvc.evaluation.trunks.resolve import pinned, resolve
from hvc.evaluation.trunks.tracked import shown, tracking_uri
from hvc.evaluation.watching.best_alias import BEST_ALIAS, followed_metric, move_best, ranked
from hvc.evaluation.watching.version_claim import VersionClaims
from hvc.pretrain.checkpoints.marker import COMPLETE
from hvc.pretrain.tracking.mlflow_client import answering
from hvc.pretrain.tracking.runs import open_tracking

_POLL_SECONDS = 0.2
_OF_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_log = logging.getLogger(__name__)


@dataclass
class Watched:
    """What a watcher has done so far."""

    evaluated: list[str] = field(default_factory=list)
    """Versions, as `models:/NAME/VERSION`."""
    failed: dict[str, str] = field(default_factory=dict)
    """Versions that could not be evaluated, and why; they are not tried again by this process."""
    best: dict[str, str] = field(default_factory=dict)
    """The best version of each registered model."""


class Watcher:
    """Evaluates checkpoints of one experiment on one benchmark with one protocol."""

    def __init__(
        self, template: EvaluateConfig, experiment: str, stop: Stop, alias: str = BEST_ALIAS
    ) -> None:
        """Read the benchmark's folder, so that what is wrong with it is said now.

        Args:
            template: the evaluation of every checkpoint, but for which one.
            alias: of the registered model, for the checkpoint with the best headline score.

        Raises UsageError for a benchmark without public ground truth, HvcError for one that is not there.
        """
        scorer = scorer_of(template.benchmark, template.protocol)
        if scorer is None:
            raise UsageError(
                f"the ground truth of {template.benchmark} is not public, so no checkpoint is the best "
                "on it; `hvc evaluate` labels it with one"
            )
        self._uri = tracking_uri(template.tracking_uri, "")
        suffix = ""
        if template.merge is not None:
            template = template.model_copy(update={"merge": pinned(template.merge, self._uri)})
            suffix = merged_suffix(resolve(str(template.merge), self._uri))
        sequences = BENCHMARKS[template.benchmark].read(Path(template.data), template.sequences)
        path = _metrics_path(template, sequences, suffix)
        self._metric = f"{path}/{scorer.headline}"
        digests = zip([item.name for item in sequences], sequence_digests(sequences), strict=True)
        self._scores = ScoresOfData(self._metric, dataset_digest(dict(digests)))
        self._template, self._experiment, self._stop, self._alias = template, experiment, stop, alias
        self._claims = VersionClaims(path)
        self._experiments: dict[str, str | None] = {}
        self._evaluated: set[str] = set()
        """Versions evaluated by this process, on the files as they are."""
        self._said: set[str] = set()
        self._troubles: set[str] = set()
        self.done = Watched()

    def watch(self, interval: float) -> None:
        """Go on until asked to stop; servers may go away meanwhile and come back.

        Args:
            interval: seconds between two looks when there is nothing to do.
        """
        while not self._stop():
            try:
                worked = self.one()
                self._said -= self._troubles  # they are over: the next is news
                if worked:
                    continue
            except Exception as error:  # noqa: BLE001 - MLflow raises anything; it may work later
                words = f"{shown(error, self._uri)} (looking again every {interval:g} s)"
                self._troubles.add(words)
                self._say(words)
            self._wait(interval)

    def one(self) -> bool:
        """Evaluate the newest checkpoint that has no score yet; False when there is none to do.

        Raises HvcError, or whatever MLflow raises, when the server does not answer, PlaceError when the
        results cannot be written: neither is a checkpoint's fault.
        """
        client = open_tracking(self._uri)
        experiment = find_experiment(client, self._experiment)
        versions = _one_per_step(registered(client, experiment, self._experiments))
        scores = self._scores.all(client, {item.run_id for item in versions})
        self._point(client, experiment, versions, scores)
        for version in versions:
            if self._stop():
                return False
            if (version.run_id, version.step) in scores or version.name in self.done.failed:
                continue
            if version.name in self._evaluated:
                self._say(
                    f"{version.name}: its {self._metric} is of other files now: somebody evaluates on "
                    "another folder of that name; give one of the folders another name"
                )
                continue
            if self._claims.is_taken(version) or not self._is_there(version):
                continue
            with self._claims.hold(client, version) as ours:
                if ours and self._scores.now(client, version) is None:
                    self._evaluate(client, version)
            return True
        return False

    def _evaluate(self, client: Any, version: Registered) -> None:
        _log.info("evaluating %s, step %d of run %s", version.name, version.step, version.run_id)
        config = self._template.model_copy(update={"checkpoint": version.name})
        try:
            result = run(config, self._stop, Provenance())
        except PlaceError:
            raise  # it would meet the next one, too; what is labelled already is kept
        except OSError as error:
            if error.errno in _OF_PLACE:
                raise PlaceError(str(error)) from None
            raise
        except HvcError as error:
            client.search_experiments(max_results=1)  # raises when it was the server that failed
            if not self._is_there(version):
                _log.info("%s was pruned before it could be evaluated", version.name)
                return
            _log.warning("%s cannot be evaluated: %s", version.name, error)
            self.done.failed[version.name] = str(error)
            return
        if result.outcome is Outcome.STOPPED:
            return
        if result.report["run_id"] is None:
            raise HvcError(f"{version.name} is evaluated, but the server took no scores; they will be sent")
        headline = result.report["scores"][result.report["headline"]]
        _log.info("%s: %s %.2f", version.name, self._metric, headline)
        if self._scores.expect(result.report["data_digest"]):
            _log.warning(
                "the files of %s are others than before: every checkpoint is evaluated again",
                self._template.data,
            )
            self._evaluated.clear()
        self._scores.forget(version)
        self._evaluated.add(version.name)
        if version.name not in self.done.evaluated:
            self.done.evaluated.append(version.name)

    def _point(
        self,
        client: Any,
        experiment: str,
        versions: list[Registered],
        scores: dict[tuple[str, int], float],
    ) -> None:
        """Move the alias of each model to its best version whose checkpoint is still there."""

        def score_now(version: Registered) -> float:
            if experiment_of(client, version.run_id, self._experiments) != experiment:
                return math.nan
            score = self._scores.now(client, version)
            return math.nan if score is None else score

        models = defaultdict(list)
        for version in versions:
            models[version.model].append(version)
        for model, own in models.items():
            order = ranked(own, scores)
            place = next((number for number, item in enumerate(order) if self._is_there(item)), None)
            if place is None:
                continue
            move_best(client, self._alias, self._metric, order[place], order[:place], score_now)
            followed, target = followed_metric(client, model, self._alias)
            if followed != self._metric:
                self._say(
                    f"{model}@{self._alias} follows {followed} and stays; --alias names another one, and "
                    f"without the tag hvc.{self._alias} of the model it follows {self._metric}"
                )
            else:
                self.done.best[model] = f"models:/{model}/{target}"

    def _is_there(self, version: Registered) -> bool:
        """Whether the checkpoint is complete and within reach: older ones are pruned."""
        try:
            return open_store(version.address).exists(COMPLETE)
        except HvcError as error:
            self._say(f"{version.name}: {error}")
            return False

    def _say(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            _log.warning("%s", words)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stop() and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)


def watch(
    template: EvaluateConfig,
    experiment: str,
    stop: Stop,
    *,
    once: bool = False,
    interval: float = 60.0,
    alias: str = BEST_ALIAS,
) -> tuple[Result, int]:
    """Watch an experiment; with `once` end when nothing is left to do. The result and the exit code.

    Raises HvcError with `once` when the server does not answer.
    """
    watcher = Watcher(template, experiment, stop, alias)
    if once:
        with answering(tracking_uri(template.tracking_uri, "")):
            while not stop() and watcher.one():
                pass
    else:
        watcher.watch(interval)
    result = Result(Outcome.STOPPED if stop() else Outcome.DONE, vars(watcher.done))
    return result, EXIT_FAILED if watcher.done.failed and not stop() else result.exit_code


def _one_per_step(versions: list[Registered]) -> list[Registered]:
    """Of versions of the same step of a run the newest: training went back and made it again."""
    found: dict[tuple[str, str, int], Registered] = {}
    for item in versions:
        found.setdefault((item.model, item.run_id, item.step), item)
    return list(found.values())


def _metrics_path(template: EvaluateConfig, sequences: list[Sequence], merged: str) -> str:
    benchmark, data = BENCHMARKS[template.benchmark], Path(template.data)
    if not any(is_scored(template, sequence) for sequence in sequences):
        raise UsageError(f"{data}: no sequence has masks for every frame, so nothing can be scored")
    names = [sequence.name for sequence in sequences]
    preset = template.protocol_name + merged + subset_suffix(names, benchmark.listed(data))
    return metrics_path(template.benchmark, template.data, preset)
